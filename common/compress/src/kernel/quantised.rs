//! `qB` payloads: blocks of 256 values share a power-of-two scale, so a level is an exact integer multiple of it and the
//! fold needs shifts only.
//!
//! ```text
//! L = 2^(B−1) − 1
//! exponent = the smallest e ≥ −126 with max|x| ≤ L · 2^e
//! level    = round(x · 2^−e)            |level| ≤ L
//! ```
//!
//! A power of two above the tightest scale costs at most one bit of precision and makes decoding, scaling and folding exact.

use starling_spec::CodecSpec;

use crate::codec::{BLOCK, FoldSign, Rounding};
use crate::error::{DecodeError, EncodeError};
use crate::kernel::pack;
use crate::kernel::rounding::{Draw, STEPS, nearest, stochastic};

/// The smallest block exponent: 2^126 and its inverse are both normal floats. An all-zero block has it too.
const EXPONENT_MIN: i32 = -126;

/// The largest block exponent: even the level −2^(B−1), which no encoder writes, then decodes to a finite value.
const fn exponent_max(bits: u8) -> i32 {
    127 - bits as i32
}

/// Writes `values` as one exponent a block and packed levels.
pub(crate) fn encode(
    bits: u8,
    values: &[f32],
    rounding: Rounding,
    exponents: &mut [u8],
    levels: &mut [u8],
) -> Result<(), EncodeError> {
    if bits == 8 {
        encode_bytes(values, rounding, exponents, levels)
    } else {
        encode_packed(bits, values, rounding, exponents, levels)
    }
}

kernel!(
    encode_bytes / encode_bytes_body(values: &[f32], rounding: Rounding, exponents: &mut [u8], levels: &mut [u8])
        -> Result<(), EncodeError>
);

#[inline(always)]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "levels lie in ±127; a byte holds their two's complement"
)]
fn encode_bytes_body(
    values: &[f32],
    rounding: Rounding,
    exponents: &mut [u8],
    levels: &mut [u8],
) -> Result<(), EncodeError> {
    let blocks = values.chunks(BLOCK).zip(levels.chunks_mut(BLOCK)).zip(exponents);
    for (index, ((values, levels), exponent)) in blocks.enumerate() {
        let scale = block_scale(8, values, index, exponent)?;
        match rounding {
            Rounding::Nearest => {
                for (level, value) in levels.iter_mut().zip(values) {
                    *level = nearest(*value, scale) as u8;
                }
            }
            Rounding::Stochastic { key } => {
                let draw = Draw::of_block(key, index);
                for ((level, value), step) in levels.iter_mut().zip(values).zip(&STEPS) {
                    *level = stochastic(*value, scale, draw.bits(*step)) as u8;
                }
            }
        }
    }
    Ok(())
}

kernel!(
    encode_packed / encode_packed_body(
        bits: u8, values: &[f32], rounding: Rounding, exponents: &mut [u8], levels: &mut [u8],
    ) -> Result<(), EncodeError>
);

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "levels of at most 16 bits fit in an i16")]
fn encode_packed_body(
    bits: u8,
    values: &[f32],
    rounding: Rounding,
    exponents: &mut [u8],
    levels: &mut [u8],
) -> Result<(), EncodeError> {
    let mut tile = [0i16; BLOCK];
    let blocks = values.chunks(BLOCK).zip(levels.chunks_mut(block_bytes(bits))).zip(exponents);
    for (index, ((values, levels), exponent)) in blocks.enumerate() {
        let scale = block_scale(bits, values, index, exponent)?;
        let tile = &mut tile[..values.len()];
        match rounding {
            Rounding::Nearest => {
                for (level, value) in tile.iter_mut().zip(values) {
                    *level = nearest(*value, scale) as i16;
                }
            }
            Rounding::Stochastic { key } => {
                let draw = Draw::of_block(key, index);
                for ((level, value), step) in tile.iter_mut().zip(values).zip(&STEPS) {
                    *level = stochastic(*value, scale, draw.bits(*step)) as i16;
                }
            }
        }
        pack::pack(bits, tile, levels);
    }
    Ok(())
}

/// Bytes of the levels of a whole block.
const fn block_bytes(bits: u8) -> usize {
    BLOCK / 8 * bits as usize
}

/// Chooses the block's exponent, writes it, and gives `2^−e`.
#[inline(always)]
fn block_scale(bits: u8, values: &[f32], index: usize, exponent: &mut u8) -> Result<f32, EncodeError> {
    let max = values.iter().fold(0u32, |max, value| max.max(value.to_bits() & 0x7fff_ffff));
    match block_exponent(bits, max) {
        Some(chosen) => {
            *exponent = chosen.cast_unsigned();
            Ok(power_of_two(-i32::from(chosen)))
        }
        None => Err(refuse(bits, values, index)),
    }
}

#[cold]
fn refuse(bits: u8, values: &[f32], index: usize) -> EncodeError {
    let at = |inside: usize| index * BLOCK + inside;
    if let Some(inside) = values.iter().position(|value| !value.is_finite()) {
        return EncodeError::NotFinite { index: at(inside) };
    }
    let largest = (0..values.len()).max_by(|a, b| values[*a].abs().total_cmp(&values[*b].abs())).unwrap_or(0);
    EncodeError::TooLarge { index: at(largest), codec: CodecSpec::Quantised(bits) }
}

/// The smallest exponent under which a magnitude of the bits `max` fits in `bits`-bit levels.
///
/// With `max = m · 2^E`, 1 ≤ m < 2: `max ≤ L · 2^(E−B+2)` says `m ≤ 2 − 2^(2−B)`, and one exponent more always does.
#[inline(always)]
fn block_exponent(bits: u8, max: u32) -> Option<i8> {
    let bits_i = i32::from(bits);
    let biased = (max >> 23).cast_signed();
    // Fractions of m up to 1 − 2^(2−B), in units of 2^−23.
    let fraction_max = (1u32 << 23) - (1 << (25 - u32::from(bits)));
    let tight = biased - 127 - bits_i + 2;
    let exponent = tight + i32::from(max & 0x007f_ffff > fraction_max);
    // A subnormal maximum has E ≤ −127 by its bits, which is not its logarithm; the floor is above it anyway.
    let exponent = exponent.max(EXPONENT_MIN);
    if biased < 255 && exponent <= exponent_max(bits) { i8::try_from(exponent).ok() } else { None }
}

/// 2^e for −126 ≤ e ≤ 127.
#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits((exponent + 127).cast_unsigned() << 23)
}

/// Refuses exponents that no encoder writes, exponents that allow values over the plan's bound, and padding that is not zero.
///
/// With the bound 2^v: an exponent up to v − B + 1 allows no level above it; at v − B + 2, which an honest maximum
/// between 2^(v−1) and 2^v may need, levels go up to 2^(B−2) (a value of 2^v); above, only a zero block could be meant,
/// and an encoder gives that the smallest exponent.
pub(crate) fn check(
    bits: u8,
    exponents: &[u8],
    levels: &[u8],
    count: usize,
    value_max_log2: Option<i8>,
) -> Result<(), DecodeError> {
    if levels.last().is_some_and(|last| last & pack::padding_mask(bits, count) != 0) {
        return Err(DecodeError::Malformed("the bits after the last level are not zero"));
    }
    for (index, exponent) in exponents.iter().enumerate() {
        let exponent = i32::from(exponent.cast_signed());
        if exponent < EXPONENT_MIN || exponent > exponent_max(bits) {
            return Err(DecodeError::Malformed("a block's exponent is outside the codec's range"));
        }
        let Some(value_max_log2) = value_max_log2 else { continue };
        let free = i32::from(value_max_log2) - i32::from(bits) + 1;
        if exponent <= free {
            continue;
        }
        let start = index * BLOCK;
        let inside = if exponent > free + 1 {
            Some(0)
        } else {
            first_over(bits, block(bits, levels, index), BLOCK.min(count - start), 1 << (bits - 2))
        };
        if let Some(inside) = inside {
            return Err(DecodeError::OutOfRange { index: start + inside, value_max_log2 });
        }
    }
    Ok(())
}

fn block(bits: u8, levels: &[u8], index: usize) -> &[u8] {
    let start = index * block_bytes(bits);
    &levels[start..levels.len().min(start + block_bytes(bits))]
}

fn first_over(bits: u8, levels: &[u8], count: usize, bound: u16) -> Option<usize> {
    let mut tile = [0i16; BLOCK];
    pack::unpack(bits, levels, &mut tile[..count]);
    let max = tile.iter().fold(0, |max, level| level.unsigned_abs().max(max));
    if max > bound { tile.iter().position(|level| level.unsigned_abs() > bound) } else { None }
}

kernel!(
    /// Reads `out.len()` values; the exponents have been checked.
    decode / decode_body(bits: u8, exponents: &[u8], levels: &[u8], out: &mut [f32])
);

#[inline(always)]
fn decode_body(bits: u8, exponents: &[u8], levels: &[u8], out: &mut [f32]) {
    let mut tile = [0i16; BLOCK];
    let blocks = out.chunks_mut(BLOCK).zip(levels.chunks(block_bytes(bits))).zip(exponents);
    for ((out, levels), exponent) in blocks {
        let scale = power_of_two(i32::from(exponent.cast_signed()));
        if bits == 8 {
            for (out, level) in out.iter_mut().zip(levels) {
                *out = f32::from(level.cast_signed()) * scale;
            }
        } else {
            let tile = &mut tile[..out.len()];
            pack::unpack(bits, levels, tile);
            for (out, level) in out.iter_mut().zip(tile) {
                *out = f32::from(*level) * scale;
            }
        }
    }
}

kernel!(
    /// `acc ± weight · round_half_even(level · 2^(e+F))`.
    fold / fold_body(
        bits: u8, exponents: &[u8], levels: &[u8], fraction_bits: i32, weight: u32, sign: FoldSign, acc: &mut [i64],
    )
);

#[inline(always)]
fn fold_body(
    bits: u8,
    exponents: &[u8],
    levels: &[u8],
    fraction_bits: i32,
    weight: u32,
    sign: FoldSign,
    acc: &mut [i64],
) {
    let factor = match sign {
        FoldSign::Add => i64::from(weight),
        FoldSign::Subtract => -i64::from(weight),
    };
    let mut tile = [0i16; BLOCK];
    let blocks = acc.chunks_mut(BLOCK).zip(levels.chunks(block_bytes(bits))).zip(exponents);
    for ((acc, levels), exponent) in blocks {
        let shift = i32::from(exponent.cast_signed()) + fraction_bits;
        if bits == 8 && shift >= 0 {
            for (acc, level) in acc.iter_mut().zip(levels) {
                *acc = acc.wrapping_add(product(i32::from(level.cast_signed()), factor, shift));
            }
            continue;
        }
        let tile = &mut tile[..acc.len()];
        pack::unpack(bits, levels, tile);
        if shift < 0 {
            for level in tile.iter_mut() {
                *level = shifted_half_even(*level, shift.unsigned_abs());
            }
        }
        for (acc, level) in acc.iter_mut().zip(tile) {
            *acc = acc.wrapping_add(product(i32::from(*level), factor, shift.max(0)));
        }
    }
}

/// `level · factor · 2^shift` in the ring.
#[inline(always)]
fn product(level: i32, factor: i64, shift: i32) -> i64 {
    i64::from(level).wrapping_mul(factor).wrapping_shl(shift.cast_unsigned())
}

/// `level / 2^shift` to the nearest integer, ties to even. From 16 on it is 0: |level| ≤ 2¹⁵, and a half is even at 0.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the quotient is no larger than the level")]
fn shifted_half_even(level: i16, shift: u32) -> i16 {
    if shift >= 16 {
        return 0;
    }
    let level = i32::from(level);
    let odd = (level >> shift) & 1;
    let below_half = if shift == 0 { 0 } else { (1i32 << (shift - 1)) - 1 + odd };
    ((level + below_half) >> shift) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest exponent by search, in exact integers: `max ≤ L · 2^e` on the common scale of 2^−149−16.
    fn exponent_by_search(bits: u8, max: f32) -> i32 {
        let limit = f64::from((1u32 << (bits - 1)) - 1);
        (EXPONENT_MIN..200).find(|e| f64::from(max) <= limit * 2f64.powi(*e)).expect("some exponent fits")
    }

    #[test]
    fn the_exponent_is_the_smallest_that_holds_the_maximum() {
        for bits in 2..=16u8 {
            let top = f32::from(u8::MAX) / 256.0;
            for power in -149..=(126 - i32::from(bits)) {
                let base = 2f64.powi(power);
                let limit = f64::from((1u32 << (bits - 1)) - 1);
                for factor in [1.0, 1.25, f64::from(top) * 2.0, limit, limit * (1.0 + 1e-7)] {
                    #[allow(clippy::cast_possible_truncation, reason = "test values")]
                    let max = (base * factor) as f32;
                    let expected = exponent_by_search(bits, max);
                    let got = block_exponent(bits, max.to_bits());
                    let expected = if expected <= exponent_max(bits) { i8::try_from(expected).ok() } else { None };
                    assert_eq!(got, expected, "q{bits} of {max:e}");
                }
            }
        }
    }

    #[test]
    fn a_shift_rounds_half_to_even() {
        for level in -32768i32..=32767 {
            let small = i16::try_from(level).expect("in range");
            for shift in [0u32, 1, 2, 3, 7, 15, 16, 40] {
                let exact = f64::from(level) / 2f64.powi(shift.cast_signed());
                assert_eq!(f64::from(shifted_half_even(small, shift)), exact.round_ties_even(), "{level} >> {shift}");
            }
        }
    }
}
