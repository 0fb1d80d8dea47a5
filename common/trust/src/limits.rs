//! Every bound on what a document can make its reader hold, with its derivation (invariant 6).

use starling_wire::limits::{NAME_BYTES_MAX, PLAN_BYTES_MAX, TASKS_PER_DEVICE_MAX};

/// Keys of a root: bits of the mask by which a quorum names them.
pub const KEYS_MAX: usize = 32;

/// Rules of a root about who publishes what.
pub const RULES_MAX: usize = 16;

/// Tasks that one freshness statement names: as many as one device may offer itself for.
pub const TASKS_MAX: usize = TASKS_PER_DEVICE_MAX;

/// Signatures of one document: a new root carries those of the old keys and of the new.
pub const SIGNATURES_MAX: usize = 2 * KEYS_MAX;

/// Bytes of one signature: key id 32, Ed25519 64.
pub const SIGNATURE_BYTES: usize = 96;

/// Bytes before a document's body.
pub const PREFIX_BYTES: usize = 12;

/// Bytes of a body. The largest is a freshness statement about [`TASKS_MAX`] tasks with the longest names: each takes
/// a name, and version and digest twice.
pub const BODY_BYTES_MAX: usize = 128 + TASKS_MAX * (2 + NAME_BYTES_MAX + 1 + 2 * (8 + 32));

/// Bytes of a document with as many signatures as it may have.
pub const DOCUMENT_BYTES_MAX: usize = PREFIX_BYTES + BODY_BYTES_MAX + SIGNATURES_MAX * SIGNATURE_BYTES;

/// Bytes of a bundle: one control frame carries it. A root of three keys takes 600 bytes, so a device that slept through 80
/// rotations still catches up in one.
pub const BUNDLE_BYTES_MAX: usize = PLAN_BYTES_MAX;

/// Documents of a bundle, which is roots, a freshness statement, and a release or a plan.
pub const DOCUMENTS_MAX: usize = 128;

/// Releases and plans whose versions a device remembers: both, for each task.
pub const REMEMBERED_MAX: usize = 2 * TASKS_MAX;

/// Bytes of a device's whole trusted state.
pub const TRUSTED_BYTES_MAX: usize =
    128 + 2 * (4 + DOCUMENT_BYTES_MAX) + 2 * REMEMBERED_MAX * (1 + 2 + NAME_BYTES_MAX + 8 + 8 + 32);

/// The longest artefact that may be stated: a blob's limit.
pub const ARTEFACT_BYTES_MAX: u64 = starling_wire::limits::BLOB_BYTES_MAX;

const _: () = assert!(BODY_BYTES_MAX <= 32 * 1024, "a body stays small");
const _: () = assert!(DOCUMENT_BYTES_MAX <= BUNDLE_BYTES_MAX, "the largest document fits in a bundle");
