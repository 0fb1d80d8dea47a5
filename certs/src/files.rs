//! Files of the PKI: folders of mode 0700, keys of mode 0600, nothing ever overwritten.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::CertsError;

/// Bytes of the largest PEM file that is read: room for a hundred certificates.
const PEM_BYTES_MAX: u64 = 256 * 1024;

const DIRECTORY_MODE: u32 = 0o700;
const SECRET_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

/// Whether a file may be read by everybody.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrecy {
    Secret,
    Public,
}

/// Writes new files into `folder`, which is made if it is missing. Refuses, before it writes anything, if one of them exists.
pub(crate) fn write_all(folder: &Path, files: &[(&str, Secrecy, &str)]) -> Result<(), CertsError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| CertsError::File { action, path, source }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(folder)
        .map_err(failed("create the folder", folder))?;
    for (name, ..) in files {
        let path = folder.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(CertsError::Exists { path });
        }
    }
    for (name, secrecy, text) in files {
        let path = folder.join(name);
        let mode = if *secrecy == Secrecy::Secret { SECRET_MODE } else { PUBLIC_MODE };
        // O_EXCL: neither a file made since the check above nor a symbolic link is ever written through.
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
            Err(source) if source.kind() == ErrorKind::AlreadyExists => return Err(CertsError::Exists { path }),
            opened => opened.map_err(failed("create", &path))?,
        };
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("write", &path))?;
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder", folder))
}

/// Writes a new public file in a folder that exists, or is made.
///
/// # Errors
/// [`CertsError::Exists`] if it is there: nothing is ever overwritten.
pub fn write_new(path: &Path, text: &str) -> Result<(), CertsError> {
    write_one(path, Secrecy::Public, text)
}

/// The same with mode 0600.
///
/// # Errors
/// As [`write_new`].
pub fn write_new_secret(path: &Path, text: &str) -> Result<(), CertsError> {
    write_one(path, Secrecy::Secret, text)
}

fn write_one(path: &Path, secrecy: Secrecy, text: &str) -> Result<(), CertsError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or(CertsError::Content { path: path.to_owned(), expected: "name of a file in UTF-8" })?;
    write_all(folder, &[(name, secrecy, text)])
}

/// The text of a PEM file. A secret one must belong to its owner alone.
pub(crate) fn read(path: &Path, secrecy: Secrecy) -> Result<Zeroizing<String>, CertsError> {
    let failed = |source| CertsError::File { action: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    if secrecy == Secrecy::Secret && mode & 0o077 != 0 {
        return Err(CertsError::KeyReadable { path: path.to_owned(), mode });
    }
    // The buffer is as large as the file may be, so that it never moves and leaves an unwiped copy behind.
    let capacity = usize::try_from(metadata.len().min(PEM_BYTES_MAX)).expect("256 KiB fit in memory") + 1;
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    file.take(PEM_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 == PEM_BYTES_MAX {
        return Err(CertsError::Content { path: path.to_owned(), expected: "PEM text of less than 256 KiB" });
    }
    Ok(text)
}

/// Whether `folder` holds a file `name`.
pub(crate) fn holds(folder: &Path, name: &str) -> bool {
    fs::exists(folder.join(name)).unwrap_or(false)
}

/// Puts `text` at `path`, over what is there, in one step: a reader sees the old file or the new one, also after a crash.
pub(crate) fn replace(path: &Path, secrecy: Secrecy, text: &str) -> Result<(), CertsError> {
    let failed = |action| move |source| CertsError::File { action, path: path.to_owned(), source };
    let unfinished = with_suffix(path, ".tmp");
    match fs::remove_file(&unfinished) {
        Err(source) if source.kind() != ErrorKind::NotFound => return Err(failed("replace")(source)),
        _ => {}
    }
    let mode = if secrecy == Secrecy::Secret { SECRET_MODE } else { PUBLIC_MODE };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished).map_err(failed("create"))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("write"))?;
    rename(&unfinished, path)
}

/// Moves a file over another one, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), CertsError> {
    let failed = |source| CertsError::File { action: "replace", path: to.to_owned(), source };
    fs::rename(from, to).map_err(failed)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// `path` with something behind its name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv10_a_secret_is_its_owners_alone_and_never_overwritten() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let inside = folder.path().join("new/deep");
        write_all(&inside, &[("a.key", Secrecy::Secret, "first"), ("a.pem", Secrecy::Public, "x")])
            .expect("an empty folder");
        let mode = |path: &Path| fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
        assert_eq!(mode(&inside.join("a.key")), 0o600);
        assert_eq!(mode(&inside), 0o700);
        let again = write_all(&inside, &[("b.key", Secrecy::Secret, "other"), ("a.key", Secrecy::Secret, "second")]);
        assert!(matches!(again, Err(CertsError::Exists { .. })));
        assert!(!holds(&inside, "b.key"), "refused before anything is written");
        assert_eq!(read(&inside.join("a.key"), Secrecy::Secret).expect("readable").as_str(), "first");
    }

    #[test]
    fn a_dangling_link_is_not_written_through() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let target = folder.path().join("elsewhere");
        std::os::unix::fs::symlink(&target, folder.path().join("a.key")).expect("a link");
        let written = write_all(folder.path(), &[("a.key", Secrecy::Secret, "secret")]);
        assert!(matches!(written, Err(CertsError::Exists { .. })));
        assert!(!target.exists());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.key");
        fs::write(&path, "key").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        let error = read(&path, Secrecy::Secret).expect_err("mode 644");
        assert!(error.to_string().contains("mode 644"), "{error}");
    }

    #[test]
    fn an_endless_file_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("huge.pem");
        fs::write(&path, "x".repeat(300 * 1024)).expect("written");
        assert!(matches!(read(&path, Secrecy::Public), Err(CertsError::Content { .. })));
    }
}
