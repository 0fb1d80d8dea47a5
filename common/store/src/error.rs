//! What can go wrong with the store.

use std::io;
use std::path::{Path, PathBuf};

use crate::backup::BackupError;
use crate::keys::error::KeyError;

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process, or another part of this one, has it open.
    #[error("{}: in use by another process; stop it, or give this one a state folder of its own", .0.display())]
    InUse(PathBuf),
    /// The file system said no.
    #[error("{}: cannot {action}", .path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// sled failed.
    #[error("{}: the record log failed", .path.display())]
    Records {
        /// The folder of the records.
        path: PathBuf,
        /// What sled said.
        source: sled::Error,
    },
    /// A write failed earlier: what is on disk is uncertain, so nothing more is written by this process.
    #[error("{}: a write failed before; restart the process so that it recovers what is on disk", .0.display())]
    Halted(PathBuf),
    /// A table or key that cannot be used as a name.
    #[error("table {table:?}, key {key:?}: {expected}")]
    Name {
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// A value that is too large for a record.
    #[error("table {table}, key {key}: the value has {bytes} bytes and a record at most {limit}; store it as a blob")]
    TooLarge {
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// The encoded size.
        bytes: usize,
        /// The limit, [`crate::VALUE_BYTES_MAX`].
        limit: usize,
    },
    /// A value that has no encoding.
    #[error("table {table}, key {key}: the value cannot be encoded: {problem}")]
    Encode {
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// What the codec said.
        problem: String,
    },
    /// A record that is not of the type it is read as.
    #[error(
        "table {table}, key {key}: the record is not of the expected type ({problem}); was it written by another version?"
    )]
    Decode {
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// What the codec said.
        problem: String,
    },
    /// A blob's name that is no digest.
    #[error("blob {0:?}: a name is 64 lower-case hexadecimal digits, the SHA-256 of the content")]
    BlobName(String),
    /// A blob that is not what was stored under its name.
    #[error("blob {digest}: {problem}; it is damaged, remove it and fetch it again")]
    Corrupt {
        /// The digest it should have.
        digest: String,
        /// What is wrong.
        problem: String,
    },
    /// A file that is no blob of this store.
    #[error("{}: this file is no blob of this store, or its first bytes are damaged; remove it", .0.display())]
    DamagedBlob(PathBuf),
    /// A record that is not what was sealed under its name.
    #[error(
        "table {table}, key {key}: the record was changed or swapped on the disk; restore the folder from a backup"
    )]
    DamagedRecord {
        /// The table.
        table: String,
        /// The key, or the hash of it where the key cannot be read.
        key: String,
    },
    /// Records that are not those of the last commit.
    #[error(
        "{}: the records are not those of the last commit: one is older, missing or changed. Restore the folder from a backup", .0.display()
    )]
    Stale(PathBuf),
    /// A store that is older than one that was seen before.
    #[error("{}: {found} commits, but {expected} were seen before: an older copy of the folder was put in its place", .path.display())]
    RolledBack {
        /// The state folder.
        path: PathBuf,
        /// Commits that were seen.
        expected: u64,
        /// Commits that are there.
        found: u64,
    },
    /// A device whose key was destroyed.
    #[error("compartment {0:?}: forgotten")]
    Forgotten(String),
    /// An id that no compartment has.
    #[error("compartment {0:?}: an id has 1 to 128 bytes")]
    CompartmentId(String),
    /// A data key that has sealed as much as it may.
    #[error("{}: the data key has sealed 2^32 records; restart the process, it then takes a new one", .0.display())]
    Worn(PathBuf),
    /// There is no key, or not the right one.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A backup could not be made, read or restored.
    #[error(transparent)]
    Backup(#[from] BackupError),
}

impl StoreError {
    /// For `map_err`: an input/output error with what was being done to what.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
