//! What the two daemons and the workstation command share: reading a configuration file, logging, stopping on a signal, exit codes,
//! and what this process costs in memory and CPU.
//!
//! It knows nothing of tasks, rounds or connections. Logs carry ids and sizes, never contents (invariant 10).

pub mod config;
pub mod exit;
pub mod keeping;
pub mod logging;
pub mod schedule;
pub mod signals;
pub mod span;
pub mod usage;

pub use config::ConfigError;
pub use exit::Exit;
pub use logging::LoggingError;
pub use usage::Usage;
