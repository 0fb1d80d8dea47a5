//! Whole bits, most significant first.

use super::Malformed;

/// Collects bits.
#[derive(Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits in the last byte, 0 when it is full.
    used: u32,
}

impl BitWriter {
    /// Writes the lowest `count` bits of `bits`, at most 32.
    #[allow(clippy::cast_possible_truncation, reason = "bytes are cut out of an integer on purpose")]
    pub(crate) fn write(&mut self, bits: u32, count: u32) {
        let mut left = count;
        while left > 0 {
            if self.used == 0 {
                self.bytes.push(0);
            }
            let some = left.min(8 - self.used);
            left -= some;
            let part = (bits >> left & ((1 << some) - 1)) << (8 - self.used - some);
            if let Some(last) = self.bytes.last_mut() {
                *last |= part as u8;
            }
            self.used = (self.used + some) % 8;
        }
    }

    /// Writes a number in as few groups of four bits as it needs, each behind a bit that says whether one follows.
    pub(crate) fn write_number(&mut self, value: u32) {
        let groups = (32 - value.leading_zeros()).div_ceil(4).max(1);
        for group in (0..groups).rev() {
            self.write(u32::from(group > 0), 1);
            self.write(value >> (4 * group), 4);
        }
    }

    /// How many bits there are.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() * 8 - (8 - self.used as usize) % 8
    }

    /// Appends another's bits.
    #[allow(clippy::cast_possible_truncation, reason = "at most eight bits")]
    pub(crate) fn append(&mut self, other: &Self) {
        let mut left = other.len();
        for byte in &other.bytes {
            let some = left.min(8);
            left -= some;
            self.write(u32::from(*byte >> (8 - some)), some as u32);
        }
    }

    /// All bits, the last byte filled with zeros.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads bits back.
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// The next bit.
    pub(crate) fn bit(&mut self) -> Result<bool, Malformed> {
        let byte = self.bytes.get(self.position / 8).ok_or(Malformed("its bits end early"))?;
        let bit = byte >> (7 - self.position % 8) & 1 == 1;
        self.position += 1;
        Ok(bit)
    }

    /// The next `count` bits, at most 32.
    #[allow(clippy::cast_possible_truncation, reason = "at most 32 bits are left after the shift")]
    pub(crate) fn read(&mut self, count: u32) -> Result<u32, Malformed> {
        self.expect(1, count)?;
        let start = self.position / 8;
        let mut window = [0u8; 8];
        for (window, byte) in window.iter_mut().zip(&self.bytes[start..]) {
            *window = *byte;
        }
        let skip = (self.position % 8) as u32;
        self.position += count as usize;
        // 7 bits to skip and 32 to read lie within 64; a shift by 64, for no bits, gives none.
        Ok((u64::from_be_bytes(window) << skip).checked_shr(64 - count).unwrap_or(0) as u32)
    }

    /// A number that [`BitWriter::write_number`] wrote.
    pub(crate) fn number(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u32;
        for _ in 0..8 {
            let more = self.bit()?;
            value = value << 4 | self.read(4)?;
            if !more {
                return Ok(value);
            }
        }
        Err(Malformed("a number is longer than 32 bits"))
    }

    /// Refuses what cannot be there: `count` values of at least `bits` bits each. Called before they are given room.
    pub(crate) fn expect(&self, count: usize, bits: u32) -> Result<(), Malformed> {
        let left = self.bytes.len() * 8 - self.position;
        if count.saturating_mul(bits as usize) > left { Err(Malformed("its bits end early")) } else { Ok(()) }
    }

    /// Whether all bytes were read and what fills the last one is zero.
    pub(crate) fn at_end(&self) -> bool {
        self.position.div_ceil(8) == self.bytes.len()
            && self.bytes.last().is_none_or(|last| self.position.is_multiple_of(8) || last << (self.position % 8) == 0)
    }
}
