//! Releases on a device: they come, are verified, stored and swapped in, and answer local programs while the device trains.
//!
//! ```text
//!   aggregator                     agent (tokio)            a thread for each
//!      │ offer, blob ─────────────▶ intake ──────────▶ installation: verify, prepare, store ─┐
//!      │◀── report ─────────────────┘                                                        ▼ swap
//!                                                                                         releases
//!   local program ──▶ socket (tokio accepts) ────────▶ connection: its own engine ◀─────────┘
//! ```
//!
//! | file | what it knows |
//! | --- | --- |
//! | `intake` | what was offered, fetched, refused; no disk, no socket |
//! | `verified` | from bytes and announcement to a release that is believed |
//! | `model` | a release that is known to run, and the scaling of its features |
//! | `releases` | what is on the disk, and which model answers |
//! | `socket` | connections, their threads and engines |
//! | `codec` | the bytes of questions and answers |
//! | `ask` | the asking end |
//!
//! What it holds: the owner's policy first (invariant 13); lengths before memory (8); bounded connections, questions and queues
//! (6); a release is durable before it serves, and versions only increase. What it is not: it never trains, never sends a sample
//! or a prediction anywhere, and hears nobody but the daemon's own user.

pub mod ask;
pub mod codec;
pub(crate) mod intake;
pub(crate) mod model;
pub(crate) mod releases;
pub(crate) mod socket;
pub(crate) mod verified;
