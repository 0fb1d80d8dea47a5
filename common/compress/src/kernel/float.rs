//! `f32` payloads, and the step from accumulators back to floats.

use crate::codec::FoldSign;
use crate::error::{DecodeError, EncodeError};

/// 1.5·2⁵²: added to a double of magnitude up to 2⁵¹ it leaves the nearest integer, ties to even, in the low bits, in two's
/// complement relative to its own bits (Hacker's Delight, 2nd ed., §17.4 describes the method).
const MAGIC: f64 = 6_755_399_441_055_744.0;

const ABS_MASK: u32 = 0x7fff_ffff;
const INFINITY_BITS: u32 = 0x7f80_0000;

/// Values that are tested at once, so that a bad one is found without a branch a value.
const TILE: usize = 1024;

#[inline(always)]
fn magnitude_max(values: &[f32]) -> u32 {
    values.iter().fold(0, |max, value| max.max(value.to_bits() & ABS_MASK))
}

#[inline(always)]
fn magnitude_max_bytes(bytes: &[u8]) -> u32 {
    bytes.as_chunks::<4>().0.iter().fold(0, |max, value| max.max(u32::from_le_bytes(*value) & ABS_MASK))
}

kernel!(
    /// Writes `values` to `out`, 4 bytes each.
    encode / encode_body(values: &[f32], out: &mut [u8]) -> Result<(), EncodeError>
);

#[inline(always)]
fn encode_body(values: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
    for (tile, (values, out)) in values.chunks(TILE).zip(out.chunks_mut(TILE * 4)).enumerate() {
        if magnitude_max(values) >= INFINITY_BITS {
            let inside = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
            return Err(EncodeError::NotFinite { index: tile * TILE + inside });
        }
        for (out, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *out = value.to_le_bytes();
        }
    }
    Ok(())
}

kernel!(
    /// Reads `out.len()` values from `bytes`.
    decode / decode_body(bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError>
);

#[inline(always)]
fn decode_body(bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError> {
    for (tile, (bytes, out)) in bytes.chunks(TILE * 4).zip(out.chunks_mut(TILE)).enumerate() {
        for (out, value) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *out = f32::from_le_bytes(*value);
        }
        if magnitude_max(out) >= INFINITY_BITS {
            let inside = out.iter().position(|value| !value.is_finite()).unwrap_or(0);
            return Err(DecodeError::NotFinite { index: tile * TILE + inside });
        }
    }
    Ok(())
}

kernel!(
    /// Refuses NaN, infinities and magnitudes over `2^value_max_log2`. Among magnitudes the order of the bits is the order of
    /// the values, and NaN and infinity come last.
    check / check_body(bytes: &[u8], value_max_log2: i8) -> Result<(), DecodeError>
);

#[inline(always)]
fn check_body(bytes: &[u8], value_max_log2: i8) -> Result<(), DecodeError> {
    let bound = 2f32.powi(i32::from(value_max_log2)).to_bits();
    for (tile, bytes) in bytes.chunks(TILE * 4).enumerate() {
        if magnitude_max_bytes(bytes) > bound {
            let magnitudes = bytes.as_chunks::<4>().0.iter().map(|value| u32::from_le_bytes(*value) & ABS_MASK);
            // A NaN outranks a value that is merely too large: report what is worst.
            if let Some(inside) = magnitudes.clone().position(|magnitude| magnitude >= INFINITY_BITS) {
                return Err(DecodeError::NotFinite { index: tile * TILE + inside });
            }
            let inside = magnitudes.clone().position(|magnitude| magnitude > bound).unwrap_or(0);
            return Err(DecodeError::OutOfRange { index: tile * TILE + inside, value_max_log2 });
        }
    }
    Ok(())
}

kernel!(
    /// `acc ± weight · round_half_even(x · scale)`, `scale` a power of two with |x| · scale ≤ 2⁵¹.
    fold / fold_body(bytes: &[u8], scale: f64, weight: u32, sign: FoldSign, acc: &mut [i64])
);

#[inline(always)]
fn fold_body(bytes: &[u8], scale: f64, weight: u32, sign: FoldSign, acc: &mut [i64]) {
    let signed = signed_scale(scale, sign);
    for (acc, value) in acc.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *acc = acc.wrapping_add(weighted(f32::from_le_bytes(*value), signed, weight));
    }
}

kernel!(
    /// [`fold`] of decoded values; `scale` has the sign.
    fold_values / fold_values_body(values: &[f32], scale: f64, weight: u32, acc: &mut [i64])
);

#[inline(always)]
fn fold_values_body(values: &[f32], scale: f64, weight: u32, acc: &mut [i64]) {
    for (acc, value) in acc.iter_mut().zip(values) {
        *acc = acc.wrapping_add(weighted(*value, scale, weight));
    }
}

/// Half-even rounding is odd, so the sign may sit in the scale.
#[inline(always)]
pub(crate) fn signed_scale(scale: f64, sign: FoldSign) -> f64 {
    match sign {
        FoldSign::Add => scale,
        FoldSign::Subtract => -scale,
    }
}

/// `weight · round_half_even(value · scale)`. An `f32` times a power of two is exact in an `f64`, so the addition of
/// [`MAGIC`] is the only rounding. The factor of 32 bits lets a 64-bit product cost two 32-bit ones.
#[inline(always)]
pub(crate) fn weighted(value: f32, scale: f64, weight: u32) -> i64 {
    let integer = (f64::from(value) * scale + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits());
    integer.wrapping_mul(u64::from(weight)).cast_signed()
}

kernel!(
    /// `master[i] += acc[i] / weight_sum · unit`; `unit` is 2^−F.
    add_mean / add_mean_body(acc: &[i64], weight_sum: f64, unit: f64, master: &mut [f32])
);

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the sum is rounded to f32 once, at the end, on purpose")]
fn add_mean_body(acc: &[i64], weight_sum: f64, unit: f64, master: &mut [f32]) {
    for (master, acc) in master.iter_mut().zip(acc) {
        *master = (f64::from(*master) + *acc as f64 / weight_sum * unit) as f32;
    }
}
