//! What the log says of itself and signs: how long it is, and its root. The text is C2SP `tlog-checkpoint`.

use std::fmt;
use std::str::FromStr;

use starling_wire::Digest;

use crate::base64;
use crate::note::{Note, NoteError, VerifierKey};

/// A text that is no checkpoint, or not one of this log.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CheckpointError {
    /// Not three lines.
    #[error("the text is no checkpoint: expected a line each of origin, size and root")]
    Text,
    /// Another log's.
    #[error("the checkpoint is of the log {found:?}, expected {expected:?}")]
    Origin {
        /// The log that it names.
        found: String,
        /// The key's log.
        expected: String,
    },
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// How long a log is, and its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, which is also that of its key.
    pub origin: String,
    /// Records.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Digest,
}

impl Checkpoint {
    /// The same where the log's key was replaced: one of `keys` has to have signed it.
    ///
    /// # Errors
    /// What the last of the keys found.
    pub fn verified_by_any(note: &Note, keys: &[VerifierKey]) -> Result<Self, CheckpointError> {
        let mut found = Err(CheckpointError::Note(NoteError::Form));
        for key in keys {
            found = Self::verified(note, key);
            if found.is_ok() {
                break;
            }
        }
        found
    }

    /// Reads a signed checkpoint and checks that `key` signed it for its own log.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn verified(note: &Note, key: &VerifierKey) -> Result<Self, CheckpointError> {
        note.verify(key)?;
        let checkpoint: Self = note.text().parse()?;
        if checkpoint.origin == key.name() {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::Origin { found: checkpoint.origin, expected: key.name().to_owned() })
        }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, base64::encode(&self.root.0))
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.splitn(3, '\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(CheckpointError::Text);
        };
        let root = root.strip_suffix('\n').and_then(base64::decode).and_then(|root| root.try_into().ok());
        let root = Digest(root.ok_or(CheckpointError::Text)?);
        let checkpoint =
            Self { origin: origin.to_owned(), size: size.parse().map_err(|_| CheckpointError::Text)?, root };
        // One text for a checkpoint: no leading zeros, no sign.
        if checkpoint.to_string() == text { Ok(checkpoint) } else { Err(CheckpointError::Text) }
    }
}
