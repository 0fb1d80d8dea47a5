//! Small records in sled.
//!
//! All tables live in one sled tree, with keys `table NUL key`, because that is what sled applies atomically.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::StoreError;
use crate::sync::Syncs;

/// The largest encoded value of a record, in bytes.
///
/// sled writes a leaf of its tree as one message, and spills a message of more than a quarter of a segment (512 KiB / 4) to a
/// file that it never syncs. A leaf splits above 16 entries and is merged below 4, so it has at most 20, hence at most
/// 20 × (4096 + 320 + overhead) < 128 KiB.
pub const VALUE_BYTES_MAX: usize = 4096;

/// The longest table name plus key, in bytes; see [`VALUE_BYTES_MAX`] for what it protects.
pub const KEY_BYTES_MAX: usize = 256;

/// A decoder may reserve this much for one record: the in-memory form of 4 KiB of elements that take a byte each.
const DECODE_BYTES_MAX: usize = 1 << 20;

/// What sled may keep in memory of its pages. The working set is a few records; the default of 1 GiB would let an
/// aggregator's memory grow with its history.
const CACHE_BYTES: u64 = 1 << 20;

/// How often, and how long apart, opening is tried again while a store that this process has just dropped lets go of its lock:
/// sled's background tasks may hold it a moment longer.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

const CODEC: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<DECODE_BYTES_MAX>,
> = bincode::config::standard().with_limit::<DECODE_BYTES_MAX>();

/// Changes that are applied together or not at all.
#[derive(Default)]
pub struct Batch {
    inner: sled::Batch,
    len: usize,
    refused: Option<StoreError>,
}

impl Batch {
    /// No changes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a record, over the one that is there. Refuses a value that encodes to more than [`VALUE_BYTES_MAX`].
    pub fn put<T: Serialize + ?Sized>(&mut self, table: &str, key: &str, value: &T) -> Result<(), StoreError> {
        let path = full_key(table, key)?;
        let bytes = encode(table, key, value)?;
        self.inner.insert(path, bytes);
        self.len += 1;
        Ok(())
    }

    /// Removes a record; it is no error if there is none. A name that no record can have is refused at the commit.
    pub fn remove(&mut self, table: &str, key: &str) {
        match full_key(table, key) {
            Ok(path) => {
                self.inner.remove(path);
                self.len += 1;
            }
            Err(error) => self.refused = self.refused.take().or(Some(error)),
        }
    }

    /// The number of changes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The open sled database, with what it takes to make its commits survive a power cut.
pub(crate) struct Records {
    path: PathBuf,
    database: sled::Db,
    /// A second descriptor of sled's log: fsync works on the file, not on the descriptor. It is opened once, at the start, because
    /// the system reports a failed write once to each descriptor that was open when it failed.
    log: File,
    folder: File,
    halted: AtomicBool,
    syncs: Arc<Syncs>,
}

impl Records {
    pub(crate) fn open(path: &Path, syncs: Arc<Syncs>) -> Result<Self, StoreError> {
        let database = open_database(path)?;
        let log_path = path.join("db");
        let log = File::open(&log_path).map_err(StoreError::io("open", &log_path))?;
        let folder = File::open(path).map_err(StoreError::io("open the folder", path))?;
        // sled writes its settings once and syncs neither them nor their name.
        let settings_path = path.join("conf");
        let settings = File::open(&settings_path).map_err(StoreError::io("open", &settings_path))?;
        syncs.file(&settings).map_err(StoreError::io("sync", &settings_path))?;
        let records = Self { path: path.to_owned(), database, log, folder, halted: AtomicBool::new(false), syncs };
        records.make_durable()?;
        Ok(records)
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, table: &str, key: &str) -> Result<Option<T>, StoreError> {
        let found = self.database.get(full_key(table, key)?).map_err(|source| self.failed(source))?;
        found.map(|bytes| decode(table, key, &bytes)).transpose()
    }

    pub(crate) fn scan<T: DeserializeOwned>(&self, table: &str) -> Result<Vec<(String, T)>, StoreError> {
        let prefix = full_key(table, "")?;
        let mut found = Vec::new();
        for pair in self.database.scan_prefix(&prefix) {
            let (path, bytes) = pair.map_err(|source| self.failed(source))?;
            let key = String::from_utf8_lossy(&path[prefix.len()..]).into_owned();
            let value = decode(table, &key, &bytes)?;
            found.push((key, value));
        }
        Ok(found)
    }

    pub(crate) fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if let Some(refused) = batch.refused {
            return Err(refused);
        }
        self.check_running()?;
        let applied = self.database.apply_batch(batch.inner).map_err(|source| self.failed(source));
        let committed = applied.and_then(|()| self.make_durable());
        // After a failed write or fsync the page cache and the disk may differ, and a second fsync would report success
        // without having written. Only a fresh start, which reads what is there, is safe.
        if committed.is_err() {
            self.halted.store(true, Ordering::SeqCst);
        }
        committed
    }

    fn make_durable(&self) -> Result<(), StoreError> {
        self.database.flush().map_err(|source| self.failed(source))?;
        self.syncs.flushed();
        self.syncs.file(&self.log).map_err(StoreError::io("sync the record log in", &self.path))?;
        // sled replaces its snapshot by a rename at times of its own choosing.
        self.syncs.folder(&self.folder).map_err(StoreError::io("sync the folder", &self.path))
    }

    fn check_running(&self) -> Result<(), StoreError> {
        if self.halted.load(Ordering::SeqCst) { Err(StoreError::Halted(self.path.clone())) } else { Ok(()) }
    }

    fn failed(&self, source: sled::Error) -> StoreError {
        StoreError::Records { path: self.path.clone(), source }
    }
}

fn open_database(path: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::default()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .mode(sled::Mode::LowSpace)
        // Nothing is written behind our back: a commit decides when.
        .flush_every_ms(None);
    let mut tries = 1;
    loop {
        match config.open() {
            Ok(database) => return Ok(database),
            Err(source) if is_lock_refusal(&source) => {
                if tries == LOCK_TRIES {
                    return Err(StoreError::InUse(path.to_owned()));
                }
                tries += 1;
                thread::sleep(LOCK_PAUSE);
            }
            Err(source) => return Err(StoreError::Records { path: path.to_owned(), source }),
        }
    }
}

/// sled has no error kind for a held lock, only this text.
fn is_lock_refusal(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(inner) if inner.to_string().starts_with("could not acquire lock"))
}

fn full_key(table: &str, key: &str) -> Result<Vec<u8>, StoreError> {
    let refuse = |expected| Err(StoreError::Name { table: table.to_owned(), key: key.to_owned(), expected });
    if table.is_empty() || table.contains('\0') {
        return refuse("a table's name is not empty and has no NUL");
    }
    if table.len() + key.len() > KEY_BYTES_MAX {
        return refuse("a table's name and a key have at most 256 bytes together");
    }
    let mut path = Vec::with_capacity(table.len() + 1 + key.len());
    path.extend_from_slice(table.as_bytes());
    path.push(0);
    path.extend_from_slice(key.as_bytes());
    Ok(path)
}

fn encode<T: Serialize + ?Sized>(table: &str, key: &str, value: &T) -> Result<Vec<u8>, StoreError> {
    let bytes = bincode::serde::encode_to_vec(value, CODEC).map_err(|error| StoreError::Encode {
        table: table.to_owned(),
        key: key.to_owned(),
        problem: error.to_string(),
    })?;
    if bytes.len() > VALUE_BYTES_MAX {
        let (table, key) = (table.to_owned(), key.to_owned());
        return Err(StoreError::TooLarge { table, key, bytes: bytes.len(), limit: VALUE_BYTES_MAX });
    }
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(table: &str, key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let refuse = |problem: String| StoreError::Decode { table: table.to_owned(), key: key.to_owned(), problem };
    let (value, used) = bincode::serde::decode_from_slice(bytes, CODEC).map_err(|error| refuse(error.to_string()))?;
    // bincode accepts trailing bytes; a record of another type often decodes into them.
    if used != bytes.len() {
        return Err(refuse(format!("{} bytes are left over", bytes.len() - used)));
    }
    Ok(value)
}
