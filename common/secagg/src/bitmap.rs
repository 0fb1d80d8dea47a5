//! Sets of positions in a fixed order of bits.

use starling_wire::Reader;

use crate::refused::Refused;

/// A set of positions below a fixed length: bit `i` of byte `i / 8`; the bits after the last position are zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bitmap {
    length: usize,
    bytes: Vec<u8>,
}

impl Bitmap {
    pub(crate) fn empty(length: usize) -> Self {
        Self { length, bytes: vec![0; length.div_ceil(8)] }
    }

    /// Reads the set of positions below `length`, which is ours and not the peer's.
    pub(crate) fn read(reader: &mut Reader<'_>, length: usize) -> Result<Self, Refused> {
        let bytes = reader.bytes(length.div_ceil(8))?;
        let last = length % 8;
        if last != 0 && bytes.last().is_some_and(|byte| byte >> last != 0) {
            return Err(Refused::Malformed("a set names positions that do not exist"));
        }
        Ok(Self { length, bytes: bytes.to_vec() })
    }

    pub(crate) fn insert(&mut self, position: usize) {
        assert!(position < self.length, "a position of the set");
        self.bytes[position / 8] |= 1 << (position % 8);
    }

    pub(crate) fn contains(&self, position: usize) -> bool {
        position < self.length && self.bytes[position / 8] >> (position % 8) & 1 == 1
    }

    pub(crate) fn count(&self) -> usize {
        self.bytes.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.length).filter(|position| self.contains(*position))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}
