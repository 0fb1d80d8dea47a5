//! Signed releases and plans: what a publisher states, and what a device believes.
//!
//! ```text
//!  publisher                                          device
//!    policy ─▶ Root ──┐                                 root.1, pinned in its configuration
//!    model  ─▶ Artefact ─ sign, N of M ─▶ Document ──▶  Trusted ── roots, one by one, old and new keys
//!    plan   ─▶ Artefact ─┤                  Bundle        │     ── current: what is newest, short-lived
//!    what is newest ─▶ Current ┘                          ▼     ── release or plan of one task
//!                                                       Permit {length, digest} ─ bytes ─▶ Verified
//! ```
//!
//! The roles are TUF's, reduced (`docs/decisions/0013-signed-releases.md` says to what, and why): *root* names keys and
//! thresholds and is changed only by a threshold of the old and of the new; *publishers* sign releases and plans of the
//! tasks that a rule gives them; *freshness* says, for a short while, which of them are the newest and which belong
//! together. Every document has one encoding, and the bytes that are signed are the bytes that are parsed. A signature
//! covers purpose, format, kind, and a body that starts with version, dates and the fleet's origin (invariant 9).
//!
//! What an attacker controls: every byte of every bundle and of the release, the order and the time of their arrival, and
//! fewer keys than a threshold. What this crate does not do: it fetches nothing, holds no file, reads no clock and draws
//! no entropy (invariant 7); it does not say who made a training update; and it cannot tell a harmful model from a good one that a
//! threshold of publishers signed. Every length is compared with its limit before anything is allocated (invariant 8),
//! and what a device remembers is bounded (invariant 6, [`limits`]).
//!
//! Verification handles public data only, so nothing in it need be constant-time; ring's signing is.

mod bundle;
mod document;
mod encoding;
mod key;
pub mod limits;
mod permit;
mod refused;
mod root;
mod statement;
mod trusted;

pub use bundle::Bundle;
pub use document::{Document, Signature};
pub use key::{KeyId, PublicKey, SigningKey};
pub use permit::{Permit, Verified};
pub use refused::Refused;
pub use root::{PublisherRule, Quorum, Root, pattern_matches};
pub use statement::{Artefact, Current, Entry, Head, Kind, Named, Statement, Subject};
pub use trusted::{Outcome, Trusted};
