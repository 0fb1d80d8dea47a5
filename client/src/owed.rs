//! What the device owes: the residual of each task whose codec keeps one, durable before the update that it belongs to leaves.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `owed` | task | the residual that is true now, and the one that will be once the update under way is in a version |
//!
//! The residuals are blobs. While an update is under way both are kept: asked for the same round again, after a crash too, the
//! device starts from the one before and makes the same bytes. A verdict settles which of them is true. Where a crash has swallowed the
//! verdict and another round begins, the update counts as committed: what it sent may then be lost, as with a device that drops
//! out, but it is never sent twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use starling_store::{Batch, Store, StoreError};
use starling_update::{Residual, ResidualError};
use starling_wire::{Address, Digest, RunId, TaskId};

const OWED: &str = "owed";

/// Tasks that something is owed for, at most; the one that comes after them takes the first one's place.
const TASKS_MAX: usize = 64;

/// Why a residual cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwedError {
    #[error("the residual cannot be read or written")]
    Store(#[from] StoreError),
    #[error(
        "the residual of the task is damaged; `starling-client` goes on without it once its `owed` record is removed"
    )]
    Damaged(#[from] ResidualError),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Record {
    /// The residual's blob; nothing is owed without one.
    now: Option<Digest>,
    then: Option<Then>,
}

/// What will be owed once an update is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Then {
    run: RunId,
    round: u32,
    residual: Digest,
    /// The update was refused, or its round went on without it; a later attempt may still take it.
    left_out: bool,
}

/// The residuals of this device, by task.
#[derive(Clone)]
pub(crate) struct Owed {
    store: Arc<Store>,
}

impl Owed {
    /// The residuals in `store`.
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// The blobs that records in `store` name.
    pub(crate) fn named(store: &Store) -> Result<BTreeSet<String>, StoreError> {
        let records: Vec<(String, Record)> = store.scan(OWED)?;
        let digests = records.into_iter().flat_map(|(_, record)| [record.now, record.then.map(|then| then.residual)]);
        Ok(digests.flatten().map(|digest| digest.to_string()).collect())
    }

    /// Forgets everything: the folder has been another device's.
    pub(crate) fn clear(store: &Store, batch: &mut Batch) -> Result<(), StoreError> {
        let records: Vec<(String, Record)> = store.scan(OWED)?;
        records.iter().for_each(|(key, _)| batch.remove(OWED, key));
        Ok(())
    }

    /// What a training of `count` parameters for this round starts from. Blocks.
    pub(crate) fn before(&self, task: TaskId, address: &Address, count: usize) -> Result<Residual, OwedError> {
        let record = self.record(task)?;
        let again = |then: &Then| (then.run, then.round) == (address.run, address.round) || then.left_out;
        let digest = match record.then {
            Some(then) if !again(&then) => Some(then.residual),
            _ => record.now,
        };
        let Some(digest) = digest else { return Ok(Residual::zero(count)) };
        match self.store.get_blob(&digest.to_string())? {
            Some(bytes) => Ok(Residual::from_bytes(&bytes, count)?),
            None => Ok(Residual::zero(count)),
        }
    }

    /// Makes `residual` durable as what will be owed once the update of this round is in a version. Blocks.
    pub(crate) fn pend(&self, task: TaskId, address: &Address, residual: &Residual) -> Result<(), OwedError> {
        let mut record = self.record(task)?;
        let old = record.clone();
        if let Some(then) = record.then
            && (then.run, then.round) != (address.run, address.round)
            && !then.left_out
        {
            record.now = Some(then.residual);
        }
        let bytes = residual.to_bytes();
        let digest = Digest::of(&bytes);
        self.store.put_blob(&digest.to_string(), &bytes)?;
        record.then = Some(Then { run: address.run, round: address.round, residual: digest, left_out: false });
        self.write(task, &old, &record)
    }

    /// The update of this round is in a version, or is not. Blocks.
    pub(crate) fn settle(&self, task: TaskId, address: &Address, committed: bool) -> Result<(), OwedError> {
        let old = self.record(task)?;
        let mut record = old.clone();
        let Some(then) = record.then.filter(|then| (then.run, then.round) == (address.run, address.round)) else {
            return Ok(());
        };
        if committed {
            (record.now, record.then) = (Some(then.residual), None);
        } else {
            record.then = Some(Then { left_out: true, ..then });
        }
        self.write(task, &old, &record)
    }

    fn record(&self, task: TaskId) -> Result<Record, StoreError> {
        Ok(self.store.get(OWED, &task.to_string())?.unwrap_or_default())
    }

    /// Writes the record, then drops the blobs that only the old one named.
    fn write(&self, task: TaskId, old: &Record, new: &Record) -> Result<(), OwedError> {
        let key = task.to_string();
        let mut batch = Batch::new();
        batch.put(OWED, &key, new)?;
        let others: Vec<(String, Record)> = self.store.scan(OWED)?;
        if let Some((first, _)) = others.iter().find(|(other, _)| others.len() >= TASKS_MAX && *other != key) {
            batch.remove(OWED, first);
        }
        self.store.commit(batch)?;
        let named = Self::named(&self.store)?;
        let before = [old.now, old.then.map(|then| then.residual)];
        for digest in before.into_iter().flatten().map(|digest| digest.to_string()) {
            if !named.contains(&digest) {
                self.store.remove_blob(&digest)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use starling_spec::CodecSpec;
    use starling_store::KeySource;
    use starling_update::seal_with_feedback;
    use starling_wire::UpdateReport;

    use super::*;

    const TASK: TaskId = TaskId([3; 16]);
    const COUNT: usize = 50;

    fn address(round: u32) -> Address {
        Address { task: TASK, run: RunId(7), round, attempt: 1 }
    }

    /// A device with a folder that survives it.
    struct Device(tempfile::TempDir);

    impl Device {
        fn owed(&self) -> Owed {
            let state = self.0.path().join("state");
            Owed::new(Arc::new(Store::open(&state, &KeySource::beside(&state)).expect("a store")))
        }

        /// Seals `delta` for `round`, as the worker does, in a process that ends right after.
        fn train(&self, round: u32, delta: &[f32]) -> Vec<u8> {
            let owed = self.owed();
            let before = owed.before(TASK, &address(round), COUNT).expect("a residual");
            let report = UpdateReport { weight: 1, train_loss: 0.0, steps: 1, within_clip: false };
            let codec = CodecSpec::TopK(40_000);
            let (sealed, then) = seal_with_feedback(&report, delta, codec, 1, &before).expect("it is sealed");
            owed.pend(TASK, &address(round), &then).expect("durable");
            sealed.bytes().to_vec()
        }

        fn settle(&self, round: u32, committed: bool) {
            self.owed().settle(TASK, &address(round), committed).expect("settled");
        }

        fn owes(&self, round: u32) -> Residual {
            self.owed().before(TASK, &address(round), COUNT).expect("a residual")
        }
    }

    fn delta(seed: u8) -> Vec<f32> {
        (0..COUNT).map(|index| f32::from(u8::try_from(index).expect("small") ^ seed) / 64.0).collect()
    }

    #[test]
    fn inv5_the_same_round_asked_again_after_a_crash_gives_the_same_bytes() {
        let device = Device(tempfile::tempdir().expect("a folder"));
        device.train(1, &delta(1));
        device.settle(1, true);
        let first = device.train(2, &delta(2));
        assert_eq!(device.train(2, &delta(2)), first);
    }

    #[test]
    fn inv5_a_verdict_decides_what_is_owed() {
        let device = Device(tempfile::tempdir().expect("a folder"));
        device.train(1, &delta(1));
        assert_eq!(device.owes(1), Residual::zero(COUNT), "nothing was owed before the first round");
        device.settle(1, false);
        assert_eq!(device.owes(2), Residual::zero(COUNT), "an update that was left out changes nothing");
        device.settle(1, true);
        assert_ne!(device.owes(2), Residual::zero(COUNT), "a later attempt took it after all");
        assert_eq!(device.owed().store.blobs().expect("a list").len(), 1);
    }

    #[test]
    fn inv5_an_update_whose_verdict_was_lost_is_never_sent_twice() {
        let device = Device(tempfile::tempdir().expect("a folder"));
        device.train(1, &delta(1));
        let owed = device.owes(2);
        assert_ne!(owed, Residual::zero(COUNT));
        device.train(2, &delta(2));
        device.settle(2, false);
        assert_eq!(device.owes(3), owed, "round 2 was left out, round 1 counts");
    }
}
