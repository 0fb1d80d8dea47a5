//! What of a secure sum is durable before it leaves the device: that an attempt was begun, and what was said in it. Never a key.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `secure` | run | the guard of its attempts, and the blobs of what was said in the latest one |

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use starling_secagg::{Guard, Refused, Restored, Setup, Unsent};
use starling_store::{Batch, Store, StoreError};
use starling_wire::{Digest, RunId};

const SECURE: &str = "secure";

/// Runs whose attempts are remembered, at most: beyond them the one with the lowest number goes, whose run is the oldest.
const RUNS_MAX: usize = 1024;

/// Why nothing may be said.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error("the journal of secure sums cannot be read or written")]
    Store(#[from] StoreError),
    #[error("the journal of secure sums is damaged")]
    Damaged(#[source] Refused),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Record {
    #[serde(with = "serde_bytes")]
    guard: Vec<u8>,
    said: Vec<Digest>,
}

/// The journal of one store.
pub(crate) struct Journal {
    store: Arc<Store>,
}

impl Journal {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// The blobs that the journal in `store` names.
    pub(crate) fn named(store: &Store) -> Result<BTreeSet<String>, StoreError> {
        let records: Vec<(String, Record)> = store.scan(SECURE)?;
        Ok(records.into_iter().flat_map(|(_, record)| record.said).map(|digest| digest.to_string()).collect())
    }

    /// Forgets everything: the folder has been another device's.
    pub(crate) fn clear(store: &Store, batch: &mut Batch) -> Result<(), StoreError> {
        let records: Vec<(String, Record)> = store.scan(SECURE)?;
        records.iter().for_each(|(key, _)| batch.remove(SECURE, key));
        Ok(())
    }

    /// The attempts of a run that were begun.
    pub(super) fn guard(&self, run: RunId) -> Result<Guard, JournalError> {
        match self.record(run)? {
            None => Ok(Guard::new(run)),
            Some(record) => Guard::from_bytes(&record.guard, None).map_err(JournalError::Damaged),
        }
    }

    /// What was said in the attempt of `setup`, by a process that is gone.
    pub(super) fn restored(&self, setup: &Setup) -> Result<Restored, JournalError> {
        let record = self.record(setup.address.run)?.unwrap_or_default();
        let mut said = Vec::new();
        for digest in &record.said {
            said.extend(self.store.get_blob(&digest.to_string())?);
        }
        Ok(Restored::read(setup, said.iter().map(Vec::as_slice)))
    }

    /// An attempt begins: what was said in the one before goes.
    pub(super) fn begin(&self, run: RunId, guard: &Guard, said: &Unsent) -> Result<(), JournalError> {
        let before = self.record(run)?.unwrap_or_default();
        let record = Record { guard: guard.to_bytes(), said: vec![self.put(said)?] };
        let mut batch = Batch::new();
        batch.put(SECURE, &key(run), &record)?;
        let others: Vec<(String, Record)> = self.store.scan(SECURE)?;
        if let Some((oldest, _)) = others.iter().find(|(other, _)| others.len() >= RUNS_MAX && *other != key(run)) {
            batch.remove(SECURE, oldest);
        }
        self.store.commit(batch)?;
        self.drop_unnamed(&before.said)
    }

    /// Something is said.
    pub(super) fn note(&self, run: RunId, said: &Unsent) -> Result<(), JournalError> {
        let mut record = self.record(run)?.unwrap_or_default();
        let digest = self.put(said)?;
        if !record.said.contains(&digest) {
            record.said.push(digest);
            let mut batch = Batch::new();
            batch.put(SECURE, &key(run), &record)?;
            self.store.commit(batch)?;
        }
        Ok(())
    }

    /// The round is over: what was said need not be said again. That its attempts were begun stays.
    pub(super) fn end(&self, run: RunId) -> Result<(), JournalError> {
        let Some(record) = self.record(run)?.filter(|record| !record.said.is_empty()) else { return Ok(()) };
        let mut batch = Batch::new();
        batch.put(SECURE, &key(run), &Record { guard: record.guard, said: Vec::new() })?;
        self.store.commit(batch)?;
        self.drop_unnamed(&record.said)
    }

    fn put(&self, said: &Unsent) -> Result<Digest, StoreError> {
        let digest = Digest::of(said.record());
        self.store.put_blob(&digest.to_string(), said.record())?;
        Ok(digest)
    }

    fn drop_unnamed(&self, digests: &[Digest]) -> Result<(), JournalError> {
        let named = Self::named(&self.store)?;
        for digest in digests.iter().map(ToString::to_string).filter(|digest| !named.contains(digest)) {
            self.store.remove_blob(&digest)?;
        }
        Ok(())
    }

    fn record(&self, run: RunId) -> Result<Option<Record>, StoreError> {
        self.store.get(SECURE, &key(run))
    }
}

/// With as many digits as any run has, so that keys are in the order of runs.
fn key(run: RunId) -> String {
    format!("{:010}", run.0)
}
