//! Bytes in a fixed order, integers little-endian, nothing optional and nothing left over.

use starling_wire::Digest;

use crate::refused::Refused;

/// Takes values off the front of a peer's bytes; it allocates nothing.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Refused> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Refused::Malformed("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        Ok(self.bytes(N)?.try_into().expect("exactly N bytes were taken"))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Refused> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Refused> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Refused> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn digest(&mut self) -> Result<Digest, Refused> {
        Ok(Digest(self.array()?))
    }

    pub(crate) fn rest_len(&self) -> usize {
        self.rest.len()
    }

    /// Everything that is left.
    pub(crate) fn remainder(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn end(self) -> Result<(), Refused> {
        if self.rest.is_empty() { Ok(()) } else { Err(Refused::Malformed("bytes follow its end")) }
    }
}

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
