//! Every call that makes something durable goes through here, and is counted, so that a test can say that it was made.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::StoreError;

/// How often each kind of durable write was asked of the system.
#[derive(Debug, Default)]
pub(crate) struct Syncs {
    /// sled's flushes: its buffers are in the page cache.
    pub(crate) flushes: AtomicU64,
    /// fsyncs of files.
    pub(crate) files: AtomicU64,
    /// fsyncs of folders: a file's name is durable only after one.
    pub(crate) folders: AtomicU64,
}

impl Syncs {
    /// Counts a flush that sled has made.
    pub(crate) fn flushed(&self) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes the content of an open file durable.
    pub(crate) fn file(&self, file: &File) -> io::Result<()> {
        file.sync_all()?;
        self.files.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the names in an open folder durable.
    pub(crate) fn folder(&self, folder: &File) -> io::Result<()> {
        folder.sync_all()?;
        self.folders.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the names in a folder durable that is opened for this alone.
    pub(crate) fn folder_at(&self, path: &Path) -> Result<(), StoreError> {
        let folder = File::open(path).map_err(StoreError::io("open the folder", path))?;
        self.folder(&folder).map_err(StoreError::io("sync the folder", path))
    }

    /// (flushes, files, folders) so far.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.flushes), read(&self.files), read(&self.folders))
    }
}
