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
    /// Writes the lowest `count` bits of `bits`.
    pub(crate) fn write(&mut self, bits: u32, count: u32) {
        for place in (0..count).rev() {
            if self.used == 0 {
                self.bytes.push(0);
            }
            let bit = u8::from(bits >> place & 1 == 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= bit << (7 - self.used);
            }
            self.used = (self.used + 1) % 8;
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
    pub(crate) fn append(&mut self, other: &Self) {
        for position in 0..other.len() {
            self.write(u32::from(other.bytes[position / 8] >> (7 - position % 8)), 1);
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
    pub(crate) fn read(&mut self, count: u32) -> Result<u32, Malformed> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.bit()?);
        }
        Ok(value)
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
