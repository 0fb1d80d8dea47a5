//! A sealed record.
//!
//! ```text
//!  0  1  format, 1
//!  1  4  generation of the data key
//!  5  8  version: the number of the commit that wrote it
//! 13 12  nonce, random
//! 25  …  AES-256-GCM of (length of the name u16, name, value), tag 16 at the end
//! ```
//!
//! Associated data: the store's id, the record's name in sled (a keyed hash of compartment, table and key) and the first 13 bytes.
//! A record under another name, of another version or of another store does not open.
//!
//! **Nonces** are 96 random bits. With at most 2³² seals under one key two of them are equal with probability below 2⁻³²
//! (NIST SP 800-38D, 8.3); [`SEALS_PER_KEY_MAX`] holds that, and the store takes a new data key at half of it.

use zeroize::Zeroizing;

use super::scope::Scope;
use crate::StoreError;
use crate::keys::secret::{NONCE_BYTES, TAG_BYTES, random};
use crate::names::{RECORD_NAME_BYTES, RecordName};

/// Seals under one data key, at most.
pub(crate) const SEALS_PER_KEY_MAX: u64 = 1 << 32;

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 13;

/// What sealing adds to a name and a value, in bytes.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + NONCE_BYTES + 2 + TAG_BYTES;

/// A record in the clear.
pub(crate) struct Opened {
    /// `table NUL key`.
    pub(crate) name: String,
    pub(crate) value: Zeroizing<Vec<u8>>,
}

fn associated(scope: &Scope, stored: &[u8], header: &[u8]) -> [u8; 16 + RECORD_NAME_BYTES + HEADER_BYTES] {
    let mut bytes = [0; 16 + RECORD_NAME_BYTES + HEADER_BYTES];
    bytes[..16].copy_from_slice(&scope.store);
    bytes[16..16 + RECORD_NAME_BYTES].copy_from_slice(stored);
    bytes[16 + RECORD_NAME_BYTES..].copy_from_slice(header);
    bytes
}

/// Seals a record.
pub(crate) fn seal(
    scope: &Scope,
    stored: &RecordName,
    version: u64,
    name: &[u8],
    value: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let (generation, keys) = scope.newest();
    let mut bytes = Vec::with_capacity(OVERHEAD_BYTES + name.len() + value.len());
    bytes.push(FORMAT);
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes.extend_from_slice(&version.to_le_bytes());
    let associated = associated(scope, stored, &bytes);
    let nonce = random()?;
    bytes.extend_from_slice(&nonce);
    let length = u16::try_from(name.len()).expect("names have at most 257 bytes");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(value);
    keys.records.seal(nonce, &associated, &mut bytes, HEADER_BYTES + NONCE_BYTES);
    Ok(bytes)
}

/// Opens a record; `None` when it is not what was sealed under this name.
pub(crate) fn open(scope: &Scope, stored: &[u8], bytes: &[u8]) -> Option<Opened> {
    let header = bytes.get(..HEADER_BYTES)?;
    if header[0] != FORMAT || stored.len() != RECORD_NAME_BYTES {
        return None;
    }
    let keys = scope.generation(u32::from_le_bytes(header[1..5].try_into().ok()?))?;
    let nonce = bytes.get(HEADER_BYTES..HEADER_BYTES + NONCE_BYTES)?.try_into().ok()?;
    let mut sealed = Zeroizing::new(bytes[HEADER_BYTES + NONCE_BYTES..].to_vec());
    let opened = keys.records.open(nonce, &associated(scope, stored, header), &mut sealed)?;
    let (length, rest) = opened.split_first_chunk::<2>()?;
    let (name, value) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some(Opened { name: String::from_utf8(name.to_vec()).ok()?, value: Zeroizing::new(value.to_vec()) })
}

/// Version and tag, which stand for the record in the sum over all of them.
pub(crate) fn stamp(bytes: &[u8]) -> Option<(u64, [u8; TAG_BYTES])> {
    if bytes.len() < OVERHEAD_BYTES {
        return None;
    }
    let version = u64::from_le_bytes(bytes[5..13].try_into().ok()?);
    Some((version, *bytes.last_chunk::<TAG_BYTES>()?))
}
