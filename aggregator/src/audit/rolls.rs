//! Who of a roster is enrolled, with proofs under what witnesses have co-signed: for devices whose owners name witnesses.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use starling_audit::enrolment::key_digest;
use starling_audit::{Checkpoint, Note, VerifierKey, inclusion_proof};
use starling_store::{Batch, Store, StoreError};
use starling_wire::roll::ROLLS_MAX;
use starling_wire::{DeviceId, Digest, Enrolment, PublicKey, Roll};

use super::AuditLog;
use super::storage::{self, AuditError, ENROLMENTS};
use crate::worker::chain;

/// Enrolments whose proofs are kept, about 1 KiB each; beyond that they are made again.
const PROOFS_KEPT: usize = 1 << 14;

/// The record that says which key a device has. It is kept beside the log, so that no segment has to be read for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Enrolled {
    seq: u64,
    line: String,
}

/// Whether the log says, durably, that `key` is one of `device`'s.
pub(crate) fn is_enrolled(store: &Store, device: DeviceId, key: &PublicKey) -> Result<bool, StoreError> {
    Ok(enrolled(store, device, &key_digest(key))?.is_some())
}

fn enrolled(store: &Store, device: DeviceId, key: &Digest) -> Result<Option<Enrolled>, StoreError> {
    match store.known_compartment(&device.to_string())? {
        Some(compartment) => compartment.get(ENROLMENTS, &key.to_string()),
        None => Ok(None),
    }
}

/// A witness: two may have chosen one name.
type Witness = (String, [u8; 4]);

/// For each of the witnesses that came last, the newest checkpoint that it has co-signed.
#[derive(Debug, Default)]
pub(super) struct Cosigned(Vec<Checked>);

#[derive(Debug)]
struct Checked {
    checkpoint: Checkpoint,
    note: Note,
    by: BTreeSet<Witness>,
}

impl Cosigned {
    /// What earlier lives of the daemon have kept.
    pub(super) fn load(store: &Store, keys: &[VerifierKey]) -> Result<Self, StoreError> {
        let mut cosigned = Self::default();
        // From the oldest on: what comes later takes the place of what was there.
        for (_, text) in store.scan::<String>(storage::CHECKPOINTS)? {
            let Ok(note) = Note::parse(&text) else { continue };
            let Ok(checkpoint) = Checkpoint::verified_by_any(&note, keys) else { continue };
            let own = |(name, id): &(&str, [u8; 4])| keys.iter().any(|key| key.name() == *name && key.id() == *id);
            let by: Vec<Witness> =
                note.signatures().filter(|by| !own(by)).map(|(name, id)| (name.to_owned(), id)).collect();
            by.into_iter().for_each(|by| cosigned.take(by, checkpoint.clone(), note.clone()));
        }
        Ok(cosigned)
    }

    /// A witness has co-signed a checkpoint: `note` bears its signature, and those of others who did.
    pub(super) fn take(&mut self, by: Witness, checkpoint: Checkpoint, note: Note) {
        if self.0.iter().any(|checked| checked.by.contains(&by) && checked.checkpoint.size > checkpoint.size) {
            return;
        }
        for checked in &mut self.0 {
            checked.by.remove(&by);
        }
        match self.0.iter_mut().find(|checked| checked.checkpoint == checkpoint) {
            Some(checked) => {
                checked.note = note;
                checked.by.insert(by);
            }
            None => self.0.push(Checked { checkpoint, note, by: [by].into() }),
        }
        self.0.retain(|checked| !checked.by.is_empty());
        self.0.sort_by_key(|checked| std::cmp::Reverse(checked.checkpoint.size));
        self.0.truncate(ROLLS_MAX);
    }
}

/// Proofs that were made, by the size of the checkpoint that they lead to.
#[derive(Debug, Default)]
pub(super) struct Rolls(BTreeMap<u64, BTreeMap<(DeviceId, Digest), Enrolment>>);

impl AuditLog {
    /// Puts the record of a device's key where [`AuditLog::rolls`] finds it.
    pub(super) fn put_enrolled(
        &self,
        device: DeviceId,
        key: &Digest,
        (seq, line): (u64, &str),
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let enrolled = Enrolled { seq, line: line.to_owned() };
        match self.store.compartment(&device.to_string()) {
            Ok(compartment) => batch.put_in(&compartment, ENROLMENTS, &key.to_string(), &enrolled),
            // The record stays in the log; the device takes part in nothing any more.
            Err(StoreError::Forgotten(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The enrolments of `members`, each with the digest of the key that its certificate vouches for, under what witnesses have co-signed. Empty
    /// where no witness has.
    pub(crate) fn rolls(&mut self, members: &[(DeviceId, Digest)]) -> Vec<Roll> {
        let sizes: BTreeSet<u64> = self.cosigned.0.iter().map(|checked| checked.checkpoint.size).collect();
        self.rolls.0.retain(|size, _| sizes.contains(size));
        let mut rolls = std::mem::take(&mut self.rolls);
        let found = self.cosigned.0.iter().filter_map(|checked| {
            let known = rolls.0.entry(checked.checkpoint.size).or_default();
            if known.len() + members.len() > PROOFS_KEPT {
                known.clear();
            }
            match self.roll(checked, members, known) {
                Ok(roll) => roll.filter(Roll::is_bounded),
                Err(error) => {
                    tracing::error!(
                        error = chain(&error),
                        "the enrolments of a cohort could not be read from the audit log"
                    );
                    None
                }
            }
        });
        let found = found.collect();
        self.rolls = rolls;
        found
    }

    fn roll(
        &self,
        Checked { checkpoint, note, .. }: &Checked,
        members: &[(DeviceId, Digest)],
        known: &mut BTreeMap<(DeviceId, Digest), Enrolment>,
    ) -> Result<Option<Roll>, AuditError> {
        let Some(key) = self.keys.iter().find(|key| note.verify(key).is_ok()) else { return Ok(None) };
        let mut enrolments = Vec::with_capacity(members.len());
        for member in members {
            let enrolment = match known.get(member) {
                Some(enrolment) => enrolment.clone(),
                None => {
                    let found = enrolled(&self.store, member.0, &member.1)?;
                    let Some(Enrolled { seq, line }) = found.filter(|found| found.seq < checkpoint.size) else {
                        continue;
                    };
                    let path = inclusion_proof(&self.nodes(), seq, checkpoint.size)?;
                    let enrolment = Enrolment { record: line.into_bytes(), path };
                    known.insert(*member, enrolment.clone());
                    enrolment
                }
            };
            enrolments.push(enrolment);
        }
        Ok(Some(Roll { key: key.to_string(), checkpoint: note.to_string(), enrolments }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use starling_audit::enrolment::{enrolled, witnessed};
    use starling_audit::{About, Action, Algorithm, Entry, SigningKey, Who};
    use starling_store::KeySource;
    use starling_wire::Role;

    use super::super::AuditAsk;
    use super::super::storage::SEGMENT_RECORDS;
    use super::*;

    fn open(folder: &tempfile::TempDir) -> AuditLog {
        let path = folder.path().join("state");
        let store = Store::open(&path, &KeySource::beside(&path)).expect("the folder opens");
        AuditLog::open(Arc::new(store), DeviceId([7; 16]), 1).expect("the log opens")
    }

    fn member(device: u8) -> (DeviceId, Digest) {
        (DeviceId([device; 16]), key_digest(&PublicKey([device; 32])))
    }

    fn enrol(log: &mut AuditLog, device: u8) {
        let (id, key) = member(device);
        let about = About { digest: Some(key), ..About::default() };
        log.record(Entry::done(Who::Certificate(Role::Device, id), Action::DeviceEnrolled, about), None);
        log.flush(false).expect("written");
    }

    /// A witness of this seed comes by.
    fn cosign(log: &mut AuditLog, seed: u8) -> SigningKey {
        let key = SigningKey::from_seed("witness", Algorithm::Witness, [seed; 32].into()).expect("a good name");
        let checkpoint = log.answer(AuditAsk::Checkpoint { held: 0 }, Who::System).expect("a checkpoint");
        let mut note = Note::parse(checkpoint["note"].as_str().expect("a note")).expect("a note");
        key.cosign(&mut note, 5).expect("room");
        let ask = AuditAsk::Cosign { note: note.to_string(), key: key.verifier().to_string() };
        log.answer(ask, Who::System).expect("it is kept");
        key
    }

    /// The devices among `members` that a device whose owner trusts `witness` counts.
    fn counted(log: &mut AuditLog, witness: &SigningKey, members: &[u8]) -> Vec<u8> {
        let asked: Vec<_> = members.iter().map(|device| member(*device)).collect();
        let mut found = BTreeSet::new();
        for roll in log.rolls(&asked) {
            let note = Note::parse(&roll.checkpoint).expect("a note");
            let key: VerifierKey = roll.key.parse().expect("a key");
            let Ok(checkpoint) = witnessed(&note, &key, &[witness.verifier().clone()], 5) else { continue };
            for Enrolment { record, path } in &roll.enrolments {
                let proven = enrolled(record, path, &checkpoint).expect("the aggregator proves what it says");
                found.extend(members.iter().copied().filter(|device| member(*device) == proven));
            }
        }
        found.into_iter().collect()
    }

    #[test]
    fn a_device_is_in_a_roll_once_a_witness_has_come_by_after_its_enrolment() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut log = open(&folder);
        enrol(&mut log, 1);
        assert!(log.rolls(&[member(1)]).is_empty(), "no witness, no bytes");
        let witness = cosign(&mut log, 1);
        enrol(&mut log, 2);
        assert_eq!(counted(&mut log, &witness, &[1, 2, 3]), [1], "the second came later, the third never did");
        let stolen = (DeviceId([1; 16]), member(2).1);
        assert!(log.rolls(&[stolen]).iter().all(|roll| roll.enrolments.is_empty()), "another's key");
        cosign(&mut log, 1);
        assert_eq!(counted(&mut log, &witness, &[1, 2, 3]), [1, 2]);
        drop(log);
        assert_eq!(counted(&mut open(&folder), &witness, &[1, 2, 3]), [1, 2], "also after a restart");
    }

    #[test]
    fn each_witness_counts_by_the_checkpoint_that_it_saw_last() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut log = open(&folder);
        enrol(&mut log, 1);
        let early = cosign(&mut log, 1);
        enrol(&mut log, 2);
        let late = cosign(&mut log, 2);
        assert_eq!(counted(&mut log, &early, &[1, 2]), [1]);
        assert_eq!(counted(&mut log, &late, &[1, 2]), [1, 2]);
        drop(log);
        let mut log = open(&folder);
        assert_eq!(counted(&mut log, &early, &[1, 2]), [1], "also after a restart");
        // More of them than a letter has room for: who has not come for the longest time goes.
        (3..=4).for_each(|seed| drop(cosign(&mut log, seed)));
        assert_eq!(log.rolls(&[member(1)]).len(), ROLLS_MAX);
        assert!(counted(&mut log, &early, &[1, 2]).is_empty());
        assert_eq!(counted(&mut log, &late, &[1, 2]), [1, 2]);
    }

    #[test]
    fn proofs_lead_out_of_segments_that_are_in_blobs_and_end_with_the_device() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut log = open(&folder);
        enrol(&mut log, 1);
        enrol(&mut log, 2);
        for _ in 0..2 * SEGMENT_RECORDS / 128 {
            for count in 0..128 {
                let about = About { count: Some(count), ..About::default() };
                log.record(Entry::done(Who::System, Action::AdminRequest, about), None);
            }
            log.flush(false).expect("written");
        }
        let witness = cosign(&mut log, 1);
        assert_eq!(counted(&mut log, &witness, &[1, 2]), [1, 2]);
        log.store.forget(&member(2).0.to_string()).expect("its key is destroyed");
        cosign(&mut log, 1);
        assert_eq!(counted(&mut log, &witness, &[1, 2]), [1]);
    }
}
