//! Devices whose owner names a witness: who counts, and what an operator who fills a cohort with devices of his own gets.

use starling_audit::enrolment::key_digest;
use starling_audit::{
    About, Action, Algorithm, Chain, Checkpoint, Entry, Note, SigningKey, VerifierKey, Who, inclusion_proof,
};
use starling_wire::{Enrolment, Roll};

use super::*;

const AGGREGATOR: DeviceId = DeviceId([7; 16]);

fn key(name: &str, algorithm: Algorithm, seed: u8) -> SigningKey {
    SigningKey::from_seed(name, algorithm, [seed; 32].into()).expect("a good name")
}

fn log_key(seed: u8) -> SigningKey {
    key(&format!("starling-audit/{AGGREGATOR}"), Algorithm::Log, seed)
}

fn witness(seed: u8) -> SigningKey {
    key("witness.example", Algorithm::Witness, seed)
}

/// The roll of a log in which these keys, by their digests, are those of these devices.
fn roll_by(log: &SigningKey, cosigned_by: Option<&SigningKey>, enrolled: &[(DeviceId, Digest)]) -> Roll {
    let mut chain = Chain::default();
    let record = |(device, digest): &(DeviceId, Digest)| {
        let about = About { digest: Some(*digest), word: Some("joined".into()), ..About::default() };
        let entry = Entry::done(Who::Certificate(Role::Device, *device), Action::DeviceEnrolled, about);
        chain.append(5, entry).expect("a record")
    };
    let sealed: Vec<_> = enrolled.iter().map(record).collect();
    let leaves: Vec<Digest> = sealed.iter().map(|sealed| sealed.leaf).collect();
    let (size, root) = (leaves.len() as u64, chain.frontier().root());
    let checkpoint = Checkpoint { origin: log.verifier().name().to_owned(), size, root };
    let mut note: Note = log.sign(&checkpoint.to_string());
    if let Some(witness) = cosigned_by {
        witness.cosign(&mut note, 1).expect("room");
    }
    let enrolments = sealed.iter().enumerate().map(|(index, sealed)| Enrolment {
        record: sealed.line.clone(),
        path: inclusion_proof(leaves.as_slice(), index as u64, size).expect("in memory"),
    });
    Roll { key: log.verifier().to_string(), checkpoint: note.to_string(), enrolments: enrolments.collect() }
}

fn roll(enrolled: &[(DeviceId, Digest)]) -> Roll {
    roll_by(&log_key(1), Some(&witness(2)), enrolled)
}

/// A cohort whose owners name one witness, with the roster made.
struct Watched {
    aggregator: Aggregator,
    devices: Vec<Device>,
    /// Each device, and the digest of the key that its certificate vouches for.
    keys: Vec<(DeviceId, Digest)>,
}

impl Watched {
    fn new(count: u32) -> Self {
        Self::pinned(count, None)
    }

    fn pinned(count: u32, pinned: Option<&VerifierKey>) -> Self {
        let pki = Pki::new(1);
        let mut devices: Vec<Device> = (0..count).map(|index| Device::new(&pki, index)).collect();
        let mut aggregator = Aggregator::new(&plan(), &pki, 1);
        for device in &mut devices {
            let watch = Watch {
                witnesses: vec![witness(2).verifier().clone()].into(),
                aggregator: AGGREGATOR,
                pinned: pinned.map(ToString::to_string),
                state_dir: device.folder.path().to_owned(),
            };
            let terms = Terms { cohort_min: 3, watch: Some(watch) };
            let credentials = Box::new(device.credentials.clone());
            let order = Order::Enter { plan: Arc::clone(&device.plan), start: start(1), credentials, terms };
            let mail = device.carry_out(order).expect("it enters").expect("keys");
            aggregator.take(device.id(), &mail);
        }
        aggregator.round.close().expect("a roster");
        let digest = |device: &Device| key_digest(aggregator.certified.key(&device.id()).expect("certified"));
        let keys = devices.iter().map(|device| (device.id(), digest(device))).collect();
        Self { aggregator, devices, keys }
    }

    fn show(&mut self, roll: Roll) {
        self.aggregator.rolls = vec![roll];
    }

    /// What the first device says to the roster.
    fn answer(&mut self) -> Result<Option<SecureMail>, Refusal> {
        let letter = self.aggregator.letter(&self.devices[0].id());
        self.devices[0].answer(1, letter)
    }

    #[track_caller]
    fn refused(mut self, why: &str) {
        assert_eq!(self.answer(), Err(Refusal::SecureUnwitnessedCohort), "{why}");
        assert_eq!(self.answer(), Err(Refusal::SecureBurned), "{why}: no share has left, and the keys are gone");
    }
}

#[test]
fn a_cohort_that_a_witness_knows_gives_its_sum() {
    let mut cohort = Watched::new(4);
    cohort.show(roll(&cohort.keys));
    let Watched { mut aggregator, mut devices, .. } = cohort;
    stage(&mut aggregator, &mut devices);
    for device in &mut devices {
        assert_eq!(device.answer(1, aggregator.letter(&device.id())), Ok(None), "envelopes are not answered");
        let message = device.mask(0.5).bytes().to_vec();
        aggregator.take(device.id(), &SecureMail { address: start(1).address, message, chain: Vec::new() });
    }
    aggregator.round.close().expect("survivors");
    stage(&mut aggregator, &mut devices);
    stage(&mut aggregator, &mut devices);
    let sums = SecureSums::of(&plan(), PARAMETERS).expect("numbers").expect("secure sums");
    let summed = aggregator.round.summed(&sums).expect("a sum").expect("a mean");
    assert_eq!(summed.weight, 400);
}

#[test]
fn inv13_without_a_witness_of_the_owner_nobody_counts() {
    Watched::new(4).refused("no roll came");
    let with = |log: &SigningKey, cosigned_by: Option<&SigningKey>| {
        let mut cohort = Watched::new(4);
        cohort.show(roll_by(log, cosigned_by, &cohort.keys));
        cohort
    };
    with(&log_key(1), None).refused("the log alone has signed");
    with(&log_key(1), Some(&witness(3))).refused("somebody else's witness has");
    let elsewhere = key(&format!("starling-audit/{}", DeviceId([8; 16])), Algorithm::Log, 1);
    with(&elsewhere, Some(&witness(2))).refused("another aggregator's log");
    let mut cohort = Watched::pinned(4, Some(log_key(1).verifier()));
    cohort.show(roll_by(&log_key(9), Some(&witness(2)), &cohort.keys));
    cohort.refused("another key than the one that the owner has pinned");
    let mut cohort = Watched::pinned(4, Some(log_key(1).verifier()));
    cohort.show(roll(&cohort.keys));
    assert!(cohort.answer().is_ok_and(|mail| mail.is_some()), "the pinned one");
}

#[test]
fn inv13_devices_that_are_not_in_the_log_count_as_colluders() {
    // The plan assumes one colluder in four.
    let among = |known: usize| {
        let mut cohort = Watched::new(4);
        cohort.show(roll(&cohort.keys[..known]));
        cohort
    };
    let mut one = among(3);
    assert!(one.answer().is_ok_and(|mail| mail.is_some()), "three are known, and one more may be anybody");
    among(2).refused("two are known: fewer than the owner's three");
}

#[test]
fn inv13_a_record_counts_for_its_own_device_and_key_alone() {
    // Other keys under the same ids: the operator's own certificates for devices that exist.
    let mut taken = Watched::new(4);
    let keys: Vec<_> = taken.keys.iter().map(|(device, _)| (*device, Digest([9; 32]))).collect();
    taken.show(roll(&keys));
    taken.refused("the log names other keys");
    // Records of devices that are not in the cohort.
    let mut other = Watched::new(4);
    let keys: Vec<_> = (0..4).map(|index| (DeviceId([index; 16]), other.keys[usize::from(index)].1)).collect();
    other.show(roll(&keys));
    other.refused("the log names other devices");
    // A record that was changed, with the way of the true one.
    let mut forged = Watched::new(4);
    let mut changed = roll(&forged.keys);
    for enrolment in &mut changed.enrolments {
        let line = String::from_utf8(enrolment.record.clone()).expect("JSON");
        enrolment.record = line.replace("\"time_unix_ms\":5", "\"time_unix_ms\":6").into_bytes();
    }
    forged.show(changed);
    forged.refused("the records are not in the log");
}

#[test]
fn inv13_survivors_that_no_witness_knows_do_not_count() {
    let mut cohort = Watched::new(4);
    // The last device is a newcomer.
    cohort.show(roll(&cohort.keys[..3]));
    let Watched { mut aggregator, mut devices, keys } = cohort;
    let (gone, _) = keys[1];
    stage(&mut aggregator, &mut devices);
    // A device that is known goes away: three are left, and only two of them count.
    for device in devices.iter_mut().filter(|device| device.id() != gone) {
        assert_eq!(device.answer(1, aggregator.letter(&device.id())), Ok(None), "envelopes are not answered");
        let message = device.mask(0.5).bytes().to_vec();
        aggregator.take(device.id(), &SecureMail { address: start(1).address, message, chain: Vec::new() });
    }
    aggregator.round.close().expect("three are enough for the plan");
    let letter = aggregator.letter(&devices[0].id());
    assert_eq!(devices[0].answer(1, letter), Err(Refusal::SecureUnwitnessedCohort));
}
