//! Reading the whole log after a start, beside the daemon's work: each segment against the root under which it was signed.

use std::sync::Arc;

use starling_audit::{Record, leaf_hash, range_root};
use starling_store::Store;
use starling_wire::Digest;
use tokio::sync::mpsc;

use super::storage::{self, AuditError, SEGMENT_RECORDS, SEGMENTS, Segment};
use crate::worker::Job;

/// Reads the segments on a thread of its own, a blob at a time; what is wrong becomes a record. The tail was read at the start.
pub(crate) fn in_background(store: Arc<Store>, jobs: mpsc::WeakSender<Job>) {
    let checking = move || match damaged_segment(&store) {
        Ok(None) => {}
        Ok(Some(record)) => {
            if let Some(jobs) = jobs.upgrade() {
                let _ = jobs.blocking_send(Job::AuditDamage(record));
            }
        }
        Err(error) => tracing::error!(error = %error, "the audit log could not be read to its end"),
    };
    if let Err(error) = std::thread::Builder::new().name("audit-check".into()).spawn(checking) {
        tracing::error!(error = %error, "the audit log is not checked: no thread could be started");
    }
}

/// The first record that is not the one that was signed.
fn damaged_segment(store: &Store) -> Result<Option<u64>, AuditError> {
    for (key, segment) in store.scan::<Segment>(SEGMENTS)? {
        let first = key.parse::<u64>().unwrap_or(0) * SEGMENT_RECORDS;
        let lines = match storage::lines(store, first, first + SEGMENT_RECORDS) {
            Ok(lines) => lines,
            Err(AuditError::Segment { first, problem, .. }) => {
                tracing::error!(first, problem, "a segment of the audit log cannot be read");
                return Ok(Some(first));
            }
            Err(error) => return Err(error),
        };
        let leaves: Vec<Digest> = lines.iter().map(|(_, line)| leaf_hash(line.as_bytes())).collect();
        let whole = leaves.len() as u64 == SEGMENT_RECORDS;
        let root = range_root(leaves.as_slice(), 0, leaves.len() as u64).unwrap_or_else(|never| match never {});
        if !whole || root != segment.root {
            return Ok(Some(first_break(first, &lines, &segment.last)));
        }
    }
    Ok(None)
}

/// The first record whose number is wrong or whose hash is not the one that its successor names.
fn first_break(first: u64, lines: &[(u64, String)], last: &Digest) -> u64 {
    let records: Vec<Option<Record>> = lines.iter().map(|(_, line)| Record::decode(line.as_bytes()).ok()).collect();
    for (index, (seq, line)) in lines.iter().enumerate() {
        let expected = first + index as u64;
        let own = records[index].as_ref().is_some_and(|record| record.seq == expected) && *seq == expected;
        let named = match records.get(index + 1) {
            Some(next) => next.as_ref().map(|next| next.prev),
            None => Some(*last),
        };
        if !own || named.is_some_and(|named| named != leaf_hash(line.as_bytes())) {
            return expected;
        }
    }
    first + lines.len() as u64
}
