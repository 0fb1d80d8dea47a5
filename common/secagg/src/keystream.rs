//! The generator of masks, and of noise that has to come again: AES-256 in counter mode (NIST SP 800-38A), the counter starting at 0.
//!
//! A key is never used for two streams, so the counter needs no nonce. The full 256 bits of the key enter. The `aes` crate uses the
//! processor's instructions where it has them, and a bit-sliced form that is constant-time too where it has not.

use aes::Aes256;
use ctr::Ctr64BE;
use ctr::cipher::{KeyIvInit, StreamCipher};

/// A stream of pseudo-random bytes under a key of 32 bytes. The key schedule is wiped on drop.
pub struct Keystream(Ctr64BE<Aes256>);

impl Keystream {
    /// The stream of `key`, which is for this one stream alone.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Ctr64BE::new(key.into(), &[0; 16].into()))
    }

    /// The next bytes of the stream.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.write_keystream(bytes);
    }

    pub(crate) fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Uniform in `0..bound` without bias (Lemire 2019, "Fast random integer generation in an interval").
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "an empty range has no values");
        loop {
            let product = u64::from(self.next_u32()) * u64::from(bound);
            let [low, high] = [product & u64::from(u32::MAX), product >> 32];
            if low >= u64::from(bound.wrapping_neg() % bound) {
                return u32::try_from(high).expect("the upper half of 64 bits");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        // The mask stream of google-parfait/federated-compute, aes_ctr_prng_test.cc: 32 bytes of 0x31, initial vector 0.
        let mut bytes = [0; 64];
        Keystream::new(&[0x31; 32]).fill(&mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "b08ecf9ec7eb5f0d7b78c42556d668ac0ede721a5818fe812d565cbdb5f11f4e\
             d5614465964071f9eb393b4018e2b9e3783ec0afdca1de781ab8057ac031b3b2"
        );
    }

    #[test]
    fn reading_in_pieces_changes_nothing() {
        let mut whole = [0; 100];
        Keystream::new(&[7; 32]).fill(&mut whole);
        let mut pieces = [0; 100];
        let mut stream = Keystream::new(&[7; 32]);
        for piece in pieces.chunks_mut(33) {
            stream.fill(piece);
        }
        assert_eq!(whole, pieces);
    }
}
