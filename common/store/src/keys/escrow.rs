//! Escrow: the keys of a store, encrypted to a recovery key that the operator holds offline, apart from every backup.
//!
//! ```text
//! OUT/<made>-<expires>.escrow
//!  0  8  "starescr"
//!  8  2  format, 2
//! 10  8  made, seconds since 1970
//! 18  8  expires, seconds since 1970
//! 26 32  an X25519 public key of this copy alone
//! 58 12  nonce
//! 70  …  AES-256-GCM of (store id, key ring, wrapped device keys, who was forgotten, key files) under HKDF(shared secret, salt = both public
//!        keys); the 58 bytes in front are associated data
//! ```
//!
//! Key files are what lies as `*.key` and `*.pub` in the state folder itself: keys of the daemon's own that seal no record, so that no backup may
//! hold them, and that a lost disk would take along (the audit log's).
//!
//! A copy **expires** by being destroyed: every escrow into the same folder overwrites and removes those whose time is over, and
//! [`recover`] refuses them. Mathematics does not make a copy expire that somebody has carried elsewhere: whoever keeps copies and the
//! recovery key together keeps forgotten devices readable. A device that was forgotten is in no later copy, so after the last copy
//! that holds it its erasure is final: [`Store::erasure_final_unix_s`] says when.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::error::KeyError;
use super::ring::{Master, Ring, path_in};
use super::secret::{NONCE_BYTES, Secret, hex, random, unhex};
use super::source::{Found, KeySource};
use super::{compartment, file};
use crate::batch::Batch;
use crate::blobs::{is_hex, list};
use crate::{OWN_TABLE, Store, StoreError};

const MAGIC: &[u8; 8] = b"starescr";
const FORMAT: u16 = 2;
const HEADER_BYTES: usize = 58;
const SUFFIX: &str = ".escrow";
const EXPIRY_KEY: &str = "escrow-expires";

/// How long an escrow copy lives when nothing else is said, in seconds: 7 days.
pub const ESCROW_TTL_S: u64 = 7 * 24 * 3600;
/// Key files of the state folder in a copy: there are two, and room for those of later builds.
const KEY_FILES_MAX: usize = 16;
/// The largest copy, in bytes: 100,000 devices.
const COPY_BYTES_MAX: usize = 32 << 20;

const CODEC: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<COPY_BYTES_MAX>,
> = bincode::config::standard().with_limit::<COPY_BYTES_MAX>();

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Body {
    store: [u8; 16],
    ring: Vec<u8>,
    devices: Vec<Device>,
    /// The tags of devices that were forgotten, in hex: they do not come back as strangers.
    forgotten: Vec<String>,
    /// Key files of the state folder.
    files: Vec<KeyFile>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Device {
    name: String,
    wrapped: Vec<u8>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct KeyFile {
    name: String,
    content: Vec<u8>,
}

/// Whether a file of this name in the state folder is a key of its own. It names a file there and nowhere else.
fn is_key_file(name: &str) -> bool {
    let stem = name.strip_suffix(".key").or_else(|| name.strip_suffix(".pub"));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    stem.is_some_and(|stem| !stem.is_empty() && stem.bytes().all(plain))
}

fn key_files(state: &Path) -> Result<Vec<KeyFile>, StoreError> {
    let mut names = list(state)?;
    names.retain(|name| is_key_file(name) && state.join(name).is_file());
    names.sort();
    let mut files = Vec::new();
    for name in names.into_iter().take(KEY_FILES_MAX) {
        if let Some(content) = file::read(&state.join(&name))? {
            files.push(KeyFile { name, content: content.to_vec() });
        }
    }
    Ok(files)
}

/// Makes a recovery key: `recovery.key`, which goes to a safe and nowhere else, and `recovery.pub`.
///
/// # Errors
/// One of the files is there already, or the disk says no.
pub fn recovery_init(folder: &Path) -> Result<(PathBuf, PathBuf), KeyError> {
    file::create_folder(folder)?;
    let (secret_path, public_path) = (folder.join("recovery.key"), folder.join("recovery.pub"));
    let secret = StaticSecret::from(*Secret::random()?.bytes());
    file::create(&secret_path, Zeroizing::new(hex(secret.as_bytes()) + "\n").as_bytes())?;
    file::create(&public_path, (hex(PublicKey::from(&secret).as_bytes()) + "\n").as_bytes())?;
    Ok((secret_path, public_path))
}

fn key_file(path: &Path, private: bool) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let text = if private { file::read_private(path) } else { file::read(path) }?;
    let text = text.ok_or_else(|| KeyError::io("read", path)(std::io::ErrorKind::NotFound.into()))?;
    let expected = "a recovery key is 64 hexadecimal digits, made by `key recovery-init`";
    unhex::<32>(text.trim_ascii()).ok_or_else(|| KeyError::Format { path: path.to_owned(), expected })
}

/// The key of one copy. `None` for a public key that leads to a secret which everybody knows.
fn copy_key(shared: &x25519_dalek::SharedSecret, ephemeral: &[u8; 32], recovery: &[u8; 32]) -> Option<Secret> {
    let salt = [&ephemeral[..], &recovery[..]].concat();
    shared.was_contributory().then(|| Secret::new(*shared.as_bytes()).derive(&salt, "escrow"))
}

impl Store {
    /// Writes an escrow copy of all keys, for the holder of the recovery key whose public half is in the file `to`, into the folder
    /// `out`, and destroys copies there whose time is over. Returns the file.
    ///
    /// # Errors
    /// The public key cannot be read, or the disk says no.
    pub fn escrow(&self, to: &Path, out: &Path, now_unix_s: u64, ttl_s: u64) -> Result<PathBuf, StoreError> {
        let recovery = key_file(to, false)?;
        let expires = now_unix_s.saturating_add(ttl_s);
        file::create_folder(out)?;
        expire(out, now_unix_s)?;
        // Held, so that no device is forgotten between being read and the expiry being noted.
        let _known = self.compartments();
        let latest = self.get::<u64>(OWN_TABLE, EXPIRY_KEY)?.unwrap_or(0).max(expires);
        let mut batch = Batch::new();
        batch.put(OWN_TABLE, EXPIRY_KEY, &latest)?;
        self.commit(batch)?;

        let mut body = Body {
            store: self.ring.id,
            ring: self.ring.to_body().to_vec(),
            devices: Vec::new(),
            forgotten: Vec::new(),
            files: key_files(self.path())?,
        };
        let folder = compartment::folder_in(self.path());
        for name in list(&folder)?.into_iter().filter(|name| is_hex(name, 32)) {
            if let Some(wrapped) = file::read(&folder.join(&name))? {
                body.devices.push(Device { name, wrapped: wrapped.to_vec() });
            }
        }
        body.forgotten = list(&compartment::marks_in(self.path()))?;
        body.forgotten.retain(|name| is_hex(name, 32));
        let encoded = bincode::serde::encode_to_vec(&body, CODEC);
        let encoded = Zeroizing::new(encoded.map_err(|error| StoreError::Encode {
            table: "escrow".to_owned(),
            key: String::new(),
            problem: error.to_string(),
        })?);
        let secret = StaticSecret::from(*Secret::random()?.bytes());
        let ephemeral = PublicKey::from(&secret).to_bytes();
        let shared = secret.diffie_hellman(&PublicKey::from(*recovery));
        let weak = KeyError::Format { path: to.to_owned(), expected: "this public key is a weak one" };
        let key = copy_key(&shared, &ephemeral, &recovery).ok_or(weak)?;

        let mut bytes = Vec::with_capacity(HEADER_BYTES + NONCE_BYTES + encoded.len() + 16);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&now_unix_s.to_le_bytes());
        bytes.extend_from_slice(&expires.to_le_bytes());
        bytes.extend_from_slice(&ephemeral);
        let header = bytes.clone();
        let nonce = random()?;
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&encoded);
        key.seal(nonce, &header, &mut bytes, HEADER_BYTES + NONCE_BYTES);
        let path = out.join(format!("{now_unix_s:012}-{expires:012}{SUFFIX}"));
        file::replace(&path, &bytes)?;
        Ok(path)
    }

    /// When the erasure of what is forgotten now is final: when the last escrow copy that may hold its key expires, in seconds
    /// since 1970. `None` when no copy is alive: it is final at once.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn erasure_final_unix_s(&self, now_unix_s: u64) -> Result<Option<u64>, StoreError> {
        Ok(self.get::<u64>(OWN_TABLE, EXPIRY_KEY)?.filter(|expires| *expires > now_unix_s))
    }
}

/// The copies in a folder, oldest first, with the time at which each expires.
fn copies(folder: &Path) -> Result<Vec<(PathBuf, u64)>, StoreError> {
    let mut names = list(folder)?;
    names.sort();
    let expires = |name: &str| name.strip_suffix(SUFFIX)?.split_once('-')?.1.parse().ok();
    Ok(names.iter().filter_map(|name| Some((folder.join(name), expires(name)?))).collect())
}

/// Destroys the copies whose time is over.
fn expire(folder: &Path, now_unix_s: u64) -> Result<(), StoreError> {
    for (path, expires) in copies(folder)? {
        if expires <= now_unix_s {
            file::destroy(&path)?;
        }
    }
    Ok(())
}

/// Puts the keys of the newest copy in `escrow` that the recovery key opens into the state folder `state`, sealed with the master key at
/// `source` (which is made if it is to be a file and is not there). Records and blobs then come from a backup.
///
/// # Errors
/// The folder has keys already, no copy opens, or all that open have expired.
pub fn recover(
    escrow: &Path,
    recovery_key: &Path,
    state: &Path,
    source: &KeySource,
    now_unix_s: u64,
) -> Result<(), StoreError> {
    if path_in(state).exists() || !list(&state.join("records"))?.is_empty() {
        return Err(crate::backup::BackupError::Occupied(state.to_owned()).into());
    }
    let secret = StaticSecret::from(*key_file(recovery_key, true)?);
    let mut expired = None;
    for (path, _) in copies(escrow)?.into_iter().rev() {
        match open_copy(&path, &secret)? {
            Some((expires, _)) if expires <= now_unix_s => expired = Some((path, expires)),
            Some((_, body)) => return put_back(&body, state, source, &path),
            None => {}
        }
    }
    Err(match expired {
        Some((path, expired_unix_s)) => KeyError::Expired { path, expired_unix_s },
        None => KeyError::NoEscrow(escrow.to_owned()),
    }
    .into())
}

/// A copy's expiry and content; `None` when this key does not open it.
fn open_copy(path: &Path, secret: &StaticSecret) -> Result<Option<(u64, Body)>, KeyError> {
    let length = fs::metadata(path).map_err(KeyError::io("read", path))?.len();
    if length > COPY_BYTES_MAX as u64 {
        return Ok(None);
    }
    let mut bytes = Zeroizing::new(fs::read(path).map_err(KeyError::io("read", path))?);
    Ok(unseal(&mut bytes, secret))
}

fn unseal(bytes: &mut [u8], secret: &StaticSecret) -> Option<(u64, Body)> {
    let (header, rest) = bytes.split_first_chunk_mut::<HEADER_BYTES>()?;
    if header[..8] != MAGIC[..] || header[8..10] != FORMAT.to_le_bytes() {
        return None;
    }
    let expires = u64::from_le_bytes(header[18..26].try_into().ok()?);
    let ephemeral: [u8; 32] = header[26..58].try_into().ok()?;
    let shared = secret.diffie_hellman(&PublicKey::from(ephemeral));
    let key = copy_key(&shared, &ephemeral, PublicKey::from(secret).as_bytes())?;
    let (nonce, sealed) = rest.split_first_chunk_mut::<NONCE_BYTES>()?;
    let body = key.open(*nonce, header, sealed)?;
    let (body, used): (Body, usize) = bincode::serde::decode_from_slice(body, CODEC).ok()?;
    let names = body.devices.iter().map(|device| &device.name).chain(&body.forgotten);
    let sound = names.into_iter().all(|name| is_hex(name, 32)) && body.files.iter().all(|file| is_key_file(&file.name));
    (used > 0 && sound).then_some((expires, body))
}

fn put_back(body: &Body, state: &Path, source: &KeySource, copy: &Path) -> Result<(), StoreError> {
    let ring = Ring::from_body(body.store, &body.ring).ok_or_else(|| KeyError::Damaged(copy.to_owned()))?;
    let found = match (source.find()?, source) {
        (Some(found), _) => found,
        (None, KeySource::File(key)) => Found::Key(KeySource::create(key)?),
        (None, _) => return Err(KeyError::Missing { key: source.path()?, state: state.to_owned() }.into()),
    };
    let devices = compartment::folder_in(state);
    file::create_folder(&devices)?;
    for device in &body.devices {
        file::replace(&devices.join(&device.name), &device.wrapped)?;
    }
    for tag in body.forgotten.iter().filter_map(|name| unhex::<16>(name.as_bytes())) {
        compartment::mark(state, &tag)?;
    }
    // One that is there is of this folder, or of the source that was made above.
    for key in body.files.iter().filter(|key| !state.join(&key.name).exists()) {
        file::create(&state.join(&key.name), &key.content)?;
    }
    // The ring last: a folder without it is one that was not recovered yet.
    ring.save(&path_in(state), &Master::of(&found)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_names_key_files_of_the_state_folder_and_no_other_place() {
        for good in ["audit.key", "audit.pub", "log-2.key"] {
            assert!(is_key_file(good), "{good}");
        }
        for bad in [
            "",
            ".key",
            "../audit.key",
            "keys/ring",
            "a/b.key",
            "status.json",
            "audit.key.tmp",
            "a.b.key",
            ".tmp-x.key",
        ] {
            assert!(!is_key_file(bad), "{bad}");
        }
    }
}
