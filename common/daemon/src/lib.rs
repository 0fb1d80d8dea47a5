//! What the two daemons and the workstation command share: reading a configuration file, logging, stopping on a signal, exit codes,
//! and what this process costs in memory and CPU.
//!
//! It knows nothing of tasks, rounds or connections. Logs carry ids and sizes, never contents (invariant 10).

pub mod config;
pub mod entropy;
pub mod exit;
pub mod file;
pub mod keeping;
pub mod logging;
pub mod schedule;
pub mod signals;
pub mod span;
pub mod time;
pub mod usage;

pub use config::ConfigError;
pub use exit::Exit;
pub use file::{ReadError, read_at_most};
pub use logging::LoggingError;
pub use time::now_unix_s;
pub use usage::Usage;
