//! Fields that a person may ask to have erased: the log holds a commitment, the value lies apart.
//!
//! ```text
//! commitment = SHA-256("starling/audit/personal" ‖ 0x00 ‖ salt, 16 bytes ‖ value in UTF-8)
//! ```
//!
//! Whoever has salt and value can show that the record speaks of them; once both are deleted, the commitment says nothing (the
//! salt is 128 random bits, so that guessing the value does not help), and the chain is as it was.

use serde::{Deserialize, Serialize};
use starling_wire::Digest;

/// Bytes of a salt, from the system's entropy.
pub const SALT_BYTES: usize = 16;

/// What a commitment hides. Deleting it is the erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Personal {
    /// The salt, never used for another value.
    pub salt: [u8; SALT_BYTES],
    /// The value: a name, an address.
    pub value: String,
}

impl Personal {
    /// What the record holds instead of the value.
    pub fn commitment(&self) -> Digest {
        Digest::of_parts(&[b"starling/audit/personal\0", &self.salt, self.value.as_bytes()])
    }
}
