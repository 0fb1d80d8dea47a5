//! Large byte strings as sealed files. Callers name them by their SHA-256; on the disk they are called by a keyed hash of it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::digest::{SHA256, digest};

use crate::StoreError;
use crate::keys::file::create_folder;
use crate::keys::secret::{hex, unhex};
use crate::names::{Names, Tag};
use crate::seal::scope::Scope;
use crate::seal::stream::{self, CHUNK_BYTES, StreamError};
use crate::sync::Syncs;

/// How an unfinished file's name begins. No blob's begins so.
const UNFINISHED: &str = ".tmp-";

pub(crate) struct Blobs {
    path: PathBuf,
    syncs: Arc<Syncs>,
    names: Arc<Names>,
    /// Held while a file is removed, and while a backup takes note of those there are.
    removing: Mutex<()>,
}

impl Blobs {
    /// Opens the folder and removes what a crash left unfinished.
    pub(crate) fn open(path: &Path, syncs: Arc<Syncs>, names: Arc<Names>) -> Result<Self, StoreError> {
        let blobs = Self { path: path.to_owned(), syncs, names, removing: Mutex::new(()) };
        for folder in blobs.folders()? {
            for name in list(&folder)? {
                if name.starts_with(UNFINISHED) {
                    let unfinished = folder.join(&name);
                    fs::remove_file(&unfinished).map_err(StoreError::io("remove the unfinished", &unfinished))?;
                }
            }
        }
        Ok(blobs)
    }

    pub(crate) fn put(&self, scope: &Scope, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (target, raw) = self.file_of(scope, name)?;
        let folder = self.folder_of(scope);
        create_folder(&folder)?;
        // Present and whole: only its name may not be durable yet, when a crash came between the rename and the fsync.
        // Damaged: it is replaced below.
        if !matches!(self.get(scope, name), Ok(Some(_))) {
            let file = tempfile::Builder::new()
                .prefix(UNFINISHED)
                .tempfile_in(&folder)
                .map_err(StoreError::io("create a file in", &folder))?;
            let mut writer = BufWriter::with_capacity(2 * CHUNK_BYTES, file);
            stream::seal(scope, &raw, bytes, &mut writer)?
                .and_then(|()| writer.flush())
                .map_err(StoreError::io("write", &target))?;
            let file = writer.into_inner().map_err(|error| StoreError::io("write", &target)(error.into_error()))?;
            self.syncs.file(file.as_file()).map_err(StoreError::io("sync", &target))?;
            file.persist(&target).map_err(|error| StoreError::io("rename to", &target)(error.error))?;
        }
        self.syncs.folder_at(&folder)
    }

    pub(crate) fn get(&self, scope: &Scope, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let (path, raw) = self.file_of(scope, name)?;
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        };
        let corrupt = |problem: &str| StoreError::Corrupt { digest: name.to_owned(), problem: problem.to_owned() };
        let length = file.metadata().map_err(StoreError::io("read", &path))?.len();
        let bytes = stream::open(scope, &raw, length, &mut file).map_err(|error| match error {
            StreamError::Io(source) => StoreError::io("read", &path)(source),
            StreamError::Damaged => corrupt("the file was changed, truncated or swapped"),
        })?;
        // That the file is the one that was stored is certain now; that it was stored under its digest was the caller's word.
        if digest(&SHA256, &bytes).as_ref() == raw { Ok(Some(bytes)) } else { Err(corrupt("it has another digest")) }
    }

    pub(crate) fn remove(&self, scope: &Scope, name: &str) -> Result<(), StoreError> {
        let (path, _) = self.file_of(scope, name)?;
        let _guard = self.hold();
        match fs::remove_file(&path) {
            Ok(()) => self.syncs.folder_at(&self.folder_of(scope)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StoreError::io("remove", &path)(error)),
        }
    }

    /// Removes every blob of the scope that `keep` does not name, those that cannot be read any more too.
    pub(crate) fn retain(&self, scope: &Scope, keep: &BTreeSet<String>) -> Result<(), StoreError> {
        let keep: BTreeSet<String> = keep.iter().map(|digest| self.names.blob(&scope.tag, digest)).collect();
        let _guard = self.hold();
        let mut removed = false;
        for name in self.files(scope)? {
            if !keep.contains(&name) {
                let path = self.folder_of(scope).join(&name);
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
                removed = true;
            }
        }
        if removed { self.syncs.folder_at(&self.folder_of(scope)) } else { Ok(()) }
    }

    /// The digests of all blobs, sorted.
    pub(crate) fn list(&self, scope: &Scope) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        for name in self.files(scope)? {
            let path = self.folder_of(scope).join(&name);
            let read = || StoreError::io("read", &path);
            let file = File::open(&path).map_err(read())?;
            match stream::name_of(scope, &mut BufReader::with_capacity(stream::HEADER_BYTES, file)) {
                Ok(digest) if self.names.blob(&scope.tag, &hex(&digest)) == name => names.push(hex(&digest)),
                Ok(_) | Err(StreamError::Damaged) => return Err(StoreError::DamagedBlob(path.clone())),
                Err(StreamError::Io(error)) => return Err(read()(error)),
            }
        }
        names.sort();
        Ok(names)
    }

    /// Removes all blobs of a compartment, and its folder.
    pub(crate) fn remove_folder(&self, tag: &Tag) -> Result<u64, StoreError> {
        let folder = self.path.join(hex(tag));
        let _guard = self.hold();
        let count = list(&folder)?.len() as u64;
        match fs::remove_dir_all(&folder) {
            Ok(()) => self.syncs.folder_at(&self.path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("remove the folder", &folder)(error)),
        }
        Ok(count)
    }

    /// Nothing is removed while this is held.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.removing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder of everything, and that of each compartment.
    pub(crate) fn folders(&self) -> Result<Vec<PathBuf>, StoreError> {
        let compartments = list(&self.path)?.into_iter().filter(|name| is_hex(name, 32));
        let compartments = compartments.map(|name| self.path.join(name)).collect::<Vec<_>>();
        Ok([vec![self.path.clone()], compartments].concat())
    }

    fn files(&self, scope: &Scope) -> Result<Vec<String>, StoreError> {
        let mut names = list(&self.folder_of(scope))?;
        names.retain(|name| is_hex(name, 64));
        names.sort();
        Ok(names)
    }

    fn folder_of(&self, scope: &Scope) -> PathBuf {
        if scope.id.is_empty() { self.path.clone() } else { self.path.join(hex(&scope.tag)) }
    }

    /// The file of a blob, and its name in bytes.
    fn file_of(&self, scope: &Scope, name: &str) -> Result<(PathBuf, [u8; 32]), StoreError> {
        if scope.is_forgotten() {
            return Err(StoreError::Forgotten(scope.id.clone()));
        }
        let raw = unhex::<32>(name.as_bytes()).filter(|_| is_hex(name, 64));
        let raw = raw.ok_or_else(|| StoreError::BlobName(name.to_owned()))?;
        Ok((self.folder_of(scope).join(self.names.blob(&scope.tag, name)), *raw))
    }
}

/// The names in a folder; none when there is no such folder.
pub(crate) fn list(folder: &Path) -> Result<Vec<String>, StoreError> {
    let refused = || StoreError::io("list", folder);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(refused()(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(refused())?.file_name();
        names.extend(name.into_string().ok());
    }
    Ok(names)
}

/// Whether a name is `digits` lower-case hexadecimal digits.
pub(crate) fn is_hex(name: &str, digits: usize) -> bool {
    name.len() == digits && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
