use starling_spec::random::{Purpose, Random};

use super::*;
use crate::error::DecodeError;

fn round_trip(bits: u8, symbols: &[u8]) -> usize {
    let mut bytes = Vec::new();
    encode(bits, symbols, &mut bytes);
    assert!(bytes.len() <= encoded_len_max(bits, symbols.len()) && bytes.len() >= encoded_len_min(symbols.len()));
    let mut decoder = Decoder::new(bits, &bytes);
    let mut back = vec![0; symbols.len()];
    decoder.read(&mut back).expect("what was written");
    assert!(decoder.rest().is_empty());
    assert_eq!(back, symbols);
    for cut in (0..bytes.len()).step_by(bytes.len() / 97 + 1) {
        assert!(Decoder::new(bits, &bytes[..cut]).read(&mut back).is_err(), "cut at {cut}");
    }
    bytes.len()
}

/// Symbols with a discretised two-sided exponential distribution, and the entropy of what was drawn in bits.
fn laplace(bits: u8, scale: f64, count: usize) -> (Vec<u8>, f64) {
    let mut random = Random::new(8, Purpose::Noise, &[u64::from(bits), count as u64]);
    let limit = (1i32 << (bits - 1)) - 1;
    let mask = (1u16 << bits) - 1;
    let mut counts = [0f64; 256];
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "test symbols")]
    let symbols: Vec<u8> = (0..count)
        .map(|_| {
            let sign = if random.below(2) == 0 { -1.0 } else { 1.0 };
            let level = (sign * -scale * (1.0 - random.unit_f64()).ln()).round() as i32;
            let symbol = level.clamp(-limit, limit) as u8 & mask as u8;
            counts[usize::from(symbol)] += 1.0;
            symbol
        })
        .collect();
    let bits = counts.iter().filter(|count| **count > 0.0).map(|n| n * (count as f64 / n).log2()).sum();
    (symbols, bits)
}

#[test]
fn symbols_come_back_and_take_their_entropy() {
    for bits in 2..=8 {
        for scale in [0.05, 0.4, 3.0, 30.0] {
            let (symbols, entropy) = laplace(bits, scale, 200_001);
            let length = round_trip(bits, &symbols) as f64 * 8.0;
            // A table and eight states a chunk, and frequencies of 12 bits.
            let allowed = entropy * 1.005 + 200_001.0 * 0.001 + 4.0 * 8.0 * 350.0;
            assert!(length < allowed, "{bits} bits, scale {scale}: {length} bits, entropy {entropy}");
        }
    }
}

#[test]
fn every_count_and_every_skew_comes_back() {
    for count in (0..70).chain([255, 1000, CHUNK - 1, CHUNK, CHUNK + 1]) {
        for bits in [2, 5, 8] {
            round_trip(bits, &laplace(bits, 0.5, count).0);
            round_trip(bits, &vec![(1 << (bits - 1)) - 1; count]);
        }
    }
    // One symbol out of 65,536 is another, and all symbols are equally frequent.
    let mut rare = vec![0u8; CHUNK];
    rare[777] = 200;
    assert!(round_trip(8, &rare) < 150);
    let all: Vec<u8> = (0..=255).cycle().take(CHUNK).collect();
    assert_eq!(round_trip(8, &all), CHUNK + 1);
}

#[test]
fn what_no_encoder_writes_is_refused() {
    let mut back = [0u8; 4];
    for bytes in [&[2u8][..], &[1, 0], &[0], &[1, 0x30, 0, 0, 0, 0, 0, 0, 0, 0]] {
        assert!(Decoder::new(2, bytes).read(&mut back).is_err());
    }
    // Frequencies of 4,096 before the last symbol.
    let mut bytes = vec![1, 0b0111, 0xff, 31];
    bytes.resize(200, 0);
    assert!(matches!(Decoder::new(2, &bytes).read(&mut back), Err(DecodeError::Malformed(_))));
}
