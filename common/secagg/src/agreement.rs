//! X25519 (RFC 7748), by whichever of two implementations this processor has the instructions for. Both are constant-time and give the same
//! bytes.
//!
//! Agreement is most of what unmasking costs once drop-outs are many. graviola's machine code (s2n-bignum, formally verified) takes half the
//! time of x25519-dalek's portable Rust, but refuses to run without instructions that small processors lack.

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::keys::Key;

/// An X25519 pair.
pub(crate) struct KeyPair {
    secret: Key,
    public: [u8; 32],
}

impl KeyPair {
    pub(crate) fn from_secret(secret: &Key) -> Self {
        let public = match fast::public(secret) {
            Some(public) => public,
            None => PublicKey::from(&StaticSecret::from(**secret)).to_bytes(),
        };
        Self { secret: secret.clone(), public }
    }

    pub(crate) fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The bytes that are shared out. They are wiped when they are dropped.
    pub(crate) fn secret(&self) -> Key {
        self.secret.clone()
    }

    /// The agreed secret; `None` for a public key of low order, with which everybody knows the result.
    pub(crate) fn agree(&self, public: &[u8; 32]) -> Option<Key> {
        fast::agree(&self.secret, public).unwrap_or_else(|| portable(&self.secret, public))
    }
}

fn portable(secret: &Key, public: &[u8; 32]) -> Option<Key> {
    let shared = StaticSecret::from(**secret).diffie_hellman(&PublicKey::from(*public));
    shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
}

/// Nothing where this processor has not what it takes.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod fast {
    use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};
    use zeroize::Zeroizing;

    use crate::keys::Key;

    pub(super) fn public(secret: &Key) -> Option<[u8; 32]> {
        is_supported().then(|| StaticPrivateKey::from_array(secret).public_key().as_bytes())
    }

    pub(super) fn agree(secret: &Key, public: &[u8; 32]) -> Option<Option<Key>> {
        let agreed = || StaticPrivateKey::from_array(secret).diffie_hellman(&PublicKey::from_array(public)).ok();
        is_supported().then(|| agreed().map(|shared| Zeroizing::new(shared.0)))
    }

    /// What graviola asserts before it does anything; the standard library remembers what it has found.
    #[cfg(target_arch = "x86_64")]
    fn is_supported() -> bool {
        use std::arch::is_x86_feature_detected as has;
        let scalar = has!("aes") && has!("pclmulqdq") && has!("ssse3") && has!("bmi1") && has!("bmi2") && has!("adx");
        scalar && has!("avx") && has!("avx2")
    }

    #[cfg(target_arch = "aarch64")]
    fn is_supported() -> bool {
        use std::arch::is_aarch64_feature_detected as has;
        has!("neon") && has!("aes") && has!("pmull") && has!("sha2")
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod fast {
    use crate::keys::Key;

    pub(super) fn public(_: &Key) -> Option<[u8; 32]> {
        None
    }

    pub(super) fn agree(_: &Key, _: &[u8; 32]) -> Option<Option<Key>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::tests::key;

    #[test]
    fn agreement_is_that_of_rfc_7748() {
        // Section 5.2, first vector, and the iterated one after 1 and 1,000 rounds.
        let secret = key("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
        let public = key("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
        let wanted = key("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
        for agree in [portable, |secret: &Key, public: &[u8; 32]| KeyPair::from_secret(secret).agree(public)] {
            assert_eq!(agree(&secret, &public).expect("a point of high order"), wanted);

            let nine = key("0900000000000000000000000000000000000000000000000000000000000000");
            let (mut scalar, mut point) = (nine.clone(), nine);
            for round in 1..=1000 {
                let next = agree(&scalar, &point).expect("a point of high order");
                point = std::mem::replace(&mut scalar, next);
                if round == 1 {
                    assert_eq!(scalar, key("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"));
                }
            }
            assert_eq!(scalar, key("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"));
        }
    }

    #[test]
    fn both_implementations_give_the_same() {
        let nine = key("0900000000000000000000000000000000000000000000000000000000000000");
        let mut secret = Zeroizing::new([7; 32]);
        for _ in 0..200 {
            let pair = KeyPair::from_secret(&secret);
            assert_eq!(
                Some(Zeroizing::new(*pair.public())),
                portable(&secret, &nine),
                "the public key is that of the base point"
            );
            // Any bytes are a public key; the top bit does not count.
            let mut other = *pair.public();
            other[31] |= 0x80;
            other[0] ^= 1;
            assert_eq!(pair.agree(&other), portable(&secret, &other));
            secret = pair.agree(pair.public()).expect("a point of high order");
        }
    }

    #[test]
    fn a_key_of_low_order_is_none() {
        // 0, 1, and a point of order 8 (Wycheproof, x25519_test.json, "low order public").
        let eight = key("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
        let one = key("0100000000000000000000000000000000000000000000000000000000000000");
        let secret = Zeroizing::new([5; 32]);
        for public in [Zeroizing::new([0; 32]), one, eight] {
            assert!(KeyPair::from_secret(&secret).agree(&public).is_none());
            assert!(portable(&secret, &public).is_none());
        }
    }
}
