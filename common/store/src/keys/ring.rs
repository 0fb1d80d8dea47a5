//! The key ring: the file in which a state folder's own keys lie, sealed by the master key.
//!
//! ```text
//!  0  8  "starkeys"
//!  8  2  format, 1
//! 10 16  the store's id
//! 26  4  iterations of PBKDF2, 0 when the master key is a key
//! 30 16  its salt
//! 46 16  the master key's fingerprint: HKDF(master, store id, "fingerprint")
//! 62 12  nonce
//! 74  …  AES-256-GCM of the body under HKDF(master, store id, "ring"); the 62 bytes in front are associated data
//! ```
//!
//! A new master key seals this one file anew; nothing else on the disk changes with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::error::KeyError;
use super::file;
use super::secret::{NONCE_BYTES, SECRET_BYTES, Secret, random};
use super::source::{Found, KeySource, Stretch};

const MAGIC: &[u8; 8] = b"starkeys";
const FORMAT: u16 = 1;
const HEADER_BYTES: usize = 62;

/// Generations of data keys and of wrapping keys, at most: a ring then still fits the file's limit of 64 KiB.
const GENERATIONS_MAX: usize = 256;
/// Room for the encoded body, so that no copy of it is left behind by a growing buffer.
const BODY_BYTES_MAX: usize = 48 << 10;

const CODEC: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<BODY_BYTES_MAX>,
> = bincode::config::standard().with_limit::<BODY_BYTES_MAX>();

/// What a ring holds, as it is encoded.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Body {
    names: [u8; SECRET_BYTES],
    data: Vec<Generation>,
    wraps: Vec<Generation>,
    complete: bool,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Generation {
    number: u32,
    key: [u8; SECRET_BYTES],
    since_seals: u64,
}

/// A data key.
pub(crate) struct DataKey {
    pub(crate) key: Secret,
    /// How many seals had been made when it became the newest.
    pub(crate) since_seals: u64,
}

/// The keys of a state folder.
pub(crate) struct Ring {
    /// Random, public: the salt of what is derived, so that two stores never share a key.
    pub(crate) id: [u8; 16],
    /// For names of files and records, and for the set of what is there. It stays: names would change with it.
    pub(crate) names: Secret,
    /// By generation, from 1; the newest seals, all of them open.
    pub(crate) data: BTreeMap<u32, DataKey>,
    /// What the keys of devices are wrapped under, by generation. More than one only while a rotation is under way.
    pub(crate) wraps: BTreeMap<u32, Secret>,
    /// Whether the first record of the store was written; until then an empty store is one that a crash left unfinished.
    pub(crate) complete: bool,
}

/// The master key, for as long as the ring may have to be written.
pub(crate) struct Master {
    key: Secret,
    stretch: Stretch,
}

impl Ring {
    /// New keys.
    pub(crate) fn new() -> Result<Self, KeyError> {
        let data = DataKey { key: Secret::random()?, since_seals: 0 };
        Ok(Self {
            id: random()?,
            names: Secret::random()?,
            data: BTreeMap::from([(1, data)]),
            wraps: BTreeMap::from([(1, Secret::random()?)]),
            complete: false,
        })
    }

    /// Makes a data key that everything is sealed with from now on.
    pub(crate) fn add_data_key(&mut self, path: &Path, since_seals: u64) -> Result<(), KeyError> {
        let number = next(self.data.keys(), path)?;
        self.data.insert(number, DataKey { key: Secret::random()?, since_seals });
        Ok(())
    }

    /// Makes a key that device keys are wrapped under from now on.
    pub(crate) fn add_wrap(&mut self, path: &Path) -> Result<(), KeyError> {
        let number = next(self.wraps.keys(), path)?;
        self.wraps.insert(number, Secret::random()?);
        Ok(())
    }

    /// The file's content.
    pub(crate) fn seal(&self, master: &Master) -> Result<Vec<u8>, KeyError> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + NONCE_BYTES + BODY_BYTES_MAX);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&master.stretch.iterations.to_le_bytes());
        bytes.extend_from_slice(&master.stretch.salt);
        bytes.extend_from_slice(&fingerprint(&master.key, &self.id));
        let header: [u8; HEADER_BYTES] = bytes[..].try_into().expect("the fields above have 62 bytes");
        let nonce = random()?;
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&self.to_body());
        master.key.derive(&self.id, "ring").seal(nonce, &header, &mut bytes, HEADER_BYTES + NONCE_BYTES);
        Ok(bytes)
    }

    /// Writes the file.
    pub(crate) fn save(&self, path: &Path, master: &Master) -> Result<(), KeyError> {
        file::replace(path, &self.seal(master)?)
    }

    /// Encoded in the clear: for sealing only.
    pub(crate) fn to_body(&self) -> Zeroizing<Vec<u8>> {
        let generation =
            |number: &u32, key: &Secret, since_seals| Generation { number: *number, key: *key.bytes(), since_seals };
        let body = Body {
            names: *self.names.bytes(),
            data: self.data.iter().map(|(number, data)| generation(number, &data.key, data.since_seals)).collect(),
            wraps: self.wraps.iter().map(|(number, key)| generation(number, key, 0)).collect(),
            complete: self.complete,
        };
        let mut bytes = Zeroizing::new(vec![0; BODY_BYTES_MAX]);
        let length = bincode::serde::encode_into_slice(&body, &mut bytes, CODEC)
            .expect("512 generations of at most 49 bytes fit 48 KiB");
        bytes.truncate(length);
        bytes
    }

    /// What [`Ring::to_body`] made; `None` when it is something else.
    pub(crate) fn from_body(id: [u8; 16], bytes: &[u8]) -> Option<Self> {
        let (body, used): (Body, usize) = bincode::serde::decode_from_slice(bytes, CODEC).ok()?;
        if used != bytes.len() || body.data.is_empty() || body.wraps.is_empty() {
            return None;
        }
        let data = |one: &Generation| (one.number, DataKey { key: Secret::new(one.key), since_seals: one.since_seals });
        Some(Self {
            id,
            names: Secret::new(body.names),
            data: body.data.iter().map(data).collect(),
            wraps: body.wraps.iter().map(|one| (one.number, Secret::new(one.key))).collect(),
            complete: body.complete,
        })
    }
}

fn next<'a>(
    numbers: impl ExactSizeIterator<Item = &'a u32> + DoubleEndedIterator,
    path: &Path,
) -> Result<u32, KeyError> {
    let refused = KeyError::Generations { path: path.to_owned(), limit: GENERATIONS_MAX };
    if numbers.len() >= GENERATIONS_MAX {
        return Err(refused);
    }
    let mut numbers = numbers;
    numbers.next_back().map_or(0, |last| *last).checked_add(1).ok_or(refused)
}

fn fingerprint(master: &Secret, id: &[u8; 16]) -> [u8; 16] {
    let derived = master.derive(id, "fingerprint");
    derived.bytes()[..16].try_into().expect("the first half of 32 bytes")
}

/// The ring's file in a state folder.
pub(crate) fn path_in(state: &Path) -> PathBuf {
    state.join("keys").join("ring")
}

/// The name under which a new master key waits for the ring to be sealed with it.
pub(crate) fn waiting(key: &Path) -> PathBuf {
    let mut name = key.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    key.with_file_name(name)
}

/// Opens the ring of the folder `state`, or makes one where `fresh` says that there is nothing that could be lost.
pub(crate) fn open(state: &Path, source: &KeySource, fresh: bool) -> Result<(Ring, Master), KeyError> {
    let path = path_in(state);
    let Some(bytes) = file::read(&path)? else {
        return if fresh { create(state, &path, source) } else { Err(KeyError::NoRing(state.to_owned())) };
    };
    if let Some(found) = source.find()?
        && let Some(opened) = unseal(&path, &bytes, &found)?
    {
        return Ok(opened);
    }
    // A rotation that a crash ended between the new ring and the new key's last name.
    if let KeySource::File(key) = source {
        let new = waiting(key);
        if let Some(found) = KeySource::File(new.clone()).find()?
            && let Some(opened) = unseal(&path, &bytes, &found)?
        {
            take_place(&new, key)?;
            return Ok(opened);
        }
    }
    match source.find()? {
        None => Err(KeyError::Missing { key: source.path()?, state: state.to_owned() }),
        Some(_) => Err(KeyError::Wrong { state: state.to_owned(), source_name: source.name() }),
    }
}

/// The new key takes the old one's name; the old one is overwritten.
pub(crate) fn take_place(new: &Path, key: &Path) -> Result<(), KeyError> {
    file::destroy(key)?;
    fs::rename(new, key).map_err(KeyError::io("rename to", key))?;
    file::sync_folder(file::parent(key))
}

fn create(state: &Path, path: &Path, source: &KeySource) -> Result<(Ring, Master), KeyError> {
    let found = match (source.find()?, source) {
        (Some(found), _) => found,
        (None, KeySource::File(key)) => Found::Key(KeySource::create(key)?),
        (None, _) => return Err(KeyError::Missing { key: source.path()?, state: state.to_owned() }),
    };
    let master = Master::of(&found)?;
    let ring = Ring::new()?;
    file::create_folder(file::parent(path))?;
    ring.save(path, &master)?;
    Ok((ring, master))
}

impl Master {
    /// The master key at a source, for a ring that is yet to be sealed with it.
    pub(crate) fn of(found: &Found) -> Result<Self, KeyError> {
        let stretch = found.new_stretch()?;
        let key = found.master(&stretch).expect("the stretch was made for this kind of source");
        Ok(Self { key, stretch })
    }
}

/// Opens a ring's file; `None` when it is sealed with another key.
fn unseal(path: &Path, bytes: &[u8], found: &Found) -> Result<Option<(Ring, Master)>, KeyError> {
    let damaged = || KeyError::Damaged(path.to_owned());
    let field = |from: usize, to: usize| bytes.get(from..to).ok_or_else(damaged);
    if field(0, 8)? != MAGIC {
        return Err(damaged());
    }
    let number = |from: usize| -> Result<u16, KeyError> {
        Ok(u16::from_le_bytes(field(from, from + 2)?.try_into().map_err(|_| damaged())?))
    };
    if number(8)? != FORMAT {
        return Err(KeyError::Version { path: path.to_owned(), found: number(8)?, expected: FORMAT });
    }
    let sixteen =
        |from: usize| -> Result<[u8; 16], KeyError> { field(from, from + 16)?.try_into().map_err(|_| damaged()) };
    let (id, salt, print) = (sixteen(10)?, sixteen(30)?, sixteen(46)?);
    let iterations = u32::from(number(26)?) | u32::from(number(28)?) << 16;
    let stretch = Stretch { iterations, salt };
    let Some(key) = found.master(&stretch) else { return Ok(None) };
    if fingerprint(&key, &id) != print {
        return Ok(None);
    }
    let nonce = field(HEADER_BYTES, HEADER_BYTES + NONCE_BYTES)?.try_into().map_err(|_| damaged())?;
    let mut sealed = Zeroizing::new(bytes[HEADER_BYTES + NONCE_BYTES..].to_vec());
    let body = key.derive(&id, "ring").open(nonce, field(0, HEADER_BYTES)?, &mut sealed).ok_or_else(damaged)?;
    let ring = Ring::from_body(id, body).ok_or_else(damaged)?;
    Ok(Some((ring, Master { key, stretch })))
}
