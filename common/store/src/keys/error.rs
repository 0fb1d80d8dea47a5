//! What can go wrong with keys.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no key to open a state folder with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system has no entropy.
    #[error("the system gave no random bytes")]
    Entropy,
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
    /// There is a sealed state folder, and nothing where its master key should be.
    #[error(
        "{}: the master key is not there, and {} is sealed with it; bring it back, or restore with the recovery key: \
         `backup restore --escrow … --recovery-key …`", .key.display(), .state.display()
    )]
    Missing {
        /// Where the key should be.
        key: PathBuf,
        /// The state folder.
        state: PathBuf,
    },
    /// A secret that others can read.
    #[error("{}: mode {mode:o}, but a key is for its owner only; run `chmod 600` on it, and make a new key if others may have read it", .path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A secret that is none.
    #[error("{}: {expected}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// No credential of the service manager.
    #[error(
        "the credential {0:?}: $CREDENTIALS_DIRECTORY is not set; start the daemon as a service with LoadCredentialEncrypted={0}:FILE"
    )]
    NoCredentials(String),
    /// The wrong key.
    #[error("{}: sealed with another master key than that of {source_name}; nothing was changed", .state.display())]
    Wrong {
        /// The state folder.
        state: PathBuf,
        /// Where the key came from.
        source_name: String,
    },
    /// A file of keys that was changed.
    #[error("{}: the keys are damaged (the file was changed or truncated); restore it from an escrow copy", .0.display())]
    Damaged(PathBuf),
    /// A key file of a later version.
    #[error("{}: format {found}, and this version reads format {expected}", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// Ours.
        expected: u16,
    },
    /// Records without keys.
    #[error(
        "{}: holds records or blobs but no key ring (keys/ring): it was written before encryption at rest, or its keys were lost. \
         Move the folder away to start anew, or restore it from a backup", .0.display()
    )]
    NoRing(PathBuf),
    /// The configuration names no key or several.
    #[error("[key]: expected exactly one of file, credential, passphrase_file")]
    Sources,
    /// A name that leads elsewhere.
    #[error("[key] credential = {0:?}: a name without slashes is expected")]
    CredentialName(String),
    /// Keys are made faster than they can be kept.
    #[error("{}: {limit} generations of keys, the most that a key ring holds", .path.display())]
    Generations {
        /// The ring.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// Only a key in a file can be replaced by us.
    #[error("the master key of {0} is not ours to replace: configure the new one and name the old one with --old-…")]
    NotOurs(String),
    /// An escrow copy whose time is over.
    #[error("{}: the escrow copy expired at {expired_unix_s} (seconds since 1970)", .path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// When.
        expired_unix_s: u64,
    },
    /// No copy that this recovery key opens.
    #[error("{}: no escrow copy is encrypted to this recovery key; without its key nothing can be recovered", .0.display())]
    NoEscrow(PathBuf),
}

impl KeyError {
    /// For `map_err`: an input/output error with what was being done to what.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
