//! An append-only log that shows when somebody has changed it: records, the Merkle tree over them (RFC 6962, RFC 9162), proofs,
//! signed checkpoints, and where a log was broken.
//!
//! ```text
//!  Entry ─ Chain ─▶ Record ─ one line of JSON ─ leaf hash ─▶ Frontier ─ root ─▶ Checkpoint ─ SigningKey ─▶ note ─ witnesses
//!                                                  │                               │
//!                       proofs of the tree ◀───────┴── verify (no code in common) ─┘
//! ```
//!
//! Two nets lie over the records. Each one names the hash of the one before, so that a single change is found **where** it is;
//! and the tree's root is signed, so that a whole rewritten log is found **at all**, and short proofs say that a record is in it
//! ([`verify::inclusion`]) and that a later log contains an earlier one ([`verify::consistency`]).
//!
//! What it cannot show: a record that was never written, a lie in a record, and, to somebody who knows no checkpoint of the log, a
//! log that its key's holder made anew. Witnesses ([`SigningKey::cosign`]) and devices that keep the last checkpoint are against that.
//!
//! It reads no clock, entropy, file or socket (invariant 7): times and salts are arguments. Whatever it decodes is measured before
//! it is parsed (invariant 8). Private keys are neither `Debug` nor comparable and are wiped on drop (invariant 10).

mod base64;
pub mod census;
mod chain;
mod checkpoint;
pub mod enrolment;
pub mod erasure;
pub mod export;
pub mod locate;
pub mod note;
mod personal;
pub mod receipt;
mod record;
mod renewal;
mod rounds;
mod tree;
pub mod verify;

pub use chain::{Chain, Sealed};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use locate::{Damage, Finding, Locator};
pub use note::{Algorithm, KeyError, Note, NoteError, SigningKey, VerifierKey};
pub use personal::{Personal, SALT_BYTES};
pub use record::{About, Action, Entry, Outcome, RECORD_BYTES_MAX, Record, RecordError, Who, is_word};
pub use renewal::RenewalProof;
pub use rounds::{Contribution, contributors_root};
pub use tree::{Frontier, Nodes, consistency_proof, inclusion_proof, leaf_hash, node_hash, range_root};
