//! Enrolment and access with real processes and sockets: joining, renewing, being thrown out, and who may do what. Every wait is for a state.

mod access;
mod crowd;
mod cut;
mod drills;
mod forget;
mod join;
mod newcomer;
mod renew;
mod restore;
mod revoke;
mod scanner;
mod scene;
mod tags;
mod wipe;
mod witness;
