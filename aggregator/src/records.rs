//! What the aggregator writes down, and where: one record a run, one a round; the texts and models they name are blobs.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `runs` | run | [`RunRecord`] |
//! | `rounds` | run/round | [`RoundRecord`] |
//! | `releases` | digest of the task's name | [`ReleaseRecord`] |

use serde::{Deserialize, Serialize};
use starling_store::{Batch, Store, StoreError};
use starling_wire::{Digest, RunId};

use crate::kept;

const RUNS: &str = "runs";
const ROUNDS: &str = "rounds";
const RELEASES: &str = "releases";

/// Where a run stands. It is written in one batch with the round that brought it there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// The run.
    pub(crate) run: RunId,
    /// The task's name.
    pub(crate) name: String,
    /// The blob that holds the task file as the operator gave it, overrides applied.
    pub(crate) task_blob: String,
    /// The run's seed.
    pub(crate) seed: u64,
    /// Whether rounds go on.
    pub(crate) state: RunState,
    /// Rounds committed.
    pub(crate) rounds_committed: u32,
    /// The first attempt at the next round that was never used.
    pub(crate) attempt: u16,
    /// The newest version.
    pub(crate) version: u64,
    /// The blob of the encoded version.
    pub(crate) version_blob: String,
    /// The blob of the float master, from which the next version is made.
    pub(crate) master_blob: String,
    /// The run and the version of it that this one began from, without a device that was forgotten.
    pub(crate) origin: Option<(RunId, u64)>,
    /// The run that took this one's place when a device was unlearned; its models are gone then.
    pub(crate) replaced_by: Option<RunId>,
}

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RunState {
    /// Rounds go on.
    Running,
    /// All rounds are committed, or the target is reached.
    Finished,
    /// The operator stopped it.
    Stopped,
}

/// What a round did. The names are those of `run status --json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct RoundRecord {
    /// The round, from 1.
    pub(crate) round: u32,
    /// The version that it made.
    pub(crate) version: u64,
    /// The attempt that committed.
    pub(crate) attempt: u16,
    /// Devices asked.
    pub(crate) cohort: u32,
    /// Devices whose update is in the version.
    pub(crate) contributors: u32,
    /// Sum of the weights (examples).
    pub(crate) weight: u64,
    /// From the first device asked to the version being durable.
    pub(crate) wall_s: f64,
    /// Bytes of blobs that came in since the round before, headers included.
    pub(crate) bytes_up: u64,
    /// Bytes of blobs that went out.
    pub(crate) bytes_down: u64,
    /// Training loss, weighted by examples.
    pub(crate) train_loss: f64,
    /// Accuracy on the aggregator-side test set.
    pub(crate) test_accuracy: Option<f64>,
    /// Loss on the aggregator-side test set.
    pub(crate) test_loss: Option<f64>,
    /// Accuracy over the devices' hold-outs.
    pub(crate) heldout_accuracy: Option<f64>,
    /// Loss over the devices' hold-outs.
    pub(crate) heldout_loss: Option<f64>,
}

/// The release of a task that devices are offered; its file is the blob of its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReleaseRecord {
    /// The task's name.
    pub(crate) task: String,
    /// Grows with each release of the task.
    pub(crate) version: u64,
    /// SHA-256 of the file.
    pub(crate) digest: Digest,
    /// Bytes of the file.
    pub(crate) length: u64,
}

fn round_key(run: RunId, round: u32) -> String {
    format!("{:010}/{round:010}", run.0)
}

/// Every run there is, oldest first.
pub(crate) fn runs(store: &Store) -> Result<Vec<RunRecord>, StoreError> {
    Ok(store.scan::<RunRecord>(RUNS)?.into_iter().map(|(_, record)| record).collect())
}

/// The rounds of `run`, in order.
pub(crate) fn rounds(store: &Store, run: RunId) -> Result<Vec<RoundRecord>, StoreError> {
    let prefix = format!("{:010}/", run.0);
    let rounds = store.scan::<RoundRecord>(ROUNDS)?;
    Ok(rounds.into_iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(_, record)| record).collect())
}

/// Whether any run's record, or a kept version, names this blob.
pub(crate) fn is_named(store: &Store, blob: &str) -> Result<bool, StoreError> {
    let by_run = runs(store)?.iter().any(|run| run.version_blob == blob || run.master_blob == blob);
    Ok(by_run || kept::all(store)?.iter().any(|kept| kept.master_blob == blob))
}

/// Removes these blobs, but for those that are named still.
pub(crate) fn remove_unnamed<'a>(store: &Store, blobs: impl IntoIterator<Item = &'a String>) -> Result<(), StoreError> {
    for blob in blobs {
        if !blob.is_empty() && !is_named(store, blob)? {
            store.remove_blob(blob)?;
        }
    }
    Ok(())
}

/// Puts where a run stands and, with it, the round that brought it there into a batch.
pub(crate) fn put(batch: &mut Batch, run: &RunRecord, round: Option<&RoundRecord>) -> Result<(), StoreError> {
    batch.put(RUNS, &format!("{:010}", run.run.0), run)?;
    if let Some(round) = round {
        batch.put(ROUNDS, &round_key(run.run, round.round), round)?;
    }
    Ok(())
}

/// The release of each task.
pub(crate) fn releases(store: &Store) -> Result<Vec<ReleaseRecord>, StoreError> {
    Ok(store.scan::<ReleaseRecord>(RELEASES)?.into_iter().map(|(_, record)| record).collect())
}

/// Puts which release a task has into a batch; the file is there already.
pub(crate) fn put_release(batch: &mut Batch, release: &ReleaseRecord) -> Result<(), StoreError> {
    // A name may be longer than a key.
    batch.put(RELEASES, &Digest::of(release.task.as_bytes()).to_string(), release)
}
