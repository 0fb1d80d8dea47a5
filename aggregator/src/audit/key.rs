//! The log's own key: `audit.key` (mode 0600) and `audit.pub` (one public key a line, the newest last) in the state folder.
//!
//! It is not the certificate's key: that one is renewed every few weeks, and signs handshakes. It is a file and no record: backups hold
//! records, and whoever gets hold of a backup must not be able to sign for the log.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use starling_audit::{Algorithm, SigningKey, VerifierKey};
use zeroize::Zeroizing;

use super::storage::AuditError;

/// Bytes of a key's file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where a state folder keeps the public keys of its log.
pub fn public_file(state_dir: &Path) -> PathBuf {
    state_dir.join("audit.pub")
}

/// The key, all public keys, and whether the key was made just now.
pub(super) fn open(
    state_dir: &Path,
    name: &str,
    begun: bool,
) -> Result<(SigningKey, Vec<VerifierKey>, bool), AuditError> {
    let (private, public) = (state_dir.join("audit.key"), public_file(state_dir));
    let (key, is_new) = match read_private(&private)? {
        Some(key) if key.verifier().name() == name => (key, false),
        Some(key) => {
            let problem = format!(
                "the key is of the log {:?}, expected {name:?}: the state folder belongs to an aggregator with another certificate",
                key.verifier().name()
            );
            return Err(AuditError::Key { path: private, problem });
        }
        None => {
            if begun {
                tracing::warn!(path = %private.display(), "the audit log's key is gone; it goes on with a new one");
            }
            (write_private(&private, name, Algorithm::Log)?, true)
        }
    };
    let failed = |error: std::io::Error| AuditError::Key { path: public.clone(), problem: error.to_string() };
    let mut keys = match fs::read_to_string(&public) {
        Ok(text) => read_public(&public, &text)?,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(error)),
    };
    if !keys.contains(key.verifier()) {
        keys.push(key.verifier().clone());
        let mut file = OpenOptions::new().create(true).append(true).mode(0o644).open(&public).map_err(failed)?;
        writeln!(file, "{}", key.verifier()).and_then(|()| file.sync_all()).map_err(failed)?;
    }
    Ok((key, keys, is_new))
}

/// The public keys in `text`, a line each.
pub(crate) fn read_public(path: &Path, text: &str) -> Result<Vec<VerifierKey>, AuditError> {
    let read = |line: &str| {
        line.parse().map_err(|error: starling_audit::KeyError| AuditError::Key {
            path: path.to_owned(),
            problem: error.to_string(),
        })
    };
    text.lines().filter(|line| !line.trim().is_empty()).map(read).collect()
}

/// The private key in the file at `path`; nothing if there is no such file.
pub(crate) fn read_private(path: &Path) -> Result<Option<SigningKey>, AuditError> {
    let wrong = |problem: String| AuditError::Key { path: path.to_owned(), problem };
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(|error| wrong(error.to_string()))?,
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(wrong(format!("others can read this key (mode {mode:o}); `chmod 600` it")));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(wrong("the file is too large for a key".into()));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?);
    SigningKey::from_text(&text).map(Some).map_err(|error| wrong(error.to_string()))
}

/// Makes a key and writes it where no file is.
pub(crate) fn write_private(path: &Path, name: &str, algorithm: Algorithm) -> Result<SigningKey, AuditError> {
    let wrong = |problem: String| AuditError::Key { path: path.to_owned(), problem };
    let seed = Zeroizing::new(super::random().ok_or_else(|| wrong("the system gives no entropy for a key".into()))?);
    let key = SigningKey::from_seed(name, algorithm, seed).map_err(|error| wrong(error.to_string()))?;
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(key.to_text().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| wrong(error.to_string()))?;
    Ok(key)
}
