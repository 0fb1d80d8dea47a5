//! Enrolment with real processes and sockets: joining, renewing, being thrown out. Every wait is for a state.

mod forget;
mod join;
mod renew;
mod revoke;
mod scanner;
mod scene;
