//! Frequencies of a chunk's symbols, and the chunk coded with them.

use super::{CHUNK, CODED, FREQUENCY_BITS, STATE_MIN, STATES, STORED, TOTAL, pack_symbols, stored_len};

/// Frequencies of the symbols, in [`TOTAL`]ths.
type Frequencies = [u16; 256];

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
                if step.frequency == 1 { x } else { ((u128::from(step.inverse) * u128::from(x)) >> 64) as u32 };
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
