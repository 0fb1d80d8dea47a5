//! Positions as Deep Compression stores them (Han, Mao, Dally 2016, §3.1, figure 2): for each kept weight the zeros since the last one,
//! in a few bits; where there are more, a filler stands for a stretch without a weight. The symbols are Huffman-coded (§4).

use super::Malformed;
use super::bits::{BitReader, BitWriter};
use super::huffman::Huffman;

/// Bits of a relative index that are tried; the paper takes 5, and 8 for convolutions.
const WIDTHS: std::ops::RangeInclusive<u32> = 2..=8;

/// The symbols for rising `kept` positions: `2^width − 1` is the filler, for as many zeros; what follows the last weight is not said.
#[allow(clippy::cast_possible_truncation, reason = "a gap is cut to 8 bits")]
fn symbols(kept: &[u32], width: u32) -> Vec<u16> {
    let filler = (1u32 << width) - 1;
    let mut symbols = Vec::with_capacity(kept.len());
    let mut next = 0;
    for position in kept {
        let gap = position - next;
        symbols.extend(std::iter::repeat_n(filler as u16, (gap / filler) as usize));
        symbols.push((gap % filler) as u16);
        next = position + 1;
    }
    symbols
}

/// Writes rising positions with the width that makes them smallest.
pub(crate) fn write(kept: &[u32], out: &mut BitWriter) {
    let best = WIDTHS
        .map(|width| {
            let symbols = symbols(kept, width);
            let mut frequencies = vec![0; 1 << width];
            for symbol in &symbols {
                frequencies[usize::from(*symbol)] += 1;
            }
            let code = Huffman::of(&frequencies);
            let mut bits = BitWriter::default();
            bits.write(width, 4);
            code.write(&mut bits);
            for symbol in &symbols {
                code.encode(u32::from(*symbol), &mut bits);
            }
            bits
        })
        .min_by_key(BitWriter::len);
    if let Some(best) = best {
        out.append(&best);
    }
}

/// Reads `count` rising positions below `len` and gives each to `found`.
pub(crate) fn read(
    bits: &mut BitReader<'_>,
    count: usize,
    len: usize,
    mut found: impl FnMut(u32),
) -> Result<(), Malformed> {
    let width = bits.read(4)?;
    if !WIDTHS.contains(&width) {
        return Err(Malformed("a width of relative indices that is not 2 to 8 bits"));
    }
    let filler = (1u16 << width) - 1;
    let code = Huffman::read(bits, 1 << width)?;
    let mut next = 0usize;
    for _ in 0..count {
        loop {
            let symbol = code.decode(bits)?;
            next += usize::from(symbol);
            if next >= len {
                return Err(Malformed("a position beyond its end"));
            }
            if symbol != filler {
                break;
            }
        }
        #[allow(clippy::cast_possible_truncation, reason = "a tensor has at most 2^30 values")]
        found(next as u32);
        next += 1;
    }
    Ok(())
}
