//! What a device checks of the answer to "is my update in the log?": the record, the way from it to a signed root, and the way from the last root
//! that the device saw to this one. A device that keeps the checkpoints it was shown is a witness: it cannot be shown two logs.

use starling_wire::{DeviceId, Digest, Receipt, Role};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::note::{Note, VerifierKey};
use crate::record::{Action, Record, RecordError, Who};
use crate::verify::{self, ProofError};

/// Why a receipt is none.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The record cannot be read.
    #[error("the receipt's record")]
    Record(#[from] RecordError),
    /// The checkpoint cannot be read, or is not the log's.
    #[error("the receipt's checkpoint")]
    Checkpoint(#[from] CheckpointError),
    /// The record speaks of something else.
    #[error("the receipt is for another update: {0} differs")]
    Other(&'static str),
    /// The record is not in the log.
    #[error("the record is not shown to be in the log")]
    Inclusion(#[source] ProofError),
    /// The log is not a continuation.
    #[error("the log is not shown to go on from the one that this device saw before")]
    Consistency(#[source] ProofError),
}

/// The update that a receipt is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Whose.
    pub device: DeviceId,
    /// In which run.
    pub run: u32,
    /// In which round.
    pub round: u32,
    /// Its bytes, where the device still knows them.
    pub digest: Option<Digest>,
}

/// Checks a receipt. `held` is the last checkpoint of this log that the device has accepted.
///
/// # Errors
/// [`ReceiptError`] says which part does not hold.
pub fn check(
    receipt: &Receipt,
    wanted: &Wanted,
    key: &VerifierKey,
    held: Option<&Checkpoint>,
) -> Result<(Record, Checkpoint), ReceiptError> {
    let record = Record::decode(&receipt.record)?;
    let about = &record.about;
    let differs = [
        (record.what != Action::UpdateAdmitted, "what was done"),
        (record.who != Who::Certificate(Role::Device, wanted.device), "the device"),
        (about.run != Some(wanted.run), "the run"),
        (about.round != Some(wanted.round), "the round"),
        (wanted.digest.is_some_and(|digest| about.digest != Some(digest)), "the digest of the update"),
    ];
    if let Some((_, what)) = differs.into_iter().find(|(differs, _)| *differs) {
        return Err(ReceiptError::Other(what));
    }
    let note = Note::parse(&receipt.checkpoint).map_err(CheckpointError::from)?;
    let checkpoint = Checkpoint::verified(&note, key)?;
    verify::inclusion(&receipt.record, record.seq, checkpoint.size, &checkpoint.root, &receipt.inclusion)
        .map_err(ReceiptError::Inclusion)?;
    if let Some(held) = held {
        verify::consistency(held.size, &held.root, checkpoint.size, &checkpoint.root, &receipt.consistency)
            .map_err(ReceiptError::Consistency)?;
    }
    Ok((record, checkpoint))
}
