//! The protocol as sans-IO state machines: no socket, file, clock or entropy source (invariant 7), so that the daemons and
//! the simulation run the very same code.
//!
//! - [`run::RunMachine`]: the aggregator's half; cohorts, deadlines, quorums, attempts, federated evaluation.
//! - [`participant`]: a device's half; accept, fetch, train, send, keep until the verdict.

pub mod cohort;
pub mod participant;
pub mod run;
