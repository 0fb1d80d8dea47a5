//! Backups: online, consistent, incremental by content, and of ciphertext only.
//!
//! ```text
//! REPOSITORY/lock               one writer at a time
//! REPOSITORY/objects/<digest>   a sealed blob, or all sealed records at one commit, named by the SHA-256 of the file
//! REPOSITORY/backups/<id>       a manifest: what there was and the digest of every file; its last line is its own digest
//! ```
//!
//! What is stored is what lay in the state folder: sealed. **No key is in a backup**, not even wrapped: those of a forgotten device
//! can then not come back with it. Keys are escrowed apart ([`Store::escrow`](crate::Store::escrow)).
//!
//! A backup is taken between two commits: hard links of all blobs and a copy of the sealed records, under the lock of the
//! commit (milliseconds); the copying goes on beside the daemon's work. An object that is there is read and compared, and
//! written again if it has rotted.
//!
//! A restored store counts its epochs from 2²⁰ further on and its era one higher, so that no number of the lost time comes again.

mod create;
mod manifest;
mod restore;
mod verify;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use create::Created;
pub use manifest::Manifest;
pub use restore::{Restored, Skipped};
use ring::digest::{Context, SHA256};
pub use verify::{Fault, Verified};

use crate::keys::file::create_folder;
use crate::keys::secret::hex;
use crate::{StoreError, blobs};

/// Why a backup could not be made, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
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
    /// Somebody else writes to it.
    #[error("{}: another backup or verification is under way", .0.display())]
    InUse(PathBuf),
    /// A manifest that is none.
    #[error("{}: {problem}", .path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no such backup.
    #[error("{}: no backup {id:?}; `backup list` names those there are", .repository.display())]
    Unknown {
        /// The repository.
        repository: PathBuf,
        /// What was asked for.
        id: String,
    },
    /// There is no whole backup at all.
    #[error("{}: no backup that is whole ({faults} faults; `backup verify` names them)", .repository.display())]
    NoneGood {
        /// The repository.
        repository: PathBuf,
        /// How many faults there are in all of them.
        faults: usize,
    },
    /// The backup that was asked for is damaged.
    #[error("backup {id}: {}: {}", .fault.file.display(), .fault.problem)]
    Rotten {
        /// The backup.
        id: String,
        /// The first fault.
        fault: Fault,
    },
    /// There is something where the backup should go.
    #[error("{}: there are records already; move the folder away first, nothing is overwritten", .0.display())]
    Occupied(PathBuf),
    /// The keys are neither in the state folder nor given.
    #[error(
        "{}: there is no key ring, and a backup holds no keys; give the escrow copy and the recovery key \
         (--escrow DIR --recovery-key FILE)", .0.display()
    )]
    NoKeys(PathBuf),
    /// The keys are those of another store.
    #[error("the keys are those of store {keys}, the backup is of store {backup}")]
    OtherStore {
        /// The store's id in the keys.
        keys: String,
        /// The store's id in the backup.
        backup: String,
    },
}

impl BackupError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// How the names of folders begin in which a backup holds on to blobs while it copies them; they lie in the state folder.
pub(crate) const LINKS_PREFIX: &str = ".backup-";

/// How the names of folders begin into which a backup is restored; they lie beside the state folder.
pub(crate) const SCRATCH_PREFIX: &str = ".restore-";

/// Destroys the wraps of a key in the folders that verifications beside `state` use, or have left when they were killed.
pub(crate) fn destroy_in_scratches(state: &Path, tag: &crate::names::Tag) -> Result<(), StoreError> {
    let beside = crate::keys::file::parent(state);
    for name in blobs::list(beside)?.into_iter().filter(|name| name.starts_with(SCRATCH_PREFIX)) {
        crate::keys::compartment::destroy(&beside.join(name), tag)?;
    }
    Ok(())
}

/// A backup's name, and its manifest or what is wrong with that.
pub type Listed = (String, Result<Manifest, BackupError>);

/// A folder of backups of one store.
pub struct Repository {
    path: PathBuf,
    _lock: File,
}

impl Repository {
    /// Opens a folder of backups, or makes one.
    ///
    /// # Errors
    /// Another process has it open, or the disk says no.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        create_folder(path)?;
        create_folder(&path.join("objects"))?;
        create_folder(&path.join("backups"))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(BackupError::io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(BackupError::InUse(path.to_owned()).into()),
            Err(TryLockError::Error(source)) => Err(BackupError::io("lock", &lock_path)(source).into()),
        }
    }

    /// The backups there are, oldest first, each with its manifest or what is wrong with it.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let mut ids = blobs::list(&self.path.join("backups"))?;
        ids.retain(|id| !id.starts_with('.'));
        ids.sort();
        Ok(ids.into_iter().map(|id| (id.clone(), Manifest::read(&self.manifest(&id), &id))).collect())
    }

    fn manifest(&self, id: &str) -> PathBuf {
        self.path.join("backups").join(id)
    }

    fn object(&self, digest: &str) -> PathBuf {
        self.path.join("objects").join(digest)
    }
}

/// SHA-256 and length of a file, in 64 KiB of memory.
fn digest_of(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 << 10];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hex(context.finish().as_ref()), bytes));
        }
        context.update(&buffer[..read]);
        bytes += read as u64;
    }
}

/// Copies a file durably under a name that appears when it is whole.
fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    let folder = crate::keys::file::parent(to);
    let mut file = tempfile::Builder::new()
        .prefix(".tmp-")
        .tempfile_in(folder)
        .map_err(BackupError::io("create a file in", folder))?;
    let mut source = File::open(from).map_err(BackupError::io("read", from))?;
    io::copy(&mut source, &mut file).and_then(|_| file.as_file().sync_all()).map_err(BackupError::io("write", to))?;
    file.persist(to).map_err(|error| BackupError::io("rename to", to)(error.error))?;
    Ok(())
}

fn sync_folder(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(BackupError::io("sync the folder", path))
}

fn remove_file(path: &Path) -> Result<(), BackupError> {
    fs::remove_file(path).map_err(BackupError::io("remove", path))
}

#[cfg(test)]
mod tests;
