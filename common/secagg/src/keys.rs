//! Keys of one attempt: derivation by HKDF-SHA-256 (RFC 5869), envelopes under ChaCha20-Poly1305 (RFC 8439).
//!
//! Every derived key binds a purpose, the digest of the round (task, run, round, attempt, model, plan and, once it is known, the roster) and the
//! devices that it is between (invariant 9).

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use starling_wire::{DeviceId, Digest};
use zeroize::Zeroizing;

use crate::limits::{ENVELOPE_BYTES, SHARE_BYTES};

/// A derived key or a seed.
pub(crate) type Key = Zeroizing<[u8; 32]>;

/// 32 bytes from the caller's entropy source: all that is random in one attempt of one device. Use them once.
pub struct Entropy(Zeroizing<[u8; 32]>);

impl Entropy {
    /// Entropy that the caller has drawn (invariant 7: nothing here draws any).
    pub fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    pub(crate) fn derive(&self, purpose: &Purpose, setup: &Digest) -> Key {
        derive(&self.0[..], setup, purpose, &[])
    }

    /// What tells this entropy from other entropy and reveals nothing of it.
    pub(crate) fn fingerprint(&self) -> [u8; 16] {
        let key = derive(&self.0[..], &Digest([0; 32]), &Purpose::Fingerprint, &[]);
        key[..16].try_into().expect("the first half of 32 bytes")
    }
}

/// What a derived key is for; keys of different purposes have nothing to do with each other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Fingerprint,
    MaskSecret,
    EnvelopeSecret,
    SelfMaskSeed,
    Polynomials,
    SelfMask,
    PairMask,
    Envelope,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Fingerprint => b"starling/1 secagg fingerprint\0",
            Self::MaskSecret => b"starling/1 secagg mask secret\0",
            Self::EnvelopeSecret => b"starling/1 secagg envelope secret\0",
            Self::SelfMaskSeed => b"starling/1 secagg self mask seed\0",
            Self::Polynomials => b"starling/1 secagg polynomials\0",
            Self::SelfMask => b"starling/1 secagg self mask\0",
            Self::PairMask => b"starling/1 secagg pair mask\0",
            Self::Envelope => b"starling/1 secagg envelope\0",
        }
    }
}

/// HKDF-SHA-256: extract with the round's digest as the salt, expand with purpose and devices as the info.
pub(crate) fn derive(secret: &[u8], round: &Digest, purpose: &Purpose, devices: &[&DeviceId]) -> Key {
    let mut info = vec![purpose.label()];
    info.extend(devices.iter().map(|device| &device.0[..]));
    hkdf(&round.0, secret, &info)
}

fn hkdf(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> Key {
    let extracted = Salt::new(HKDF_SHA256, salt).extract(secret);
    let mut key = Zeroizing::new([0; 32]);
    let expanded = extracted.expand(info, HKDF_SHA256).expect("one block is within HKDF's limit");
    expanded.fill(&mut key[..]).expect("the length was stated");
    key
}

/// The shares of two secrets, on their way to one holder.
pub(crate) type Shares = Zeroizing<[u8; 2 * SHARE_BYTES]>;

/// Encrypts shares under a key that is used for nothing else, so the nonce may be 0.
pub(crate) fn close(key: &Key, round: &Digest, shares: &Shares) -> [u8; ENVELOPE_BYTES] {
    let mut envelope = Vec::with_capacity(ENVELOPE_BYTES);
    envelope.extend_from_slice(&shares[..]);
    seal(key, [0; NONCE_LEN], &round.0, &mut envelope);
    envelope.try_into().expect("the shares and the tag")
}

/// The shares in an envelope; `None` when it was not closed under this key for this round.
pub(crate) fn open(key: &Key, round: &Digest, envelope: &[u8; ENVELOPE_BYTES]) -> Option<Shares> {
    let mut bytes = Zeroizing::new(*envelope);
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key[..]).expect("a key of 32 bytes"));
    let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
    let plain = key.open_in_place(nonce, Aad::from(&round.0), &mut bytes[..]).ok()?;
    Some(Zeroizing::new((&*plain).try_into().expect("an envelope less its tag")))
}

fn seal(key: &Key, nonce: [u8; NONCE_LEN], aad: &[u8], bytes: &mut Vec<u8>) {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key[..]).expect("a key of 32 bytes"));
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(aad), bytes).expect("a short message");
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal");
        digits.chunks(2).map(pair).collect()
    }

    pub(crate) fn key(hex: &str) -> Key {
        Zeroizing::new(bytes(hex).try_into().expect("32 bytes"))
    }

    #[test]
    fn derivation_is_that_of_rfc_5869() {
        // Appendix A.1, the first 32 bytes.
        let salt: Vec<u8> = (0..13).collect();
        let info: Vec<u8> = (0xf0..0xfa).collect();
        let derived = hkdf(&salt, &[0x0b; 22], &[&info[..4], &info[4..]]);
        assert_eq!(derived, key("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"));
    }

    #[test]
    fn encryption_is_that_of_rfc_8439() {
        // Section 2.8.2.
        let mut message =
            b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
            sunscreen would be it."
                .to_vec();
        let secret = key("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
        let nonce = bytes("070000004041424344454647").try_into().expect("12 bytes");
        seal(&secret, nonce, &bytes("50515253c0c1c2c3c4c5c6c7"), &mut message);
        assert_eq!(message[..16], bytes("d31a8d34648e60db7b86afbc53ef7ec2"));
        assert_eq!(message[message.len() - 16..], bytes("1ae10b594f09e26a7e902ecbd0600691"));
    }

    #[test]
    fn inv9_keys_of_another_purpose_round_or_device_differ_and_open_nothing() {
        let (round, other_round) = (Digest([1; 32]), Digest([2; 32]));
        let (a, b) = (DeviceId([1; 16]), DeviceId([2; 16]));
        let mine = derive(&[9; 32], &round, &Purpose::Envelope, &[&a, &b]);
        for other in [
            derive(&[9; 32], &round, &Purpose::PairMask, &[&a, &b]),
            derive(&[9; 32], &other_round, &Purpose::Envelope, &[&a, &b]),
            derive(&[9; 32], &round, &Purpose::Envelope, &[&b, &a]),
            derive(&[8; 32], &round, &Purpose::Envelope, &[&a, &b]),
        ] {
            assert_ne!(mine, other);
        }
        let shares = Zeroizing::new([3; 2 * SHARE_BYTES]);
        let envelope = close(&mine, &round, &shares);
        assert_eq!(open(&mine, &round, &envelope), Some(shares));
        assert_eq!(open(&mine, &other_round, &envelope), None);
    }
}
