//! Where a log was broken: records in the order in which they were found, and checkpoints whose signatures hold.
//!
//! ```text
//!  record 6        record 7        record 8              prev(7) ≠ hash(6), prev(8) = hash(7)  →  6 was changed
//!  prev ◀─hash──── prev ◀─hash──── prev                  prev(7) ≠ hash(6), prev(8) ≠ hash(7)  →  7 was changed
//! ```
//!
//! The numbers in the records show what is missing, twice there or out of place; the chain shows what was changed. Since each record
//! names the true hash of the one before, a changed or missing one is put back as a hash, and the signed roots then say whether that
//! was all. Who rewrites every later record as well leaves the chain whole, and is found between two checkpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use starling_wire::Digest;

use crate::checkpoint::Checkpoint;
use crate::record::{Record, RecordError};
use crate::tree::{Frontier, leaf_hash};

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The line is no record. Where its neighbours tell, the record that it should be.
    Unreadable(Option<u64>, String),
    /// The record is not what it was.
    Changed(u64),
    /// Records are not there.
    Missing(u64, u64),
    /// A record that does not belong to the log: its number is taken, or beyond the end.
    Inserted(u64),
    /// The record stands in another place.
    Moved(u64),
    /// Somewhere from the first to the last of these, records were changed and the chain was made to fit: the last alone, or all from one of
    /// them on.
    Rewritten(u64, u64),
    /// No checkpoint covers these records.
    Unsigned(u64, u64),
    /// A version names other contributors than the updates recorded before it.
    Contributors(u64),
    /// Something else in an export.
    Other(String),
}

/// Damage, and the line that shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The line, from 1, where there is one.
    pub line: Option<u64>,
    /// What is wrong.
    pub damage: Damage,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        match &self.damage {
            Damage::Unreadable(Some(record), problem) => write!(f, "record {record} cannot be read: {problem}"),
            Damage::Unreadable(None, problem) => write!(f, "it cannot be read: {problem}"),
            Damage::Changed(record) => write!(f, "record {record} was changed"),
            Damage::Missing(first, last) if first == last => write!(f, "record {first} is missing"),
            Damage::Missing(first, last) => write!(f, "records {first} to {last} are missing"),
            Damage::Inserted(record) => write!(f, "a record numbered {record} was inserted"),
            Damage::Moved(record) => write!(f, "record {record} stands in another place"),
            Damage::Rewritten(first, last) if first == last => {
                write!(f, "record {first} is not the one that was signed")
            }
            Damage::Rewritten(first, last) => write!(
                f,
                "records {first} to {last} are not those that were signed: {last} alone was changed, or the chain was rewritten from one of them on"
            ),
            Damage::Unsigned(first, last) => write!(f, "records {first} to {last} are under no signed checkpoint"),
            Damage::Contributors(record) => {
                write!(f, "record {record} names other contributors than the updates recorded before it")
            }
            Damage::Other(problem) => f.write_str(problem),
        }
    }
}

/// What is kept of a record: 88 bytes.
#[derive(Debug, Clone, Copy)]
struct Seen {
    line: u64,
    seq: u64,
    leaf: Digest,
    prev: Digest,
}

/// Takes records in one by one, and says in the end what is wrong with them.
#[derive(Debug, Default)]
pub struct Locator {
    seen: Vec<Seen>,
    /// Line, how many records were read before it, problem.
    unreadable: Vec<(u64, usize, String)>,
}

impl Locator {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next record as it lies there; `line` is how a person finds it. The record is returned where it can be read.
    ///
    /// # Errors
    /// What is wrong with the line; it is noted already.
    pub fn push(&mut self, line: u64, bytes: &[u8]) -> Result<Record, RecordError> {
        match Record::decode(bytes) {
            Ok(record) => {
                self.seen.push(Seen { line, seq: record.seq, leaf: leaf_hash(bytes), prev: record.prev });
                Ok(record)
            }
            Err(error) => {
                self.unreadable.push((line, self.seen.len(), error.to_string()));
                Err(error)
            }
        }
    }

    /// Records that could be read.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// What is wrong, in the order of lines and records; nothing when the log is whole. The signatures of `checkpoints` were checked
    /// by the caller.
    pub fn finish(self, checkpoints: &[Checkpoint]) -> Vec<Finding> {
        let signed = checkpoints.iter().map(|checkpoint| checkpoint.size).max().unwrap_or(0);
        let end = signed.max((self.seen.len() + self.unreadable.len()) as u64);
        let mut findings = Vec::new();
        let genuine = self.genuine(end, &mut findings);
        findings.extend(moved(&self.seen, &genuine));
        let changed = changed(&genuine, checkpoints);
        let named = |seq: &u64| Finding { line: Some(genuine[seq].line), damage: Damage::Changed(*seq) };
        findings.extend(changed.iter().map(named));
        self.holes(&genuine, signed, &mut findings);
        findings.extend(rewritten(&genuine, &changed, checkpoints));
        if let Some((&last, _)) = genuine.last_key_value().filter(|(last, _)| **last >= signed) {
            findings.push(Finding { line: None, damage: Damage::Unsigned(signed, last) });
        }
        findings.sort_by_key(|finding| finding.line.unwrap_or(u64::MAX));
        findings
    }

    /// One record a number. Of two with the same number, the one that the next record names is the log's.
    fn genuine(&self, end: u64, findings: &mut Vec<Finding>) -> BTreeMap<u64, Seen> {
        let named: BTreeSet<(u64, [u8; 32])> =
            self.seen.iter().filter(|seen| seen.seq > 0).map(|seen| (seen.seq - 1, seen.prev.0)).collect();
        let mut genuine: BTreeMap<u64, Seen> = BTreeMap::new();
        for seen in &self.seen {
            let inserted = if seen.seq >= end {
                Some(*seen)
            } else {
                match genuine.get(&seen.seq).copied() {
                    None => {
                        genuine.insert(seen.seq, *seen);
                        None
                    }
                    Some(first) if named.contains(&(seen.seq, seen.leaf.0)) && first.leaf != seen.leaf => {
                        genuine.insert(seen.seq, *seen)
                    }
                    Some(_) => Some(*seen),
                }
            };
            if let Some(Seen { line, seq, .. }) = inserted {
                findings.push(Finding { line: Some(line), damage: Damage::Inserted(seq) });
            }
        }
        genuine
    }

    /// What is missing, and which of it lines that cannot be read stand for.
    fn holes(&self, genuine: &BTreeMap<u64, Seen>, signed: u64, findings: &mut Vec<Finding>) {
        let mut missing: Vec<(u64, u64)> = Vec::new();
        let mut next = 0;
        for &seq in genuine.keys().chain([&signed]) {
            if seq > next {
                missing.push((next, seq - 1));
            }
            next = next.max(seq + 1);
        }
        for (line, before, problem) in &self.unreadable {
            let guess = self.seen[..*before].last().map_or(0, |seen| seen.seq + 1);
            let hole = missing.iter().position(|(first, last)| (*first..=*last).contains(&guess));
            let record = hole.map(|hole| {
                let (first, last) = missing.remove(hole);
                // A run of unreadable lines takes a hole from its front.
                if first < last {
                    missing.insert(hole, (first + 1, last));
                }
                first
            });
            findings.push(Finding { line: Some(*line), damage: Damage::Unreadable(record, problem.clone()) });
        }
        for (first, last) in missing {
            // The line before which they should stand.
            let line = genuine.range(last..).next().map(|(_, seen)| seen.line);
            findings.push(Finding { line, damage: Damage::Missing(first, last) });
        }
    }
}

/// The records outside the longest stretch that is in order: the fewest that must have been moved.
fn moved(seen: &[Seen], genuine: &BTreeMap<u64, Seen>) -> Vec<Finding> {
    let found: Vec<Seen> =
        seen.iter().filter(|seen| genuine.get(&seen.seq).is_some_and(|own| own.line == seen.line)).copied().collect();
    // Patience: `tails[k]` ends the lowest ascending sequence of k + 1.
    let mut tails: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(found.len());
    for (index, seen) in found.iter().enumerate() {
        let place = tails.partition_point(|&tail| found[tail].seq < seen.seq);
        before.push(place.checked_sub(1).map(|place| tails[place]));
        if place == tails.len() { tails.push(index) } else { tails[place] = index }
    }
    let mut ordered = vec![false; found.len()];
    let mut at = tails.last().copied();
    while let Some(index) = at {
        ordered[index] = true;
        at = before[index];
    }
    let out = found.iter().zip(ordered).filter(|(_, ordered)| !ordered);
    out.map(|(seen, _)| Finding { line: Some(seen.line), damage: Damage::Moved(seen.seq) }).collect()
}

/// The records that the chain shows to be changed.
fn changed(genuine: &BTreeMap<u64, Seen>, checkpoints: &[Checkpoint]) -> BTreeSet<u64> {
    let mut changed = BTreeSet::new();
    let broken = |after: u64| {
        let (Some(left), Some(right)) = (genuine.get(&after.wrapping_sub(1)), genuine.get(&after)) else { return None };
        Some(right.prev != left.leaf)
    };
    if genuine.get(&0).is_some_and(|first| first.prev.0 != [0; 32]) {
        changed.insert(0);
    }
    for &after in genuine.keys().filter(|after| broken(**after) == Some(true)) {
        let culprit = match broken(after + 1) {
            Some(true) => after,
            Some(false) => after - 1,
            // The last one before an end or a hole: only the signed root can tell which of the two it was.
            None => {
                let suspect = BTreeSet::from([after - 1]);
                let cleared = checkpoints.iter().any(|checkpoint| checkpoint.size == after + 1);
                if cleared && rewritten(genuine, &(&changed | &suspect), checkpoints).is_some() {
                    after
                } else {
                    after - 1
                }
            }
        };
        changed.insert(culprit);
    }
    changed
}

/// The first checkpoint that the records do not lead to, once each changed or single missing one is replaced by the hash that its
/// successor names.
fn rewritten(genuine: &BTreeMap<u64, Seen>, changed: &BTreeSet<u64>, checkpoints: &[Checkpoint]) -> Option<Finding> {
    let mut wanted: Vec<&Checkpoint> = checkpoints.iter().collect();
    wanted.sort_by_key(|checkpoint| checkpoint.size);
    let mut frontier = Frontier::new();
    let mut good = 0;
    for checkpoint in wanted {
        while frontier.size() < checkpoint.size {
            let seq = frontier.size();
            let own = genuine.get(&seq).filter(|_| !changed.contains(&seq)).map(|seen| seen.leaf);
            let told = || genuine.get(&(seq + 1)).filter(|_| !changed.contains(&(seq + 1))).map(|next| next.prev);
            // What nobody knows is reported as missing or changed already.
            frontier.push(own.or_else(told)?);
        }
        if frontier.root() != checkpoint.root {
            let last = checkpoint.size.saturating_sub(1);
            let line = genuine.get(&last).map(|seen| seen.line);
            return Some(Finding { line, damage: Damage::Rewritten(good, last) });
        }
        good = checkpoint.size;
    }
    None
}
