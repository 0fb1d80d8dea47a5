//! For tests only: a PKI in memory, a link that loses packets, and real processes.
//!
//! Nothing here is part of the product, and a helper that a test waits in always waits for a state with a deadline,
//! never for a fixed time. A missed deadline panics with what was seen until then: these are assertions.

pub mod fleet;
pub mod link;
pub mod pki;
pub mod plan;
pub mod process;
pub mod wait;

pub use fleet::Fleet;
pub use link::{Conditions, Link};
pub use pki::Pki;
pub use process::Process;
pub use wait::until;
