//! The one encoding: integers little-endian, texts and lists behind their count, nothing optional, nothing left over.

use starling_wire::Reader;
use starling_wire::limits::NAME_BYTES_MAX;

use crate::refused::{Refused, within};

/// A byte that counts items, at most `max` of them.
pub(crate) fn read_count(reader: &mut Reader<'_>, what: &'static str, max: usize) -> Result<usize, Refused> {
    let count = usize::from(reader.u8()?);
    within(what, count, max)?;
    Ok(count)
}

/// The name of a task or a pattern of such names.
pub(crate) fn read_name(reader: &mut Reader<'_>) -> Result<String, Refused> {
    let length = usize::from(reader.u16()?);
    within("a name", length, NAME_BYTES_MAX)?;
    let text = std::str::from_utf8(reader.bytes(length)?).map_err(|_| Refused::Malformed("a name is not UTF-8"))?;
    check_name(text)?;
    Ok(text.to_owned())
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
