//! The device's daemon: it keeps one connection to its aggregator, trains when it is selected, and sends updates.
//!
//! ```text
//!              ┌────────────── tokio, one thread ──────────────┐        ┌─ one std thread, from the first job ─┐
//!  aggregator ◄┤ agent: back-off, hello, control loop          │ orders │ worker: difference → parameters,     │
//!       QUIC   │   protocol::Participant decides               ├───────►│   Learner trains, update is sealed,  │
//!              │   transfer: blobs in and out                  │◄───────┤   held model goes to the disk        │
//!              └───────────────────────────────────────────────┘ reports└──────────────────────────────────────┘
//! ```
//!
//! What it holds: only [`Sealed`](starling_update::Sealed) updates leave the device (invariant 3); an update is kept until
//! its verdict (5); every queue, wait and retry has a bound (6); a length from the aggregator is compared with what the
//! plan fixes before anything is allocated (8); the owner's [`policy`] is asked before any work is done (13).
//!
//! What it is not: it decides no round, stores no data, and opens no port that anybody can dial; the local socket of
//! [`serving`] hears the daemon's own user only.
//!
//! Memory: an idle client holds no network, no data and no model; what a job needs is built at its start and dropped
//! [`IDLE_MS`](agent::IDLE_MS) after the last one.

pub mod agent;
pub mod burn_learner;
pub mod command;
pub mod config;
mod ending;
pub mod join;
mod keeping;
pub mod learner;
mod ledger;
mod local;
mod owed;
pub mod policy;
mod predict;
pub mod receipts;
mod renewal;
pub mod serving;
pub mod state;
pub mod status;
mod summing;
pub mod survey;
mod transfer;
pub mod trust;
mod wipe;
mod worker;

pub use agent::{ClientError, run};
pub use burn_learner::BurnLearner;
pub use config::{ClientConfig, PartitionBinding, TaskBinding};
pub use learner::{Job, LearnError, Learner, Trained};
