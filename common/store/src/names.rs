//! What records and blobs are called on the disk: keyed hashes, so that neither names nor equality with a known model show.

use crate::keys::secret::{Secret, hex};

/// Which compartment something belongs to: a keyed hash of its id.
pub(crate) type Tag = [u8; 16];

/// A record's key in sled: 16 bytes each for its compartment, its table in that compartment and its key in that table.
pub(crate) type RecordName = [u8; RECORD_NAME_BYTES];
/// Bytes of a [`RecordName`].
pub(crate) const RECORD_NAME_BYTES: usize = 48;

/// The names of one store. They stay the same when keys are rotated.
pub(crate) struct Names {
    names: Secret,
    set: Secret,
}

impl Names {
    /// From the ring's key and the store's id.
    pub(crate) fn new(key: &Secret, id: &[u8; 16]) -> Self {
        Self { names: key.derive(id, "names"), set: key.derive(id, "set") }
    }

    /// The tag of a compartment; the store's own has the empty id.
    pub(crate) fn scope(&self, id: &str) -> Tag {
        self.half(&[b"scope\0", id.as_bytes()])
    }

    /// What the names of all records of a table begin with.
    pub(crate) fn table(&self, scope: &Tag, table: &str) -> [u8; 32] {
        let mut name = [0; 32];
        name[..16].copy_from_slice(scope);
        name[16..].copy_from_slice(&self.half(&[b"table\0", scope, table.as_bytes()]));
        name
    }

    /// A record's name.
    pub(crate) fn record(&self, scope: &Tag, table: &str, key: &str) -> RecordName {
        let mut name = [0; RECORD_NAME_BYTES];
        name[..32].copy_from_slice(&self.table(scope, table));
        name[32..].copy_from_slice(&self.half(&[b"record\0", scope, table.as_bytes(), b"\0", key.as_bytes()]));
        name
    }

    /// A blob's file name.
    pub(crate) fn blob(&self, scope: &Tag, digest: &str) -> String {
        hex(&self.names.mac(&[b"blob\0", scope, digest.as_bytes()]))
    }

    /// What a record adds to the sum over all records: see [`crate::root`].
    pub(crate) fn element(&self, name: &[u8], version: u64, tag: &[u8; 16]) -> [u8; 32] {
        self.set.mac(&[&version.to_le_bytes(), tag, name])
    }

    /// A seal under a backup's manifest.
    pub(crate) fn manifest(&self, digest: &[u8]) -> [u8; 32] {
        self.names.mac(&[b"manifest\0", digest])
    }

    fn half(&self, parts: &[&[u8]]) -> [u8; 16] {
        self.names.mac(parts)[..16].try_into().expect("the first half of 32 bytes")
    }
}
