//! What can go wrong with the store.

use std::io;
use std::path::{Path, PathBuf};

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
    /// A blob whose content is not what its name says.
    #[error("blob {digest}: the file holds {found} instead; it is damaged, remove it and fetch it again")]
    Corrupt {
        /// The digest it should have.
        digest: String,
        /// The digest it has.
        found: String,
    },
}

impl StoreError {
    /// For `map_err`: an input/output error with what was being done to what.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
