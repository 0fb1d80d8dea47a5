//! Publisher keys: Ed25519 (RFC 8032) through ring.

use std::fmt;
use std::str::FromStr;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use starling_wire::{Digest, ParseIdError};
use zeroize::Zeroizing;

/// The name of a key: SHA-256 of the public key's 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(crate) Digest);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PublicKey(pub(crate) Digest);

impl PublicKey {
    /// The key of these 32 bytes. Whether they are a point of the curve shows when a signature is checked.
    pub fn new(bytes: [u8; 32]) -> Self {
        // The same shape as a digest, and printed the same way.
        Self(Digest(bytes))
    }

    /// The 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0.0
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        KeyId(Digest::of(&self.0.0))
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.bytes()).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for PublicKey {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        Ok(Self(text.parse()?))
    }
}

/// A secret key: the seed of RFC 8032. It is wiped on drop and says nothing of itself (invariant 10); ring's own copy lives
/// for the length of one signature and is not wiped by ring.
pub struct SigningKey {
    seed: Zeroizing<[u8; 32]>,
    public: PublicKey,
}

impl SigningKey {
    /// The key of a seed, which is 32 bytes of the caller's entropy (invariant 7).
    pub fn from_seed(seed: Zeroizing<[u8; 32]>) -> Self {
        let public = pair(&seed).public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes");
        Self { public: PublicKey::new(public), seed }
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The seed, to be written down.
    pub fn seed(&self) -> &Zeroizing<[u8; 32]> {
        &self.seed
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        pair(&self.seed).sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

fn pair(seed: &[u8; 32]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_8032() {
        // RFC 8032, 7.1, test 2: a message of one byte.
        let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb".parse::<Digest>().expect("hex");
        let key = SigningKey::from_seed(Zeroizing::new(seed.0));
        assert_eq!(key.public().to_string(), "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let signature = key.sign(&[0x72]);
        assert_eq!(signature[..8], [0x92, 0xa0, 0x09, 0xa9, 0xf0, 0xd4, 0xca, 0xb8]);
        assert!(key.public().verifies(&[0x72], &signature));
        assert!(!key.public().verifies(&[0x73], &signature));
    }
}
