//! The store: records, blobs and the lock around both.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;

use crate::batch::Batch;
use crate::blobs::{Blobs, list};
use crate::keys::compartment::COMPARTMENT_ID_BYTES_MAX;
use crate::keys::ring::Ring;
use crate::keys::secret::unhex;
use crate::keys::source::KeySource;
use crate::keys::{self};
use crate::names::{Names, Tag};
use crate::records::{Records, Sealing};
use crate::root::Anchor;
use crate::seal::record::SEALS_PER_KEY_MAX;
use crate::seal::scope::Scope;
use crate::sync::Syncs;
use crate::{Compartment, OWN_TABLE, StoreError};

const EPOCH_KEY: &str = "epoch";
const ERA_KEY: &str = "era";

/// How far epochs jump when a state is restored: more starts than a daemon has in a year at one every thirty seconds.
const EPOCHS_PER_ERA: u64 = 1 << 20;

/// An open state folder. It can be shared between threads (`Arc<Store>`).
pub struct Store {
    pub(crate) records: Records,
    pub(crate) blobs: Blobs,
    pub(crate) names: Arc<Names>,
    pub(crate) ring: Ring,
    scope: Arc<Scope>,
    /// The compartments in use, by tag.
    compartments: Mutex<HashMap<Tag, Arc<Scope>>>,
    /// The tags of devices that were forgotten.
    forgotten: Mutex<HashSet<Tag>>,
    epoch: Mutex<()>,
    path: PathBuf,
    #[cfg(test)]
    pub(crate) syncs: Arc<Syncs>,
    /// Declared last, so released last: by then the records are closed.
    _lock: File,
}

impl Store {
    /// Opens the state folder with the master key from `source`. Where there is no folder yet it is created (mode 0700), and so is the
    /// key if it is to come from a file. While it is open, nobody else can open it ([`StoreError::InUse`]); a killed process
    /// leaves nothing that blocks the next one.
    ///
    /// # Errors
    /// A missing, readable or wrong key, a folder that was never sealed, and records that are not those of the last commit are each
    /// refused with a reason of their own; nothing is created in the place of anything.
    pub fn open(folder: &Path, source: &KeySource) -> Result<Self, StoreError> {
        let syncs = Arc::new(Syncs::default());
        create_folder(folder, &syncs)?;
        let lock = lock(folder)?;
        let (records_path, blobs_path) = (folder.join("records"), folder.join("blobs"));
        create_folder(&records_path, &syncs)?;
        create_folder(&blobs_path, &syncs)?;
        let fresh = list(&records_path)?.is_empty() && list(&blobs_path)?.is_empty();
        let (mut ring, master) = keys::ring::open(folder, source, fresh)?;
        let ring_path = keys::ring::path_in(folder);
        if ring.wraps.len() > 1 {
            // A rotation that a crash interrupted.
            keys::compartment::rewrap_all(folder, &mut ring)?;
            ring.save(&ring_path, &master)?;
        }
        let names = Arc::new(Names::new(&ring.names, &ring.id));
        let open = |ring: &Ring| -> Result<(Records, Arc<Scope>, u64), StoreError> {
            let scope = Arc::new(Scope::of_store(ring, &names));
            let since_seals = ring.data.last_key_value().map_or(0, |(_, data)| data.since_seals);
            let sealing = Sealing { names: Arc::clone(&names), scope: Arc::clone(&scope), since_seals };
            let records = Records::open(&records_path, Arc::clone(&syncs), sealing, !ring.complete)?;
            let worn = records.seals().saturating_sub(since_seals);
            Ok((records, scope, worn))
        };
        let (mut records, mut scope, seals) = open(&ring)?;
        let worn = seals > SEALS_PER_KEY_MAX / 2;
        if worn {
            ring.add_data_key(&ring_path, records.seals())?;
        }
        if worn || !ring.complete {
            ring.complete = true;
            ring.save(&ring_path, &master)?;
        }
        if worn {
            drop(records);
            (records, scope, _) = open(&ring)?;
        }
        let blobs = Blobs::open(&blobs_path, Arc::clone(&syncs), Arc::clone(&names))?;
        let forgotten = keys::compartment::marks(folder)?;
        for tag in &forgotten {
            // A crash may have come between the mark and the end of the key.
            keys::compartment::destroy(folder, tag)?;
        }
        keys::compartment::destroy_unfinished(folder)?;
        remove_unfinished_backups(folder)?;
        Ok(Self {
            records,
            blobs,
            names,
            ring,
            scope,
            compartments: Mutex::default(),
            forgotten: Mutex::new(forgotten),
            epoch: Mutex::new(()),
            path: folder.to_owned(),
            #[cfg(test)]
            syncs,
            _lock: lock,
        })
    }

    /// How far this store has come. Whoever keeps it elsewhere can tell an older copy of the folder with
    /// [`Store::check_anchor`].
    pub fn anchor(&self) -> Anchor {
        self.records.anchor()
    }

    /// Refuses a store that has fewer commits than were seen before: the whole folder was replaced by an older copy, which
    /// nothing inside it can show.
    pub fn check_anchor(&self, seen: Anchor) -> Result<(), StoreError> {
        let found = self.anchor().commits;
        if found >= seen.commits {
            return Ok(());
        }
        Err(StoreError::RolledBack { path: self.path.clone(), expected: seen.commits, found })
    }

    /// The compartment of a device; its key is made, durably, when it has none. One that was forgotten has none again.
    pub fn compartment(&self, id: &str) -> Result<Compartment<'_>, StoreError> {
        if id.is_empty() || id.len() > COMPARTMENT_ID_BYTES_MAX {
            return Err(StoreError::CompartmentId(id.to_owned()));
        }
        let mut known = self.compartments();
        if let Some(found) = self.find(&mut known, id)? {
            return Ok(found);
        }
        let tag = self.names.scope(id);
        if self.forgotten().contains(&tag) {
            return Err(StoreError::Forgotten(id.to_owned()));
        }
        let device = keys::compartment::create(&self.path, &self.ring, &tag, id)?;
        Ok(self.enter(&mut known, tag, device))
    }

    /// The compartment of a device that has one.
    pub fn known_compartment(&self, id: &str) -> Result<Option<Compartment<'_>>, StoreError> {
        self.find(&mut self.compartments(), id)
    }

    fn find(&self, known: &mut HashMap<Tag, Arc<Scope>>, id: &str) -> Result<Option<Compartment<'_>>, StoreError> {
        let tag = self.names.scope(id);
        if let Some(scope) = known.get(&tag) {
            return Ok(Some(Compartment::new(self, Arc::clone(scope))));
        }
        let device = keys::compartment::load(&self.path, &self.ring, &tag)?;
        Ok(device.map(|device| self.enter(known, tag, device)))
    }

    fn enter(
        &self,
        known: &mut HashMap<Tag, Arc<Scope>>,
        tag: Tag,
        device: keys::compartment::DeviceKey,
    ) -> Compartment<'_> {
        let scope = Arc::new(Scope::of_device(tag, device.id, self.ring.id, &device.key));
        known.insert(tag, Arc::clone(&scope));
        Compartment::new(self, scope)
    }

    /// The ids of the devices that have a compartment, sorted.
    pub fn compartment_ids(&self) -> Result<Vec<String>, StoreError> {
        let devices = keys::compartment::all(&self.path, &self.ring)?;
        let mut ids: Vec<String> = devices.into_iter().map(|(_, device)| device.id).collect();
        ids.sort();
        Ok(ids)
    }

    /// Destroys a device's key, then what it sealed, and sees to it that the device never gets a key again. When this returns,
    /// what the device had here and in every backup cannot be read any more, but for escrow copies of the key that have not
    /// expired ([`Store::erasure_final_unix_s`]). Calling it again finishes what a crash interrupted.
    pub fn forget(&self, id: &str) -> Result<Forgotten, StoreError> {
        let tag = self.names.scope(id);
        keys::compartment::mark(&self.path, &tag)?;
        self.forgotten().insert(tag);
        self.discard(id)
    }

    /// The same for what is no device and may come again: there is no mark of it afterwards.
    pub fn discard(&self, id: &str) -> Result<Forgotten, StoreError> {
        let tag = self.names.scope(id);
        let mut known = self.compartments();
        let scope = known.remove(&tag);
        if let Some(scope) = &scope {
            scope.forget();
        }
        let key_destroyed = keys::compartment::destroy(&self.path, &tag)?;
        drop(known);
        crate::backup::destroy_in_scratches(&self.path, &tag)?;
        let records = self.records.remove_scope(&tag)?;
        let blobs = self.blobs.remove_folder(&tag)?;
        Ok(Forgotten { key_destroyed, records, blobs })
    }

    /// Whether [`Store::forget`] was called for this id, in this folder or in the one that its keys were escrowed from.
    pub fn is_forgotten(&self, id: &str) -> bool {
        self.forgotten().contains(&self.names.scope(id))
    }

    fn forgotten(&self) -> MutexGuard<'_, HashSet<Tag>> {
        // Each entry is inserted whole.
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens every record and every blob.
    ///
    /// # Errors
    /// The first that does not open, by its name.
    pub fn verify(&self) -> Result<(), StoreError> {
        let mut scopes = vec![Arc::clone(&self.scope)];
        for id in self.compartment_ids()? {
            scopes.push(Arc::clone(self.compartment(&id)?.scope()));
        }
        self.records.verify(&scopes)?;
        for scope in &scopes {
            for digest in self.blobs.list(scope)? {
                self.blobs.get(scope, &digest)?;
            }
        }
        Ok(())
    }

    /// Removes what belongs to devices that have no key any more: a backup from before they were forgotten brings it back.
    pub(crate) fn drop_orphans(&self) -> Result<usize, StoreError> {
        let mut tags: BTreeSet<Tag> = self.records.scopes()?;
        for folder in self.blobs.folders()? {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            tags.extend(unhex::<16>(name.as_bytes()).map(|tag| *tag));
        }
        tags.remove(&self.scope.tag);
        for (tag, _) in keys::compartment::all(&self.path, &self.ring)? {
            tags.remove(&tag);
        }
        for tag in &tags {
            self.records.remove_scope(tag)?;
            self.blobs.remove_folder(tag)?;
        }
        Ok(tags.len())
    }

    /// How often this state was restored from a backup. What was handed out in an earlier era (tokens, attempts) may have been
    /// used in the time that was lost: bind it to the era, and refuse it in a later one.
    pub fn era(&self) -> Result<u64, StoreError> {
        Ok(self.get::<u64>(OWN_TABLE, ERA_KEY)?.unwrap_or(0))
    }

    /// The state was restored: epochs go on where no start of the lost time can have been.
    pub(crate) fn begin_era(&self) -> Result<(), StoreError> {
        let epoch = self.get::<u64>(OWN_TABLE, EPOCH_KEY)?.unwrap_or(0).saturating_add(EPOCHS_PER_ERA);
        let mut batch = Batch::new();
        batch.put(OWN_TABLE, EPOCH_KEY, &epoch)?;
        batch.put(OWN_TABLE, ERA_KEY, &(self.era()? + 1))?;
        self.commit(batch)
    }

    /// The commits that a snapshot of the records holds.
    pub(crate) fn anchor_of(&self, pairs: &[(sled::IVec, sled::IVec)]) -> Result<u64, StoreError> {
        self.records.commits_in(pairs)
    }

    pub(crate) fn compartments(&self) -> MutexGuard<'_, HashMap<Tag, Arc<Scope>>> {
        // Each entry is inserted whole.
        self.compartments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder that it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a record. It must be of the type that it was written as.
    pub fn get<T: DeserializeOwned>(&self, table: &str, key: &str) -> Result<Option<T>, StoreError> {
        self.records.get(&self.scope, table, key)
    }

    /// Reads all records of a table, in the byte order of their keys.
    pub fn scan<T: DeserializeOwned>(&self, table: &str) -> Result<Vec<(String, T)>, StoreError> {
        self.records.scan(&self.scope, table)
    }

    /// Applies a batch: all of it, durably, or nothing. Readers see either none of it or all of it.
    pub fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.records.commit(batch)
    }

    /// A number that is larger than all that were given before, also before a crash: from 1. It is durable when this returns.
    pub fn next_epoch(&self) -> Result<u64, StoreError> {
        // The lock guards no data, so one that a panicking thread held is as good as any.
        let _guard = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = self.get::<u64>(OWN_TABLE, EPOCH_KEY)?.unwrap_or(0) + 1;
        let mut batch = Batch::new();
        batch.put(OWN_TABLE, EPOCH_KEY, &epoch)?;
        self.commit(batch)?;
        Ok(epoch)
    }

    /// Stores a blob under its SHA-256 (64 lower-case hexadecimal digits); durable when this returns. Storing it again is cheap and
    /// harmless, and repairs a damaged file. That the bytes have that digest is the caller's word; [`Store::get_blob`] checks it.
    pub fn put_blob(&self, digest_hex: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.blobs.put(&self.scope, digest_hex, bytes)
    }

    /// Reads a blob and checks that it has this digest.
    pub fn get_blob(&self, digest_hex: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.blobs.get(&self.scope, digest_hex)
    }

    /// Removes a blob, durably; it is no error if there is none.
    pub fn remove_blob(&self, digest_hex: &str) -> Result<(), StoreError> {
        self.blobs.remove(&self.scope, digest_hex)
    }

    /// Removes every blob that `keep` does not name, durably; those that are damaged too.
    pub fn retain_blobs(&self, keep: &BTreeSet<String>) -> Result<(), StoreError> {
        self.blobs.retain(&self.scope, keep)
    }

    /// The digests of all blobs, sorted.
    pub fn blobs(&self) -> Result<Vec<String>, StoreError> {
        self.blobs.list(&self.scope)
    }
}

/// What [`Store::forget`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// Whether there was a key; not when it was destroyed before.
    pub key_destroyed: bool,
    /// Records that were removed.
    pub records: u64,
    /// Blobs that were removed.
    pub blobs: u64,
}

/// Links to blobs that a killed daemon's backup has left.
fn remove_unfinished_backups(folder: &Path) -> Result<(), StoreError> {
    for name in list(folder)?.into_iter().filter(|name| name.starts_with(crate::backup::LINKS_PREFIX)) {
        let path = folder.join(name);
        fs::remove_dir_all(&path).map_err(StoreError::io("remove the unfinished", &path))?;
    }
    Ok(())
}

/// Creates a folder that only its owner can enter, and makes its name durable.
pub(crate) fn create_folder(path: &Path, syncs: &Syncs) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(StoreError::io("create the folder", parent))?;
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        // Another process was faster; the lock decides between the two.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(StoreError::io("create the folder", path)(error)),
    }
    syncs.folder_at(parent)
}

/// The system releases this lock when the process ends, however it ends.
pub(crate) fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path)(error)),
    }
}

#[cfg(test)]
mod sealed;
#[cfg(test)]
mod tests;
