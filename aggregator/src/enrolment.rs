//! Who belongs to the fleet: invitations, certificates and their renewal, and the operator's word on each device.
//!
//! ```text
//!  machine ──join──▶ server ──┐                 ┌──▶ store     devices/<id>, tokens/<digest>, clock
//!  device ──renew──▶ session ─┼─tasks─▶ registrar ─▶ authority (issuing key)
//!  operator ──verb──▶ hub ────┘     (its own thread) └──▶ standings ◀── asked before every welcome
//! ```
//!
//! The registrar thread alone writes; it answers when what it says is durable. [`standings::Standings`] is what the rest of the daemon
//! reads without waiting: who is refused, and which keys are a device's. Each act is one function of [`acts`],
//! which makes its record for the audit log.

pub(crate) mod acts;
pub(crate) mod clone;
pub(crate) mod devices;
pub(crate) mod join;
mod limiter;
mod own;
pub(crate) mod registrar;
mod registry;
pub(crate) mod standings;
pub(crate) mod tags;
mod tokens;

pub(crate) use registrar::{Registrar, Verb};
