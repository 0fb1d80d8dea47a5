//! Huffman's code (1952), canonical: code lengths alone say everything, so they are all that is stored.

use std::cmp::Reverse;

use super::Malformed;
use super::bits::{BitReader, BitWriter};

/// No code is longer; lengths take four bits each.
const LENGTH_MAX: usize = 15;

/// The code of an alphabet: a length for each symbol, 0 for those that do not occur.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Huffman {
    lengths: Vec<u8>,
    /// How many codes have each length.
    counts: [u32; LENGTH_MAX + 1],
    /// The symbols in order of their codes.
    ordered: Vec<u16>,
    /// The code of each symbol; of those that do not occur, 0.
    codes: Vec<u32>,
}

impl Huffman {
    /// The best code for symbols that occur so often, none longer than 15 bits. At most 512 symbols.
    pub(crate) fn of(frequencies: &[u64]) -> Self {
        // Where the tree grows too deep, rare symbols are made less rare until it does not.
        let mut frequencies = frequencies.to_vec();
        loop {
            let lengths = depths(&frequencies);
            if lengths.iter().all(|length| usize::from(*length) <= LENGTH_MAX) {
                return Self::from_lengths(lengths);
            }
            for frequency in frequencies.iter_mut().filter(|frequency| **frequency > 0) {
                *frequency = *frequency / 2 + 1;
            }
        }
    }

    fn from_lengths(lengths: Vec<u8>) -> Self {
        let mut counts = [0; LENGTH_MAX + 1];
        for length in lengths.iter().filter(|length| **length > 0) {
            counts[usize::from(*length)] += 1;
        }
        #[allow(clippy::cast_possible_truncation, reason = "an alphabet has at most 512 symbols")]
        let mut ordered: Vec<u16> =
            (0..lengths.len()).filter(|symbol| lengths[*symbol] > 0).map(|symbol| symbol as u16).collect();
        ordered.sort_by_key(|symbol| lengths[usize::from(*symbol)]);
        let mut codes = vec![0; lengths.len()];
        let (mut code, mut length) = (0u32, 0);
        for symbol in &ordered {
            let own = lengths[usize::from(*symbol)];
            code <<= own - length;
            length = own;
            codes[usize::from(*symbol)] = code;
            code += 1;
        }
        Self { lengths, counts, ordered, codes }
    }

    /// Writes the lengths.
    pub(crate) fn write(&self, out: &mut BitWriter) {
        for length in &self.lengths {
            out.write(u32::from(*length), 4);
        }
    }

    /// Reads the code of an alphabet of `symbols`.
    pub(crate) fn read(bits: &mut BitReader<'_>, symbols: usize) -> Result<Self, Malformed> {
        let mut lengths = Vec::new();
        let mut room = 0u32;
        for _ in 0..symbols {
            #[allow(clippy::cast_possible_truncation, reason = "four bits")]
            let length = bits.read(4)? as u8;
            if length > 0 {
                room += 1 << (LENGTH_MAX - usize::from(length));
            }
            lengths.push(length);
        }
        // Kraft: a prefix code fills at most the whole tree. One that fills less has codes that mean nothing; only the code of a
        // single symbol does so.
        let used = lengths.iter().filter(|length| **length > 0).count();
        let whole = room == 1 << LENGTH_MAX;
        let single = used == 1 && room == 1 << (LENGTH_MAX - 1);
        if !(whole || single || used == 0) {
            return Err(Malformed("its Huffman code is no prefix code"));
        }
        Ok(Self::from_lengths(lengths))
    }

    /// Writes one symbol.
    pub(crate) fn encode(&self, symbol: u32, out: &mut BitWriter) {
        out.write(self.codes[symbol as usize], u32::from(self.lengths[symbol as usize]));
    }

    /// Reads one symbol.
    pub(crate) fn decode(&self, bits: &mut BitReader<'_>) -> Result<u16, Malformed> {
        let (mut code, mut first, mut index) = (0u32, 0u32, 0u32);
        for length in 1..=LENGTH_MAX {
            code = code << 1 | u32::from(bits.bit()?);
            let count = self.counts[length];
            // Codes of this length are first .. first + count.
            if code.wrapping_sub(first) < count {
                return Ok(self.ordered[(index + code - first) as usize]);
            }
            index += count;
            first = (first + count) << 1;
        }
        Err(Malformed("bits that are no Huffman code"))
    }
}

/// The depth of each symbol in Huffman's tree.
fn depths(frequencies: &[u64]) -> Vec<u8> {
    let mut lengths = vec![0u8; frequencies.len()];
    // Groups of symbols that hang under one node, by weight; the lightest two are joined, and all in them sink by one.
    let mut groups: Vec<(u64, Vec<usize>)> = (0..frequencies.len())
        .filter(|symbol| frequencies[*symbol] > 0)
        .map(|symbol| (frequencies[symbol], vec![symbol]))
        .collect();
    if let [(_, only)] = &groups[..] {
        lengths[only[0]] = 1;
        return lengths;
    }
    while groups.len() > 1 {
        groups.sort_by_key(|group| Reverse(group.0));
        let (Some(first), Some(second)) = (groups.pop(), groups.pop()) else { break };
        let mut joined = first.1;
        joined.extend(second.1);
        for symbol in &joined {
            lengths[*symbol] += 1;
        }
        groups.push((first.0 + second.0, joined));
    }
    lengths
}
