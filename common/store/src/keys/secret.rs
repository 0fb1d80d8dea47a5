//! Thirty-two secret bytes, and the only three things that are done with them: derive, seal, authenticate.

use ::ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ::ring::rand::{SecureRandom, SystemRandom};
use ::ring::{hkdf, hmac};
use zeroize::Zeroizing;

use super::error::KeyError;

/// Bytes of every key.
pub(crate) const SECRET_BYTES: usize = 32;
/// Bytes of a nonce of AES-GCM.
pub(crate) const NONCE_BYTES: usize = 12;
/// Bytes that sealing adds.
pub(crate) const TAG_BYTES: usize = 16;

/// What every label begins with; the number is the format's.
const LABEL: &[u8] = b"starling/store/1/";

/// A key. Wiped when it is dropped; not `Debug`, not `PartialEq`.
pub(crate) struct Secret(Zeroizing<[u8; SECRET_BYTES]>);

/// Bytes that nobody can foretell, from the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Entropy)?;
    Ok(bytes)
}

impl Secret {
    /// A new key from the system's entropy.
    pub(crate) fn random() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        SystemRandom::new().fill(bytes.as_mut()).map_err(|_| KeyError::Entropy)?;
        Ok(Self(bytes))
    }

    /// A key that was read.
    pub(crate) fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, to be wrapped.
    pub(crate) fn bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    /// A second owner of the same bytes.
    pub(crate) fn again(&self) -> Self {
        Self(self.0.clone())
    }

    /// HKDF-SHA-256 of this key: `salt` makes it one of many, `purpose` says what it may be used for.
    pub(crate) fn derive(&self, salt: &[u8], purpose: &str) -> Self {
        let mut out = Zeroizing::new([0; SECRET_BYTES]);
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(self.0.as_ref());
        extracted
            .expand(&[LABEL, purpose.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|expanded| expanded.fill(out.as_mut()))
            .expect("32 bytes are less than the 255 × 32 that HKDF-SHA-256 gives");
        Self(out)
    }

    /// HMAC-SHA-256 of the parts one after the other. All but one of them must be of a fixed length, or end in a byte that they do
    /// not hold.
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.0.as_ref()));
        parts.iter().for_each(|part| context.update(part));
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }

    /// Seals `bytes[from..]` in place with AES-256-GCM and appends the tag. The caller answers for the nonce being new for this key.
    pub(crate) fn seal(&self, nonce: [u8; NONCE_BYTES], associated: &[u8], bytes: &mut Vec<u8>, from: usize) {
        let tag = self
            .aead()
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(associated), &mut bytes[from..])
            .expect("64 GiB is the limit of one message, and none here has more than a few kilobytes");
        bytes.extend_from_slice(tag.as_ref());
    }

    /// Opens what [`Secret::seal`] made; `None` when anything is different: key, nonce, associated data, a bit of the rest.
    pub(crate) fn open<'a>(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        sealed: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        self.aead().open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(associated), sealed).ok()
    }

    /// The key in ring's form, for many calls in a row.
    pub(crate) fn aead(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, self.0.as_ref()).expect("AES-256 takes 32 bytes"))
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of lower- or upper-case hexadecimal digits, if there are exactly `2 N` of them.
pub(crate) fn unhex<const N: usize>(text: &[u8]) -> Option<Zeroizing<[u8; N]>> {
    if text.len() != 2 * N {
        return None;
    }
    let mut out = Zeroizing::new([0; N]);
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hkdf_is_that_of_rfc_5869_with_our_label() {
        // An independent computation, Python's hmac: PRK = HMAC(salt, key); OKM = HMAC(PRK, label + purpose + 0x01).
        let derived = Secret::new([7; 32]).derive(&[9; 16], "records");
        let prk = Secret::new([0; 32]);
        drop(prk);
        let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[9; 16]), &[7; 32]);
        let okm = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), b"starling/store/1/records\x01");
        assert_eq!(derived.bytes()[..], okm.as_ref()[..]);
    }

    #[test]
    fn purposes_and_salts_give_keys_that_do_not_open_each_others_seals() {
        let key = Secret::new([7; 32]);
        let mut sealed = b"text".to_vec();
        key.derive(b"salt", "records").seal([0; 12], b"", &mut sealed, 0);
        for other in [key.derive(b"salt", "blobs"), key.derive(b"salu", "records"), key.again()] {
            assert!(other.open([0; 12], b"", &mut sealed.clone()).is_none());
        }
        let opened = key.derive(b"salt", "records").open([0; 12], b"", &mut sealed).map(|text| text.to_vec());
        assert_eq!(opened.as_deref(), Some(&b"text"[..]));
    }

    #[test]
    fn hexadecimal_is_read_back_and_nothing_else_is() {
        assert_eq!(unhex::<3>(hex(&[0, 0xab, 0xff]).as_bytes()).as_deref(), Some(&[0, 0xab, 0xff]));
        assert!(unhex::<2>(b"abc").is_none() && unhex::<2>(b"abcg").is_none() && unhex::<2>(b"ab\xffc").is_none());
    }
}
