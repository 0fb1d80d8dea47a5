//! The log in the store: recent records one by one, so that they go into the batch of the act that they record; older ones in blobs of 1,024, so
//! that a log that grows for ever does not grow the small store.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use starling_audit::{Checkpoint, Nodes, Note, Record, VerifierKey, leaf_hash, range_root};
use starling_store::{Batch, Store, StoreError};
use starling_wire::{Digest, RunId};

/// Records of one segment: a power of two, so that a segment is a full subtree. Its blob has at most 1 MiB.
pub(crate) const SEGMENT_RECORDS: u64 = SEGMENT_LEAVES as u64;
const SEGMENT_LEAVES: usize = 1024;

/// Segments whose leaf hashes are kept at hand, 32 KiB each.
const SEGMENTS_CACHED: usize = 8;

/// Records that may be missing at the log's end before the daemon refuses to go on. Their numbers are never given again.
const GAP_MAX: u64 = 1 << 20;

pub(crate) const RECORDS: &str = "audit";
pub(crate) const SEGMENTS: &str = "audit-segments";
pub(crate) const CHECKPOINTS: &str = "audit-checkpoints";
pub(crate) const ROUNDS: &str = "audit-rounds";
pub(crate) const PERSONAL: &str = "audit-personal";
pub(crate) const ENROLMENTS: &str = "audit-enrolments";

/// What can go wrong with the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key's file.
    #[error("{path}: {problem}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A segment is not there or does not hold its records.
    #[error("records {first} to {last} of the audit log cannot be read: {problem}")]
    Segment {
        /// Its first record.
        first: u64,
        /// Its last record.
        last: u64,
        /// What is wrong.
        problem: String,
    },
    /// Far more records are missing than a crash can explain.
    #[error(
        "the audit log ends at record {found} and was signed up to {signed}; restore the state folder from a backup"
    )]
    Cut {
        /// Records found.
        found: u64,
        /// Records signed.
        signed: u64,
    },
}

/// A full segment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Segment {
    /// The blob that holds its lines.
    pub(crate) blob: String,
    /// The root over them.
    pub(crate) root: Digest,
    /// The leaf hash of its last record, which the next one names.
    pub(crate) last: Digest,
}

/// Where a round's records are: the first update and the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// The first of its updates.
    pub(crate) first: u64,
    /// The commit.
    pub(crate) last: u64,
}

pub(crate) fn record_key(seq: u64) -> String {
    format!("{seq:020}")
}

fn place_in_segment(seq: u64) -> usize {
    usize::try_from(seq % SEGMENT_RECORDS).expect("it is below 1,024")
}

pub(crate) fn round_key(run: RunId, round: u32) -> String {
    format!("{:010}/{round:010}", run.0)
}

/// What is known of the log at the start.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) segments: Vec<Digest>,
    pub(crate) tail: Vec<Digest>,
    /// The leaf hash of the last record of the last segment.
    pub(crate) last: Option<Digest>,
    /// The first record that is not what its successor names.
    pub(crate) damage: Option<u64>,
}

impl Loaded {
    pub(crate) fn size(&self) -> u64 {
        self.segments.len() as u64 * SEGMENT_RECORDS + self.tail.len() as u64
    }
}

/// Reads the roots of segments and the tail. A record that is missing or changed is taken for what its successor says of it: the tree stays the one
/// that was signed, and the damage is reported.
pub(crate) fn load(store: &Store) -> Result<Loaded, AuditError> {
    const UNKNOWN: Digest = Digest([0; 32]);
    let mut loaded = Loaded { segments: Vec::new(), tail: Vec::new(), last: None, damage: None };
    for (key, segment) in store.scan::<Segment>(SEGMENTS)? {
        let index = key.parse::<usize>().unwrap_or(loaded.segments.len());
        if index > loaded.segments.len() {
            // Nobody knows its root: no tree that goes on from here would be the one that was signed.
            return Err(AuditError::Cut { found: loaded.size(), signed: (index as u64 + 1) * SEGMENT_RECORDS });
        }
        loaded.segments.push(segment.root);
        loaded.last = Some(segment.last);
    }
    let start = loaded.size();
    let lines: BTreeMap<u64, String> =
        store.scan::<String>(RECORDS)?.into_iter().filter_map(|(key, line)| Some((key.parse().ok()?, line))).collect();
    let signed = store.scan::<String>(CHECKPOINTS)?.into_iter().filter_map(|(key, _)| key.parse::<u64>().ok()).max();
    let end = lines.keys().next_back().map_or(0, |last| last + 1).max(signed.unwrap_or(0));
    if end.saturating_sub(start) > GAP_MAX {
        return Err(AuditError::Cut { found: start + lines.len() as u64, signed: end });
    }
    let mut said = BTreeMap::new();
    for (seq, line) in &lines {
        if let Ok(record) = Record::decode(line.as_bytes()) {
            said.insert(seq.wrapping_sub(1), record.prev);
        }
    }
    for seq in start..end {
        let own = lines.get(&seq).map(|line| leaf_hash(line.as_bytes()));
        let named = said.get(&seq).copied();
        if own.is_none() || named.is_some_and(|named| own != Some(named)) {
            loaded.damage = loaded.damage.or(Some(seq));
        }
        loaded.tail.push(named.or(own).unwrap_or(UNKNOWN));
    }
    Ok(loaded)
}

/// The largest signed checkpoint. One that cannot be read or was not signed by the log is damage, and the next smaller one counts.
pub(crate) fn newest_checkpoint(store: &Store, keys: &[VerifierKey]) -> Result<Option<(Checkpoint, Note)>, AuditError> {
    for (size, text) in store.scan::<String>(CHECKPOINTS)?.into_iter().rev() {
        let read = Note::parse(&text).map_err(Into::into);
        match read.and_then(|note| Ok((Checkpoint::verified_by_any(&note, keys)?, note))) {
            Ok(found) => return Ok(Some(found)),
            Err(error) => {
                let error: starling_audit::CheckpointError = error;
                tracing::error!(size, error = %error, "a checkpoint of the audit log does not hold");
            }
        }
    }
    Ok(None)
}

/// Moves the first 1,024 records of the tail into a blob. The blob is durable before the batch that names it and takes the records out.
pub(crate) fn roll(store: &Store, index: u64, tail: &mut Vec<Digest>) -> Result<Digest, AuditError> {
    let (first, last) = (index * SEGMENT_RECORDS, (index + 1) * SEGMENT_RECORDS - 1);
    let mut text = String::new();
    for seq in first..=last {
        // A record that is gone stays gone: its line is empty, and its number is kept.
        text.push_str(&store.get::<String>(RECORDS, &record_key(seq))?.unwrap_or_default());
        text.push('\n');
    }
    let blob = Digest::of(text.as_bytes()).to_string();
    store.put_blob(&blob, text.as_bytes())?;
    let leaves: Vec<Digest> = tail.drain(..SEGMENT_LEAVES).collect();
    let root = range_root(leaves.as_slice(), 0, SEGMENT_RECORDS).unwrap_or_else(|never| match never {});
    let segment = Segment { blob, root, last: leaves[leaves.len() - 1] };
    let mut batch = Batch::new();
    batch.put(SEGMENTS, &format!("{index:010}"), &segment)?;
    (first..=last).for_each(|seq| batch.remove(RECORDS, &record_key(seq)));
    thin_checkpoints(store, first, last, &mut batch)?;
    store.commit(batch)?;
    Ok(root)
}

/// Of the checkpoints within a segment the last one stays, and those that a witness has co-signed: the tree proves the others' continuation.
fn thin_checkpoints(store: &Store, first: u64, last: u64, batch: &mut Batch) -> Result<(), AuditError> {
    let notes = store.scan::<String>(CHECKPOINTS)?.into_iter();
    let within: Vec<(u64, String)> = notes
        .filter_map(|(key, note)| Some((key.parse().ok()?, note)))
        .filter(|(size, _)| (first + 1..=last + 1).contains(size))
        .collect();
    let newest = within.last().map(|(size, _)| *size);
    for (size, note) in within {
        let witnessed = Note::parse(&note).is_ok_and(|note| note.signers().count() > 1);
        if Some(size) != newest && !witnessed {
            batch.remove(CHECKPOINTS, &record_key(size));
        }
    }
    Ok(())
}

/// The lines of the records `first` to the end of their segment, at most to `end`. A record that is gone is left out.
pub(crate) fn lines(store: &Store, first: u64, end: u64) -> Result<Vec<(u64, String)>, AuditError> {
    let index = first / SEGMENT_RECORDS;
    let end = end.min((index + 1) * SEGMENT_RECORDS);
    // The segment may be rolled between the two looks, so its records are looked for on both sides.
    for _ in 0..2 {
        if let Some(segment) = store.get::<Segment>(SEGMENTS, &format!("{index:010}"))? {
            let unreadable = |problem: String| AuditError::Segment {
                first: index * SEGMENT_RECORDS,
                last: (index + 1) * SEGMENT_RECORDS - 1,
                problem,
            };
            let bytes = store.get_blob(&segment.blob).map_err(|error| unreadable(error.to_string()))?;
            let bytes = bytes.ok_or_else(|| unreadable(format!("the blob {} is missing", segment.blob)))?;
            let text = String::from_utf8(bytes).map_err(|_| unreadable("the blob is no text".into()))?;
            let all = (index * SEGMENT_RECORDS..).zip(text.lines().map(str::to_owned));
            return Ok(all.filter(|(seq, line)| (first..end).contains(seq) && !line.is_empty()).collect());
        }
        let mut found = Vec::new();
        for seq in first..end {
            found.extend(store.get::<String>(RECORDS, &record_key(seq))?.map(|line| (seq, line)));
        }
        if found.len() as u64 == end.saturating_sub(first) {
            return Ok(found);
        }
        if store.get::<Segment>(SEGMENTS, &format!("{index:010}"))?.is_none() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// Leaf hashes of the segments that were looked into last.
#[derive(Debug, Default)]
pub(crate) struct LeafCache(RefCell<VecDeque<(u64, Vec<Digest>)>>);

/// The whole log, for proofs.
pub(crate) struct LogNodes<'a> {
    pub(crate) store: &'a Store,
    pub(crate) segments: &'a [Digest],
    pub(crate) tail: &'a [Digest],
    pub(crate) leaves: &'a LeafCache,
}

impl Nodes for LogNodes<'_> {
    type Error = AuditError;

    fn leaf(&self, index: u64) -> Result<Digest, AuditError> {
        let (segment, place) = (index / SEGMENT_RECORDS, place_in_segment(index));
        let rolled = self.segments.len() as u64;
        if segment >= rolled {
            let place = usize::try_from(index - rolled * SEGMENT_RECORDS).unwrap_or(usize::MAX);
            return Ok(self.tail.get(place).copied().unwrap_or(Digest([0; 32])));
        }
        let mut cache = self.leaves.0.borrow_mut();
        if let Some((_, leaves)) = cache.iter().find(|(cached, _)| *cached == segment) {
            return Ok(leaves[place]);
        }
        let first = segment * SEGMENT_RECORDS;
        let mut leaves = vec![Digest([0; 32]); SEGMENT_LEAVES];
        for (seq, line) in lines(self.store, first, first + SEGMENT_RECORDS)? {
            leaves[place_in_segment(seq)] = leaf_hash(line.as_bytes());
        }
        let leaf = leaves[place];
        cache.truncate(SEGMENTS_CACHED - 1);
        cache.push_front((segment, leaves));
        Ok(leaf)
    }

    fn subtree(&self, start: u64, end: u64) -> Option<Digest> {
        let whole = end - start == SEGMENT_RECORDS && start.is_multiple_of(SEGMENT_RECORDS);
        whole.then(|| self.segments.get(usize::try_from(start / SEGMENT_RECORDS).ok()?).copied()).flatten()
    }
}
