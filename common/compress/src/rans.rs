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

use crate::error::DecodeError;
use crate::kernel::pack;

/// Symbols that share a table.
pub(crate) const CHUNK: usize = 1 << 16;

const STATES: usize = 8;
const FREQUENCY_BITS: u32 = 12;
const TOTAL: u32 = 1 << FREQUENCY_BITS;
const SLOTS: usize = TOTAL as usize;
const STATE_MIN: u32 = 1 << 16;

const STORED: u8 = 0;
const CODED: u8 = 1;

/// Frequencies of the symbols, in [`TOTAL`]ths.
type Frequencies = [u16; 256];

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

/// Appends the coded `symbols`, each below 2^`bits` (2 to 8), to `out`.
///
/// # Panics
/// If a symbol does not fit in `bits`.
pub fn encode(bits: u8, symbols: &[u8], out: &mut Vec<u8>) {
    let mut words = Vec::new();
    for symbols in symbols.chunks(CHUNK) {
        let start = out.len();
        encode_chunk(bits, symbols, &mut words, out);
        if out.len() - start >= stored_len(bits, symbols.len()) {
            out.truncate(start);
            out.push(STORED);
            store(bits, symbols, out);
        }
    }
}

fn store(bits: u8, symbols: &[u8], out: &mut Vec<u8>) {
    if bits == 8 {
        out.extend_from_slice(symbols);
        return;
    }
    let start = out.len();
    out.resize(start + (symbols.len() * usize::from(bits)).div_ceil(8), 0);
    pack_symbols(bits, symbols, &mut out[start..]);
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

fn encode_chunk(bits: u8, symbols: &[u8], words: &mut Vec<u16>, out: &mut Vec<u8>) {
    let frequencies = frequencies(symbols);
    let used = 1usize << bits;
    assert!(frequencies[used..].iter().all(|frequency| *frequency == 0), "symbols have {bits} bits");
    out.push(CODED);
    for eight in frequencies[..used].chunks(8) {
        out.push((0..).zip(eight).fold(0, |byte, (bit, frequency)| byte | u8::from(*frequency > 0) << bit));
    }
    let present = frequencies.iter().filter(|frequency| **frequency > 0).count();
    for frequency in frequencies.iter().filter(|frequency| **frequency > 0).take(present - 1) {
        let [low, high] = (frequency - 1).to_le_bytes();
        let high = high << 1 | low >> 7;
        out.push(low & 0x7f | u8::from(high > 0) << 7);
        if high > 0 {
            out.push(high);
        }
    }
    let states = encode_words(symbols, &frequencies, words);
    out.extend(states.into_iter().flat_map(u32::to_le_bytes));
    out.extend(words.iter().rev().flat_map(|word| word.to_le_bytes()));
}

/// What an encoder needs of a symbol. Division by the frequency is a multiplication by its inverse (Lemire, Kaser, Kurz 2019,
/// "Faster remainder by direct computation", §3: exact for dividends of 32 bits).
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    inverse: u64,
    frequency: u32,
    start: u32,
}

/// Codes `symbols` from the last to the first; `words` are in that order too.
#[allow(clippy::cast_possible_truncation, reason = "a quotient of 32 bits, and the low half of a state, on purpose")]
fn encode_words(symbols: &[u8], frequencies: &Frequencies, words: &mut Vec<u16>) -> [u32; STATES] {
    let mut steps = [Step::default(); 256];
    let mut start = 0;
    for (step, frequency) in steps.iter_mut().zip(frequencies) {
        let frequency = u32::from(*frequency);
        let inverse = if frequency > 1 { u64::MAX / u64::from(frequency) + 1 } else { 0 };
        *step = Step { inverse, frequency, start };
        start += frequency;
    }
    words.clear();
    let mut states = [STATE_MIN; STATES];
    for (group, symbols) in symbols.chunks(STATES).enumerate().rev() {
        debug_assert!(group * STATES < CHUNK, "a chunk is coded at once");
        for (state, symbol) in states.iter_mut().zip(symbols).rev() {
            let step = steps[usize::from(*symbol)];
            let mut x = *state;
            if x >> (32 - FREQUENCY_BITS) >= step.frequency {
                words.push(x as u16);
                x >>= 16;
            }
            let quotient =
                if step.frequency == 1 { x } else { (u128::from(step.inverse) * u128::from(x) >> 64) as u32 };
            let rest = x.wrapping_sub(quotient.wrapping_mul(step.frequency));
            *state = (quotient << FREQUENCY_BITS).wrapping_add(rest).wrapping_add(step.start);
        }
    }
    states
}

/// Frequencies that sum to [`TOTAL`], at least 1 for every symbol that occurs.
fn frequencies(symbols: &[u8]) -> Frequencies {
    // Four tables, so that a run of one symbol does not wait for its own counter.
    let mut counts = [[0u32; 256]; 4];
    let (fours, rest) = symbols.as_chunks::<4>();
    for four in fours {
        for (counts, symbol) in counts.iter_mut().zip(four) {
            counts[usize::from(*symbol)] += 1;
        }
    }
    for symbol in rest {
        counts[0][usize::from(*symbol)] += 1;
    }
    let counts: [u32; 256] = std::array::from_fn(|symbol| counts.iter().map(|counts| counts[symbol]).sum());
    let total = u64::from(counts.iter().sum::<u32>()).max(1);
    let mut frequencies = [0u16; 256];
    let mut sum = 0;
    for (frequency, count) in frequencies.iter_mut().zip(counts) {
        if count > 0 {
            let scaled = (u64::from(count) * u64::from(TOTAL) + total / 2) / total;
            *frequency = u16::try_from(scaled.max(1)).expect("at most 4,096");
        }
        sum += u32::from(*frequency);
    }
    // What rounding left over costs least where frequencies are largest.
    while sum != TOTAL {
        let largest = (0..256).max_by_key(|symbol| frequencies[*symbol]).expect("there are 256");
        let frequency = u32::from(frequencies[largest]);
        let changed =
            if sum < TOTAL { frequency + TOTAL - sum } else { frequency - (sum - TOTAL).min(frequency / 8).max(1) };
        sum = sum - frequency + changed;
        frequencies[largest] = u16::try_from(changed).expect("at most 4,096");
    }
    frequencies
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use starling_spec::random::{Purpose, Random};

    fn round_trip(bits: u8, symbols: &[u8]) -> usize {
        let mut bytes = Vec::new();
        encode(bits, symbols, &mut bytes);
        assert!(bytes.len() <= encoded_len_max(bits, symbols.len()) && bytes.len() >= encoded_len_min(symbols.len()));
        let mut decoder = Decoder::new(bits, &bytes);
        let mut back = vec![0; symbols.len()];
        decoder.read(&mut back).expect("what was written");
        assert!(decoder.rest().is_empty());
        assert_eq!(back, symbols);
        for cut in (0..bytes.len()).step_by(bytes.len() / 97 + 1) {
            assert!(Decoder::new(bits, &bytes[..cut]).read(&mut back).is_err(), "cut at {cut}");
        }
        bytes.len()
    }

    /// Symbols with a discretised two-sided exponential distribution, and the entropy of what was drawn in bits.
    fn laplace(bits: u8, scale: f64, count: usize) -> (Vec<u8>, f64) {
        let mut random = Random::new(8, Purpose::Noise, &[u64::from(bits), count as u64]);
        let limit = (1i32 << (bits - 1)) - 1;
        let mask = (1u16 << bits) - 1;
        let mut counts = [0f64; 256];
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "test symbols")]
        let symbols: Vec<u8> = (0..count)
            .map(|_| {
                let sign = if random.below(2) == 0 { -1.0 } else { 1.0 };
                let level = (sign * -scale * (1.0 - random.unit_f64()).ln()).round() as i32;
                let symbol = level.clamp(-limit, limit) as u8 & mask as u8;
                counts[usize::from(symbol)] += 1.0;
                symbol
            })
            .collect();
        let bits = counts.iter().filter(|count| **count > 0.0).map(|n| n * (count as f64 / n).log2()).sum();
        (symbols, bits)
    }

    #[test]
    fn symbols_come_back_and_take_their_entropy() {
        for bits in 2..=8 {
            for scale in [0.05, 0.4, 3.0, 30.0] {
                let (symbols, entropy) = laplace(bits, scale, 200_001);
                let length = round_trip(bits, &symbols) as f64 * 8.0;
                // A table and eight states a chunk, and frequencies of 12 bits.
                let allowed = entropy * 1.005 + 200_001.0 * 0.001 + 4.0 * 8.0 * 350.0;
                assert!(length < allowed, "{bits} bits, scale {scale}: {length} bits, entropy {entropy}");
            }
        }
    }

    #[test]
    fn every_count_and_every_skew_comes_back() {
        for count in (0..70).chain([255, 1000, CHUNK - 1, CHUNK, CHUNK + 1]) {
            for bits in [2, 5, 8] {
                round_trip(bits, &laplace(bits, 0.5, count).0);
                round_trip(bits, &vec![(1 << (bits - 1)) - 1; count]);
            }
        }
        // One symbol out of 65,536 is another, and all symbols are equally frequent.
        let mut rare = vec![0u8; CHUNK];
        rare[777] = 200;
        assert!(round_trip(8, &rare) < 150);
        let all: Vec<u8> = (0..=255).cycle().take(CHUNK).collect();
        assert_eq!(round_trip(8, &all), CHUNK + 1);
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        let mut back = [0u8; 4];
        for bytes in [&[2u8][..], &[1, 0], &[0], &[1, 0x30, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(Decoder::new(2, bytes).read(&mut back).is_err());
        }
        // Frequencies of 4,096 before the last symbol.
        let mut bytes = vec![1, 0b0111, 0xff, 31];
        bytes.resize(200, 0);
        assert!(matches!(Decoder::new(2, &bytes).read(&mut back), Err(DecodeError::Malformed(_))));
    }
}
