//! What the client remembers: for each run the model version that it holds, so that the next one can come as a difference.
//!
//! A version arrives in memory and is trained from there. It goes to the disk when the client has been idle for a while
//! or stops, and leaves the memory then: a version that is lost in a crash only costs a whole transfer. Nothing here is
//! needed for correctness; what is durable on the aggregator is the truth (invariant 5).
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `held` | run, decimal | task and reference of the version; its bytes are the blob of its digest |
//! | `device` | `identity` | the device id that the folder belongs to |
//! | `device` | `clock-floor` | the latest time that the aggregator has told, in seconds since 1970 |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starling_protocol::participant::RUNS_MAX;
use starling_store::{Batch, Store, StoreError};
use starling_wire::{DeviceId, Digest, ModelRef, RunId, TaskId};

use crate::owed::Owed;
use crate::serving::releases::Releases;
use crate::summing::Journal;
use crate::trust::Keeper;

const HELD: &str = "held";
const DEVICE: &str = "device";
const IDENTITY: &str = "identity";
const CLOCK_FLOOR: &str = "clock-floor";

/// The record of a version on the disk.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct HeldRecord {
    task: TaskId,
    reference: ModelRef,
}

/// Where a version's bytes are. It can be read on another thread.
#[derive(Clone)]
pub(crate) enum Source {
    Memory(Bytes),
    Disk(Arc<Store>, Digest),
}

impl Source {
    /// The bytes; from the disk they are verified. Blocks.
    pub(crate) fn read(&self) -> Result<Bytes, StoreError> {
        match self {
            Self::Memory(bytes) => Ok(bytes.clone()),
            // A blob that has gone reads as an empty model, which no plan's length fits.
            Self::Disk(store, digest) => Ok(store.get_blob(&digest.to_string())?.unwrap_or_default().into()),
        }
    }
}

/// The latest time that is known for sure.
pub(crate) fn clock_floor(store: &Store) -> Result<u64, StoreError> {
    Ok(store.get::<u64>(DEVICE, CLOCK_FLOOR)?.unwrap_or(0))
}

/// Remembers it.
pub(crate) fn set_clock_floor(store: &Store, unix_s: u64) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.put(DEVICE, CLOCK_FLOOR, &unix_s)?;
    store.commit(batch)
}

/// A version that is not on the disk yet.
pub(crate) struct Unsaved {
    pub(crate) run: RunId,
    record: HeldRecord,
    bytes: Bytes,
}

impl Unsaved {
    /// The version's digest.
    pub(crate) fn digest(&self) -> Digest {
        self.record.reference.digest
    }

    /// Writes the bytes, then the record that names them, then drops the version that it named before. Blocks.
    pub(crate) fn save(&self, store: &Store) -> Result<(), StoreError> {
        let key = self.run.to_string();
        let before: Option<HeldRecord> = store.get(HELD, &key)?;
        store.put_blob(&self.digest().to_string(), &self.bytes)?;
        let mut batch = Batch::new();
        batch.put(HELD, &key, &self.record)?;
        store.commit(batch)?;
        if let Some(old) = before.map(|record| record.reference.digest).filter(|old| *old != self.digest()) {
            remove_unnamed(store, old)?;
        }
        Ok(())
    }
}

struct Held {
    record: HeldRecord,
    /// In memory; otherwise the bytes are on the disk.
    bytes: Option<Bytes>,
}

/// The versions that the client holds, at most one a run and [`RUNS_MAX`] in all.
pub(crate) struct Shelf {
    store: Arc<Store>,
    held: BTreeMap<RunId, Held>,
}

impl Shelf {
    /// What an earlier process left for `device`. Another device's leavings are removed, as are blobs that nothing names.
    pub(crate) fn open(store: Arc<Store>, device: DeviceId) -> Result<Self, StoreError> {
        let records: Vec<(String, HeldRecord)> = store.scan(HELD)?;
        let own = store.get::<DeviceId>(DEVICE, IDENTITY)? == Some(device);
        let mut held = BTreeMap::new();
        let mut batch = Batch::new();
        let mut changed = !own;
        if !own {
            batch.put(DEVICE, IDENTITY, &device)?;
            Owed::clear(&store, &mut batch)?;
            Journal::clear(&store, &mut batch)?;
            Releases::clear(&store, &mut batch)?;
        }
        // Runs only grow: of too many, the newest are worth keeping.
        let mut runs: Vec<(RunId, HeldRecord, String)> = Vec::new();
        for (key, record) in records {
            match key.parse() {
                Ok(run) => runs.push((RunId(run), record, key)),
                Err(_) => batch.remove(HELD, &key),
            }
        }
        runs.sort_by_key(|(run, ..)| std::cmp::Reverse(*run));
        for (index, (run, record, key)) in runs.into_iter().enumerate() {
            if own && index < RUNS_MAX {
                held.insert(run, Held { record, bytes: None });
            } else {
                batch.remove(HELD, &key);
                changed = true;
            }
        }
        if changed {
            store.commit(batch)?;
        }
        let mut named: BTreeSet<String> = held.values().map(|held| held.record.reference.digest.to_string()).collect();
        named.extend(Owed::named(&store)?);
        named.extend(Journal::named(&store)?);
        named.extend(Releases::named(&store)?);
        named.extend(Keeper::named(&store)?);
        store.retain_blobs(&named)?;
        Ok(Self { store, held })
    }

    /// The version that is held of a run, if it is still a run of that task.
    pub(crate) fn digest(&self, run: RunId, task: TaskId) -> Option<Digest> {
        let held = self.held.get(&run).filter(|held| held.record.task == task)?;
        Some(held.record.reference.digest)
    }

    /// Where the version's bytes are.
    pub(crate) fn source(&self, run: RunId) -> Option<Source> {
        let held = self.held.get(&run)?;
        Some(match &held.bytes {
            Some(bytes) => Source::Memory(bytes.clone()),
            None => Source::Disk(Arc::clone(&self.store), held.record.reference.digest),
        })
    }

    /// A version has arrived; it replaces the one before.
    pub(crate) fn put(&mut self, run: RunId, task: TaskId, reference: ModelRef, bytes: Bytes) {
        if self.held.len() >= RUNS_MAX
            && !self.held.contains_key(&run)
            && let Some(oldest) = self.held.keys().next().copied()
        {
            self.forget(oldest);
        }
        self.held.insert(run, Held { record: HeldRecord { task, reference }, bytes: Some(bytes) });
    }

    /// Whatever is in memory only.
    pub(crate) fn unsaved(&self) -> Vec<Unsaved> {
        let unsaved =
            |(run, held): (&RunId, &Held)| Some(Unsaved { run: *run, record: held.record, bytes: held.bytes.clone()? });
        self.held.iter().filter_map(unsaved).collect()
    }

    /// A version is on the disk: its bytes leave the memory, unless a newer one has taken its place.
    pub(crate) fn mark_saved(&mut self, run: RunId, digest: Digest) {
        if let Some(held) = self.held.get_mut(&run).filter(|held| held.record.reference.digest == digest) {
            held.bytes = None;
        }
    }

    /// The run is over.
    pub(crate) fn forget(&mut self, run: RunId) {
        self.held.remove(&run);
        if let Err(error) = self.forget_on_disk(run) {
            // The next start cleans up.
            tracing::warn!(%run, %error, "the held model could not be removed");
        }
    }

    fn forget_on_disk(&self, run: RunId) -> Result<(), StoreError> {
        let key = run.to_string();
        if let Some(record) = self.store.get::<HeldRecord>(HELD, &key)? {
            let mut batch = Batch::new();
            batch.remove(HELD, &key);
            self.store.commit(batch)?;
            remove_unnamed(&self.store, record.reference.digest)?;
        }
        Ok(())
    }

    /// The store underneath.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }
}

/// Removes a blob, unless another run holds the same version (two runs of one task start from the same model).
fn remove_unnamed(store: &Store, digest: Digest) -> Result<(), StoreError> {
    let records: Vec<(String, HeldRecord)> = store.scan(HELD)?;
    if records.iter().any(|(_, record)| record.reference.digest == digest) {
        return Ok(());
    }
    store.remove_blob(&digest.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use starling_store::KeySource;
    use starling_wire::CodecId;

    use super::*;

    const TASK: TaskId = TaskId([3; 16]);

    pub(crate) fn open_store(folder: &Path) -> Result<Store, StoreError> {
        let state = folder.join("state");
        Store::open(&state, &KeySource::beside(&state))
    }

    fn reference(bytes: &[u8], version: u64) -> ModelRef {
        let codec = CodecId { family: 1, parameter: 0 };
        ModelRef { version, digest: Digest::of(bytes), length: bytes.len() as u64, codec }
    }

    fn save_all(shelf: &mut Shelf) {
        for unsaved in shelf.unsaved() {
            unsaved.save(shelf.store()).expect("it is saved");
            shelf.mark_saved(unsaved.run, unsaved.digest());
        }
    }

    #[test]
    fn a_saved_version_is_there_after_a_restart_and_its_predecessor_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let device = DeviceId([1; 16]);
        let open = || Shelf::open(Arc::new(open_store(folder.path()).expect("a store")), device).expect("a shelf");
        let mut shelf = open();
        for (version, bytes) in [(1, b"one"), (2, b"two")] {
            shelf.put(RunId(7), TASK, reference(bytes, version), Bytes::from_static(bytes));
            save_all(&mut shelf);
            assert!(shelf.unsaved().is_empty());
        }
        drop(shelf);
        let mut shelf = open();
        assert_eq!(shelf.digest(RunId(7), TASK), Some(Digest::of(b"two")));
        assert_eq!(shelf.digest(RunId(7), TaskId([4; 16])), None, "another task's run of the same number");
        assert_eq!(shelf.source(RunId(7)).expect("held").read().expect("read"), Bytes::from_static(b"two"));
        assert_eq!(shelf.store().blobs().expect("a list").len(), 1);
        shelf.forget(RunId(7));
        assert!(shelf.store().blobs().expect("a list").is_empty());
    }

    #[test]
    fn another_devices_leavings_are_removed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open = |device| {
            let store = Arc::new(open_store(folder.path()).expect("a store"));
            Shelf::open(store, DeviceId([device; 16])).expect("a shelf")
        };
        let mut shelf = open(1);
        shelf.put(RunId(7), TASK, reference(b"one", 1), Bytes::from_static(b"one"));
        save_all(&mut shelf);
        drop(shelf);
        let shelf = open(2);
        assert_eq!(shelf.digest(RunId(7), TASK), None);
        assert!(shelf.store().blobs().expect("a list").is_empty());
    }
}
