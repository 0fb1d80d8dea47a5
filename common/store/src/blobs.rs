//! Large byte strings as files, named by their SHA-256.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{SHA256, digest};

use crate::StoreError;
use crate::sync::Syncs;

/// How an unfinished file's name begins. No digest begins so.
const UNFINISHED: &str = ".tmp-";

pub(crate) struct Blobs {
    path: PathBuf,
    folder: File,
    syncs: Arc<Syncs>,
}

impl Blobs {
    /// Opens the folder and removes what a crash left unfinished.
    pub(crate) fn open(path: &Path, syncs: Arc<Syncs>) -> Result<Self, StoreError> {
        let folder = File::open(path).map_err(StoreError::io("open the folder", path))?;
        let blobs = Self { path: path.to_owned(), folder, syncs };
        for name in blobs.names()? {
            if name.starts_with(UNFINISHED) {
                let unfinished = blobs.path.join(&name);
                fs::remove_file(&unfinished).map_err(StoreError::io("remove the unfinished", &unfinished))?;
            }
        }
        Ok(blobs)
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let target = self.file_of(name)?;
        // Present and whole: only its name may not be durable yet, when a crash came between the rename and the fsync.
        // Damaged: it is replaced below.
        if !matches!(self.get(name), Ok(Some(_))) {
            let mut file = tempfile::Builder::new()
                .prefix(UNFINISHED)
                .tempfile_in(&self.path)
                .map_err(StoreError::io("create a file in", &self.path))?;
            file.write_all(bytes).map_err(StoreError::io("write", &target))?;
            self.syncs.file(file.as_file()).map_err(StoreError::io("sync", &target))?;
            file.persist(&target).map_err(|error| StoreError::io("rename to", &target)(error.error))?;
        }
        self.sync_names()
    }

    pub(crate) fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.file_of(name)?;
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        };
        let found = hex(digest(&SHA256, &bytes).as_ref());
        if found == name { Ok(Some(bytes)) } else { Err(StoreError::Corrupt { digest: name.to_owned(), found }) }
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.file_of(name)?;
        match fs::remove_file(&path) {
            Ok(()) => self.sync_names(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StoreError::io("remove", &path)(error)),
        }
    }

    /// The digests of all blobs, sorted.
    pub(crate) fn list(&self) -> Result<Vec<String>, StoreError> {
        let mut names = self.names()?;
        names.retain(|name| is_digest(name));
        names.sort();
        Ok(names)
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        let list = || StoreError::io("list", &self.path);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(list())? {
            let name = entry.map_err(list())?.file_name();
            names.extend(name.into_string().ok());
        }
        Ok(names)
    }

    fn sync_names(&self) -> Result<(), StoreError> {
        self.syncs.folder(&self.folder).map_err(StoreError::io("sync the folder", &self.path))
    }

    fn file_of(&self, name: &str) -> Result<PathBuf, StoreError> {
        if is_digest(name) { Ok(self.path.join(name)) } else { Err(StoreError::BlobName(name.to_owned())) }
    }
}

fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
