//! A chunk's table, and its symbols.

use super::{CHUNK, CODED, FREQUENCY_BITS, SLOTS, STATE_MIN, STATES, STORED, TOTAL, stored_len, unpack_symbols};
use crate::error::DecodeError;
use crate::kernel::pack;

const TRUNCATED: DecodeError = DecodeError::Malformed("entropy-coded symbols end too early");

/// Reads coded symbols chunk by chunk; a table of 16 KiB is all that it allocates.
#[derive(Debug)]
pub struct Decoder<'bytes> {
    bits: u8,
    rest: &'bytes [u8],
    table: Box<[u32; SLOTS]>,
}

impl<'bytes> Decoder<'bytes> {
    /// A decoder of symbols of `bits` bits (2 to 8).
    pub fn new(bits: u8, bytes: &'bytes [u8]) -> Self {
        Self { bits, rest: bytes, table: Box::new([0; SLOTS]) }
    }

    /// Fills `symbols`. A vector that was coded at once is read at once, or in parts of 65,536 and a last one.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`].
    pub fn read(&mut self, symbols: &mut [u8]) -> Result<(), DecodeError> {
        symbols.chunks_mut(CHUNK).try_for_each(|chunk| self.chunk(chunk))
    }

    /// Goes on with symbols of another width: the next vector in the same bytes.
    pub(crate) fn width(&mut self, bits: u8) {
        self.bits = bits;
    }

    /// The bytes that have not been read.
    pub fn rest(&self) -> &'bytes [u8] {
        self.rest
    }

    fn take(&mut self, count: usize) -> Result<&'bytes [u8], DecodeError> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn chunk(&mut self, symbols: &mut [u8]) -> Result<(), DecodeError> {
        match self.take(1)? {
            [STORED] => {
                let packed = self.take(stored_len(self.bits, symbols.len()) - 1)?;
                if self.bits == 8 {
                    symbols.copy_from_slice(packed);
                } else {
                    unpack_symbols(self.bits, packed, symbols);
                }
                let padding = pack::padding_mask(self.bits, symbols.len());
                if packed.last().is_some_and(|last| last & padding != 0) {
                    return Err(DecodeError::Malformed("the bits after the last stored symbol are not zero"));
                }
                Ok(())
            }
            [CODED] => {
                self.table()?;
                let mut states = [0u32; STATES];
                for (state, bytes) in states.iter_mut().zip(self.take(4 * STATES)?.as_chunks::<4>().0) {
                    *state = u32::from_le_bytes(*bytes);
                }
                let used = decode_words(&self.table, self.rest, &mut states, symbols).ok_or(TRUNCATED)?;
                self.take(used)?;
                if states == [STATE_MIN; STATES] {
                    Ok(())
                } else {
                    Err(DecodeError::Malformed("entropy-coded symbols do not end where they began"))
                }
            }
            _ => Err(DecodeError::Malformed("a chunk of symbols is stored or coded")),
        }
    }

    /// Reads a table of frequencies into slots: symbol, frequency − 1 and the slot's place in its range, in 8, 12 and 12 bits.
    fn table(&mut self) -> Result<(), DecodeError> {
        const SUM: DecodeError = DecodeError::Malformed("frequencies of symbols do not sum to 4,096");
        let bits = self.bits;
        let bitmap = self.take((1usize << bits).div_ceil(8))?;
        let symbols = (0u32..)
            .zip(bitmap)
            .flat_map(|(byte, here)| (0..8).filter(move |bit| here >> bit & 1 == 1).map(move |bit| byte * 8 + bit));
        let mut symbols = symbols.filter(move |symbol| symbol >> bits == 0).peekable();
        let bitmap_bits = bitmap.iter().map(|byte| byte.count_ones()).sum::<u32>();
        if bitmap_bits == 0 || bits < 3 && bitmap[0] >> (1 << bits) != 0 {
            return Err(DecodeError::Malformed("no symbol occurs, or one that is too wide"));
        }
        let mut start = 0usize;
        while let Some(symbol) = symbols.next() {
            let left = SLOTS.checked_sub(start).filter(|left| *left > 0).ok_or(SUM)?;
            let frequency = if symbols.peek().is_some() { self.frequency()? } else { left };
            let slots = self.table.get_mut(start..start + frequency).ok_or(SUM)?;
            let entry = symbol << 24 | u32::try_from(frequency - 1).map_err(|_| SUM)? << 12;
            for (place, slot) in (0..).zip(slots) {
                *slot = entry | place;
            }
            start += frequency;
        }
        Ok(())
    }

    fn frequency(&mut self) -> Result<usize, DecodeError> {
        let low = usize::from(self.take(1)?[0]);
        let high = if low & 0x80 != 0 { usize::from(self.take(1)?[0]) } else { 0 };
        Ok((low & 0x7f | high << 7) + 1)
    }
}

kernel!(
    /// Decodes `symbols` from `bytes` and gives how many it read, or `None` when they are too few.
    decode_words / decode_words_body(
        table: &[u32; SLOTS], bytes: &[u8], states: &mut [u32; STATES], symbols: &mut [u8],
    ) -> Option<usize>
);

#[inline(always)]
fn decode_words_body(
    table: &[u32; SLOTS],
    bytes: &[u8],
    states: &mut [u32; STATES],
    symbols: &mut [u8],
) -> Option<usize> {
    let mut rest = bytes;
    let mut x = *states;
    let (groups, tail) = symbols.as_chunks_mut::<STATES>();
    for group in groups {
        // At most one word a state; near the end of the bytes the words are put in front of zeros.
        let mut near_end = [0u8; 2 * STATES];
        let window = match rest.first_chunk::<{ 2 * STATES }>() {
            Some(window) => window,
            None => {
                near_end[..rest.len()].copy_from_slice(rest);
                &near_end
            }
        };
        let mut taken = 0usize;
        for (x, symbol) in x.iter_mut().zip(group.iter_mut()) {
            *symbol = step(table, x, window, &mut taken);
        }
        rest = rest.get(2 * taken..)?;
    }
    for (x, symbol) in x.iter_mut().zip(tail) {
        let mut taken = 0;
        let mut window = [0u8; 2 * STATES];
        let there = rest.len().min(2);
        window[..there].copy_from_slice(&rest[..there]);
        *symbol = step(table, x, &window, &mut taken);
        rest = rest.get(2 * taken..)?;
    }
    *states = x;
    Some(bytes.len() - rest.len())
}

/// One symbol from the state `x`, which takes a word from `window` when it has become small.
#[inline(always)]
fn step(table: &[u32; SLOTS], x: &mut u32, window: &[u8; 2 * STATES], taken: &mut usize) -> u8 {
    let entry = table[(*x & (TOTAL - 1)) as usize];
    let frequency = ((entry >> 12) & (TOTAL - 1)).wrapping_add(1);
    let next = frequency.wrapping_mul(*x >> FREQUENCY_BITS).wrapping_add(entry & (TOTAL - 1));
    let word = window.as_chunks::<2>().0[*taken & (STATES - 1)];
    let small = next < STATE_MIN;
    *x = if small { next << 16 | u32::from(u16::from_le_bytes(word)) } else { next };
    *taken = taken.wrapping_add(usize::from(small));
    entry.to_le_bytes()[3]
}
