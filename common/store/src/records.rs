//! Small records in sled, sealed one by one.
//!
//! All tables live in one sled tree, because that is what sled applies atomically. The names are keyed hashes
//! ([`crate::names`]); the true one is inside the seal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::batch::{Batch, check_name, decode, encode};
use crate::keys::secret::hex;
use crate::names::{Names, RecordName, Tag};
use crate::root::{Anchor, Root};
use crate::seal::record::{self, Opened, SEALS_PER_KEY_MAX};
use crate::seal::scope::Scope;
use crate::sync::Syncs;
use crate::{OWN_TABLE, StoreError};

const ROOT_KEY: &str = "root";

/// What sled may keep in memory of its pages. The working set is a few records; the default of 1 GiB would let an
/// aggregator's memory grow with its history.
const CACHE_BYTES: u64 = 1 << 20;

/// How often, and how long apart, opening is tried again while a store that this process has just dropped lets go of its lock:
/// sled's background tasks may hold it a moment longer.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

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
    names: Arc<Names>,
    scope: Arc<Scope>,
    root_name: RecordName,
    root: Mutex<Root>,
    /// Seals that had been made when the newest data key was taken.
    since_seals: u64,
}

/// The keys that records are sealed with.
pub(crate) struct Sealing {
    pub(crate) names: Arc<Names>,
    pub(crate) scope: Arc<Scope>,
    pub(crate) since_seals: u64,
}

impl Records {
    /// Opens the records and checks that they are those of the last commit. Where `unfinished` says that the store was never
    /// opened before, an empty one is begun.
    pub(crate) fn open(path: &Path, syncs: Arc<Syncs>, sealing: Sealing, unfinished: bool) -> Result<Self, StoreError> {
        let database = open_database(path)?;
        let log_path = path.join("db");
        let log = File::open(&log_path).map_err(StoreError::io("open", &log_path))?;
        let folder = File::open(path).map_err(StoreError::io("open the folder", path))?;
        // sled writes its settings once and syncs neither them nor their name.
        let settings_path = path.join("conf");
        let settings = File::open(&settings_path).map_err(StoreError::io("open", &settings_path))?;
        syncs.file(&settings).map_err(StoreError::io("sync", &settings_path))?;
        let Sealing { names, scope, since_seals } = sealing;
        let records = Self {
            path: path.to_owned(),
            database,
            log,
            folder,
            halted: AtomicBool::new(false),
            syncs,
            root_name: names.record(&scope.tag, OWN_TABLE, ROOT_KEY),
            names,
            scope,
            root: Mutex::default(),
            since_seals,
        };
        records.make_durable()?;
        if unfinished && records.database.is_empty() {
            records.commit(Batch::new())?;
        }
        let found = records.check()?;
        *records.root() = found;
        Ok(records)
    }

    fn root(&self) -> MutexGuard<'_, Root> {
        // It is replaced as a whole, after the batch is applied: a panicking thread leaves the old one or the new one.
        self.root.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The root record, if what it sums up is what is there.
    fn check(&self) -> Result<Root, StoreError> {
        let stale = || StoreError::Stale(self.path.clone());
        let stored = self.database.get(self.root_name).map_err(|source| self.failed(source))?.ok_or_else(stale)?;
        let opened = record::open(&self.scope, &self.root_name, &stored).ok_or_else(stale)?;
        let root: Root = decode(OWN_TABLE, ROOT_KEY, &opened.value)?;
        let mut found = Root::default();
        for pair in self.database.iter() {
            let (name, bytes) = pair.map_err(|source| self.failed(source))?;
            if name != self.root_name {
                let (version, tag) = record::stamp(&bytes).ok_or_else(stale)?;
                found.add(&self.names.element(&name, version, &tag));
            }
        }
        if found.agrees(&root) { Ok(root) } else { Err(stale()) }
    }

    /// How far the records have come.
    pub(crate) fn anchor(&self) -> Anchor {
        Anchor { commits: self.root().commits }
    }

    /// Seals so far, under whichever key.
    pub(crate) fn seals(&self) -> u64 {
        self.root().seals
    }

    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        scope: &Scope,
        table: &str,
        key: &str,
    ) -> Result<Option<T>, StoreError> {
        check_name(table, key)?;
        check_alive(scope)?;
        let name = self.names.record(&scope.tag, table, key);
        let Some(bytes) = self.database.get(name).map_err(|source| self.failed(source))? else { return Ok(None) };
        let damaged = || StoreError::DamagedRecord { table: table.to_owned(), key: key.to_owned() };
        let opened = record::open(scope, &name, &bytes).ok_or_else(damaged)?;
        if split(&opened) != Some((table, key)) {
            return Err(damaged());
        }
        decode(table, key, &opened.value).map(Some)
    }

    pub(crate) fn scan<T: DeserializeOwned>(&self, scope: &Scope, table: &str) -> Result<Vec<(String, T)>, StoreError> {
        check_name(table, "")?;
        check_alive(scope)?;
        let mut found = Vec::new();
        for pair in self.database.scan_prefix(self.names.table(&scope.tag, table)) {
            let (name, bytes) = pair.map_err(|source| self.failed(source))?;
            // A key that does not open has no other name than its hash.
            let damaged = || StoreError::DamagedRecord { table: table.to_owned(), key: hex(&name) };
            let opened = record::open(scope, &name, &bytes).ok_or_else(damaged)?;
            let (_, key) = split(&opened).filter(|(of, _)| *of == table).ok_or_else(damaged)?;
            found.push((key.to_owned(), decode(table, key, &opened.value)?));
        }
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(found)
    }

    pub(crate) fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if let Some(refused) = batch.refused {
            return Err(refused);
        }
        // The last change of a record is the one that counts, as in sled.
        let mut changes = BTreeMap::new();
        for change in batch.changes {
            let scope = change.scope.clone().unwrap_or_else(|| Arc::clone(&self.scope));
            check_alive(&scope)?;
            let name = self.names.record(&scope.tag, &change.table, &change.key);
            changes.insert(name, Some((scope, change)).filter(|(_, change)| change.value.is_some()));
        }
        self.apply(changes.into_iter().map(|(name, change)| {
            let put =
                change.and_then(|(scope, change)| Some((scope, [change.table, change.key].join("\0"), change.value?)));
            (name.to_vec(), put)
        }))
    }

    /// Removes all records of a compartment, readable or not.
    pub(crate) fn remove_scope(&self, tag: &Tag) -> Result<u64, StoreError> {
        let names = self.database.scan_prefix(tag).keys().collect::<Result<Vec<_>, _>>();
        let names = names.map_err(|source| self.failed(source))?;
        let count = names.len() as u64;
        if count > 0 {
            self.apply(names.into_iter().map(|name| (name.to_vec(), None)))?;
        }
        Ok(count)
    }

    fn apply(
        &self,
        changes: impl Iterator<Item = (Vec<u8>, Option<(Arc<Scope>, String, zeroize::Zeroizing<Vec<u8>>)>)>,
    ) -> Result<(), StoreError> {
        let mut root = self.root();
        self.check_running()?;
        let mut next = *root;
        next.commits += 1;
        let mut batch = sled::Batch::default();
        for (name, put) in changes {
            if let Some(before) = self.database.get(&name).map_err(|source| self.failed(source))? {
                let (version, tag) = record::stamp(&before).ok_or_else(|| StoreError::Stale(self.path.clone()))?;
                next.remove(&self.names.element(&name, version, &tag));
            }
            match put {
                None => batch.remove(name),
                Some((scope, true_name, value)) => {
                    let stored: RecordName = name[..].try_into().expect("names that are put are made by Names::record");
                    let sealed = record::seal(&scope, &stored, next.commits, true_name.as_bytes(), &value)?;
                    let (version, tag) = record::stamp(&sealed).expect("it was just sealed");
                    next.add(&self.names.element(&stored, version, &tag));
                    next.seals += 1;
                    batch.insert(name, sealed);
                }
            }
        }
        next.seals += 1;
        if next.seals.saturating_sub(self.since_seals) > SEALS_PER_KEY_MAX {
            return Err(StoreError::Worn(self.path.clone()));
        }
        let value = encode(OWN_TABLE, ROOT_KEY, &next)?;
        let true_name = [OWN_TABLE, ROOT_KEY].join("\0");
        let sealed = record::seal(&self.scope, &self.root_name, next.commits, true_name.as_bytes(), &value)?;
        batch.insert(&self.root_name[..], sealed);
        let applied = self.database.apply_batch(batch).map_err(|source| self.failed(source));
        let committed = applied.and_then(|()| self.make_durable());
        match committed {
            Ok(()) => *root = next,
            // After a failed write or fsync the page cache and the disk may differ, and a second fsync would report success
            // without having written. Only a fresh start, which reads what is there, is safe.
            Err(_) => self.halted.store(true, Ordering::SeqCst),
        }
        committed
    }

    /// Everything there is as it lies in sled, between two commits. `meanwhile` is called before the next one can begin.
    pub(crate) fn snapshot<T>(
        &self,
        meanwhile: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<(Vec<(sled::IVec, sled::IVec)>, T), StoreError> {
        let _root = self.root();
        self.check_running()?;
        let pairs = self.database.iter().collect::<Result<Vec<_>, _>>().map_err(|source| self.failed(source))?;
        Ok((pairs, meanwhile()?))
    }

    /// The commits that a snapshot holds.
    pub(crate) fn commits_in(&self, pairs: &[(sled::IVec, sled::IVec)]) -> Result<u64, StoreError> {
        let stale = || StoreError::Stale(self.path.clone());
        let (_, stored) = pairs.iter().find(|(name, _)| *name == self.root_name[..]).ok_or_else(stale)?;
        record::stamp(stored).map(|(version, _)| version).ok_or_else(stale)
    }

    /// The compartments that records belong to.
    pub(crate) fn scopes(&self) -> Result<BTreeSet<Tag>, StoreError> {
        let tag = |name: sled::Result<sled::IVec>| {
            let name = name.map_err(|source| self.failed(source))?;
            name.first_chunk::<16>().copied().ok_or_else(|| StoreError::Stale(self.path.clone()))
        };
        self.database.iter().keys().map(tag).collect()
    }

    /// Opens every record of the scopes; one that belongs to none of them is an error too.
    pub(crate) fn verify(&self, scopes: &[Arc<Scope>]) -> Result<(), StoreError> {
        for pair in self.database.iter() {
            let (name, bytes) = pair.map_err(|source| self.failed(source))?;
            let scope = scopes.iter().find(|scope| name.starts_with(&scope.tag));
            if scope.and_then(|scope| record::open(scope, &name, &bytes)).is_none() {
                let (table, key) = ("(unknown)".to_owned(), hex(&name));
                return Err(StoreError::DamagedRecord { table, key });
            }
        }
        Ok(())
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

fn check_alive(scope: &Scope) -> Result<(), StoreError> {
    if scope.is_forgotten() { Err(StoreError::Forgotten(scope.id.clone())) } else { Ok(()) }
}

/// Table and key of a record.
fn split(opened: &Opened) -> Option<(&str, &str)> {
    opened.name.split_once('\0')
}

/// Opens sled, waiting a moment for a store that this process has just dropped.
pub(crate) fn open_database(path: &Path) -> Result<sled::Db, StoreError> {
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
