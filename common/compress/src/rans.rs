//! Range asymmetric numeral systems: an entropy coder for vectors of small symbols, near their entropy and fast to decode.
//!
//! Sources: Duda 2013, "Asymmetric numeral systems: entropy coding combining speed of Huffman coding with compression rate of
//! arithmetic coding" (arXiv 1311.2540); Giesen 2014, "Interleaved entropy coders" (arXiv 1402.3392), whose 32-bit states
//! with 16-bit words and 12-bit frequencies these are.
//!
//! A vector of symbols below 2^B goes in chunks of 65,536, each with a table of its own:
//!
//! ```text
//! 0  1  0 stored, 1 coded
//! stored:  the symbols, B bits each, as levels are in `qB`
//! coded:
//! 1  ⌈2^B/8⌉   which symbols occur: bit s
//!    1 or 2    for each that occurs, but the last: its frequency − 1, of 4,096 in all; 7 bits and, in bit 7, whether 5 more follow
//!    32        eight states of 32 bits, little-endian
//!    2 each    words of 16 bits, little-endian, until the symbols are complete
//! ```
//!
//! Symbol i belongs to state i mod 8. To read one from state x with slot = x mod 4096: the symbol is the one whose range of
//! frequencies holds the slot, x becomes frequency · ⌊x/4096⌋ + slot − start of the range, and while x < 2¹⁶ it takes a word:
//! x · 2¹⁶ + word. At the end of a chunk all states are 2¹⁶, which a decoder checks.

use crate::kernel::pack;

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::Decoder;
pub use encode::encode;

/// Symbols that share a table.
pub(crate) const CHUNK: usize = 1 << 16;

const STATES: usize = 8;
const FREQUENCY_BITS: u32 = 12;
const TOTAL: u32 = 1 << FREQUENCY_BITS;
const SLOTS: usize = TOTAL as usize;
const STATE_MIN: u32 = 1 << 16;

const STORED: u8 = 0;
const CODED: u8 = 1;

/// No more than so many bytes come of `count` symbols of `bits` bits.
pub fn encoded_len_max(bits: u8, count: usize) -> usize {
    let (whole, rest) = (count / CHUNK, count % CHUNK);
    whole * stored_len(bits, CHUNK) + if rest == 0 { 0 } else { stored_len(bits, rest) }
}

/// No fewer than so many bytes come of `count` symbols.
pub fn encoded_len_min(count: usize) -> usize {
    count.div_ceil(CHUNK)
}

fn stored_len(bits: u8, count: usize) -> usize {
    1 + (count * usize::from(bits)).div_ceil(8)
}

/// Symbols packed as levels are: a level's low bits are its symbol.
pub(crate) fn pack_symbols(bits: u8, symbols: &[u8], packed: &mut [u8]) {
    let mut levels = [0i16; 256];
    for (symbols, packed) in symbols.chunks(256).zip(packed.chunks_mut(32 * usize::from(bits))) {
        for (level, symbol) in levels.iter_mut().zip(symbols) {
            *level = i16::from(*symbol);
        }
        pack::pack(bits, &levels[..symbols.len()], packed);
    }
}

/// The inverse of [`pack_symbols`].
pub(crate) fn unpack_symbols(bits: u8, packed: &[u8], symbols: &mut [u8]) {
    let mut levels = [0i16; 256];
    for (symbols, packed) in symbols.chunks_mut(256).zip(packed.chunks(32 * usize::from(bits))) {
        let levels = &mut levels[..symbols.len()];
        pack::unpack(bits, packed, levels);
        for (symbol, level) in symbols.iter_mut().zip(levels) {
            *symbol = level.to_le_bytes()[0] & (0xff >> (8 - bits));
        }
    }
}
