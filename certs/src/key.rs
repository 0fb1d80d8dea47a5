//! Ed25519 private keys: made, written and read here, so that every copy of ours is wiped.
//!
//! rcgen's own key pair keeps its DER without wiping it, and ring's generator writes PKCS #8 version 2, which several
//! tools refuse. So a key is its 32-byte seed, written as the 48 bytes of RFC 8410, section 7 (PKCS #8 version 1).

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use starling_wire::PublicKey;
use zeroize::{Zeroize, Zeroizing};

use crate::error::CertsError;

const SEED_BYTES: usize = 32;

/// Everything of the PKCS #8 document before the seed: `SEQUENCE { INTEGER 0, SEQUENCE { OID 1.3.101.112 },
/// OCTET STRING { OCTET STRING { seed } } }`.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

const PEM_TAG: &str = "PRIVATE KEY";

/// A private key. It is not `Debug`, and its seed is wiped on drop.
pub struct Key {
    seed: Zeroizing<[u8; SEED_BYTES]>,
    pair: Ed25519KeyPair,
}

impl Key {
    /// A new key from the system's entropy.
    ///
    /// # Errors
    /// [`CertsError::Entropy`] if the system gives none.
    pub fn generate() -> Result<Self, CertsError> {
        let mut seed = Zeroizing::new([0u8; SEED_BYTES]);
        SystemRandom::new().fill(seed.as_mut()).map_err(|_| CertsError::Entropy)?;
        Ok(Self::from_seed(seed))
    }

    fn from_seed(seed: Zeroizing<[u8; SEED_BYTES]>) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).expect("a seed of 32 bytes is a key");
        Self { seed, pair }
    }

    /// The half that others may know.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0u8; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Signs `statement`, which has to name its purpose (invariant 9).
    pub fn sign(&self, statement: &[u8]) -> Vec<u8> {
        self.pair.sign(statement).as_ref().to_vec()
    }

    /// The key as PKCS #8 in PEM.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_PREFIX.len() + SEED_BYTES));
        der.extend_from_slice(&PKCS8_PREFIX);
        der.extend_from_slice(self.seed.as_ref());
        let document = pem::Pem::new(PEM_TAG, std::mem::take(&mut *der));
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let text = Zeroizing::new(pem::encode_config(&document, config));
        document.into_contents().zeroize();
        text
    }

    /// The key in `text`, if that is one that [`Key::to_pem`] writes.
    pub fn from_pem(text: &str) -> Option<Self> {
        let document = pem::parse(text).ok()?;
        let is_key = document.tag() == PEM_TAG;
        let der = Zeroizing::new(document.into_contents());
        let mut seed = Zeroizing::new([0u8; SEED_BYTES]);
        let bytes = der.strip_prefix(&PKCS8_PREFIX).filter(|rest| is_key && rest.len() == SEED_BYTES)?;
        seed.copy_from_slice(bytes);
        Some(Self::from_seed(seed))
    }
}

impl rcgen::PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.pair.sign(message).as_ref().to_vec())
    }
}

/// Whether the holder of `key` signed `statement`. Anything that is no signature is none.
pub(crate) fn signed(key: &PublicKey, statement: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(statement, signature).is_ok()
}

/// A public key that a certificate is made for.
pub(crate) struct Subject(pub(crate) PublicKey);

impl rcgen::PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        &self.0.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

/// `N` bytes of the system's entropy.
///
/// # Errors
/// [`CertsError::Entropy`] if the system gives none.
pub fn random<const N: usize>() -> Result<[u8; N], CertsError> {
    let mut bytes = [0u8; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| CertsError::Entropy)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData;

    use super::*;

    #[test]
    fn a_key_reads_what_it_writes() {
        let key = Key::generate().expect("the system has entropy");
        let read = Key::from_pem(&key.to_pem()).expect("it was written by us");
        assert_eq!(key.der_bytes(), read.der_bytes());
    }

    #[test]
    fn the_key_of_rfc_8410_is_read() {
        // RFC 8410, section 10.3: the private key, and the public key of section 10.1.
        let text = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        let key = Key::from_pem(text).expect("the example of the standard");
        let public = [
            0x19, 0xbf, 0x44, 0x09, 0x69, 0x84, 0xcd, 0xfe, 0x85, 0x41, 0xba, 0xc1, 0x67, 0xdc, 0x3b, 0x96, 0xc8, 0x50,
            0x86, 0xaa, 0x30, 0xb6, 0xb6, 0xcb, 0x0c, 0x5c, 0x38, 0xad, 0x70, 0x31, 0x66, 0xe1,
        ];
        assert_eq!(key.der_bytes(), public);
        assert_eq!(key.to_pem().as_str(), text);
    }

    #[test]
    fn a_certificate_or_a_cut_key_is_no_key() {
        let key = Key::generate().expect("the system has entropy");
        assert!(Key::from_pem(&key.to_pem().replace("PRIVATE KEY", "CERTIFICATE")).is_none());
        let cut = pem::encode(&pem::Pem::new(PEM_TAG, &PKCS8_PREFIX[..]));
        assert!(Key::from_pem(&cut).is_none());
        assert!(Key::from_pem("").is_none());
    }
}
