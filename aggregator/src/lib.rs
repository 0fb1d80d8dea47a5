//! The operator's daemon: it lets devices in, drives the rounds of runs, folds updates into model versions and publishes
//! them. It does not link burn: a model is a flat vector and a manifest to it.
//!
//! ```text
//!  devices ──QUIC──▶ session ──events──▶ hub ──jobs──▶ worker ──▶ store
//!                      │  ▲               │ ▲             │
//!                      │  └── messages ───┘ └── events ───┤
//!                      └────── fetch ◀── shelf ◀──────────┘
//! ```
//!
//! The hub decides and computes nothing; the worker thread folds, encodes and writes; sessions only move bytes. Invariants
//! held here: 3, 4, 5, 6, 8, 12. The worker also keeps the audit log, whose record of an act is durable no later than the act.

mod access;
mod admin;
mod audit;
mod bundles;
pub mod command;
pub mod config;
mod enrolment;
mod erasure;
pub mod evaluator;
mod event;
mod export;
mod fleet;
mod hub;
mod kept;
mod ledger;
mod noise_tree;
mod publish;
mod records;
mod release_command;
mod run;
mod server;
mod session;
mod shelf;
mod staging;
mod worker;

pub use admin::{AdminError, Daemon, ask};
pub use audit::public_file as audit_public_file;
pub use config::{AggregatorConfig, EnrolmentSection, VersionsSection};
pub use server::run;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::AggregatorConfig;

    #[test]
    fn the_sample_configuration_is_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("starling-aggregator.sample.toml");
        let config = AggregatorConfig::load(&path).expect("the sample is good");
        assert!(config.admin_socket().ends_with("state/admin.sock"));
    }
}
