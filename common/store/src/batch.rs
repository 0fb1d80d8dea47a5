//! Changes that are applied together or not at all.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::names::RECORD_NAME_BYTES;
use crate::seal::record::OVERHEAD_BYTES;
use crate::seal::scope::Scope;
use crate::{Compartment, StoreError};

/// The largest encoded value of a record, in bytes.
///
/// sled writes a leaf of its tree as one message, and spills a message of more than a quarter of a segment (512 KiB / 4) to a
/// file that it never syncs. A leaf splits above 16 entries and is merged below 4, so it has at most 20. What sled sees of a record is its
/// hashed name (48 bytes), the sealed value (4,096), the name inside (257) and what sealing adds (43): 20 × 4,444 and what sled adds to
/// each are less than 128 KiB.
pub const VALUE_BYTES_MAX: usize = 4096;

/// The longest table name plus key, in bytes; see [`VALUE_BYTES_MAX`] for what it protects.
pub const KEY_BYTES_MAX: usize = 256;

/// What sled writes around an entry, in bytes: lengths, and a share of the leaf's own fields; generously.
const SLED_ENTRY_BYTES: usize = 256;
const _: () = assert!(
    20 * (RECORD_NAME_BYTES + OVERHEAD_BYTES + KEY_BYTES_MAX + 1 + VALUE_BYTES_MAX + SLED_ENTRY_BYTES) < 128 << 10
);

/// A decoder may reserve this much for one record: the in-memory form of 4 KiB of elements that take a byte each.
const DECODE_BYTES_MAX: usize = 1 << 20;

const CODEC: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<DECODE_BYTES_MAX>,
> = bincode::config::standard().with_limit::<DECODE_BYTES_MAX>();

/// One record to be written or removed.
pub(crate) struct Change {
    /// The compartment it belongs to; the store itself when there is none.
    pub(crate) scope: Option<Arc<Scope>>,
    pub(crate) table: String,
    pub(crate) key: String,
    /// The encoded value; the record is removed without one.
    pub(crate) value: Option<Zeroizing<Vec<u8>>>,
}

/// Changes that are applied together or not at all.
#[derive(Default)]
pub struct Batch {
    pub(crate) changes: Vec<Change>,
    pub(crate) refused: Option<StoreError>,
}

impl Batch {
    /// No changes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a record, over the one that is there. Refuses a value that encodes to more than [`VALUE_BYTES_MAX`].
    pub fn put<T: Serialize + ?Sized>(&mut self, table: &str, key: &str, value: &T) -> Result<(), StoreError> {
        self.put_scoped(None, table, key, value)
    }

    /// The same in a device's compartment.
    pub fn put_in<T: Serialize + ?Sized>(
        &mut self,
        compartment: &Compartment<'_>,
        table: &str,
        key: &str,
        value: &T,
    ) -> Result<(), StoreError> {
        self.put_scoped(Some(Arc::clone(compartment.scope())), table, key, value)
    }

    /// Removes a record; it is no error if there is none. A name that no record can have is refused at the commit.
    pub fn remove(&mut self, table: &str, key: &str) {
        self.remove_scoped(None, table, key);
    }

    /// The same in a device's compartment.
    pub fn remove_in(&mut self, compartment: &Compartment<'_>, table: &str, key: &str) {
        self.remove_scoped(Some(Arc::clone(compartment.scope())), table, key);
    }

    fn put_scoped<T: Serialize + ?Sized>(
        &mut self,
        scope: Option<Arc<Scope>>,
        table: &str,
        key: &str,
        value: &T,
    ) -> Result<(), StoreError> {
        check_name(table, key)?;
        let value = Some(encode(table, key, value)?);
        self.changes.push(Change { scope, table: table.to_owned(), key: key.to_owned(), value });
        Ok(())
    }

    fn remove_scoped(&mut self, scope: Option<Arc<Scope>>, table: &str, key: &str) {
        match check_name(table, key) {
            Ok(()) => {
                self.changes.push(Change { scope, table: table.to_owned(), key: key.to_owned(), value: None });
            }
            Err(error) => self.refused = self.refused.take().or(Some(error)),
        }
    }

    /// The number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Whether a record can be called so.
pub(crate) fn check_name(table: &str, key: &str) -> Result<(), StoreError> {
    let refuse = |expected| Err(StoreError::Name { table: table.to_owned(), key: key.to_owned(), expected });
    if table.is_empty() || table.contains('\0') {
        return refuse("a table's name is not empty and has no NUL");
    }
    if table.len() + key.len() > KEY_BYTES_MAX {
        return refuse("a table's name and a key have at most 256 bytes together");
    }
    Ok(())
}

pub(crate) fn encode<T: Serialize + ?Sized>(
    table: &str,
    key: &str,
    value: &T,
) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let bytes = bincode::serde::encode_to_vec(value, CODEC).map_err(|error| StoreError::Encode {
        table: table.to_owned(),
        key: key.to_owned(),
        problem: error.to_string(),
    })?;
    let bytes = Zeroizing::new(bytes);
    if bytes.len() > VALUE_BYTES_MAX {
        let (table, key) = (table.to_owned(), key.to_owned());
        return Err(StoreError::TooLarge { table, key, bytes: bytes.len(), limit: VALUE_BYTES_MAX });
    }
    Ok(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(table: &str, key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let refuse = |problem: String| StoreError::Decode { table: table.to_owned(), key: key.to_owned(), problem };
    let (value, used) = bincode::serde::decode_from_slice(bytes, CODEC).map_err(|error| refuse(error.to_string()))?;
    // bincode accepts trailing bytes; a record of another type often decodes into them.
    if used != bytes.len() {
        return Err(refuse(format!("{} bytes are left over", bytes.len() - used)));
    }
    Ok(value)
}
