//! What the aggregator writes down, and where: one record a run, one a round; the texts and models they name are blobs.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `runs` | run | [`RunRecord`] |
//! | `rounds` | run/round | [`RoundRecord`] |
//! | `answers` | run | [`AnswerRecord`], of a run whose goal is one |
//! | `counters` | `run` | the highest number that a removed run had |
//! | `releases` | digest of the task's name | [`ReleaseRecord`] |

use serde::{Deserialize, Serialize};
use starling_protocol::run::{Answer, HeldOut, Ranges};
use starling_store::{Batch, Store, StoreError};
use starling_update::SummedFigures;
use starling_wire::{Digest, RunId};

use crate::kept;

const RUNS: &str = "runs";
const ROUNDS: &str = "rounds";
const ANSWERS: &str = "answers";
const COUNTERS: &str = "counters";
const RELEASES: &str = "releases";

/// The record of [`COUNTERS`] about runs.
const RUN: &str = "run";

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
    /// Only devices with all of these tags take part.
    pub(crate) tags: Vec<String>,
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
    /// The clipping norm of the next round, where it adapts.
    pub(crate) clip: Option<f64>,
    /// The run and the version of it that this one began from, without a device that was forgotten.
    pub(crate) origin: Option<(RunId, u64)>,
    /// The run that took this one's place when a device was unlearned; its models are gone then.
    pub(crate) replaced_by: Option<RunId>,
}

impl RunRecord {
    /// The blobs that it names.
    pub(crate) fn blobs(&self) -> [&String; 3] {
        [&self.task_blob, &self.version_blob, &self.master_blob]
    }
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
    /// Its privacy budget is gone.
    Exhausted,
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
    /// The clipping norm that its updates were held to, where it adapts.
    pub(crate) clip: Option<f64>,
    /// Accuracy on the aggregator-side test set.
    pub(crate) test_accuracy: Option<f64>,
    /// Loss on the aggregator-side test set.
    pub(crate) test_loss: Option<f64>,
    /// Accuracy over the devices' hold-outs.
    pub(crate) heldout_accuracy: Option<f64>,
    /// Loss over the devices' hold-outs.
    pub(crate) heldout_loss: Option<f64>,
    /// Accuracy over the hold-outs of the tenth of the devices that does worst, where secure sums of a crowd tell it.
    pub(crate) heldout_worst_tenth: Option<f64>,
    /// The digest that everything in the round's secure sum was bound to: attempt, model, plan and everybody's keys. One for each group.
    pub(crate) sessions: Vec<String>,
}

impl RoundRecord {
    /// Notes what the devices of the next round said of this round's version.
    pub(crate) fn note_figures(&mut self, figures: &SummedFigures) {
        self.heldout_accuracy = figures.accuracy;
        self.heldout_loss = figures.loss;
        self.heldout_worst_tenth = figures.worst_tenth;
    }
}

/// What a run without versions found out. The names are those of `run status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AnswerRecord {
    /// Sums over the devices' hold-outs.
    HeldOut { devices: u32, examples: u64, correct: u64, loss_sum: f64 },
    /// The range of each tensor's inputs, over training rows of the devices.
    Ranges { devices: u32, examples: u64, ranges: Vec<Option<(f32, f32)>> },
}

impl From<Answer> for AnswerRecord {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::HeldOut(HeldOut { devices, examples, correct, loss_sum }) => {
                Self::HeldOut { devices, examples, correct, loss_sum }
            }
            Answer::Ranges(Ranges { devices, examples, ranges }) => {
                let ranges = ranges.into_iter().map(|range| range.map(|range| (range.low, range.high)));
                Self::Ranges { devices, examples, ranges: ranges.collect() }
            }
        }
    }
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
    /// Only devices with all of these tags are offered it.
    pub(crate) tags: Vec<String>,
}

fn run_key(run: RunId) -> String {
    format!("{:010}", run.0)
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

/// The record of one round.
pub(crate) fn round(store: &Store, run: RunId, round: u32) -> Result<Option<RoundRecord>, StoreError> {
    store.get(ROUNDS, &round_key(run, round))
}

/// The answer of `run`, if it has one.
pub(crate) fn answer(store: &Store, run: RunId) -> Result<Option<AnswerRecord>, StoreError> {
    store.get(ANSWERS, &run_key(run))
}

/// The highest number that any run has or had.
pub(crate) fn run_last(store: &Store) -> Result<u32, StoreError> {
    let removed: u32 = store.get(COUNTERS, RUN)?.unwrap_or(0);
    Ok(runs(store)?.iter().map(|run| run.run.0).fold(removed, u32::max))
}

/// Whether any run's record, or a kept version, names this blob.
pub(crate) fn is_named(store: &Store, blob: &str) -> Result<bool, StoreError> {
    let by_run = runs(store)?.iter().any(|run| run.blobs().iter().any(|named| *named == blob));
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

/// Puts the record of a round of `run`.
pub(crate) fn put_round(batch: &mut Batch, run: RunId, round: &RoundRecord) -> Result<(), StoreError> {
    batch.put(ROUNDS, &round_key(run, round.round), round)
}

/// Puts where a run stands and, with it, the round that brought it there into a batch.
pub(crate) fn put(batch: &mut Batch, run: &RunRecord, round: Option<&RoundRecord>) -> Result<(), StoreError> {
    batch.put(RUNS, &run_key(run.run), run)?;
    if let Some(round) = round {
        put_round(batch, run.run, round)?;
    }
    Ok(())
}

/// Puts what a run found out into a batch.
pub(crate) fn put_answer(batch: &mut Batch, run: RunId, answer: &AnswerRecord) -> Result<(), StoreError> {
    batch.put(ANSWERS, &run_key(run), answer)
}

/// Takes out all records of a run and of the versions that are kept of it, in one batch; gives the blobs that they named. Its number is
/// not given again.
pub(crate) fn remove(store: &Store, batch: &mut Batch, run: &RunRecord) -> Result<Vec<String>, StoreError> {
    let mut named: Vec<String> = run.blobs().into_iter().cloned().collect();
    let run = run.run;
    batch.put(COUNTERS, RUN, &run_last(store)?)?;
    batch.remove(RUNS, &run_key(run));
    batch.remove(ANSWERS, &run_key(run));
    for round in rounds(store, run)? {
        batch.remove(ROUNDS, &round_key(run, round.round));
    }
    for version in kept::of_run(store, run)? {
        kept::remove(batch, &version);
        named.push(version.master_blob);
    }
    Ok(named)
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
