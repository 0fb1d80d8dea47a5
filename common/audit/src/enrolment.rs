//! Who belongs to a fleet, as the log says it: a record that names a device and the digest of a key of its own, the way from it to a checkpoint, and
//! a witness's co-signature of that.
//!
//! Whoever holds the CA can certify as many devices as he likes. What he cannot do is to enrol them unseen, once devices count only those whose
//! enrolment is under a checkpoint that a witness has seen: the log is the same for everybody who asks that witness, nothing goes out of it,
//! and all that enter the fleet can be counted in it.
//!
//! Age does not matter: who is under an old checkpoint is under every later one, since the log only grows.

use starling_wire::{DeviceId, Digest, PublicKey, Role};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::note::{Note, VerifierKey};
use crate::record::{About, Action, Entry, Outcome, Record, RecordError, Who};
use crate::verify::{self, ProofError};

/// Seconds by which a co-signature may be ahead of the device's clock. Who signs for a time that has not come does not look at what it signs.
pub const AHEAD_S_MAX: u64 = 24 * 3600;

/// Why an enrolment, or a checkpoint over enrolments, counts for nothing.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// The record cannot be read.
    #[error("the record of an enrolment")]
    Record(#[from] RecordError),
    /// It is of another act.
    #[error("the record says of no device which key it has")]
    Other,
    /// It is not in the log.
    #[error("the enrolment is not shown to be in the log")]
    Inclusion(#[source] ProofError),
    /// The checkpoint cannot be read, or is not the log's.
    #[error("the checkpoint over the enrolments")]
    Checkpoint(#[from] CheckpointError),
    /// None of the owner's witnesses has seen it.
    #[error("no witness of this device's owner has co-signed the checkpoint of {0} records")]
    Unwitnessed(u64),
    /// A co-signature that is ahead of its time.
    #[error("the witness {name} has co-signed for a time {ahead_s} s from now")]
    Ahead {
        /// The witness.
        name: String,
        /// By how much.
        ahead_s: u64,
    },
}

/// What a record says of a key.
pub fn key_digest(key: &PublicKey) -> Digest {
    Digest::of(&key.0)
}

fn enrols(who: Who, what: Action, outcome: Outcome, about: &About) -> Option<(DeviceId, Digest)> {
    let Who::Certificate(Role::Device, device) = who else { return None };
    let is_enrolment = matches!(what, Action::DeviceEnrolled | Action::CertificateRenewed) && outcome == Outcome::Done;
    about.digest.filter(|_| is_enrolment).map(|digest| (device, digest))
}

impl Entry {
    /// The device that it makes known, and the digest of that device's key ([`key_digest`]).
    pub fn enrols(&self) -> Option<(DeviceId, Digest)> {
        enrols(self.who, self.action, self.outcome, &self.about)
    }
}

impl Record {
    /// As [`Entry::enrols`].
    pub fn enrols(&self) -> Option<(DeviceId, Digest)> {
        enrols(self.who, self.what, self.outcome, &self.about)
    }
}

/// Checks that `note` is a checkpoint of the log of `key`, and that one of `witnesses` has co-signed it by `now_unix_s`, which is this device's clock.
///
/// # Errors
/// [`EnrolmentError`]: another log's checkpoint, no co-signature that holds, or only one from the future.
pub fn witnessed(
    note: &Note,
    key: &VerifierKey,
    witnesses: &[VerifierKey],
    now_unix_s: u64,
) -> Result<Checkpoint, EnrolmentError> {
    let checkpoint = Checkpoint::verified(note, key)?;
    let mut problem = EnrolmentError::Unwitnessed(checkpoint.size);
    for witness in witnesses {
        // The log's own signature has no time: it is none of a witness.
        let Ok(Some(time_unix_s)) = note.verify(witness) else { continue };
        match time_unix_s.saturating_sub(now_unix_s) {
            ahead_s if ahead_s > AHEAD_S_MAX => {
                problem = EnrolmentError::Ahead { name: witness.name().to_owned(), ahead_s }
            }
            _ => return Ok(checkpoint),
        }
    }
    Err(problem)
}

/// Checks that `record` is in the log under `checkpoint`, and says which device it makes known and the digest of that device's key.
///
/// # Errors
/// [`EnrolmentError`].
pub fn enrolled(record: &[u8], path: &[Digest], checkpoint: &Checkpoint) -> Result<(DeviceId, Digest), EnrolmentError> {
    let read = Record::decode(record)?;
    let (device, key) = read.enrols().ok_or(EnrolmentError::Other)?;
    verify::inclusion(record, read.seq, checkpoint.size, &checkpoint.root, path).map_err(EnrolmentError::Inclusion)?;
    Ok((device, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Algorithm, Chain, SigningKey, inclusion_proof};

    const NOW: u64 = 1_764_000_000;

    fn signing(name: &str, algorithm: Algorithm, seed: u8) -> SigningKey {
        SigningKey::from_seed(name, algorithm, [seed; 32].into()).expect("a good name")
    }

    fn key_of(device: u8) -> Digest {
        key_digest(&PublicKey([device; 32]))
    }

    fn enrolment(device: u8, action: Action, digest: Option<Digest>) -> Entry {
        let who = Who::Certificate(Role::Device, DeviceId([device; 16]));
        Entry::done(who, action, About { digest, ..About::default() })
    }

    /// A log of these entries: lines, leaves, and the signed checkpoint.
    fn log(entries: Vec<Entry>) -> (Vec<Vec<u8>>, Vec<Digest>, Note) {
        let mut chain = Chain::default();
        let sealed: Vec<_> = entries.into_iter().map(|entry| chain.append(5, entry).expect("a record")).collect();
        let (size, root) = (sealed.len() as u64, chain.frontier().root());
        let checkpoint = Checkpoint { origin: "starling-audit/7".into(), size, root };
        let note = signing("starling-audit/7", Algorithm::Log, 1).sign(&checkpoint.to_string());
        let leaves = sealed.iter().map(|sealed| sealed.leaf).collect();
        (sealed.into_iter().map(|sealed| sealed.line).collect(), leaves, note)
    }

    fn path(leaves: &[Digest], index: usize) -> Vec<Digest> {
        inclusion_proof(leaves, index as u64, leaves.len() as u64).expect("in memory")
    }

    #[test]
    fn a_checkpoint_counts_with_a_witness_of_the_owner_and_no_sooner() {
        let (_, _, mut note) = log(vec![enrolment(1, Action::DeviceEnrolled, Some(key_of(1)))]);
        let key = signing("starling-audit/7", Algorithm::Log, 1);
        let (ours, theirs) = (signing("w", Algorithm::Witness, 2), signing("w", Algorithm::Witness, 3));
        let check = |note: &Note, witnesses: &[&SigningKey]| {
            let witnesses: Vec<VerifierKey> = witnesses.iter().map(|key| key.verifier().clone()).collect();
            witnessed(note, key.verifier(), &witnesses, NOW)
        };
        assert!(matches!(check(&note, &[&ours]), Err(EnrolmentError::Unwitnessed(1))), "signed by the log alone");
        assert!(matches!(check(&note, &[&key]), Err(EnrolmentError::Unwitnessed(1))), "a log is no witness of itself");
        theirs.cosign(&mut note, NOW).expect("room");
        assert!(matches!(check(&note, &[&ours]), Err(EnrolmentError::Unwitnessed(1))), "the same name, another key");
        assert_eq!(check(&note, &[&ours, &theirs]).expect("one of two is enough").size, 1);
        let stranger = signing("starling-audit/7", Algorithm::Log, 9);
        let other = witnessed(&note, stranger.verifier(), &[theirs.verifier().clone()], NOW);
        assert!(matches!(other, Err(EnrolmentError::Checkpoint(_))), "another log's key");
    }

    #[test]
    fn a_cosignature_may_be_old_but_not_of_a_time_that_has_not_come() {
        let (_, _, note) = log(vec![enrolment(1, Action::DeviceEnrolled, Some(key_of(1)))]);
        let (key, witness) = (signing("starling-audit/7", Algorithm::Log, 1), signing("w", Algorithm::Witness, 2));
        let at = |time_unix_s: u64| {
            let mut note = note.clone();
            witness.cosign(&mut note, time_unix_s).expect("room");
            witnessed(&note, key.verifier(), &[witness.verifier().clone()], NOW)
        };
        assert!(at(1).is_ok(), "what was in the log then is in it now");
        assert!(at(NOW + AHEAD_S_MAX).is_ok());
        assert!(matches!(at(NOW + AHEAD_S_MAX + 1), Err(EnrolmentError::Ahead { .. })));
    }

    #[test]
    fn only_a_record_of_the_log_that_names_a_device_and_its_key_enrols() {
        let entries = vec![
            enrolment(1, Action::DeviceEnrolled, Some(key_of(1))),
            enrolment(2, Action::CertificateRenewed, Some(key_of(2))),
            enrolment(3, Action::DeviceEnrolled, None),
            enrolment(4, Action::DeviceConnected, Some(key_of(4))),
            Entry::refused(
                Who::Certificate(Role::Device, DeviceId([5; 16])),
                Action::DeviceEnrolled,
                starling_wire::Refusal::Rejected,
                About { digest: Some(key_of(5)), ..About::default() },
            ),
            Entry::done(Who::System, Action::CertificateRenewed, About { digest: Some(key_of(6)), ..About::default() }),
        ];
        let (lines, leaves, note) = log(entries);
        let checkpoint: Checkpoint = note.text().parse().expect("a checkpoint");
        let at = |index: usize| enrolled(&lines[index], &path(&leaves, index), &checkpoint);
        assert_eq!(at(0).expect("it joined"), (DeviceId([1; 16]), key_of(1)));
        assert_eq!(at(1).expect("it renewed"), (DeviceId([2; 16]), key_of(2)));
        for (index, why) in [(2, "no key"), (3, "another act"), (4, "refused"), (5, "no device")] {
            assert!(matches!(at(index), Err(EnrolmentError::Other)), "{why}");
        }
        // A record of the operator's own making, and a true one by a wrong way.
        let forged = String::from_utf8(lines[0].clone()).expect("JSON").replace(&"01".repeat(16), &"09".repeat(16));
        let result = enrolled(forged.as_bytes(), &path(&leaves, 0), &checkpoint);
        assert!(matches!(result, Err(EnrolmentError::Inclusion(_))), "forged");
        let result = enrolled(&lines[0], &path(&leaves, 1), &checkpoint);
        assert!(matches!(result, Err(EnrolmentError::Inclusion(_))), "another record's way");
        let result = enrolled(&lines[0], &[], &checkpoint);
        assert!(matches!(result, Err(EnrolmentError::Inclusion(_))), "no way at all");
        // The log as it was before: what came later is not under its checkpoint.
        let (_, _, before) = log(vec![enrolment(1, Action::DeviceEnrolled, Some(key_of(1)))]);
        let before: Checkpoint = before.text().parse().expect("a checkpoint");
        let result = enrolled(&lines[1], &path(&leaves, 1), &before);
        assert!(matches!(result, Err(EnrolmentError::Inclusion(_))), "enrolled after the witness came");
    }
}
