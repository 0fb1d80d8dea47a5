//! The store: records, blobs and the lock around both.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;

use crate::StoreError;
use crate::blobs::Blobs;
use crate::records::{Batch, Records};
use crate::sync::Syncs;

/// The table that belongs to the store itself. Nobody else's name has a dot in front.
const OWN_TABLE: &str = ".store";
const EPOCH_KEY: &str = "epoch";

/// An open state folder. It can be shared between threads (`Arc<Store>`).
pub struct Store {
    records: Records,
    blobs: Blobs,
    epoch: Mutex<()>,
    path: PathBuf,
    #[cfg(test)]
    pub(crate) syncs: Arc<Syncs>,
    /// Declared last, so released last: by then the records are closed.
    _lock: File,
}

impl Store {
    /// Opens the state folder, and creates it (mode 0700) when it is not there. While it is open, nobody else can open it
    /// ([`StoreError::InUse`]); a killed process leaves nothing that blocks the next one.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let syncs = Arc::new(Syncs::default());
        create_folder(folder, &syncs)?;
        let lock = lock(folder)?;
        let (records_path, blobs_path) = (folder.join("records"), folder.join("blobs"));
        create_folder(&records_path, &syncs)?;
        create_folder(&blobs_path, &syncs)?;
        let records = Records::open(&records_path, Arc::clone(&syncs))?;
        let blobs = Blobs::open(&blobs_path, Arc::clone(&syncs))?;
        Ok(Self {
            records,
            blobs,
            epoch: Mutex::new(()),
            path: folder.to_owned(),
            #[cfg(test)]
            syncs,
            _lock: lock,
        })
    }

    /// The folder that it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a record. It must be of the type that it was written as.
    pub fn get<T: DeserializeOwned>(&self, table: &str, key: &str) -> Result<Option<T>, StoreError> {
        self.records.get(table, key)
    }

    /// Reads all records of a table, in the byte order of their keys.
    pub fn scan<T: DeserializeOwned>(&self, table: &str) -> Result<Vec<(String, T)>, StoreError> {
        self.records.scan(table)
    }

    /// Applies a batch: all of it, durably, or nothing. Readers see either none of it or all of it.
    pub fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.records.commit(batch)
    }

    /// A number that is larger than all that were given before, also before a crash: from 1. It is durable when this returns.
    pub fn next_epoch(&self) -> Result<u64, StoreError> {
        // The lock guards no data, so one that a panicking thread held is as good as any.
        let _guard = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = self.get::<u64>(OWN_TABLE, EPOCH_KEY)?.unwrap_or(0) + 1;
        let mut batch = Batch::new();
        batch.put(OWN_TABLE, EPOCH_KEY, &epoch)?;
        self.commit(batch)?;
        Ok(epoch)
    }

    /// Stores a blob under its SHA-256 (64 lower-case hexadecimal digits); durable when this returns. Storing it again is cheap and
    /// harmless, and repairs a damaged file. That the bytes have that digest is the caller's word; [`Store::get_blob`] checks it.
    pub fn put_blob(&self, digest_hex: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.blobs.put(digest_hex, bytes)
    }

    /// Reads a blob and checks that it has this digest.
    pub fn get_blob(&self, digest_hex: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.blobs.get(digest_hex)
    }

    /// Removes a blob, durably; it is no error if there is none.
    pub fn remove_blob(&self, digest_hex: &str) -> Result<(), StoreError> {
        self.blobs.remove(digest_hex)
    }

    /// The digests of all blobs, sorted.
    pub fn blobs(&self) -> Result<Vec<String>, StoreError> {
        self.blobs.list()
    }
}

/// Creates a folder that only its owner can enter, and makes its name durable.
fn create_folder(path: &Path, syncs: &Syncs) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(StoreError::io("create the folder", parent))?;
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        // Another process was faster; the lock decides between the two.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(StoreError::io("create the folder", path)(error)),
    }
    syncs.folder_at(parent)
}

/// The system releases this lock when the process ends, however it ends.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path)(error)),
    }
}

#[cfg(test)]
mod tests;
