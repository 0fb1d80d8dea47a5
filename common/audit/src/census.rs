//! How many devices a log has let into the fleet, counted by a witness who reads every record of it before it co-signs.
//!
//! What counts is keys: one that is nobody's renewal is one more device, whatever id it stands under. So an operator cannot make two devices of one
//! by giving the second the first one's id, and cannot take over a device's id with a key of his own, without being counted once more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use starling_wire::{DeviceId, Digest};

use crate::checkpoint::Checkpoint;
use crate::record::{Action, Record, RecordError};
use crate::tree::{Frontier, leaf_hash};

/// Why a log cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum CensusError {
    /// A record that cannot be read, or is of a later version.
    #[error("record {seq} of the log cannot be read")]
    Record {
        /// Its number.
        seq: u64,
        /// What is wrong.
        #[source]
        source: RecordError,
    },
    /// Another record, or none, where the next one should be.
    #[error("expected record {expected} of the log, got {got}: it was damaged, or is not all shown")]
    Missing {
        /// The next one's number.
        expected: u64,
        /// The number of the one that came.
        got: u64,
    },
    /// The records are others than the checkpoint was signed for.
    #[error("the {size} records that were shown are not those that the checkpoint is of")]
    Root {
        /// How many.
        size: u64,
    },
    /// A state that cannot be.
    #[error("a census of {size} records does not have {peaks} subtrees")]
    State {
        /// Records.
        size: u64,
        /// Roots of subtrees.
        peaks: usize,
    },
}

/// The keys that one device may renew by: the one that it is known to use, and its successor while nobody was seen using that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Keys {
    confirmed: Digest,
    offered: Option<Digest>,
}

/// A log as a witness has read it so far: 32 bytes a level of its tree, and about 80 a device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    frontier: Frontier,
    devices: BTreeMap<DeviceId, Keys>,
    counted: u64,
    renewed: u64,
}

/// A census as a witness keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    size: u64,
    peaks: Vec<Digest>,
    devices: Vec<(DeviceId, Digest, Option<Digest>)>,
    counted: u64,
    renewed: u64,
}

impl Census {
    /// Records that were read.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Devices that were ever let in: keys that no key before has signed for.
    pub fn counted(&self) -> u64 {
        self.counted
    }

    /// Keys that came in their predecessor's place, by its signature.
    pub fn renewed(&self) -> u64 {
        self.renewed
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// [`CensusError`]; the census is then as it was.
    pub fn take(&mut self, line: &[u8]) -> Result<(), CensusError> {
        let expected = self.size();
        let record = Record::decode(line).map_err(|source| CensusError::Record { seq: expected, source })?;
        if record.seq != expected {
            return Err(CensusError::Missing { expected, got: record.seq });
        }
        self.frontier.push(leaf_hash(line));
        let Some((device, key)) = record.enrols() else { return Ok(()) };
        let before = self.devices.get(&device);
        let own = |digest: &Digest| {
            before.is_some_and(|keys| keys.confirmed == *digest || keys.offered.as_ref() == Some(digest))
        };
        let proven = record.about.proof.filter(|_| record.what == Action::CertificateRenewed);
        let proven = proven.and_then(|proof| proof.renews(device)).filter(|(old, new)| own(old) && *new == key);
        match proven {
            Some((old, _)) => {
                self.renewed += 1;
                self.devices.insert(device, Keys { confirmed: old, offered: Some(key) });
            }
            // The log says again what it has said.
            None if own(&key) => {}
            None => {
                self.counted += 1;
                self.devices.insert(device, Keys { confirmed: key, offered: None });
            }
        }
        Ok(())
    }

    /// Whether the records that were read are those that `checkpoint` is of.
    ///
    /// # Errors
    /// [`CensusError::Root`].
    pub fn check(&self, checkpoint: &Checkpoint) -> Result<(), CensusError> {
        let size = self.size();
        let same = size == checkpoint.size && self.frontier.root() == checkpoint.root;
        if same { Ok(()) } else { Err(CensusError::Root { size }) }
    }

    /// What to keep until the next time.
    pub fn to_kept(&self) -> Kept {
        let device = |(device, keys): (&DeviceId, &Keys)| (*device, keys.confirmed, keys.offered);
        Kept {
            size: self.size(),
            peaks: self.frontier.peaks().to_vec(),
            devices: self.devices.iter().map(device).collect(),
            counted: self.counted,
            renewed: self.renewed,
        }
    }

    /// Goes on from what was kept.
    ///
    /// # Errors
    /// [`CensusError::State`].
    pub fn from_kept(kept: Kept) -> Result<Self, CensusError> {
        let Kept { size, peaks, devices, counted, renewed } = kept;
        let problem = CensusError::State { size, peaks: peaks.len() };
        let frontier = Frontier::from_peaks(size, peaks).ok_or(problem)?;
        let device = |(device, confirmed, offered)| (device, Keys { confirmed, offered });
        Ok(Self { frontier, devices: devices.into_iter().map(device).collect(), counted, renewed })
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use starling_wire::enrol::renew_statement;
    use starling_wire::{PublicKey, RenewRequest, Role};

    use super::*;
    use crate::enrolment::key_digest;
    use crate::renewal::RenewalProof;
    use crate::{About, Chain, Entry, Who};

    const CHANNEL: [u8; 32] = [5; 32];

    fn pair(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed of 32 bytes is a key")
    }

    fn public(seed: u8) -> PublicKey {
        PublicKey(pair(seed).public_key().as_ref().try_into().expect("32 bytes"))
    }

    /// That the key of seed `old` signs for that of `new` in the name of `device`.
    fn proof(device: u8, old: u8, new: u8) -> RenewalProof {
        let statement = renew_statement(&CHANNEL, DeviceId([device; 16]), &public(old), &public(new));
        let old_proof = pair(old).sign(&statement).as_ref().to_vec();
        let request = RenewRequest { old_key: public(old), new_key: public(new), old_proof, new_proof: Vec::new() };
        RenewalProof::of(&CHANNEL, &request).expect("64 bytes of signature")
    }

    struct Log {
        chain: Chain,
        census: Census,
    }

    impl Log {
        fn new() -> Self {
            Self { chain: Chain::default(), census: Census::default() }
        }

        fn add(&mut self, device: u8, action: Action, key: u8, proof: Option<RenewalProof>) {
            let about = About { digest: Some(key_digest(&public(key))), proof, ..About::default() };
            let entry = Entry::done(Who::Certificate(Role::Device, DeviceId([device; 16])), action, about);
            let line = self.chain.append(u64::MAX, entry).expect("the longest fits").line;
            self.census.take(&line).expect("the next record");
        }

        fn counts(&self) -> (u64, u64) {
            (self.census.counted(), self.census.renewed())
        }
    }

    #[test]
    fn a_renewal_that_the_key_before_has_signed_makes_no_further_device() {
        let mut log = Log::new();
        log.add(1, Action::DeviceEnrolled, 11, None);
        log.add(2, Action::DeviceEnrolled, 21, None);
        assert_eq!(log.counts(), (2, 0));
        log.add(1, Action::CertificateRenewed, 12, Some(proof(1, 11, 12)));
        // The answer was lost: it asks again by the key that it has.
        log.add(1, Action::CertificateRenewed, 13, Some(proof(1, 11, 13)));
        log.add(1, Action::CertificateRenewed, 14, Some(proof(1, 13, 14)));
        log.add(1, Action::DeviceEnrolled, 14, None);
        assert_eq!(log.counts(), (2, 3), "and what is said again counts for nothing");
    }

    #[test]
    fn any_other_key_is_one_more_device() {
        let others: [(&str, Action, Option<RenewalProof>); 6] = [
            ("no proof", Action::CertificateRenewed, None),
            ("the operator's key as the one before", Action::CertificateRenewed, Some(proof(1, 99, 12))),
            ("another device's renewal", Action::CertificateRenewed, Some(proof(2, 11, 12))),
            ("a renewal for another key", Action::CertificateRenewed, Some(proof(1, 11, 15))),
            ("a second enrolment under the same id", Action::DeviceEnrolled, None),
            ("an enrolment with a proof", Action::DeviceEnrolled, Some(proof(1, 11, 12))),
        ];
        for (why, action, proof) in others {
            let mut log = Log::new();
            log.add(1, Action::DeviceEnrolled, 11, None);
            log.add(1, action, 12, proof);
            assert_eq!(log.counts(), (2, 0), "{why}");
        }
        // A key that was given up long ago signs for nothing any more.
        let mut log = Log::new();
        log.add(1, Action::DeviceEnrolled, 11, None);
        log.add(1, Action::CertificateRenewed, 12, Some(proof(1, 11, 12)));
        log.add(1, Action::CertificateRenewed, 13, Some(proof(1, 12, 13)));
        log.add(1, Action::CertificateRenewed, 14, Some(proof(1, 11, 14)));
        assert_eq!(log.counts(), (2, 2));
    }

    #[test]
    fn a_census_goes_on_from_what_was_kept_and_covers_the_checkpoints_own_records_alone() {
        let mut log = Log::new();
        (1..=5).for_each(|device| log.add(device, Action::DeviceEnrolled, device, None));
        let kept = serde_json::to_string(&log.census.to_kept()).expect("numbers and texts");
        log.add(1, Action::CertificateRenewed, 12, Some(proof(1, 1, 12)));
        let checkpoint = Checkpoint { origin: "log".into(), size: 6, root: log.chain.frontier().root() };
        log.census.check(&checkpoint).expect("all six");

        let kept: Kept = serde_json::from_str(&kept).expect("as it was written");
        let mut again = Census::from_kept(kept.clone()).expect("a census");
        assert_eq!((again.size(), again.counted()), (5, 5));
        assert!(matches!(again.check(&checkpoint), Err(CensusError::Root { size: 5 })));
        let other = Entry::done(Who::System, Action::DaemonStopped, About::default());
        let early = Chain::default().append(1, other.clone()).expect("a record").line;
        assert!(matches!(again.take(&early), Err(CensusError::Missing { expected: 5, got: 0 })));
        let swapped = Chain::continuing(again.frontier.clone(), Digest([0; 32])).append(1, other).expect("a record");
        again.take(&swapped.line).expect("it has the right number");
        assert!(matches!(again.check(&checkpoint), Err(CensusError::Root { size: 6 })), "and is another record");
        assert!(Census::from_kept(Kept { size: 7, ..kept }).is_err(), "seven records have three subtrees");
    }

    #[test]
    fn a_proof_is_read_back_from_its_one_way_to_be_written() {
        let proof = proof(1, 11, 12);
        let text = proof.to_string();
        assert_eq!((text.len(), text.parse()), (320, Ok(proof)));
        for wrong in [&text[1..], &text.replace('a', "A"), &format!("{text}0"), &"g".repeat(320), &"é".repeat(160)] {
            assert!(wrong == text || wrong.parse::<RenewalProof>().is_err(), "{wrong}");
        }
    }
}
