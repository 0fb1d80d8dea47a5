//! The keys of single devices: each in a file of its own, so that one can be destroyed without touching another.
//!
//! ```text
//! keys/devices/<tag>     tag = HMAC(names, "scope" ‖ id), 16 bytes in hex
//!  0  8  "stardevk"
//!  8  2  format, 1
//! 10  4  generation of the wrapping key
//! 14 12  nonce
//! 26  …  AES-256-GCM of (key, id); the 14 bytes in front, the store's id and the tag are associated data
//! keys/forgotten/<tag>   empty: the device of this tag was forgotten, and gets no key again
//! ```

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::error::KeyError;
use super::file;
use super::ring::Ring;
use super::secret::{NONCE_BYTES, SECRET_BYTES, Secret, TAG_BYTES, hex, random, unhex};
use crate::names::{Names, Tag};

const MAGIC: &[u8; 8] = b"stardevk";
const FORMAT: u16 = 1;
const HEADER_BYTES: usize = 14;
/// The longest id of a compartment, in bytes.
pub const COMPARTMENT_ID_BYTES_MAX: usize = 128;

/// A device's key and whose it is.
pub(crate) struct DeviceKey {
    pub(crate) id: String,
    pub(crate) key: Secret,
}

/// The folder of device keys.
pub(crate) fn folder_in(state: &Path) -> PathBuf {
    state.join("keys").join("devices")
}

/// The folder of marks for devices that were forgotten.
pub(crate) fn marks_in(state: &Path) -> PathBuf {
    state.join("keys").join("forgotten")
}

fn path_of(state: &Path, tag: &Tag) -> PathBuf {
    folder_in(state).join(hex(tag))
}

/// The key of the device, if it has one.
pub(crate) fn load(state: &Path, ring: &Ring, tag: &Tag) -> Result<Option<DeviceKey>, KeyError> {
    let path = path_of(state, tag);
    let Some(bytes) = file::read(&path)? else { return Ok(None) };
    unwrap(ring, tag, &bytes).map(Some).ok_or(KeyError::Damaged(path))
}

/// Makes a key for the device, durably.
pub(crate) fn create(state: &Path, ring: &Ring, tag: &Tag, id: &str) -> Result<DeviceKey, KeyError> {
    let device = DeviceKey { id: id.to_owned(), key: Secret::random()? };
    store(state, ring, tag, &device)?;
    Ok(device)
}

/// Wraps the key under the newest wrapping key, in the place of the wrap that is there.
pub(crate) fn store(state: &Path, ring: &Ring, tag: &Tag, device: &DeviceKey) -> Result<(), KeyError> {
    file::create_folder(&folder_in(state))?;
    file::replace(&path_of(state, tag), &wrap(ring, tag, device)?)
}

/// Destroys the device's key: what it sealed is unreadable from here on.
pub(crate) fn destroy(state: &Path, tag: &Tag) -> Result<bool, KeyError> {
    let path = path_of(state, tag);
    let there = path.exists();
    file::destroy(&path)?;
    Ok(there)
}

/// Notes, durably, that the device gets no key again.
pub(crate) fn mark(state: &Path, tag: &Tag) -> Result<(), KeyError> {
    let folder = marks_in(state);
    file::create_folder(&folder)?;
    let path = folder.join(hex(tag));
    if path.exists() { file::sync_folder(&folder) } else { file::create(&path, b"") }
}

/// Destroys wraps that a killed process has left under an unfinished name.
pub(crate) fn destroy_unfinished(state: &Path) -> Result<(), KeyError> {
    let folder = folder_in(state);
    for name in names_in(&folder)?.into_iter().filter(|name| unhex::<16>(name.as_bytes()).is_none()) {
        file::destroy(&folder.join(name))?;
    }
    Ok(())
}

/// The devices that were forgotten.
pub(crate) fn marks(state: &Path) -> Result<HashSet<Tag>, KeyError> {
    Ok(tags_in(&marks_in(state))?.into_iter().collect())
}

/// All device keys.
pub(crate) fn all(state: &Path, ring: &Ring) -> Result<Vec<(Tag, DeviceKey)>, KeyError> {
    let mut found = Vec::new();
    for tag in tags_in(&folder_in(state))? {
        found.extend(load(state, ring, &tag)?.map(|device| (tag, device)));
    }
    Ok(found)
}

/// The files of a folder that are called by a tag; anything else is unfinished.
fn tags_in(folder: &Path) -> Result<Vec<Tag>, KeyError> {
    let names = names_in(folder)?;
    Ok(names.iter().filter_map(|name| unhex::<16>(name.as_bytes())).map(|tag| *tag).collect())
}

fn names_in(folder: &Path) -> Result<Vec<String>, KeyError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(KeyError::io("list", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(KeyError::io("list", folder))?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Wraps every device key under the newest wrapping key and drops the others from the ring; the ring is not saved here.
pub(crate) fn rewrap_all(state: &Path, ring: &mut Ring) -> Result<(), KeyError> {
    for (tag, device) in all(state, ring)? {
        store(state, ring, &tag, &device)?;
    }
    while ring.wraps.len() > 1 {
        ring.wraps.pop_first();
    }
    Ok(())
}

fn wrap(ring: &Ring, tag: &Tag, device: &DeviceKey) -> Result<Vec<u8>, KeyError> {
    let (generation, wrapping) = ring.wraps.last_key_value().expect("a ring without wrapping keys is not read");
    let length = HEADER_BYTES + NONCE_BYTES + SECRET_BYTES + device.id.len() + TAG_BYTES;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&generation.to_le_bytes());
    let associated = associated(&bytes, ring, tag);
    let nonce = random()?;
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(device.key.bytes());
    bytes.extend_from_slice(device.id.as_bytes());
    wrapping.derive(&ring.id, "device keys").seal(nonce, &associated, &mut bytes, HEADER_BYTES + NONCE_BYTES);
    Ok(bytes)
}

fn unwrap(ring: &Ring, tag: &Tag, bytes: &[u8]) -> Option<DeviceKey> {
    let header = bytes.get(..HEADER_BYTES)?;
    if header[..8] != MAGIC[..] || header[8..10] != FORMAT.to_le_bytes() {
        return None;
    }
    let wrapping = ring.wraps.get(&u32::from_le_bytes(header[10..14].try_into().ok()?))?;
    let nonce = bytes.get(HEADER_BYTES..HEADER_BYTES + NONCE_BYTES)?.try_into().ok()?;
    let mut sealed = Zeroizing::new(bytes[HEADER_BYTES + NONCE_BYTES..].to_vec());
    let opened = wrapping.derive(&ring.id, "device keys").open(nonce, &associated(header, ring, tag), &mut sealed)?;
    let (key, id) = opened.split_first_chunk::<SECRET_BYTES>()?;
    let id = String::from_utf8(id.to_vec()).ok()?;
    (Names::new(&ring.names, &ring.id).scope(&id) == *tag).then(|| DeviceKey { id, key: Secret::new(*key) })
}

fn associated(header: &[u8], ring: &Ring, tag: &Tag) -> Vec<u8> {
    [header, &ring.id, tag].concat()
}
