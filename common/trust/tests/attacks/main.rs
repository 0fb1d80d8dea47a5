//! TUF's list of attacks on the delivery of releases, each refused with a code of its own; and what may pass.

mod decoders;
mod delivery;
mod pinning;
mod rotation;
mod world;
