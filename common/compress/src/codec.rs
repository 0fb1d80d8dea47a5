//! The public face of the codecs: lengths, encoding, decoding, the check before a fold, and the fold.

use std::ops::RangeInclusive;

use starling_spec::CodecSpec;
use starling_wire::CodecId;

use crate::coded;
use crate::error::{DecodeError, EncodeError};
use crate::fixed::FixedPoint;
use crate::kernel::{eden, float, half, quantised, sparse};

/// Values that share an exponent in `qB`. One exponent byte a block costs 1/32 bit a value; 256 levels of any width fill
/// whole bytes, so blocks never share one.
pub const BLOCK: usize = 256;

/// How `qB` brings a value to a level, and what the signs of `eden` are drawn from. `f32` is exact, `f16` always rounds
/// half-even, and `topk` sends means: they take no notice of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest level, ties to even: for models. `eden` takes the seed 0.
    Nearest,
    /// Up or down at random so that the expectation is the value (to 2⁻²⁴ of a level): for updates, whose errors then
    /// average out over devices. The result is a function of the values and the key. `eden` takes the key as its seed, and
    /// sends it.
    Stochastic {
        /// `starling_spec::random::Random::key` of the update.
        key: u64,
    },
}

/// Whether a vector goes into the accumulators or comes out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoldSign {
    /// `acc += weight · X`.
    Add,
    /// `acc −= weight · X`: the exact inverse.
    Subtract,
}

/// How a codec is written in a blob's header.
pub fn codec_id(codec: CodecSpec) -> CodecId {
    match codec {
        CodecSpec::F32 => CodecId { family: 1, parameter: 0 },
        CodecSpec::F16 => CodecId { family: 2, parameter: 0 },
        CodecSpec::Quantised(bits) => CodecId { family: 3, parameter: bits },
        CodecSpec::Entropy(bits) => CodecId { family: 4, parameter: bits },
        CodecSpec::Eden(bits) => CodecId { family: 5, parameter: bits },
        CodecSpec::TopK(_) => CodecId { family: 6, parameter: 0 },
    }
}

/// The codec that a blob's header names, if there is one. `topk` is none: its fraction stands in the plan alone, so an update is
/// compared with the [`codec_id`] of the plan's codec.
pub fn codec_spec(id: CodecId) -> Option<CodecSpec> {
    match (id.family, id.parameter) {
        (1, 0) => Some(CodecSpec::F32),
        (2, 0) => Some(CodecSpec::F16),
        (3, bits @ 2..=16) => Some(CodecSpec::Quantised(bits)),
        (4, bits @ 2..=8) => Some(CodecSpec::Entropy(bits)),
        (5, bits @ 1..=4) => Some(CodecSpec::Eden(bits)),
        _ => None,
    }
}

/// The bytes of `count` values, where they are the same for all values: not for `qB+ec` and `topk`, see
/// [`encoded_len_bounds`].
pub fn encoded_len(codec: CodecSpec, count: usize) -> Option<usize> {
    match codec {
        CodecSpec::F32 => Some(count * 4),
        CodecSpec::F16 => Some(count * 2),
        CodecSpec::Quantised(bits) => Some(count.div_ceil(BLOCK) + (count * usize::from(bits)).div_ceil(8)),
        CodecSpec::Eden(bits) => Some(eden::encoded_len(bits, count)),
        CodecSpec::Entropy(_) | CodecSpec::TopK(_) => None,
    }
}

/// The fewest and the most bytes that an encoder writes for `count` values: what a receiver compares a declared length with
/// before it allocates.
pub fn encoded_len_bounds(codec: CodecSpec, count: usize) -> RangeInclusive<usize> {
    match codec {
        CodecSpec::Entropy(bits) => coded::encoded_len_bounds(bits, count),
        CodecSpec::TopK(per_million) => sparse::encoded_len_bounds(per_million, count),
        CodecSpec::F32 | CodecSpec::F16 | CodecSpec::Quantised(_) | CodecSpec::Eden(_) => {
            let fixed = encoded_len(codec, count).unwrap_or(0);
            fixed..=fixed
        }
    }
}

/// Appends the encoded `values` to `out`.
///
/// # Errors
/// [`EncodeError`] when a value is not finite or too large for the codec; `out` is then as it was.
pub fn encode_into(codec: CodecSpec, values: &[f32], rounding: Rounding, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    out.resize(start + encoded_len(codec, values.len()).unwrap_or(0), 0);
    let bytes = &mut out[start..];
    let encoded = match codec {
        CodecSpec::F32 => float::encode(values, bytes),
        CodecSpec::F16 => half::encode(values, bytes),
        CodecSpec::Quantised(bits) => {
            let (exponents, levels) = bytes.split_at_mut(values.len().div_ceil(BLOCK));
            quantised::encode(bits, values, rounding, exponents, levels)
        }
        CodecSpec::Entropy(bits) => coded::encode(bits, values, rounding, out),
        CodecSpec::Eden(bits) => {
            let seed = match rounding {
                Rounding::Nearest => 0,
                Rounding::Stochastic { key } => key,
            };
            eden::encode(bits, values, seed, bytes)
        }
        CodecSpec::TopK(per_million) => sparse::encode(per_million, values, out),
    };
    if encoded.is_err() {
        out.truncate(start);
    }
    encoded
}

/// Fills `out` with the values in `bytes`.
///
/// # Errors
/// [`DecodeError`] when the length is wrong, a value is not finite, or no encoder writes such bytes; what `out` holds then
/// is unspecified.
pub fn decode_into(codec: CodecSpec, bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError> {
    expect_length(codec, bytes, out.len())?;
    match codec {
        CodecSpec::F32 => float::decode(bytes, out),
        CodecSpec::F16 => half::decode(bytes, out),
        CodecSpec::Quantised(bits) => {
            let (exponents, levels) = bytes.split_at(out.len().div_ceil(BLOCK));
            quantised::check(bits, exponents, levels, out.len(), None)?;
            quantised::decode(bits, exponents, levels, out);
            Ok(())
        }
        CodecSpec::Entropy(bits) => coded::decode(bits, bytes, out),
        CodecSpec::Eden(bits) => eden::decode(bits, bytes, out),
        CodecSpec::TopK(per_million) => sparse::decode(per_million, bytes, out),
    }
}

/// Finds everything that could make [`fold_into`] go wrong.
///
/// # Errors
/// [`DecodeError`]: a wrong length, a value that is not finite, one beyond the plan's bound (`qB`: a block exponent that
/// allows one), or bytes that no encoder writes.
pub fn check(codec: CodecSpec, bytes: &[u8], count: usize, fixed: &FixedPoint) -> Result<(), DecodeError> {
    expect_length(codec, bytes, count)?;
    match codec {
        CodecSpec::F32 => float::check(bytes, fixed.value_max_log2()),
        CodecSpec::F16 => half::check(bytes, fixed.value_max_log2()),
        CodecSpec::Quantised(bits) => {
            let (exponents, levels) = bytes.split_at(count.div_ceil(BLOCK));
            quantised::check(bits, exponents, levels, count, Some(fixed.value_max_log2()))
        }
        CodecSpec::Entropy(bits) => coded::check(bits, bytes, count, Some(fixed.value_max_log2())),
        CodecSpec::Eden(bits) => eden::check(bits, bytes, count, fixed.value_max_log2()),
        CodecSpec::TopK(per_million) => sparse::check(per_million, bytes, count, fixed.value_max_log2()),
    }
}

/// Adds `weight · round_half_even(x · 2^F)` of every value to its accumulator, or takes it out again, in 64-bit ring arithmetic.
///
/// Call it only with bytes that passed [`check`] under the same `fixed`: others give wrong sums (never undefined behaviour).
///
/// # Panics
/// If `bytes` are fewer or more than `acc` values can take: [`check`] was not asked.
pub fn fold_into(codec: CodecSpec, bytes: &[u8], fixed: &FixedPoint, weight: u32, sign: FoldSign, acc: &mut [i64]) {
    let lengths = encoded_len_bounds(codec, acc.len());
    assert!(lengths.contains(&bytes.len()), "an update is folded only after its check");
    match codec {
        CodecSpec::F32 => float::fold(bytes, fixed.scale(), weight, sign, acc),
        CodecSpec::F16 => half::fold(bytes, fixed.scale(), weight, sign, acc),
        CodecSpec::Quantised(bits) => {
            let (exponents, levels) = bytes.split_at(acc.len().div_ceil(BLOCK));
            quantised::fold(bits, exponents, levels, fixed.fraction_bits(), weight, sign, acc);
        }
        CodecSpec::Entropy(bits) => coded::fold(bits, bytes, fixed.fraction_bits(), weight, sign, acc),
        CodecSpec::Eden(bits) => eden::fold(bits, bytes, fixed.scale(), weight, sign, acc),
        CodecSpec::TopK(per_million) => sparse::fold(per_million, bytes, fixed.scale(), weight, sign, acc),
    }
}

fn expect_length(codec: CodecSpec, bytes: &[u8], count: usize) -> Result<(), DecodeError> {
    let (expected, got) = (encoded_len_bounds(codec, count), bytes.len());
    match expected.contains(&got) {
        true => Ok(()),
        false if expected.start() == expected.end() => Err(DecodeError::Length { expected: *expected.start(), got }),
        false => Err(DecodeError::LengthBounds { min: *expected.start(), max: *expected.end(), got }),
    }
}
