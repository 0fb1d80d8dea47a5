//! The end of the log that grows: it numbers an entry, ties it to the one before, and adds it to the tree.

use starling_wire::Digest;

use crate::record::{Entry, Record, RecordError};
use crate::tree::{Frontier, leaf_hash};

/// A record as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The record.
    pub record: Record,
    /// Its line, over which the leaf hash is made.
    pub line: Vec<u8>,
    /// The hash of its leaf.
    pub leaf: Digest,
}

/// Where the log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    frontier: Frontier,
    last: Digest,
}

impl Default for Chain {
    fn default() -> Self {
        Self::continuing(Frontier::new(), Digest([0; 32]))
    }
}

impl Chain {
    /// A log that goes on: its tree, and the leaf hash of its last record (zeros if it has none).
    pub fn continuing(frontier: Frontier, last: Digest) -> Self {
        Self { frontier, last }
    }

    /// Appends. `time_unix_ms` is the caller's clock; it may go backwards, the numbers do not.
    ///
    /// # Errors
    /// [`RecordError`] for an entry that cannot be written; the log is then as it was.
    pub fn append(&mut self, time_unix_ms: u64, entry: Entry) -> Result<Sealed, RecordError> {
        let Entry { who, personal, action, outcome, code, about } = entry;
        let record = Record {
            seq: self.frontier.size(),
            time_unix_ms,
            prev: self.last,
            who,
            personal,
            what: action,
            outcome,
            code,
            about,
        };
        let line = record.encode()?;
        let leaf = leaf_hash(&line);
        self.frontier.push(leaf);
        self.last = leaf;
        Ok(Sealed { record, line, leaf })
    }

    /// The tree so far.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }
}
