//! The portable build of every kernel is the definition; the AVX2 build has to give the same bits, for tails of every length
//! and for every kind of float. On a processor without AVX2 both are the portable one.

use std::cell::Cell;

use crate::codec::{FoldSign, Rounding, check, decode_into, encode_into};
use crate::{CodecSpec, DecodeError, EncodeError, FixedPoint};

thread_local! {
    pub(super) static NARROW: Cell<bool> = const { Cell::new(false) };
}

type Everything = (
    Vec<Result<Vec<u8>, EncodeError>>,
    Result<(), DecodeError>,
    (Result<(), DecodeError>, Vec<u32>),
    Vec<i64>,
    Vec<u32>,
);

/// The results of all kernels on `values`, in bits.
fn everything(codec: CodecSpec, values: &[f32], fixed: &FixedPoint, key: u64) -> Everything {
    let encoded = [Rounding::Nearest, Rounding::Stochastic { key }].map(|rounding| {
        let mut bytes = Vec::new();
        encode_into(codec, values, rounding, &mut bytes).map(|()| bytes)
    });
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let mut acc = vec![i64::MAX - 5; values.len()];
    let mut decoded = vec![0f32; values.len()];
    let (mut checked, mut read) = (Ok(()), Ok(()));
    if let Ok(bytes) = &encoded[1] {
        checked = check(codec, bytes, values.len(), fixed);
        read = decode_into(codec, bytes, &mut decoded);
        for (sign, weight) in [(FoldSign::Add, 1 << 20), (FoldSign::Subtract, 77)] {
            crate::fold_into(codec, bytes, fixed, weight, sign, &mut acc);
        }
    }
    let mut master = values.to_vec();
    fixed.add_mean(&acc, 12_345, 1.0, &mut master);
    (encoded.into(), checked, (read, bits(&decoded)), acc, bits(&master))
}

#[test]
fn both_builds_of_every_kernel_give_the_same_bits() {
    let corners = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        1.5,
        2.5,
        -2.5,
        16.0,
        -16.0,
        1e-20,
        1e20,
        -3e38,
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::MIN_POSITIVE / 4.0,
        1e-45,
        f32::EPSILON,
        127.0,
        127.5,
        1.0 - f32::EPSILON,
    ];
    let mut random = starling_spec::random::Random::new(3, starling_spec::random::Purpose::Noise, &[]);
    let fixed = [CodecSpec::F32, CodecSpec::F16].into_iter().chain((2..=16).map(CodecSpec::Quantised));
    let others = [2, 5, 8].map(CodecSpec::Entropy).into_iter().chain((1..=4).map(CodecSpec::Eden));
    for codec in fixed.chain(others).chain([CodecSpec::TopK(40_000)]) {
        for length in (0u64..=70).chain([255, 256, 257, 511, 512, 1023, 1024, 1025, 1300, 4097]) {
            for kind in 0..4 {
                #[allow(clippy::cast_possible_truncation, reason = "test values are rounded on purpose")]
                let mut values: Vec<f32> = (0..length).map(|_| random.normal() as f32).collect();
                if kind > 0 {
                    for value in &mut values {
                        let pick = usize::try_from(random.below(corners.len() as u64 * 4)).expect("small");
                        *value = corners.get(pick).copied().unwrap_or(*value);
                    }
                }
                if kind == 2 && length > 0 {
                    let place = usize::try_from(random.below(length)).expect("small");
                    values[place] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][place % 3];
                }
                if kind == 3 {
                    values.iter_mut().for_each(|value| *value = value.clamp(-16.0, 16.0));
                }
                let fixed = FixedPoint::new(4, 1 << 22).expect("in range");
                let wide = everything(codec, &values, &fixed, length);
                NARROW.set(true);
                let narrow = everything(codec, &values, &fixed, length);
                NARROW.set(false);
                assert_eq!(wide, narrow, "{codec}, {length} values of kind {kind}");
            }
        }
    }
}
