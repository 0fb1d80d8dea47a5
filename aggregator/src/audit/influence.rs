//! What a device has contributed to, read from the log: the rounds whose version has an update of it, and the releases that came after.

use std::collections::{BTreeMap, BTreeSet};

use starling_audit::erasure::{ReleaseInfluence, RunInfluence, ranges};
use starling_audit::{Action, Record, Who};
use starling_store::Store;
use starling_wire::{DeviceId, Digest, Role, RunId};

use super::storage::{self, AuditError, SEGMENT_RECORDS};
use crate::records;

/// A run that a device has contributed to.
#[derive(Debug, Clone)]
pub(crate) struct Contributions {
    /// The rounds, in order.
    pub(crate) rounds: Vec<u32>,
    /// The version that the first of them made.
    pub(crate) version_first: u64,
    /// The newest version of the run, and its digest.
    pub(crate) last: (u64, Digest),
}

impl Contributions {
    /// As a certificate says it.
    pub(crate) fn stated(&self, run: RunId) -> RunInfluence {
        RunInfluence {
            run: run.0,
            rounds: ranges(self.rounds.iter().copied()),
            rounds_count: self.rounds.len() as u64,
            version_first: self.version_first,
            version_last: self.last.0,
            version_last_digest: self.last.1,
            unlearned: None,
        }
    }
}

/// All that a device has contributed to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Influence {
    pub(crate) runs: BTreeMap<RunId, Contributions>,
    pub(crate) releases: Vec<ReleaseInfluence>,
    /// Records that were read.
    pub(crate) log_records: u64,
    /// What could not be read.
    pub(crate) unreadable: Vec<String>,
}

/// The word that the record of a release has for its task, whose name may be none.
pub(crate) fn task_word(task: &str) -> String {
    format!("task:{}", &Digest::of(task.as_bytes()).to_string()[..16])
}

/// Reads the first `records` of the log, a segment at a time. Blocks; beside the worker's work.
pub(crate) fn trace(store: &Store, device: DeviceId, log_records: u64) -> Result<Influence, AuditError> {
    let runs = records::runs(store)?;
    let mut trace = Trace {
        device,
        id: device.to_string(),
        tasks: runs.iter().map(|run| (run.run, task_word(&run.name))).collect(),
        offered: records::releases(store)?.iter().map(|release| release.digest).collect(),
        admitted: BTreeSet::new(),
        found: Influence { log_records, ..Influence::default() },
    };
    let mut from = 0;
    while from < log_records {
        let next = ((from / SEGMENT_RECORDS + 1) * SEGMENT_RECORDS).min(log_records);
        match storage::lines(store, from, next) {
            Ok(lines) => lines.iter().for_each(|(_, line)| trace.line(line)),
            Err(error @ AuditError::Segment { .. }) => trace.found.unreadable.push(error.to_string()),
            Err(error) => return Err(error),
        }
        from = next;
    }
    Ok(trace.found)
}

struct Trace {
    device: DeviceId,
    id: String,
    tasks: BTreeMap<RunId, String>,
    offered: Vec<Digest>,
    /// Updates that are in no version yet: run, round, attempt.
    admitted: BTreeSet<(u32, u32, u16)>,
    found: Influence,
}

impl Trace {
    fn line(&mut self, line: &str) {
        let concerns = line.contains(&self.id)
            || line.contains("\"version-committed\"")
            || line.contains("\"attempt-abandoned\"")
            || line.contains("\"release-published\"");
        // Few lines are worth parsing: the log may have millions.
        let Some(record) = concerns.then(|| Record::decode(line.as_bytes()).ok()).flatten() else { return };
        let about = &record.about;
        let place = about.run.zip(about.round).zip(about.attempt).map(|((run, round), attempt)| (run, round, attempt));
        match (record.what, place) {
            (Action::UpdateAdmitted, Some(place)) if record.who == Who::Certificate(Role::Device, self.device) => {
                self.admitted.insert(place);
            }
            (Action::UpdateWithdrawn, Some(place)) if about.device == Some(self.device) => {
                self.admitted.remove(&place);
            }
            (Action::AttemptAbandoned, Some(place)) => {
                self.admitted.remove(&place);
            }
            (Action::VersionCommitted, Some(place)) => {
                let (Some(version), Some(digest)) = (about.version, about.digest) else { return };
                let run = RunId(place.0);
                let mine = self.admitted.remove(&place);
                if mine || self.found.runs.contains_key(&run) {
                    let new = Contributions { rounds: Vec::new(), version_first: version, last: (version, digest) };
                    let run = self.found.runs.entry(run).or_insert(new);
                    run.rounds.extend(mine.then_some(place.1));
                    run.last = (version, digest);
                }
            }
            (Action::ReleasePublished, _) => {
                let (Some(version), Some(digest)) = (about.version, about.digest) else { return };
                let task = about.word.as_ref();
                if self.found.runs.keys().any(|run| task.is_some() && self.tasks.get(run) == task) {
                    let offered = self.offered.contains(&digest);
                    self.found.releases.push(ReleaseInfluence { version, digest, offered });
                }
            }
            _ => {}
        }
    }
}
