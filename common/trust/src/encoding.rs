//! The one encoding: integers little-endian, texts and lists behind their count, nothing optional, nothing left over.

use starling_wire::Digest;
use starling_wire::limits::NAME_BYTES_MAX;

use crate::refused::{Refused, within};

/// Takes values off the front of a peer's bytes. It allocates texts only, each within its limit.
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
        let taken = self.bytes(N)?;
        Ok(taken.try_into().expect("exactly N bytes were taken"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Refused> {
        Ok(self.array::<1>()?[0])
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

    /// A byte that counts items, at most `max` of them.
    pub(crate) fn count(&mut self, what: &'static str, max: usize) -> Result<usize, Refused> {
        let count = usize::from(self.u8()?);
        within(what, count, max)?;
        Ok(count)
    }

    /// The name of a task or a pattern of such names.
    pub(crate) fn name(&mut self) -> Result<String, Refused> {
        let length = usize::from(self.u16()?);
        within("a name", length, NAME_BYTES_MAX)?;
        let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| Refused::Malformed("a name is not UTF-8"))?;
        check_name(text)?;
        Ok(text.to_owned())
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), Refused> {
        if self.rest.is_empty() { Ok(()) } else { Err(Refused::Malformed("bytes follow its end")) }
    }
}

/// What a name has to be, read or written.
pub(crate) fn check_name(name: &str) -> Result<(), Refused> {
    within("a name", name.len(), NAME_BYTES_MAX)?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(Refused::Malformed("a name is empty or holds control characters"));
    }
    Ok(())
}

/// Writes a name that [`check_name`] has passed.
pub(crate) fn put_name(out: &mut Vec<u8>, name: &str) {
    let length = u16::try_from(name.len()).expect("a checked name has at most 256 bytes");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(name.as_bytes());
}

/// Writes a count that a limit below 256 has passed.
pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.push(u8::try_from(count).expect("every list is limited below 256 items"));
}
