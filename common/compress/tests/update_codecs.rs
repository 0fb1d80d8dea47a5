//! The codecs of updates against their closed forms and against oracles written from the formats' description.

use proptest::prelude::*;
use starling_compress::{
    CodecSpec, DecodeError, EncodeError, FixedPoint, FoldSign, Rounding, check, decode_into, encode_into, encoded_len,
    encoded_len_bounds, fold_into,
};
use starling_spec::random::{Purpose, Random, word};

fn update_codecs() -> Vec<CodecSpec> {
    let sparse = [1, 1000, 10_000, 40_000, 100_000, 500_000].map(CodecSpec::TopK);
    (2..=8).map(CodecSpec::Entropy).chain((1..=4).map(CodecSpec::Eden)).chain(sparse).collect()
}

fn encoded(codec: CodecSpec, values: &[f32], key: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(codec, values, Rounding::Stochastic { key }, &mut bytes).expect("finite values within range");
    let bounds = encoded_len_bounds(codec, values.len());
    assert!(
        bounds.contains(&bytes.len()),
        "{codec}: {} bytes of {} values, not in {bounds:?}",
        bytes.len(),
        values.len()
    );
    assert!(encoded_len(codec, values.len()).is_none_or(|length| length == bytes.len()));
    bytes
}

fn decoded(codec: CodecSpec, bytes: &[u8], count: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; count];
    decode_into(codec, bytes, &mut out).expect("what an encoder wrote");
    out
}

fn normal(random: &mut Random, count: usize, scale: f64) -> Vec<f32> {
    #[allow(clippy::cast_possible_truncation, reason = "test values are rounded on purpose")]
    (0..count).map(|_| (random.normal() * scale) as f32).collect()
}

fn error(values: &[f32], got: &[f32]) -> (f64, f64) {
    let squared = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let mut differences = values.iter().zip(got).map(|(value, got)| f64::from(*value) - f64::from(*got));
    (squared(&mut differences), squared(&mut values.iter().map(|value| f64::from(*value))))
}

#[test]
fn edens_error_is_that_of_the_lloyd_max_quantiser() {
    // 1/(1−D) − 1 with D the distortion for N(0, 1); 100 log-normal vectors of 2^14.
    let mut random = Random::new(11, Purpose::Noise, &[]);
    let expected = [0.5708, 0.1331, 0.03578, 0.009592];
    for (bits, expected) in (1..=4u8).zip(expected) {
        let mut mean = 0.0;
        for key in 0..100 {
            #[allow(clippy::cast_possible_truncation, reason = "test values")]
            let values: Vec<f32> = (0..1 << 14).map(|_| random.normal().exp() as f32).collect();
            let codec = CodecSpec::Eden(bits);
            let (wrong, norm) = error(&values, &decoded(codec, &encoded(codec, &values, key), values.len()));
            mean += wrong / norm / 100.0;
        }
        println!("eden:{bits}: normalised error {mean:.5}, expected {expected}");
        assert!((mean / expected - 1.0).abs() < 0.03, "eden:{bits}: {mean}, expected {expected}");
    }
}

#[test]
fn eden_is_unbiased_over_its_rotations() {
    // The mean of k independent decodings has 1/k of the error of one, if there is no bias: with a bias of b·‖x‖ it would be
    // larger by b². 3,000 decodings of 1,000 values (512, 256, 128, and 104 in a padded block).
    let mut random = Random::new(12, Purpose::Noise, &[]);
    let values = normal(&mut random, 1000, 0.01);
    for (bits, single) in (1..=4u8).zip([0.5708, 0.1331, 0.03578, 0.009592]) {
        let codec = CodecSpec::Eden(bits);
        let mut sums = vec![0f64; values.len()];
        for key in 0..3000 {
            for (sum, value) in sums.iter_mut().zip(decoded(codec, &encoded(codec, &values, key), values.len())) {
                *sum += f64::from(value) / 3000.0;
            }
        }
        #[allow(clippy::cast_possible_truncation, reason = "a figure")]
        let mean: Vec<f32> = sums.iter().map(|sum| *sum as f32).collect();
        let (wrong, norm) = error(&values, &mean);
        assert!(
            wrong / norm < 1.3 * single / 3000.0,
            "eden:{bits}: {:e}, expected {:e}",
            wrong / norm,
            single / 3000.0
        );
    }
}

/// What a payload of `eden` says, from the format's description, in doubles: seed; then for each block a scale and codes.
fn eden_oracle(bits: usize, centroids: &[f64], bytes: &[u8], count: usize) -> Vec<f64> {
    let seed = u64::from_le_bytes(bytes[..8].try_into().expect("eight"));
    let key = Random::new(seed, Purpose::Rotate, &[]).key();
    let (mut out, mut at) = (Vec::new(), 8);
    while out.len() < count {
        let (start, rest) = (out.len(), count - out.len());
        let len = [4096, 2048, 1024, 512, 256, 128].into_iter().find(|size| *size <= rest).unwrap_or(rest);
        let padded = len.next_power_of_two().max(8);
        let scale = f64::from(f32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")));
        let code = |index: usize| {
            let bit = |bit: usize| usize::from(bytes[at + 4 + bit / 8] >> (bit % 8) & 1);
            (0..bits).map(|place| bit(index * bits + place) << place).sum::<usize>()
        };
        for row in 0..len {
            let term = |column: usize| {
                let sign = if (row & column).count_ones() % 2 == 0 { 1.0 } else { -1.0 };
                sign * centroids[code(column)]
            };
            let flip = word(key, (start / 64 + row / 64) as u64) >> (row % 64) & 1 == 1;
            let value = scale * (0..padded).map(term).sum::<f64>();
            out.push(if flip { -value } else { value });
        }
        at += 4 + padded * bits / 8;
    }
    assert_eq!(at, bytes.len());
    out
}

#[test]
fn eden_decodes_what_the_description_says() {
    let centroids: [&[f64]; 4] = [
        &[0.7978845608],
        &[0.4527800346, 1.5104176085],
        &[0.2450941789, 0.7560052812, 1.3439092785, 2.1519457045],
        &[
            0.1283950299,
            0.3880482995,
            0.6567591185,
            0.9423404565,
            1.2562311973,
            1.6180463860,
            2.0690172265,
            2.7325895710,
        ],
    ];
    let mut random = Random::new(13, Purpose::Noise, &[]);
    for count in [0usize, 1, 2, 7, 8, 9, 63, 100, 127, 128, 129, 300, 1000, 4096, 4097, 5000] {
        let values = normal(&mut random, count, 1.0);
        for (bits, upper) in (1u8..).zip(centroids) {
            let all: Vec<f64> = upper.iter().rev().map(|value| -value).chain(upper.iter().copied()).collect();
            let codec = CodecSpec::Eden(bits);
            let bytes = encoded(codec, &values, count as u64);
            let oracle = eden_oracle(bits.into(), &all, &bytes, count);
            for (got, oracle) in decoded(codec, &bytes, count).into_iter().zip(oracle) {
                assert!((f64::from(got) - oracle).abs() < 2e-5, "eden:{bits} of {count}: {got}, {oracle}");
            }
        }
    }
}

#[test]
fn eden_takes_zeros_single_values_and_every_scale() {
    for bits in 1..=4 {
        let codec = CodecSpec::Eden(bits);
        for count in [1, 100, 5000] {
            assert_eq!(decoded(codec, &encoded(codec, &vec![0.0; count], 5), count), vec![0.0; count]);
        }
        // One value alone is a constant after the rotation: its scale says it exactly, to the rounding of floats.
        for value in [1e-30f32, -0.25, 3.0, -1e30] {
            let mut values = vec![0f32; 4096];
            values[1234] = value;
            let got = decoded(codec, &encoded(codec, &values, 9), 4096);
            assert!((got[1234] / value - 1.0).abs() < 1e-5, "eden:{bits}: {value} became {}", got[1234]);
        }
        // The same values at any power of two have the same codes and a shifted scale.
        let mut random = Random::new(14, Purpose::Noise, &[]);
        let values = normal(&mut random, 300, 1.0);
        let plain = decoded(codec, &encoded(codec, &values, 3), 300);
        for power in [-90, -20, 40, 100] {
            let factor = 2f32.powi(power);
            let scaled: Vec<f32> = values.iter().map(|value| value * factor).collect();
            let got = decoded(codec, &encoded(codec, &scaled, 3), 300);
            assert!(got.iter().zip(&plain).all(|(got, plain)| *got == plain * factor), "eden:{bits} at 2^{power}");
        }
        let mut out = vec![7u8];
        let error = encode_into(codec, &[0.0, f32::MAX, -f32::MAX], Rounding::Nearest, &mut out);
        assert_eq!((error, out), (Err(EncodeError::TooLarge { index: 2, codec }), vec![7]));
    }
}

#[test]
fn eden_costs_its_bits() {
    // fedavg-cnn, at 1 bit: 407 blocks of 4,096 and six smaller ones.
    let ratio = 4.0 * 1_663_370.0 / encoded_len(CodecSpec::Eden(1), 1_663_370).expect("fixed") as f64;
    assert!(ratio > 31.7, "{ratio}");
}

#[test]
fn sparse_masks_cost_what_golomb_says() {
    // Bits for each value that is sent, at random positions: b* + 1/(1−(1−p)^(2^b*)) + 1.
    let mut random = Random::new(15, Purpose::Noise, &[]);
    let count = 1_000_000;
    for (per_million, expected) in [(100_000, 5.756), (40_000, 7.085), (10_000, 9.108), (2500, 11.114), (1000, 12.495)]
    {
        let values = normal(&mut random, count, 0.01);
        let codec = CodecSpec::TopK(per_million);
        let bytes = encoded(codec, &values, 0);
        let bits = bytes.len() as f64 * 8.0 / f64::from(per_million);
        let ratio = 32.0 * count as f64 / (bytes.len() as f64 * 8.0);
        println!("{codec}: {bits:.3} bits a value sent, expected {expected}; {ratio:.1} times smaller than f32");
        assert!((bits / expected - 1.0).abs() < 0.05, "{codec}: {bits}, expected {expected}");
    }
}

/// What a payload of `topk` says, bit by bit.
fn sparse_oracle(golomb: usize, bytes: &[u8], count: usize) -> Vec<f32> {
    let sent = u32::from_le_bytes(bytes[..4].try_into().expect("four"));
    let mean = f32::from_le_bytes(bytes[4..8].try_into().expect("four"));
    let mut at = 64;
    let mut bit = || {
        at += 1;
        usize::from(bytes[(at - 1) / 8] >> ((at - 1) % 8) & 1)
    };
    let (mut out, mut next) = (vec![0f32; count], 0);
    for _ in 0..sent {
        while bit() == 1 {
            next += 1 << golomb;
        }
        next += (0..golomb).map(|place| bit() << place).sum::<usize>();
        out[next] = if bit() == 1 { -mean } else { mean };
        next += 1;
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn topk_sends_the_largest_as_their_mean(seed: u64, count in 1usize..3000, distinct in 1u64..2000) {
        let mut random = Random::new(seed, Purpose::Noise, &[]);
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let values: Vec<f32> =
            (0..count).map(|_| (random.below(2 * distinct) as f32 - distinct as f32) / 4096.0).collect();
        for (per_million, golomb) in [(100_000usize, 3), (250_000, 1), (500_000, 0)] {
            // Few values make the share that is kept another one, and with it the parameter.
            prop_assume!(count >= 300);
            let codec = CodecSpec::TopK(u32::try_from(per_million).expect("small"));
            let bytes = encoded(codec, &values, 1);
            let got = decoded(codec, &bytes, count);
            prop_assert_eq!(&got, &sparse_oracle(golomb, &bytes, count));

            let mut order: Vec<usize> = (0..count).filter(|index| values[*index] != 0.0).collect();
            order.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()).then(a.cmp(b)));
            order.truncate(((count * per_million + 500_000) / 1_000_000).max(1));
            let mean = order.iter().map(|index| f64::from(values[*index].abs())).sum::<f64>() / order.len().max(1) as f64;
            for (index, got) in got.iter().enumerate() {
                let expected = if order.contains(&index) { mean.copysign(f64::from(values[index])) } else { 0.0 };
                prop_assert!((f64::from(*got) - expected).abs() <= 1e-7 * mean + 1e-12, "{index}: {got} {expected}");
            }
        }
    }

    #[test]
    fn entropy_coding_changes_no_value(bits in 2u8..=8, seed: u64, count in 0usize..3000, scale in -30i32..30, key: u64) {
        let values = normal(&mut Random::new(seed, Purpose::Noise, &[]), count, 2f64.powi(scale));
        let [plain, coded] = [CodecSpec::Quantised(bits), CodecSpec::Entropy(bits)].map(|codec| {
            let bytes = encoded(codec, &values, key);
            decoded(codec, &bytes, count).into_iter().map(f32::to_bits).collect::<Vec<_>>()
        });
        prop_assert_eq!(plain, coded);
    }

    #[test]
    fn a_fold_adds_what_is_decoded(
        codec in prop::sample::select(update_codecs()),
        seed: u64,
        count in 0usize..6000,
        v in -10i8..=20,
        weight in 1u32..=1 << 24,
        start: i64,
    ) {
        let scale = 2f64.powi(i32::from(v)) / 10.0;
        let values = normal(&mut Random::new(seed, Purpose::Noise, &[]), count, scale);
        let bytes = encoded(codec, &values, seed);
        let fixed = FixedPoint::new(v, u64::from(weight)).expect("in range");
        prop_assert_eq!(check(codec, &bytes, count, &fixed), Ok(()));
        let mut acc = vec![start; count];
        fold_into(codec, &bytes, &fixed, weight, FoldSign::Add, &mut acc);
        for (acc, value) in acc.iter().zip(decoded(codec, &bytes, count)) {
            // A float times 2^F is exact in a double, and below 2^51.
            #[allow(clippy::cast_possible_truncation, reason = "an integer below 2^51")]
            let integer = (f64::from(value) * 2f64.powi(fixed.fraction_bits())).round_ties_even() as i64;
            prop_assert_eq!(*acc, start.wrapping_add(integer.wrapping_mul(i64::from(weight))));
        }
        fold_into(codec, &bytes, &fixed, weight, FoldSign::Subtract, &mut acc);
        prop_assert_eq!(acc, vec![start; count]);
    }
}

#[test]
fn a_check_refuses_what_lies_beyond_the_bound() {
    let fixed = FixedPoint::new(4, 1000).expect("in range");
    for codec in update_codecs() {
        let mut values = vec![0f32; 600];
        values[300] = 15.0;
        assert_eq!(check(codec, &encoded(codec, &values, 2), 600, &fixed), Ok(()), "{codec}");
        values[300] = 40.0;
        let refused = check(codec, &encoded(codec, &values, 2), 600, &fixed);
        assert!(matches!(refused, Err(DecodeError::OutOfRange { index: 256..=300, .. })), "{codec}: {refused:?}");
    }
}

#[test]
fn a_check_allows_the_bound_and_looks_into_blocks_that_could_exceed_it() {
    // 4,096 values of 15: their norm is 960, and a bound on the norm would refuse them.
    let fixed = FixedPoint::new(4, 1000).expect("in range");
    let mut random = Random::new(16, Purpose::Noise, &[]);
    let values: Vec<f32> = (0..4096).map(|_| if random.below(2) == 0 { 12.0 } else { -12.0 }).collect();
    let codec = CodecSpec::Eden(4);
    assert_eq!(check(codec, &encoded(codec, &values, 1), 4096, &fixed), Ok(()));
}

#[test]
fn values_that_no_codec_says_are_refused_with_their_place() {
    for codec in update_codecs() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![1.0f32; 600];
            values[517] = bad;
            let mut out = vec![9u8; 3];
            let error = encode_into(codec, &values, Rounding::Stochastic { key: 3 }, &mut out);
            assert_eq!((error, out), (Err(EncodeError::NotFinite { index: 517 }), vec![9; 3]), "{codec}");
        }
    }
}

#[test]
fn scales_and_magnitudes_that_no_encoder_writes_are_refused() {
    let fixed = FixedPoint::new(4, 1000).expect("in range");
    let with = |codec: CodecSpec, at: usize, value: f32| {
        let mut bytes = encoded(codec, &[0.5; 600], 1);
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let checked = check(codec, &bytes, 600, &fixed);
        assert!(
            decode_into(codec, &bytes, &mut [0.0; 600]).is_err()
                || matches!(checked, Err(DecodeError::OutOfRange { .. }))
        );
        checked
    };
    for bits in 1..=4 {
        let codec = CodecSpec::Eden(bits);
        assert_eq!(with(codec, 8, f32::NAN), Err(DecodeError::NotFinite { index: 0 }));
        assert_eq!(with(codec, 8, f32::INFINITY), Err(DecodeError::NotFinite { index: 0 }));
        assert!(matches!(with(codec, 8, -1.0), Err(DecodeError::Malformed(_))));
        assert!(matches!(with(codec, 8, 3e38), Err(DecodeError::OutOfRange { .. })));
    }
    let codec = CodecSpec::TopK(100_000);
    assert_eq!(with(codec, 4, f32::NAN), Err(DecodeError::NotFinite { index: 0 }));
    for value in [0.0, -0.0, -0.5] {
        assert!(matches!(with(codec, 4, value), Err(DecodeError::Malformed(_))));
    }
    assert!(matches!(with(codec, 4, 17.0), Err(DecodeError::OutOfRange { .. })));
    // One value more than the codec keeps, one fewer than the bits say, and a bit after the last.
    let honest = encoded(codec, &[0.5; 600], 1);
    for (at, change) in [(0, 1i8), (0, -1), (honest.len() - 1, -128)] {
        let mut bytes = honest.clone();
        bytes[at] = bytes[at].wrapping_add_signed(change);
        assert!(matches!(check(codec, &bytes, 600, &fixed), Err(DecodeError::Malformed(_))), "{at} {change}");
    }
}

#[test]
fn inv8_a_body_cut_at_any_byte_or_one_byte_longer_is_refused() {
    let fixed = FixedPoint::new(4, 1000).expect("in range");
    let values = normal(&mut Random::new(17, Purpose::Noise, &[]), 700, 0.1);
    for codec in update_codecs() {
        let mut bytes = encoded(codec, &values, 1);
        for cut in 0..bytes.len() {
            assert!(check(codec, &bytes[..cut], 700, &fixed).is_err(), "{codec} cut at {cut}");
            assert!(decode_into(codec, &bytes[..cut], &mut [0.0; 700]).is_err(), "{codec} cut at {cut}");
        }
        bytes.push(0);
        assert!(check(codec, &bytes, 700, &fixed).is_err(), "{codec} and a byte");
    }
}
