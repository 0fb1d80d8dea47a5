//! `eden:B` payloads: EDEN (Vargaftik, Ben Basat, Portnoy, Mendelson, Ben-Itzhak, Mitzenmacher 2022, "EDEN:
//! Communication-efficient and robust distributed mean estimation for federated learning", ICML, §3) block by block.
//!
//! ```text
//! y = H·D·x                       D: random signs, H: the Hadamard matrix of p rows, not normalised
//! q(i) = the centroid nearest to y(i)/‖x‖, which is nearly N(0, 1)
//! s = ‖x‖² / ⟨y, q⟩
//! x̂ = s·D·H·q
//! ```
//!
//! Were H·D a uniformly random rotation, that scale would make x̂ unbiased (ibid., Theorem 2.1); with the Hadamard matrix it is
//! so in the limit of large blocks. Its normalised error E‖x̂−x‖²/‖x‖² is 1/(1−d) − 1 with d the distortion of the quantiser
//! for N(0, 1): π/2−1 = 0.571, 0.133, 0.0358, 0.0096 at 1 to 4 bits.
//!
//! A vector is cut into blocks of 4,096, the rest into 2,048, 1,024 … 128 as its binary digits say, and what is left
//! (fewer than 128 values) is padded with zeros to a power of two of at least 8: nothing is padded to a power of two as a whole.

use starling_spec::CodecSpec;

use crate::codec::FoldSign;
use crate::error::{DecodeError, EncodeError};
use crate::kernel::float;
use crate::kernel::hadamard::{LANES, flip_signs, transform};

/// Values of a whole block: 16 KiB of floats stay in the first-level cache, and its scale costs 1/128 bit a value.
const BLOCK: usize = 4096;

/// The smallest block that is not padded.
const WHOLE_MIN: usize = 128;

/// Bytes of the seed in front.
const SEED_BYTES: usize = 8;

const SCALE_BYTES: usize = 4;

const INFINITY_BITS: u32 = 0x7f80_0000;

/// The centroids of the Lloyd-Max quantiser for N(0, 1) (Max 1960, "Quantizing for minimum distortion", Table I), upper half; the
/// lower half mirrors it. A test derives them anew.
const CENTROIDS: [&[f32]; 4] = [
    &[0.797_884_56],
    &[0.452_780_03, 1.510_417_6],
    &[0.245_094_18, 0.756_005_3, 1.343_909_3, 2.151_945_7],
    &[0.128_395_03, 0.388_048_3, 0.656_759_1, 0.942_340_5, 1.256_231_2, 1.618_046_4, 2.069_017_2, 2.732_589_6],
];

/// All 2^B centroids of B bits, ascending; the rest is not used.
const fn levels(bits: usize) -> [f32; 16] {
    let upper = CENTROIDS[bits - 1];
    let mut all = [0f32; 16];
    let mut index = 0;
    while index < upper.len() {
        all[upper.len() + index] = upper[index];
        all[upper.len() - 1 - index] = -upper[index];
        index += 1;
    }
    all
}

/// A block: where its values start, how many there are, and how many coordinates are sent.
#[derive(Debug, Clone, Copy)]
struct Block {
    start: usize,
    len: usize,
    padded: usize,
}

impl Block {
    fn bytes(self, bits: u8) -> usize {
        SCALE_BYTES + self.padded / 8 * usize::from(bits)
    }
}

/// The blocks of `count` values.
fn blocks(count: usize) -> impl Iterator<Item = Block> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = count - start;
        let len = match rest {
            0 => return None,
            BLOCK.. => BLOCK,
            WHOLE_MIN.. => 1 << rest.ilog2(),
            _ => rest,
        };
        let block = Block { start, len, padded: len.next_power_of_two().max(LANES) };
        start += len;
        Some(block)
    })
}

/// Bytes of `count` values.
pub(crate) fn encoded_len(bits: u8, count: usize) -> usize {
    let whole = Block { start: 0, len: BLOCK, padded: BLOCK }.bytes(bits) * (count / BLOCK);
    SEED_BYTES + whole + blocks(count % BLOCK).map(|block| block.bytes(bits)).sum::<usize>()
}

/// The key of a seed's signs.
fn sign_key(seed: u64) -> u64 {
    use starling_spec::random::{Purpose, Random};
    Random::new(seed, Purpose::Rotate, &[]).key()
}

/// The first word of the signs of a block that starts at `start`: words are not shared, for a padded block has at most 128
/// coordinates and is the last.
fn sign_word(start: usize) -> u64 {
    start as u64 / 64
}

/// Writes `values` to `out`, [`encoded_len`] bytes.
pub(crate) fn encode(bits: u8, values: &[f32], seed: u64, out: &mut [u8]) -> Result<(), EncodeError> {
    let (head, mut rest) = out.split_at_mut(SEED_BYTES);
    head.copy_from_slice(&seed.to_le_bytes());
    let key = sign_key(seed);
    let mut tile = [0f32; BLOCK];
    for block in blocks(values.len()) {
        let (bytes, after) = rest.split_at_mut(block.bytes(bits));
        rest = after;
        let (scale, codes) = bytes.split_at_mut(SCALE_BYTES);
        let values = &values[block.start..block.start + block.len];
        let chosen = encode_block(bits, values, key, sign_word(block.start), &mut tile[..block.padded], codes);
        if !(chosen * bound(bits, block.padded)).is_finite() {
            return Err(refuse(bits, values, block.start));
        }
        scale.copy_from_slice(&chosen.to_le_bytes());
    }
    Ok(())
}

#[cold]
fn refuse(bits: u8, values: &[f32], start: usize) -> EncodeError {
    if let Some(inside) = values.iter().position(|value| !value.is_finite()) {
        return EncodeError::NotFinite { index: start + inside };
    }
    let largest = (0..values.len()).max_by(|a, b| values[*a].abs().total_cmp(&values[*b].abs())).unwrap_or(0);
    EncodeError::TooLarge { index: start + largest, codec: CodecSpec::Eden(bits) }
}

/// No decoded value of a block is larger than this times its scale: the sum of `padded` times the largest centroid, with room
/// for the rounding of the sums.
fn bound(bits: u8, padded: usize) -> f32 {
    let largest = CENTROIDS[usize::from(bits) - 1].last().copied().unwrap_or(1.0);
    largest * padded as f32 * 1.001
}

/// 2^e for −126 ≤ e ≤ 127, as a double.
#[inline(always)]
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(u64::from((exponent + 1023).cast_unsigned()) << 52)
}

/// Writes the codes of one block and gives its scale, which is not finite when a value is not.
fn encode_block(bits: u8, values: &[f32], key: u64, word: u64, tile: &mut [f32], codes: &mut [u8]) -> f32 {
    match bits {
        1 => encode_1(values, key, word, tile, codes),
        2 => encode_2(values, key, word, tile, codes),
        3 => encode_3(values, key, word, tile, codes),
        4 => encode_4(values, key, word, tile, codes),
        _ => unreachable!("codecs have 1 to 4 bits"),
    }
}

kernel!(encode_1 / encode_body::<1>(values: &[f32], key: u64, word: u64, tile: &mut [f32], codes: &mut [u8]) -> f32);
kernel!(encode_2 / encode_body::<2>(values: &[f32], key: u64, word: u64, tile: &mut [f32], codes: &mut [u8]) -> f32);
kernel!(encode_3 / encode_body::<3>(values: &[f32], key: u64, word: u64, tile: &mut [f32], codes: &mut [u8]) -> f32);
kernel!(encode_4 / encode_body::<4>(values: &[f32], key: u64, word: u64, tile: &mut [f32], codes: &mut [u8]) -> f32);

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "scales and thresholds are rounded to f32 once, on purpose")]
fn encode_body<const BITS: usize>(values: &[f32], key: u64, word: u64, tile: &mut [f32], codes: &mut [u8]) -> f32 {
    let max = values.iter().fold(0u32, |max, value| max.max(value.to_bits() & 0x7fff_ffff));
    if max >= INFINITY_BITS {
        return f32::NAN;
    }
    if max == 0 {
        codes.fill(0);
        return 0.0;
    }
    // The largest magnitude is brought to 1 … 2 by a power of two, so that no sum overflows.
    let exponent = ((max >> 23).cast_signed() - 127).max(-126);
    let unit = power_of_two(-exponent) as f32;
    let (head, padding) = tile.split_at_mut(values.len());
    for (scaled, value) in head.iter_mut().zip(values) {
        *scaled = value * unit;
    }
    padding.fill(0.0);
    flip_signs(tile, key, word);
    let mut squares = [0f64; LANES];
    for eight in tile.as_chunks::<LANES>().0 {
        for (sum, value) in squares.iter_mut().zip(eight) {
            *sum += f64::from(*value) * f64::from(*value);
        }
    }
    let square = sum(squares);
    transform(tile);
    let norm = square.sqrt() as f32;
    let levels = const { levels(BITS) };
    let mut thresholds = [0f32; 16];
    for (threshold, pair) in thresholds.iter_mut().zip(levels.windows(2)) {
        *threshold = (pair[0] + pair[1]) * 0.5 * norm;
    }
    let mut products = [0f64; LANES];
    for (eight, code) in tile.as_chunks::<LANES>().0.iter().zip(codes.as_chunks_mut::<BITS>().0) {
        let mut indices = [0u32; LANES];
        let mut nearest = [levels[0]; LANES];
        for step in 0..(1 << BITS) - 1 {
            for lane in 0..LANES {
                let above = eight[lane] > thresholds[step];
                indices[lane] = indices[lane].wrapping_add(u32::from(above));
                nearest[lane] = if above { levels[step + 1] } else { nearest[lane] };
            }
        }
        for lane in 0..LANES {
            products[lane] += f64::from(eight[lane]) * f64::from(nearest[lane]);
        }
        let register = indices.iter().rev().fold(0u32, |register, index| register << BITS | index);
        code.copy_from_slice(&register.to_le_bytes()[..BITS]);
    }
    (square / sum(products) * power_of_two(exponent)) as f32
}

/// The sum of eight lanes, in this order.
#[inline(always)]
fn sum(v: [f64; LANES]) -> f64 {
    ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
}

/// The decoded values of one block, its padding included.
fn decode_block(bits: u8, scale: f32, codes: &[u8], key: u64, word: u64, tile: &mut [f32]) {
    match bits {
        1 => decode_1(scale, codes, key, word, tile),
        2 => decode_2(scale, codes, key, word, tile),
        3 => decode_3(scale, codes, key, word, tile),
        4 => decode_4(scale, codes, key, word, tile),
        _ => unreachable!("codecs have 1 to 4 bits"),
    }
}

kernel!(decode_1 / decode_body::<1>(scale: f32, codes: &[u8], key: u64, word: u64, tile: &mut [f32]));
kernel!(decode_2 / decode_body::<2>(scale: f32, codes: &[u8], key: u64, word: u64, tile: &mut [f32]));
kernel!(decode_3 / decode_body::<3>(scale: f32, codes: &[u8], key: u64, word: u64, tile: &mut [f32]));
kernel!(decode_4 / decode_body::<4>(scale: f32, codes: &[u8], key: u64, word: u64, tile: &mut [f32]));

#[inline(always)]
fn decode_body<const BITS: usize>(scale: f32, codes: &[u8], key: u64, word: u64, tile: &mut [f32]) {
    let levels = const { levels(BITS) };
    for (eight, code) in tile.as_chunks_mut::<LANES>().0.iter_mut().zip(codes.as_chunks::<BITS>().0) {
        let mut register = [0u8; 4];
        register[..BITS].copy_from_slice(code);
        let register = u32::from_le_bytes(register);
        for (lane, value) in eight.iter_mut().enumerate() {
            let index = (register >> (lane * BITS)) & ((1 << BITS) - 1);
            *value = if BITS == 1 {
                f32::from_bits(levels[1].to_bits() | (index ^ 1) << 31)
            } else {
                levels[index as usize & 15]
            };
        }
    }
    transform(tile);
    for value in tile.iter_mut() {
        *value *= scale;
    }
    flip_signs(tile, key, word);
}

/// Calls `each` with every block's values until it refuses one; `spared` says which blocks need not be decoded.
fn for_each_block(
    bits: u8,
    bytes: &[u8],
    count: usize,
    mut spared: impl FnMut(Block, f32) -> Result<bool, DecodeError>,
    mut each: impl FnMut(Block, &[f32]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let (seed, mut rest) = bytes.split_first_chunk::<SEED_BYTES>().ok_or(TRUNCATED)?;
    let key = sign_key(u64::from_le_bytes(*seed));
    let mut tile = [0f32; BLOCK];
    for block in blocks(count) {
        let (bytes, after) = rest.split_at_checked(block.bytes(bits)).ok_or(TRUNCATED)?;
        rest = after;
        let (scale, codes) = bytes.split_first_chunk::<SCALE_BYTES>().ok_or(TRUNCATED)?;
        let scale = f32::from_le_bytes(*scale);
        if !scale.is_finite() {
            return Err(DecodeError::NotFinite { index: block.start });
        }
        if scale.is_sign_negative() {
            return Err(DecodeError::Malformed("a block's scale is negative"));
        }
        if !spared(block, scale)? {
            let tile = &mut tile[..block.padded];
            decode_block(bits, scale, codes, key, sign_word(block.start), tile);
            each(block, &tile[..block.len])?;
        }
    }
    Ok(())
}

const TRUNCATED: DecodeError = DecodeError::Malformed("a rotated vector ends too early");

/// Refuses scales that no encoder writes and values over `2^value_max_log2`. A block whose scale allows no such value is not
/// decoded for it.
pub(crate) fn check(bits: u8, bytes: &[u8], count: usize, value_max_log2: i8) -> Result<(), DecodeError> {
    #[allow(clippy::cast_possible_truncation, reason = "a power of two from 2^-20 to 2^20")]
    let value_max = power_of_two(value_max_log2.into()) as f32;
    let spared = |block: Block, scale: f32| Ok(scale * bound(bits, block.padded) <= value_max);
    for_each_block(bits, bytes, count, spared, |block, values| {
        match values.iter().position(|value| !(value.abs() <= value_max)) {
            Some(inside) => Err(DecodeError::OutOfRange { index: block.start + inside, value_max_log2 }),
            None => Ok(()),
        }
    })
}

/// Fills `out`.
pub(crate) fn decode(bits: u8, bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError> {
    for_each_block(
        bits,
        bytes,
        out.len(),
        |_, _| Ok(false),
        |block, values| match values.iter().position(|value| !value.is_finite()) {
            Some(inside) => Err(DecodeError::NotFinite { index: block.start + inside }),
            None => {
                out[block.start..block.start + block.len].copy_from_slice(values);
                Ok(())
            }
        },
    )
}

/// `acc ± weight · round_half_even(x · scale)`.
pub(crate) fn fold(bits: u8, bytes: &[u8], scale: f64, weight: u32, sign: FoldSign, acc: &mut [i64]) {
    let scale = float::signed_scale(scale, sign);
    let folded = for_each_block(
        bits,
        bytes,
        acc.len(),
        |_, _| Ok(false),
        |block, values| {
            float::fold_values(values, scale, weight, &mut acc[block.start..block.start + block.len]);
            Ok(())
        },
    );
    debug_assert!(folded.is_ok(), "an update is folded only after its check");
}

#[cfg(test)]
mod tests;
