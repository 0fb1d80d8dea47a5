//! The codecs against an independent oracle: exact arithmetic on `f64` and `i128`, written from the formats' description and
//! sharing no code with the kernels.

use proptest::prelude::*;
use starling_compress::{
    BLOCK, CodecSpec, DecodeError, EncodeError, FixedPoint, FoldSign, Rounding, check, codec_id, codec_spec,
    decode_into, difference, encode_into, encoded_len, encoded_len_bounds, fold_into,
};

fn all_codecs() -> Vec<CodecSpec> {
    [CodecSpec::F32, CodecSpec::F16].into_iter().chain((2..=16).map(CodecSpec::Quantised)).collect()
}

fn codec() -> impl Strategy<Value = CodecSpec> {
    prop::sample::select(all_codecs())
}

/// Vectors with the shapes of real ones and with every kind of corner: zeros, subnormals, powers of two, block tails.
fn values(magnitude: f32) -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![
        4 => -magnitude..magnitude,
        2 => (-40i32..4).prop_map(move |power| (magnitude / 16.0) * 2f32.powi(power)),
        1 => Just(0.0f32),
        1 => Just(-0.0f32),
        1 => Just(f32::MIN_POSITIVE / 8.0),
        1 => Just(magnitude),
        1 => Just(-magnitude),
    ];
    prop::collection::vec(value, 0..700)
}

fn encoded(codec: CodecSpec, values: &[f32], rounding: Rounding) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(codec, values, rounding, &mut bytes).expect("finite values within range");
    assert!(encoded_len_bounds(codec, values.len()).contains(&bytes.len()));
    assert!(encoded_len(codec, values.len()).is_none_or(|length| length == bytes.len()));
    bytes
}

/// What `bytes` say, read from the format's description bit by bit, as exact doubles.
fn oracle_values(codec: CodecSpec, bytes: &[u8], count: usize) -> Vec<f64> {
    match codec {
        CodecSpec::F32 => bytes.chunks(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect(),
        CodecSpec::F16 => bytes.chunks(2).map(|b| oracle_half(u16::from_le_bytes([b[0], b[1]]))).collect(),
        CodecSpec::Quantised(bits) => {
            let blocks = count.div_ceil(BLOCK);
            (0..count)
                .map(|index| {
                    let mut level = 0i32;
                    for bit in 0..usize::from(bits) {
                        let at = index * usize::from(bits) + bit;
                        level |= i32::from(bytes[blocks + at / 8] >> (at % 8) & 1) << bit;
                    }
                    if level >= 1 << (bits - 1) {
                        level -= 1 << bits;
                    }
                    f64::from(level) * 2f64.powi(i32::from(bytes[index / BLOCK].cast_signed()))
                })
                .collect()
        }
        CodecSpec::Entropy(_) | CodecSpec::Eden(_) | CodecSpec::TopK(_) => unreachable!("tests/update_codecs.rs"),
    }
}

/// IEEE 754 binary16 from its definition.
fn oracle_half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let fraction = f64::from(bits & 0x3ff);
    match i32::from(bits >> 10 & 31) {
        0 => sign * fraction * 2f64.powi(-24),
        31 => f64::NAN,
        exponent => sign * (1024.0 + fraction) * 2f64.powi(exponent - 25),
    }
}

/// `round_half_even(x · 2^F)` in integers: a double is an integer times a power of two.
fn oracle_fixed(value: f64, fraction_bits: i32) -> i128 {
    let bits = value.abs().to_bits();
    let biased = i32::try_from(bits >> 52).expect("11 bits");
    let fraction = i128::from(bits & ((1 << 52) - 1));
    let (mantissa, exponent) = if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased - 1075) };
    let shift = exponent + fraction_bits;
    let magnitude = if shift >= 0 {
        mantissa << shift
    } else if shift < -60 {
        0
    } else {
        let (whole, rest, half) = (mantissa >> -shift, mantissa & ((1 << -shift) - 1), 1i128 << (-shift - 1));
        whole + i128::from(rest > half || (rest == half && whole & 1 == 1))
    };
    if value < 0.0 { -magnitude } else { magnitude }
}

fn decoded(codec: CodecSpec, bytes: &[u8], count: usize) -> Vec<f32> {
    let mut out = vec![0f32; count];
    decode_into(codec, bytes, &mut out).expect("what an encoder wrote");
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn decoding_says_what_the_bytes_say(codec in codec(), values in values(100.0), key: u64) {
        for rounding in [Rounding::Nearest, Rounding::Stochastic { key }] {
            let bytes = encoded(codec, &values, rounding);
            let got: Vec<f64> = decoded(codec, &bytes, values.len()).into_iter().map(f64::from).collect();
            prop_assert_eq!(got, oracle_values(codec, &bytes, values.len()));
        }
    }

    #[test]
    fn nearest_is_within_half_a_level_and_stochastic_within_one(bits in 2u8..=16, values in values(100.0), key: u64) {
        let codec = CodecSpec::Quantised(bits);
        for (rounding, levels) in [(Rounding::Nearest, 0.5), (Rounding::Stochastic { key }, 1.0)] {
            let bytes = encoded(codec, &values, rounding);
            let blocks = values.len().div_ceil(BLOCK);
            let got = oracle_values(codec, &bytes, values.len());
            for (block, (values, got)) in values.chunks(BLOCK).zip(got.chunks(BLOCK)).enumerate() {
                prop_assert!(block < blocks);
                let level = 2f64.powi(i32::from(bytes[block].cast_signed()));
                for (value, got) in values.iter().zip(got) {
                    let error = (f64::from(*value) - got).abs();
                    prop_assert!(error <= level * levels, "{value} became {got}, a level is {level}");
                }
            }
        }
    }

    #[test]
    fn nearest_ties_to_even(bits in 3u8..=16, tie in 0i32..1000) {
        // One block whose maximum fixes the level at 1: a value of n + 1/2 has to become the even neighbour.
        let largest = (1i32 << (bits - 1)) - 1;
        let tie = tie % largest;
        #[allow(clippy::cast_precision_loss, reason = "levels are below 2^16")]
        let (largest, tie) = (largest as f32, tie as f32 + 0.5);
        let codec = CodecSpec::Quantised(bits);
        let bytes = encoded(codec, &[largest, tie, -tie], Rounding::Nearest);
        prop_assert_eq!(decoded(codec, &bytes, 3), [largest, tie.round_ties_even(), -tie.round_ties_even()]);
    }

    #[test]
    fn encoding_what_was_decoded_changes_nothing(codec in codec(), values in values(100.0), key: u64) {
        // Levels are integers under any rounding; the exponent may shrink by one, which keeps the values.
        let once = decoded(codec, &encoded(codec, &values, Rounding::Stochastic { key }), values.len());
        let twice = decoded(codec, &encoded(codec, &once, Rounding::Stochastic { key: !key }), values.len());
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn f32_is_exact(values in values(3e38)) {
        let back = decoded(CodecSpec::F32, &encoded(CodecSpec::F32, &values, Rounding::Nearest), values.len());
        prop_assert!(values.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn half_is_the_nearest_half(bits in 0u32..0x4780_0000, negative: bool) {
        let value = f32::from_bits(bits | u32::from(negative) << 31);
        let mut bytes = Vec::new();
        // Half a step above the largest half, 65504, rounding leads to infinity.
        let near = f64::from(value).abs() < 65520.0;
        match encode_into(CodecSpec::F16, &[value], Rounding::Nearest, &mut bytes) {
            Ok(()) => {
                prop_assert!(near);
                let pattern = u16::from_le_bytes([bytes[0], bytes[1]]);
                let error = |pattern: u16| (oracle_half(pattern) - f64::from(value)).abs();
                prop_assert_eq!(pattern >> 15 == 1, value.is_sign_negative());
                for neighbour in [pattern.wrapping_sub(1), pattern + 1] {
                    if neighbour >> 15 == pattern >> 15 && oracle_half(neighbour).is_finite() {
                        let tie_to_even = error(pattern) == error(neighbour) && pattern & 1 == 0;
                        prop_assert!(error(pattern) < error(neighbour) || tie_to_even, "{value:e}");
                    }
                }
            }
            Err(error) => {
                prop_assert!(!near, "{value:e}");
                prop_assert_eq!(error, EncodeError::TooLarge { index: 0, codec: CodecSpec::F16 });
            }
        }
    }

    #[test]
    fn a_fold_is_the_oracles_integer_sum(
        codec in codec(),
        values in values(1.0),
        v in -20i8..=20,
        weight in 1u32..=1 << 24,
        extra in 0u32..17,
        start: i64,
        key: u64,
    ) {
        let bound = 2f32.powi(i32::from(v));
        let limit = if codec == CodecSpec::F16 { bound.min(60_000.0) } else { bound };
        let values: Vec<f32> = values.iter().map(|value| value * limit).collect();
        let bytes = encoded(codec, &values, Rounding::Stochastic { key });
        let fixed = FixedPoint::new(v, u64::from(weight) << extra.min(16)).expect("in range");
        prop_assert_eq!(check(codec, &bytes, values.len(), &fixed), Ok(()));

        let mut acc = vec![start; values.len()];
        fold_into(codec, &bytes, &fixed, weight, FoldSign::Add, &mut acc);
        let expected: Vec<i64> = oracle_values(codec, &bytes, values.len())
            .into_iter()
            .map(|value| {
                let sum = i128::from(start) + i128::from(weight) * oracle_fixed(value, fixed.fraction_bits());
                #[allow(clippy::cast_possible_truncation, reason = "the ring's reduction")]
                { sum as i64 }
            })
            .collect();
        prop_assert_eq!(&acc, &expected);

        fold_into(codec, &bytes, &fixed, weight, FoldSign::Subtract, &mut acc);
        prop_assert_eq!(acc, vec![start; values.len()]);
    }

    #[test]
    fn inv8_any_bytes_are_checked_and_decoded_without_a_panic(
        codec in codec(),
        count in 0usize..600,
        bytes in prop::collection::vec(any::<u8>(), 0..2500),
        exact: bool,
    ) {
        let mut bytes = bytes;
        if exact {
            bytes.resize(encoded_len(codec, count).expect("fixed"), 0x5a);
        }
        let fixed = FixedPoint::new(4, 1 << 20).expect("in range");
        let checked = check(codec, &bytes, count, &fixed);
        let mut out = vec![0f32; count];
        let read = decode_into(codec, &bytes, &mut out);
        if checked.is_ok() {
            prop_assert!(read.is_ok());
            prop_assert!(out.iter().all(|value| value.abs() <= 16.0));
        }
        if read.is_ok() {
            prop_assert!(out.iter().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn a_difference_leads_from_old_to_new(
        codec in codec(),
        values in values(1.0),
        step in -0.01f32..0.01,
    ) {
        let moved: Vec<f32> = values.iter().map(|value| value + step).collect();
        let (old, new) = (encoded(codec, &values, Rounding::Nearest), encoded(codec, &moved, Rounding::Nearest));
        if let Some(difference) = difference::encode(&old, &new) {
            prop_assert!(difference.len() < new.len());
            prop_assert_eq!(difference::apply(&old, &difference, new.len()), Ok(new));
        }
    }

    #[test]
    fn a_mutated_difference_never_panics_and_never_grows(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let old: Vec<u8> = (0..=255u8).cycle().take(3000).collect();
        let new: Vec<u8> = old.iter().enumerate().map(|(index, byte)| byte.wrapping_add(u8::from(index % 7 == 0))).collect();
        let mut difference = difference::encode(&old, &new).expect("close");
        for (index, flip) in &flips {
            let index = index.index(difference.len());
            difference[index] ^= flip;
        }
        if let Ok(bytes) = difference::apply(&old, &difference, old.len()) {
            prop_assert_eq!(bytes.len(), old.len());
        }
        difference.truncate(cut.index(difference.len()));
        prop_assert!(difference::apply(&old, &difference, old.len()).is_err());
    }
}

#[test]
fn codec_ids_read_what_they_write() {
    let updates = (2..=8).map(CodecSpec::Entropy).chain((1..=4).map(CodecSpec::Eden));
    for codec in all_codecs().into_iter().chain(updates) {
        assert_eq!(codec_spec(codec_id(codec)), Some(codec));
    }
    // The fraction of topk stands in the plan alone.
    assert_eq!(codec_id(CodecSpec::TopK(1)), codec_id(CodecSpec::TopK(40_000)));
    for (family, parameter) in
        [(0, 0), (1, 1), (2, 8), (3, 1), (3, 17), (4, 0), (4, 1), (4, 9), (5, 0), (5, 5), (6, 0), (7, 0)]
    {
        assert_eq!(codec_spec(starling_wire::CodecId { family, parameter }), None);
    }
}

#[test]
fn stochastic_rounding_is_unbiased() {
    // 2,000 keys; the mean error of a value between two levels has a standard deviation of at most level/2/√2000, and over
    // 256 values one beyond 5 of them has a chance of 1.5e-4 under fair draws. The keys are fixed, so this never flickers.
    let values: Vec<f32> = (0u8..=255).map(|index| f32::from(index) / 255.0 - 0.4321).collect();
    for bits in [2u8, 3, 8, 16] {
        let codec = CodecSpec::Quantised(bits);
        let mut sums = vec![0f64; values.len()];
        let keys = 2000u32;
        let mut level = 0.0;
        for key in 0..keys {
            let bytes =
                encoded(codec, &values, Rounding::Stochastic { key: starling_spec::random::mix(u64::from(key)) });
            level = 2f64.powi(i32::from(bytes[0].cast_signed()));
            for (sum, value) in sums.iter_mut().zip(oracle_values(codec, &bytes, values.len())) {
                *sum += value;
            }
        }
        let bound = 5.0 * level / 2.0 / f64::from(keys).sqrt();
        for (sum, value) in sums.iter().zip(&values) {
            let error = (sum / f64::from(keys) - f64::from(*value)).abs();
            assert!(error < bound, "q{bits}: {value} is off by {error:e}, allowed {bound:e}");
        }
    }
}

#[test]
fn a_key_decides_and_blocks_differ() {
    let values = vec![0.3f32; 2 * BLOCK];
    let codec = CodecSpec::Quantised(2);
    let with = |key| encoded(codec, &[&[1.0][..], &values[1..]].concat(), Rounding::Stochastic { key });
    assert_eq!(with(1), with(1));
    assert_ne!(with(1), with(2));
    let bytes = encoded(codec, &values, Rounding::Stochastic { key: 1 });
    assert_ne!(bytes[2..66], bytes[66..130]);
}

#[test]
fn values_that_no_codec_says_are_refused_with_their_place() {
    for codec in all_codecs() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![1.0f32; 600];
            values[517] = bad;
            let mut out = vec![9u8; 3];
            let error = encode_into(codec, &values, Rounding::Stochastic { key: 3 }, &mut out);
            assert_eq!(error, Err(EncodeError::NotFinite { index: 517 }), "{codec}");
            assert_eq!(out, [9; 3], "nothing is appended");
        }
        if codec != CodecSpec::F32 {
            let error = encode_into(codec, &[0.0, 3e38], Rounding::Nearest, &mut Vec::new());
            assert_eq!(error, Err(EncodeError::TooLarge { index: 1, codec }));
        }
    }
}

#[test]
fn a_check_refuses_the_first_value_beyond_the_bound() {
    let fixed = FixedPoint::new(4, 1000).expect("in range");
    for codec in all_codecs() {
        let mut values = vec![0.5f32; 600];
        values[300] = 16.0;
        values[301] = -16.0;
        let bytes = encoded(codec, &values, Rounding::Nearest);
        assert_eq!(check(codec, &bytes, 600, &fixed), Ok(()), "{codec}: the bound itself is allowed");
        values[300] = 40.0;
        let bytes = encoded(codec, &values, Rounding::Nearest);
        let refused = check(codec, &bytes, 600, &fixed);
        let first = if matches!(codec, CodecSpec::Quantised(_)) { 256..=300 } else { 300..=300 };
        assert!(
            matches!(refused, Err(DecodeError::OutOfRange { index, .. }) if first.contains(&index)),
            "{codec}: {refused:?}"
        );
    }
}

#[test]
fn a_check_refuses_what_is_not_finite() {
    let fixed = FixedPoint::new(4, 1000).expect("in range");
    let mut bytes = encoded(CodecSpec::F32, &[1.0; 5], Rounding::Nearest);
    bytes[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
    bytes[4..8].copy_from_slice(&1e30f32.to_le_bytes());
    assert_eq!(check(CodecSpec::F32, &bytes, 5, &fixed), Err(DecodeError::NotFinite { index: 2 }));
    let mut bytes = encoded(CodecSpec::F16, &[1.0; 5], Rounding::Nearest);
    bytes[8..10].copy_from_slice(&0xfc00u16.to_le_bytes());
    assert_eq!(check(CodecSpec::F16, &bytes, 5, &fixed), Err(DecodeError::NotFinite { index: 4 }));
    assert_eq!(decode_into(CodecSpec::F16, &bytes, &mut [0.0; 5]), Err(DecodeError::NotFinite { index: 4 }));
}

#[test]
fn exponents_and_padding_that_no_encoder_writes_are_refused() {
    let fixed = FixedPoint::new(20, 1000).expect("in range");
    for bits in 2..=16u8 {
        let codec = CodecSpec::Quantised(bits);
        for exponent in [-128i8, -127, 127, 127 - bits.cast_signed() + 1] {
            let mut bytes = encoded(codec, &[0.0; 3], Rounding::Nearest);
            bytes[0] = exponent.cast_unsigned();
            let malformed = |result| matches!(result, Err(DecodeError::Malformed(_)));
            assert!(malformed(check(codec, &bytes, 3, &fixed)), "q{bits} exponent {exponent}");
            assert!(malformed(decode_into(codec, &bytes, &mut [0.0; 3])), "q{bits} exponent {exponent}");
        }
        if bits * 3 % 8 != 0 {
            let mut bytes = encoded(codec, &[0.0; 3], Rounding::Nearest);
            *bytes.last_mut().expect("levels") |= 0x80;
            assert!(matches!(check(codec, &bytes, 3, &fixed), Err(DecodeError::Malformed(_))), "q{bits} padding");
        }
    }
}

#[test]
fn inv8_a_body_cut_at_any_byte_or_one_byte_longer_is_refused() {
    let fixed = FixedPoint::new(4, 1000).expect("in range");
    for codec in all_codecs() {
        let mut bytes = encoded(codec, &[0.5; 70], Rounding::Nearest);
        for cut in 0..bytes.len() {
            let expected = Err(DecodeError::Length { expected: bytes.len(), got: cut });
            assert_eq!(check(codec, &bytes[..cut], 70, &fixed), expected);
            assert_eq!(decode_into(codec, &bytes[..cut], &mut [0.0; 70]), expected);
        }
        bytes.push(0);
        assert!(matches!(check(codec, &bytes, 70, &fixed), Err(DecodeError::Length { .. })));
    }
}

#[test]
fn the_bytes_are_those_that_the_protocol_document_draws() {
    // f32 and f16 of 1.5 and -2.
    assert_eq!(encoded(CodecSpec::F32, &[1.5, -2.0], Rounding::Nearest), [0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0]);
    assert_eq!(encoded(CodecSpec::F16, &[1.5, -2.0], Rounding::Nearest), [0x00, 0x3e, 0x00, 0xc0]);
    // q8: the maximum 2 needs 2^-5 (127/64 is below it), so the levels are 48 and -64.
    assert_eq!(encoded(CodecSpec::Quantised(8), &[1.5, -2.0], Rounding::Nearest), [0xfb, 0x30, 0xc0]);
    // q4: the maximum 2 needs 2^-1, so 3 and -4: 0011 and 1100, the first in the low bits.
    assert_eq!(encoded(CodecSpec::Quantised(4), &[1.5, -2.0], Rounding::Nearest), [0xff, 0xc3]);
}

#[test]
fn a_difference_of_close_versions_is_small_and_noise_has_none() {
    let mut random = starling_spec::random::Random::new(5, starling_spec::random::Purpose::Noise, &[]);
    #[allow(clippy::cast_possible_truncation, reason = "test values")]
    let mut normal = |scale: f64| -> Vec<f32> { (0..100_000).map(|_| (random.normal() * scale) as f32).collect() };
    let old = normal(0.05);
    let new: Vec<f32> = old.iter().zip(normal(0.0001)).map(|(value, step)| value + step).collect();
    let codec = CodecSpec::Quantised(8);
    let (old_bytes, new_bytes) = (encoded(codec, &old, Rounding::Nearest), encoded(codec, &new, Rounding::Nearest));
    let difference = difference::encode(&old_bytes, &new_bytes).expect("close");
    assert!(difference.len() * 8 < 130_000, "{} bytes for 100,000 parameters", difference.len());
    assert_eq!(difference::apply(&old_bytes, &difference, new_bytes.len()), Ok(new_bytes.clone()));

    let noise: Vec<u8> =
        normal(1.0).iter().flat_map(|value| value.to_bits().wrapping_mul(0x9e37_79b1).to_be_bytes()).collect();
    assert_eq!(difference::encode(&vec![0; noise.len()], &noise), None);
    assert_eq!(difference::encode(&old_bytes[1..], &new_bytes), None);
    assert!(matches!(difference::apply(&old_bytes, &difference, 5), Err(DecodeError::Length { .. })));
}
