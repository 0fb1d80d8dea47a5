//! The public face of the codecs: lengths, encoding, decoding, the check before a fold, and the fold.

use starling_spec::CodecSpec;
use starling_wire::CodecId;

use crate::error::{DecodeError, EncodeError};
use crate::fixed::FixedPoint;
use crate::kernel::{float, half, quantised};

/// Values that share an exponent in `qB`. One exponent byte a block costs 1/32 bit a value; 256 levels of any width fill
/// whole bytes, so blocks never share one.
pub const BLOCK: usize = 256;

/// How `qB` brings a value to a level. `f32` is exact and `f16` always rounds half-even; they take no notice of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest level, ties to even: for models.
    Nearest,
    /// Up or down at random so that the expectation is the value (to 2⁻²⁴ of a level): for updates, whose errors then
    /// average out over devices. The result is a function of the values and the key.
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
    }
}

/// The codec that a blob's header names, if there is one.
pub fn codec_spec(id: CodecId) -> Option<CodecSpec> {
    match (id.family, id.parameter) {
        (1, 0) => Some(CodecSpec::F32),
        (2, 0) => Some(CodecSpec::F16),
        (3, bits @ 2..=16) => Some(CodecSpec::Quantised(bits)),
        _ => None,
    }
}

/// The bytes of `count` values: the same for all values.
pub fn encoded_len(codec: CodecSpec, count: usize) -> usize {
    match codec {
        CodecSpec::F32 => count * 4,
        CodecSpec::F16 => count * 2,
        CodecSpec::Quantised(bits) => count.div_ceil(BLOCK) + (count * usize::from(bits)).div_ceil(8),
    }
}

/// Appends the encoded `values` to `out`.
///
/// # Errors
/// [`EncodeError`] when a value is not finite or too large for the codec; `out` is then as it was.
pub fn encode_into(codec: CodecSpec, values: &[f32], rounding: Rounding, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    out.resize(start + encoded_len(codec, values.len()), 0);
    let bytes = &mut out[start..];
    let encoded = match codec {
        CodecSpec::F32 => float::encode(values, bytes),
        CodecSpec::F16 => half::encode(values, bytes),
        CodecSpec::Quantised(bits) => {
            let (exponents, levels) = bytes.split_at_mut(values.len().div_ceil(BLOCK));
            quantised::encode(bits, values, rounding, exponents, levels)
        }
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
    }
}

/// Adds `weight · round_half_even(x · 2^F)` of every value to its accumulator, or takes it out again, in 64-bit ring arithmetic.
///
/// Call it only with bytes that passed [`check`] under the same `fixed`: others give wrong sums (never undefined behaviour).
///
/// # Panics
/// If `bytes` are not as many as `acc` values take: [`check`] was not asked.
pub fn fold_into(codec: CodecSpec, bytes: &[u8], fixed: &FixedPoint, weight: u32, sign: FoldSign, acc: &mut [i64]) {
    assert_eq!(bytes.len(), encoded_len(codec, acc.len()), "an update is folded only after its check");
    match codec {
        CodecSpec::F32 => float::fold(bytes, fixed.scale(), weight, sign, acc),
        CodecSpec::F16 => half::fold(bytes, fixed.scale(), weight, sign, acc),
        CodecSpec::Quantised(bits) => {
            let (exponents, levels) = bytes.split_at(acc.len().div_ceil(BLOCK));
            quantised::fold(bits, exponents, levels, fixed.fraction_bits(), weight, sign, acc);
        }
    }
}

fn expect_length(codec: CodecSpec, bytes: &[u8], count: usize) -> Result<(), DecodeError> {
    let expected = encoded_len(codec, count);
    if bytes.len() == expected { Ok(()) } else { Err(DecodeError::Length { expected, got: bytes.len() }) }
}
