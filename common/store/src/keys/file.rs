//! Small files of secrets: replaced as a whole and durably, overwritten before they go.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::error::KeyError;

/// The largest file of keys, in bytes: a ring of 256 generations of two keys has less than 32 KiB.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The folder that a file is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), KeyError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(KeyError::io("sync the folder", path))
}

/// Creates a folder that only its owner can enter.
pub(crate) fn create_folder(path: &Path) -> Result<(), KeyError> {
    if path.is_dir() {
        return Ok(());
    }
    match DirBuilder::new().mode(0o700).recursive(true).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(KeyError::io("create the folder", path)(error))
        }
        _ => sync_folder(parent(path)),
    }
}

/// Reads a file of keys; `None` when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(KeyError::io("read", path)(error)),
    };
    // Reserved at once, so that no half-filled copy of a secret is left behind by a growing buffer.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX)));
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(KeyError::io("read", path))?;
    Ok(Some(bytes))
}

/// The same for a file that only its owner (or root) may be able to read.
pub(crate) fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    match fs::metadata(path) {
        Ok(about) if about.mode() & 0o077 != 0 => {
            Err(KeyError::Readable { path: path.to_owned(), mode: about.mode() & 0o7777 })
        }
        _ => read(path),
    }
}

/// Writes a file of mode 0600 that appears whole or not at all, durably, in the place of the one that is there. What was there is
/// overwritten, as far as the file system lets us.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let before = OpenOptions::new().write(true).open(path).ok();
    write_new(path, bytes, true)?;
    if let Some(mut before) = before {
        wipe(&mut before).map_err(KeyError::io("overwrite the old", path))?;
    }
    Ok(())
}

/// The same, but never in the place of another file.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    write_new(path, bytes, false)
}

fn write_new(path: &Path, bytes: &[u8], over: bool) -> Result<(), KeyError> {
    let folder = parent(path);
    // tempfile creates with mode 0600.
    let mut file = tempfile::Builder::new()
        .prefix(".tmp-")
        .tempfile_in(folder)
        .map_err(KeyError::io("create a file in", folder))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(KeyError::io("write", path))?;
    let renamed = if over { file.persist(path) } else { file.persist_noclobber(path) };
    renamed.map_err(|error| KeyError::io("rename to", path)(error.error))?;
    sync_folder(folder)
}

/// Overwrites a file, makes that durable, removes it and makes that durable too. It is no error if there is none.
///
/// On flash and on copy-on-write file systems the old bytes may outlive this in cells or blocks that no name leads to; see
/// `docs/decisions/0010-*` for what then makes them useless.
pub(crate) fn destroy(path: &Path) -> Result<(), KeyError> {
    match OpenOptions::new().write(true).open(path) {
        Ok(mut file) => wipe(&mut file).map_err(KeyError::io("overwrite", path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(KeyError::io("overwrite", path)(error)),
    }
    fs::remove_file(path).map_err(KeyError::io("remove", path))?;
    sync_folder(parent(path))
}

fn wipe(file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len().min(FILE_BYTES_MAX);
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&vec![0; usize::try_from(length).unwrap_or(0)])?;
    file.sync_all()
}
