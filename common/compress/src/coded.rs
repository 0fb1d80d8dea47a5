//! `qB+ec` payloads: those of `qB`, entropy coded.
//!
//! ```text
//! exponents   one byte a block of 256, as symbols of 8 bits
//! levels      B bits each in two's complement, as symbols of B bits
//! ```
//!
//! each as [`crate::rans`] draws them. A decoder holds the exponents and one chunk of levels, whatever the model's size, and
//! treats it as the `qB` that it is.

use std::ops::RangeInclusive;

use crate::codec::{BLOCK, FoldSign, Rounding};
use crate::error::{DecodeError, EncodeError};
use crate::kernel::quantised;
use crate::rans::{self, CHUNK};

const BLOCKS: usize = CHUNK / BLOCK;

const _: () = assert!(CHUNK.is_multiple_of(BLOCK), "a chunk holds whole blocks");

pub(crate) fn encoded_len_bounds(bits: u8, count: usize) -> RangeInclusive<usize> {
    let blocks = count.div_ceil(BLOCK);
    rans::encoded_len_min(blocks) + rans::encoded_len_min(count)
        ..=rans::encoded_len_max(8, blocks) + rans::encoded_len_max(bits, count)
}

/// Appends `values` to `out`.
pub(crate) fn encode(bits: u8, values: &[f32], rounding: Rounding, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let count = values.len();
    let mut exponents = vec![0u8; count.div_ceil(BLOCK)];
    let mut levels = vec![0u8; (count * usize::from(bits)).div_ceil(8)];
    quantised::encode(bits, values, rounding, &mut exponents, &mut levels)?;
    rans::encode(8, &exponents, out);
    if bits == 8 {
        rans::encode(8, &levels, out);
        return Ok(());
    }
    let mut symbols = vec![0u8; count];
    rans::unpack_symbols(bits, &levels, &mut symbols);
    rans::encode(bits, &symbols, out);
    Ok(())
}

/// Calls `each` with the index of a chunk's first value, how many it has, its exponents and its packed levels.
fn for_each_chunk(
    bits: u8,
    bytes: &[u8],
    count: usize,
    mut each: impl FnMut(usize, usize, &[u8], &[u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut decoder = rans::Decoder::new(8, bytes);
    let mut exponents = vec![0u8; count.div_ceil(BLOCK)];
    decoder.read(&mut exponents)?;
    decoder.width(bits);
    let mut symbols = vec![0u8; count.min(CHUNK)];
    let mut packed = vec![0u8; if bits == 8 { 0 } else { (symbols.len() * usize::from(bits)).div_ceil(8) }];
    for (index, exponents) in exponents.chunks(BLOCKS).enumerate() {
        let start = index * CHUNK;
        let symbols = &mut symbols[..CHUNK.min(count - start)];
        decoder.read(symbols)?;
        if bits == 8 {
            each(start, symbols.len(), exponents, symbols)?;
        } else {
            let packed = &mut packed[..(symbols.len() * usize::from(bits)).div_ceil(8)];
            rans::pack_symbols(bits, symbols, packed);
            each(start, symbols.len(), exponents, packed)?;
        }
    }
    if decoder.rest().is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes follow the last coded level")) }
}

/// Everything that [`quantised::check`] refuses, and bytes that no encoder writes.
pub(crate) fn check(bits: u8, bytes: &[u8], count: usize, value_max_log2: Option<i8>) -> Result<(), DecodeError> {
    for_each_chunk(bits, bytes, count, |start, count, exponents, levels| {
        quantised::check(bits, exponents, levels, count, value_max_log2).map_err(|error| shifted(error, start))
    })
}

fn shifted(error: DecodeError, start: usize) -> DecodeError {
    match error {
        DecodeError::OutOfRange { index, value_max_log2 } => {
            DecodeError::OutOfRange { index: start + index, value_max_log2 }
        }
        other => other,
    }
}

/// Fills `out`.
pub(crate) fn decode(bits: u8, bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError> {
    for_each_chunk(bits, bytes, out.len(), |start, count, exponents, levels| {
        quantised::check(bits, exponents, levels, count, None)?;
        quantised::decode(bits, exponents, levels, &mut out[start..start + count]);
        Ok(())
    })
}

/// `acc ± weight · round_half_even(level · 2^(e+F))`.
pub(crate) fn fold(bits: u8, bytes: &[u8], fraction_bits: i32, weight: u32, sign: FoldSign, acc: &mut [i64]) {
    let folded = for_each_chunk(bits, bytes, acc.len(), |start, count, exponents, levels| {
        quantised::fold(bits, exponents, levels, fraction_bits, weight, sign, &mut acc[start..start + count]);
        Ok(())
    });
    debug_assert!(folded.is_ok(), "an update is folded only after its check");
}
