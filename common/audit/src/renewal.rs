//! That a device's next key is its own: the key before has signed for it. The record of a renewal holds it, so that whoever reads the log can tell a
//! renewal from a key that somebody else put in the device's place.
//!
//! ```text
//!   0 32  channel   exported from the TLS session on which the device asked; random to everybody else
//!  32 32  the key before
//!  64 32  the next key
//!  96 64  the signature of the key before over what both of them sign (`starling_wire::enrol::renew_statement`)
//! ```

use std::fmt;
use std::str::FromStr;

use ring::signature::{ED25519, UnparsedPublicKey};
use starling_wire::enrol::{CHANNEL_BYTES, SIGNATURE_BYTES, renew_statement};
use starling_wire::{DeviceId, Digest, PublicKey, RenewRequest};

use crate::enrolment::key_digest;

const PROOF_BYTES: usize = CHANNEL_BYTES + 32 + 32 + SIGNATURE_BYTES;

/// The proof of a renewal, as 320 hexadecimal digits in a record. Nothing is known of it before [`RenewalProof::renews`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalProof([u8; PROOF_BYTES]);

impl RenewalProof {
    /// What `request`, made on the connection of `channel`, proves; nothing when its signature is none.
    pub fn of(channel: &[u8; CHANNEL_BYTES], request: &RenewRequest) -> Option<Self> {
        let RenewRequest { old_key, new_key, old_proof, .. } = request;
        [&channel[..], &old_key.0, &new_key.0, old_proof].concat().try_into().ok().map(Self)
    }

    /// The digests of the key before and of the next key, if the former has signed that the latter takes its place for `device`.
    pub fn renews(&self, device: DeviceId) -> Option<(Digest, Digest)> {
        let (channel, rest) = self.0.split_first_chunk::<CHANNEL_BYTES>()?;
        let (old, rest) = rest.split_first_chunk::<32>()?;
        let (new, signature) = rest.split_first_chunk::<32>()?;
        let (old, new) = (PublicKey(*old), PublicKey(*new));
        let statement = renew_statement(channel, device, &old, &new);
        UnparsedPublicKey::new(&ED25519, old.0).verify(&statement, signature).ok()?;
        Some((key_digest(&old), key_digest(&new)))
    }
}

impl fmt::Display for RenewalProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for RenewalProof {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected {} hexadecimal digits of a renewal's proof", 2 * PROOF_BYTES);
        let mut bytes = [0; PROOF_BYTES];
        if text.len() != 2 * PROOF_BYTES || !text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong());
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}
