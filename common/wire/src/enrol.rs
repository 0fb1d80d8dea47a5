//! How a machine gets a certificate, and the next one: what is asked, what is signed, what is answered.
//!
//! A request is signed by the new key (its holder has it) and, in a renewal, by the old one too (the same device asks).
//! What is signed binds purpose and connection (invariant 9): `channel` is exported from the TLS session, so that a
//! request that somebody records or relays is worth nothing on another connection.
//!
//! ```text
//!  join    "starling/1 join\0"  channel(32) public key(32) SHA-256(token or nothing)(32)
//!  renew   "starling/1 renew\0" channel(32) device(16) old key(32) new key(32)
//! ```
//!
//! The keys are Ed25519. This crate says what the bytes are; who signs and who checks is `starling-certs`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Digest, ParseIdError};
use crate::join_string::Token;
use crate::refusal::Refusal;

/// The label under which `channel` is exported from the TLS session (RFC 9266's idea, with a purpose of our own).
pub const CHANNEL_LABEL: &[u8] = b"EXPORTER-starling/1 enrol";

/// Bytes of what is exported.
pub const CHANNEL_BYTES: usize = 32;

/// Bytes of an Ed25519 signature. A request with any other number of them is refused.
pub const SIGNATURE_BYTES: usize = 64;

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// What people compare: the first half of the key's SHA-256, as an id.
    pub fn fingerprint(&self) -> DeviceId {
        let mut half = [0; 16];
        half.copy_from_slice(&Digest::of(&self.0).0[..16]);
        DeviceId(half)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest(self.0).fmt(f)
    }
}

impl FromStr for PublicKey {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.parse().map(|Digest(bytes)| Self(bytes))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}…)", self.fingerprint())
    }
}

/// What a machine says on a connection of [`crate::JOIN_ALPN`]: one message, and nothing else ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ToAuthority {
    /// Let me in.
    Join(JoinRequest),
    /// My certificate has expired; I still have its key.
    Renew(LateRenewal),
}

/// The answer. After it the aggregator closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FromAuthority {
    /// Here it is.
    Issued(Credential),
    /// The operator has to decide: ask again, with the same key.
    Pending {
        /// The id that the operator sees.
        device: DeviceId,
        /// Milliseconds after which to ask again.
        again_ms: u32,
    },
    /// No.
    Refused(Refusal),
}

/// A machine without a certificate asks for its first one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token of the join string; without one the operator has to approve.
    pub token: Option<Token>,
    /// The name that the machine would like; the operator's, in an invitation, has the last word.
    pub name: String,
    /// Name and version of the software.
    pub software: String,
    /// The machine's new key.
    pub key: PublicKey,
    /// The new key's signature of [`join_statement`].
    #[serde(with = "serde_bytes")]
    pub proof: Vec<u8>,
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest").field("name", &self.name).field("key", &self.key).finish_non_exhaustive()
    }
}

/// A new key for a device that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// The key of the certificate that is to be replaced.
    pub old_key: PublicKey,
    /// The key of the next one.
    pub new_key: PublicKey,
    /// The old key's signature of [`renew_statement`].
    #[serde(with = "serde_bytes")]
    pub old_proof: Vec<u8>,
    /// The new key's signature of the same.
    #[serde(with = "serde_bytes")]
    pub new_proof: Vec<u8>,
}

/// The same on a connection where no certificate says who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateRenewal {
    /// Who asks.
    pub device: DeviceId,
    /// The request.
    pub request: RenewRequest,
}

/// A certificate, and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// The leaf and the certificates between it and the CA, in PEM; at most [`crate::limits::CHAIN_BYTES_MAX`].
    pub certificate_pem: String,
    /// What the fleet trusts, in PEM; at most [`crate::limits::CHAIN_BYTES_MAX`].
    pub ca_pem: String,
    /// The aggregator's clock, in seconds since 1970: from here on the device knows that it is not earlier.
    pub now_unix_s: u64,
}

/// What a joining machine signs.
pub fn join_statement(channel: &[u8; CHANNEL_BYTES], key: &PublicKey, token: Option<&Token>) -> Vec<u8> {
    let token = Digest::of(token.map_or(&[][..], |token| &token.0));
    [&b"starling/1 join\0"[..], channel, &key.0, &token.0].concat()
}

/// What both keys of a renewal sign.
pub fn renew_statement(channel: &[u8; CHANNEL_BYTES], device: DeviceId, old: &PublicKey, new: &PublicKey) -> Vec<u8> {
    [&b"starling/1 renew\0"[..], channel, &device.0, &old.0, &new.0].concat()
}
