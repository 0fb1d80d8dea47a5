//! Every bound on what a peer can make a machine here hold, with its derivation (invariant 6).

use starling_wire::limits::PARAMETERS_MAX;

/// Devices of one secure sum. A roster of that many takes 370 KB, and a cohort index fits in 16 bits. Larger fleets sum in groups.
pub const COHORT_MAX: usize = 2048;

/// Devices below which a sum hides nothing: with two, each knows the other's input.
pub const COHORT_MIN: usize = 3;

/// Largest cohort with a complete graph; above it each device talks to a part of the others.
pub const COMPLETE_MAX: usize = 128;

/// Coordinates of one vector: a model's parameters and room for weight, metrics and flags.
pub const VALUES_MAX: usize = PARAMETERS_MAX + 1024;

/// Bytes of a signature by an identity key: Ed25519, as all certificates here are.
pub const SIGNATURE_BYTES: usize = 64;

/// Bytes of a secret that is shared: an X25519 key, or the seed of a self mask.
pub const SECRET_BYTES: usize = 32;

/// Bytes of one share of such a secret: nine field elements of four bytes (256 bits in words of 31).
pub const SHARE_BYTES: usize = 36;

/// Bytes of an envelope: one share of each secret and a tag of 16 bytes.
pub const ENVELOPE_BYTES: usize = 2 * SHARE_BYTES + 16;

/// Bytes before a message's body: format, kind, and the digest of what it belongs to.
pub const HEADER_BYTES: usize = 2 + 32;

/// Bytes of one advertisement in a roster: device, round, attempt, model, two keys, signature.
pub const MEMBER_BYTES: usize = 16 + 4 + 2 + 32 + 2 * 32 + SIGNATURE_BYTES;

/// Seeds that a device remembers having used. One attempt uses one, so a generator that starts again is seen at once; 64 also
/// cover a run that is restarted over and over.
pub const SEEDS_REMEMBERED: usize = 64;

const _: () = assert!(COHORT_MAX <= u16::MAX as usize, "a cohort index fits in 16 bits");
const _: () = assert!(SHARE_BYTES * 8 / 32 * 31 >= SECRET_BYTES * 8, "a share has room for the secret");
