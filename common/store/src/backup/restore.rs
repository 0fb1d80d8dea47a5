//! Bringing a backup back.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::create::read_records;
use super::manifest::Manifest;
use super::verify::Fault;
use super::{BackupError, Repository, copy, sync_folder};
use crate::blobs::list;
use crate::keys::file::{create_folder, destroy, parent};
use crate::keys::secret::hex;
use crate::keys::{compartment, ring};
use crate::records::open_database;
use crate::{KeySource, Store, StoreError};

/// A state folder that is there for a moment. The wrapped keys in it are overwritten before it goes, so that destroying those of
/// a device later leaves none behind.
struct Scratch(TempDir);

impl Scratch {
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let devices = compartment::folder_in(self.path());
        for name in list(&devices).unwrap_or_default() {
            // A folder that cannot be cleared now is removed by the system's means; the wraps in it open with the ring alone.
            let _ = destroy(&devices.join(name));
        }
    }
}

/// Backups that are not whole, and what is wrong with each.
pub type Skipped = Vec<(String, Vec<Fault>)>;

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The backup.
    pub id: String,
    /// When it was made, in seconds since 1970.
    pub made_unix_s: u64,
    /// Newer backups that were damaged, and how.
    pub skipped: Skipped,
    /// Devices that were forgotten since: what was theirs is not brought back.
    pub forgotten: usize,
    /// The commits that the store has now.
    pub commits: u64,
}

impl Repository {
    /// Restores a backup (`id`, or the newest that is whole) into a state folder that holds nothing but its keys. The folder
    /// appears restored or stays as it was.
    ///
    /// # Errors
    /// The folder has records, there are no keys or others, or no backup is whole.
    pub fn restore(&self, id: Option<&str>, state: &Path, source: &KeySource) -> Result<Restored, StoreError> {
        if !list(&state.join("records"))?.is_empty() {
            return Err(BackupError::Occupied(state.to_owned()).into());
        }
        if !ring::path_in(state).exists() {
            return Err(BackupError::NoKeys(state.to_owned()).into());
        }
        let lock = crate::store::lock(state)?;
        let (manifest, skipped) = self.choose(id)?;
        let scratch = self.build(&manifest, state, source)?;
        let (forgotten, commits) = {
            let store = Store::open(scratch.path(), source)?;
            let forgotten = store.drop_orphans()?;
            store.begin_era()?;
            (forgotten, store.anchor().commits)
        };
        // Records last: a folder without them is one that was not restored yet.
        for name in ["blobs", "records"] {
            let to = state.join(name);
            if to.exists() {
                fs::remove_dir_all(&to).map_err(BackupError::io("remove the folder", &to))?;
            }
            fs::rename(scratch.path().join(name), &to).map_err(BackupError::io("rename to", &to))?;
            sync_folder(state)?;
        }
        drop(lock);
        let Manifest { id, made_unix_s, .. } = manifest;
        Ok(Restored { id, made_unix_s, skipped, forgotten, commits })
    }

    fn choose(&self, id: Option<&str>) -> Result<(Manifest, Skipped), StoreError> {
        let mut skipped = Vec::new();
        for (found, manifest) in self.list()?.into_iter().rev() {
            if id.is_some_and(|id| id != found) {
                continue;
            }
            let faults = match &manifest {
                Ok(manifest) => self.faults(manifest),
                Err(error) => vec![Fault { file: self.manifest(&found), problem: error.to_string() }],
            };
            match (manifest, faults.is_empty()) {
                (Ok(manifest), true) => return Ok((manifest, skipped)),
                _ => skipped.push((found, faults)),
            }
        }
        let faults = skipped.iter().map(|(_, faults)| faults.len()).sum();
        Err(match (id, skipped.pop()) {
            (Some(id), Some((_, mut faults))) => BackupError::Rotten { id: id.to_owned(), fault: faults.remove(0) },
            (Some(id), None) => BackupError::Unknown { repository: self.path.clone(), id: id.to_owned() },
            (None, _) => BackupError::NoneGood { repository: self.path.clone(), faults },
        }
        .into())
    }

    /// A restore that is thrown away: every record and blob is opened.
    pub(super) fn drill(&self, manifest: &Manifest, state: &Path, source: &KeySource) -> Result<(), StoreError> {
        let scratch = self.build(manifest, state, source)?;
        let store = Store::open(scratch.path(), source)?;
        store.drop_orphans()?;
        store.verify()
    }

    /// A whole state folder beside `state`, with its keys, from a backup.
    fn build(&self, manifest: &Manifest, state: &Path, source: &KeySource) -> Result<Scratch, StoreError> {
        let (keys, _) = ring::open(state, source, false)?;
        if hex(&keys.id) != manifest.store {
            let (keys, backup) = (hex(&keys.id), manifest.store.clone());
            return Err(BackupError::OtherStore { keys, backup }.into());
        }
        if !manifest.is_sealed_by(&crate::names::Names::new(&keys.names, &keys.id)) {
            let problem = "it was not made by this store".to_owned();
            return Err(BackupError::Manifest { path: self.manifest(&manifest.id), problem }.into());
        }
        let beside = parent(state);
        let scratch = tempfile::Builder::new()
            .prefix(super::SCRATCH_PREFIX)
            .tempdir_in(beside)
            .map_err(BackupError::io("create a folder in", beside))?;
        let scratch = Scratch(scratch);
        let (keys_from, keys_to) = (state.join("keys"), scratch.path().join("keys"));
        create_folder(&keys_to.join("devices"))?;
        copy(&keys_from.join("ring"), &keys_to.join("ring"))?;
        for name in list(&compartment::folder_in(state))? {
            copy(&keys_from.join("devices").join(&name), &keys_to.join("devices").join(&name))?;
        }

        let blobs = scratch.path().join("blobs");
        let mut folders: Vec<PathBuf> = vec![blobs.clone()];
        create_folder(&blobs)?;
        for entry in &manifest.blobs {
            let to = blobs.join(&entry.path);
            let folder = parent(&to).to_owned();
            if !folders.contains(&folder) {
                create_folder(&folder)?;
                folders.push(folder);
            }
            copy(&self.object(&entry.digest), &to)?;
        }
        folders.iter().try_for_each(|folder| sync_folder(folder))?;

        let object = self.object(&manifest.records.digest);
        let bytes = fs::read(&object).map_err(BackupError::io("read", &object))?;
        let rotten = || BackupError::Manifest { path: object.clone(), problem: "it holds no records".to_owned() };
        let records = scratch.path().join("records");
        create_folder(&records)?;
        let database = open_database(&records)?;
        let mut batch = sled::Batch::default();
        for (name, value) in read_records(&bytes).ok_or_else(rotten)? {
            batch.insert(name, value);
        }
        let failed = |source| StoreError::Records { path: records.clone(), source };
        database.apply_batch(batch).map_err(failed)?;
        // `Store::open` makes the log itself durable.
        database.flush().map_err(failed)?;
        Ok(scratch)
    }
}
