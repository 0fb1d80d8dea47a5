//! Which devices of a cohort the owner's witnesses know: those whose enrolment is in the aggregator's audit log, under a checkpoint that one of them
//! has co-signed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use starling_audit::enrolment::{EnrolmentError, enrolled, key_digest, witnessed};
use starling_audit::{CheckpointError, KeyError, Note, VerifierKey};
use starling_net::Certified;
use starling_secagg::{Fleet, Signature, Verdict};
use starling_wire::{DeviceId, Roll};

use crate::learner::with_causes;
use crate::receipts::{self, ReceiptsError};

/// Whom the owner has named, and which log they watch.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    /// The witnesses' keys: one of them is enough.
    pub(crate) witnesses: Arc<[VerifierKey]>,
    /// The aggregator on the connection: it gives the log its name.
    pub(crate) aggregator: DeviceId,
    /// The log's key in the configuration.
    pub(crate) pinned: Option<String>,
    /// Where receipts say by which key the log is known.
    pub(crate) state_dir: PathBuf,
}

/// Why a roll counts for nothing.
#[derive(Debug, thiserror::Error)]
enum RollError {
    #[error("the audit log's key")]
    Key(#[from] KeyError),
    #[error(transparent)]
    Log(#[from] ReceiptsError),
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
}

impl Watch {
    /// The devices that are enrolled with the key that their certificate vouches for. A roll or a record that does not hold counts for nothing; why
    /// is in the log.
    pub(super) fn known(&self, rolls: &[Roll], certified: &Certified, now_unix_s: u64) -> BTreeSet<DeviceId> {
        let mut known = BTreeSet::new();
        if rolls.is_empty() {
            tracing::warn!("no witness has co-signed the audit log: nobody of the cohort counts");
        }
        for roll in rolls {
            match self.members(roll, certified, now_unix_s) {
                Ok(members) => known.extend(members),
                Err(error) => {
                    tracing::warn!(error = with_causes(&error), "a roll of enrolled devices counts for nothing")
                }
            }
        }
        known
    }

    fn members(
        &self,
        Roll { key, checkpoint, enrolments }: &Roll,
        certified: &Certified,
        now_unix_s: u64,
    ) -> Result<Vec<DeviceId>, RollError> {
        let verifier: VerifierKey = key.parse()?;
        receipts::check_log(&verifier, key, self.aggregator, self.pinned.clone(), &self.state_dir)?;
        let note = Note::parse(checkpoint).map_err(|error| EnrolmentError::from(CheckpointError::from(error)))?;
        let checkpoint = witnessed(&note, &verifier, &self.witnesses, now_unix_s)?;
        let members = enrolments.iter().filter_map(|enrolment| {
            let (device, digest) = enrolled(&enrolment.record, &enrolment.path, &checkpoint)
                .inspect_err(|error| tracing::warn!(error = with_causes(error), "an enrolment counts for nothing"))
                .ok()?;
            (certified.key(&device).map(key_digest) == Some(digest)).then_some(device)
        });
        Ok(members.collect())
    }
}

/// The cohort as this device knows it: certificates, and what witnesses have seen.
#[derive(Debug, Default)]
pub(super) struct Cohort {
    pub(super) certified: Certified,
    /// Nothing where the owner names no witnesses.
    pub(super) witnessed: Option<BTreeSet<DeviceId>>,
}

impl Fleet for Cohort {
    fn verify(&self, device: &DeviceId, message: &[u8], signature: &Signature) -> Verdict {
        self.certified.verify(device, message, signature)
    }

    fn witnessed(&self) -> Option<&BTreeSet<DeviceId>> {
        self.witnessed.as_ref()
    }
}
