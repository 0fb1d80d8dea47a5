//! `f16` payloads. The conversions are the `half` crate's, which uses F16C where the processor has it.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::codec::FoldSign;
use crate::error::{DecodeError, EncodeError};
use crate::kernel::float;
use starling_spec::CodecSpec;

/// Values converted at once.
const TILE: usize = 256;

const ABS_MASK: u16 = 0x7fff;
const INFINITY_BITS: u16 = 0x7c00;

/// Writes `values` to `out`, 2 bytes each, rounded half-even.
pub(crate) fn encode(values: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
    let mut tile = [f16::ZERO; TILE];
    for (index, (values, out)) in values.chunks(TILE).zip(out.chunks_mut(TILE * 2)).enumerate() {
        let tile = &mut tile[..values.len()];
        tile.convert_from_f32_slice(values);
        let bits: &[u16] = tile.reinterpret_cast();
        if magnitude_max(bits) >= INFINITY_BITS {
            // What is infinite only after the conversion was finite and too large.
            if let Some(inside) = values.iter().position(|value| !value.is_finite()) {
                return Err(EncodeError::NotFinite { index: index * TILE + inside });
            }
            let inside = tile.iter().position(|value| !value.is_finite()).unwrap_or(0);
            return Err(EncodeError::TooLarge { index: index * TILE + inside, codec: CodecSpec::F16 });
        }
        for (out, bits) in out.as_chunks_mut::<2>().0.iter_mut().zip(bits) {
            *out = bits.to_le_bytes();
        }
    }
    Ok(())
}

/// Reads `out.len()` values from `bytes`.
pub(crate) fn decode(bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError> {
    let mut tile = [0u16; TILE];
    for (index, (bytes, out)) in bytes.chunks(TILE * 2).zip(out.chunks_mut(TILE)).enumerate() {
        let bits = read(bytes, &mut tile);
        if magnitude_max(bits) >= INFINITY_BITS {
            return Err(DecodeError::NotFinite { index: index * TILE + first_over(bits, INFINITY_BITS - 1) });
        }
        bits.reinterpret_cast::<f16>().convert_to_f32_slice(out);
    }
    Ok(())
}

/// Refuses NaN, infinities and magnitudes over `2^value_max_log2`.
pub(crate) fn check(bytes: &[u8], value_max_log2: i8) -> Result<(), DecodeError> {
    let bound = match value_max_log2 {
        16.. => f16::MAX.to_bits(),
        -24..=15 => f16::from_f32(2f32.powi(i32::from(value_max_log2))).to_bits(),
        _ => 0,
    };
    let mut tile = [0u16; TILE];
    for (index, bytes) in bytes.chunks(TILE * 2).enumerate() {
        let bits = read(bytes, &mut tile);
        if magnitude_max(bits) > bound {
            let nonfinite = bits.iter().position(|bits| bits & ABS_MASK >= INFINITY_BITS);
            return Err(match nonfinite {
                Some(inside) => DecodeError::NotFinite { index: index * TILE + inside },
                None => DecodeError::OutOfRange { index: index * TILE + first_over(bits, bound), value_max_log2 },
            });
        }
    }
    Ok(())
}

/// `acc ± weight · round_half_even(x · scale)`.
pub(crate) fn fold(bytes: &[u8], scale: f64, weight: u32, sign: FoldSign, acc: &mut [i64]) {
    let scale = float::signed_scale(scale, sign);
    let mut tile = [0u16; TILE];
    let mut values = [0f32; TILE];
    for (bytes, acc) in bytes.chunks(TILE * 2).zip(acc.chunks_mut(TILE)) {
        let bits = read(bytes, &mut tile);
        let values = &mut values[..bits.len()];
        bits.reinterpret_cast::<f16>().convert_to_f32_slice(values);
        float::fold_values(values, scale, weight, acc);
    }
}

fn read<'tile>(bytes: &[u8], tile: &'tile mut [u16; TILE]) -> &'tile [u16] {
    let tile = &mut tile[..bytes.len() / 2];
    for (bits, bytes) in tile.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *bits = u16::from_le_bytes(*bytes);
    }
    tile
}

#[inline]
fn magnitude_max(bits: &[u16]) -> u16 {
    bits.iter().fold(0, |max, bits| max.max(bits & ABS_MASK))
}

fn first_over(bits: &[u16], bound: u16) -> usize {
    bits.iter().position(|bits| bits & ABS_MASK > bound).unwrap_or(0)
}
