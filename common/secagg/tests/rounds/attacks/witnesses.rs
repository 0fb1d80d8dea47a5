//! An operator who certifies devices of his own, against owners who ask for witnesses of the enrolments.

use std::collections::BTreeSet;

use starling_secagg::{Aggregator, Device, Fleet, Guard, Policy, Refused, Setup, Signature, Verdict};
use starling_wire::{DeviceId, Refusal};

use super::refused;
use crate::world::{Certificates, Identity, RUN, begin, device_id, entropy, input, policy, setup};

/// Everybody has a certificate, and witnesses know some.
struct Watched {
    certificates: Certificates,
    known: BTreeSet<DeviceId>,
}

impl Watched {
    fn new(devices: usize, known: impl IntoIterator<Item = usize>) -> Self {
        let all: Vec<DeviceId> = (0..devices).map(device_id).collect();
        Self { certificates: Certificates::of(&all), known: known.into_iter().map(device_id).collect() }
    }
}

impl Fleet for Watched {
    fn verify(&self, device: &DeviceId, message: &[u8], signature: &Signature) -> Verdict {
        self.certificates.verify(device, message, signature)
    }

    fn witnessed(&self) -> Option<&BTreeSet<DeviceId>> {
        Some(&self.known)
    }
}

/// The first of `devices`, whose owner wants at least `cohort_min`, and the roster of all of them.
fn roster(setup: &Setup, devices: usize, cohort_min: u16) -> (Device, Aggregator, Vec<u8>) {
    let fleet = Watched::new(devices, []);
    let mut aggregator = Aggregator::new(setup).expect("an honest setup");
    let (_, advertised) = begin(setup, devices, 1);
    let own = device_id(0);
    let strict = Policy { cohort_min, ..policy(setup) };
    let key = Identity::of(&own);
    let (device, unsent) =
        Device::begin(setup, &strict, own, &mut Guard::new(RUN), &entropy(&own, 1), &key).expect("an honest setup");
    assert_eq!(advertised[&own], unsent.persisted(), "the same keys as in the cohort of the aggregator");
    for (id, message) in &advertised {
        aggregator.handle_advertisement(*id, message, &fleet).expect("an honest advertisement");
    }
    let roster = aggregator.close_advertising().expect("enough devices");
    (device, aggregator, roster)
}

#[test]
fn a_cohort_stuffed_with_certified_devices_is_refused() {
    // Of thirty, three may collude.
    let setup = setup(30, 5, 5);
    let answer = |known: std::ops::Range<usize>, cohort_min: u16| {
        let (mut device, _, roster) = roster(&setup, 30, cohort_min);
        (device.handle_roster(&roster, &Watched::new(30, known)), device.is_burned())
    };
    assert!(answer(0..27, 27).0.is_ok(), "enough that are known, and as many others as may collude");
    let (result, burned) = answer(0..27, 28);
    let few = Refused::Unwitnessed { witnessed: 27, wanted: 28, others: 3, others_max: 3 };
    refused(result, &few, Refusal::SecureUnwitnessedCohort);
    assert!(burned, "no share has left, and none will");
    // However small a cohort the owner allows, the others could hold a threshold of shares of every device.
    let many = Refused::Unwitnessed { witnessed: 26, wanted: 3, others: 4, others_max: 3 };
    refused(answer(0..26, 3).0, &many, Refusal::SecureUnwitnessedCohort);
}

#[test]
fn the_device_itself_counts_whatever_a_witness_knows_of_it() {
    let setup = setup(30, 5, 5);
    let (mut device, _, roster) = roster(&setup, 30, 28);
    assert!(device.handle_roster(&roster, &Watched::new(30, 1..28)).is_ok(), "27 others, and it is there itself");
}

#[test]
fn a_known_device_counts_with_its_own_keys_alone() {
    // A ring: most of the cohort are nobody's neighbours, and their signatures would not be looked at otherwise.
    let devices = 200;
    let setup = setup(devices, 5, 5);
    let (mut device, _, mut roster) = roster(&setup, devices, 3);
    let fleet = Watched::new(devices, 0..devices);
    // The aggregator's own key in the name of the member whose place is the last.
    let last = roster.len() - 1;
    roster[last] ^= 1;
    let member = roster.len() - starling_secagg::limits::MEMBER_BYTES;
    let name = DeviceId(roster[member..member + 16].try_into().expect("16 bytes"));
    refused(device.handle_roster(&roster, &fleet), &Refused::SwappedKeys(name), Refusal::SecureSwappedKeys);
}

#[test]
fn survivors_that_no_witness_knows_do_not_count() {
    let devices = 10;
    let setup = setup(devices, 5, 5);
    // One of ten may be unknown: here the device of the largest index.
    let fleet = Watched::new(devices, 0..devices - 1);
    let everybody = Watched::new(devices, 0..devices);
    let (mut others, advertised) = begin(&setup, devices, 1);
    let (mut victim, mut aggregator, roster) = roster(&setup, devices, 9);
    assert_eq!(advertised.len(), devices);
    let own = device_id(0);
    let shares = victim.handle_roster(&roster, &fleet).expect("nine are known").persisted();
    aggregator.handle_shares(own, &shares).expect("honest envelopes");
    for (id, device) in others.iter_mut().filter(|(id, _)| **id != own) {
        let shares = device.handle_roster(&roster, &everybody).expect("an honest roster").persisted();
        aggregator.handle_shares(*id, &shares).expect("honest envelopes");
    }
    let gone = device_id(1);
    for (id, envelopes) in aggregator.close_sharing().expect("all have shared") {
        let device = if id == own { &mut victim } else { others.get_mut(&id).expect("a device of the cohort") };
        device.handle_envelopes(&envelopes).expect("honest envelopes");
        if id != gone {
            let masked = device.mask(&input(&setup, &id, 1)).expect("within the bound").persisted();
            aggregator.handle_masked(id, &masked).expect("an honest vector");
        }
    }
    let survivors = aggregator.close_masking().expect("nine are enough");
    let result = victim.handle_survivors(&survivors, &Identity::of(&own));
    let few = Refused::Unwitnessed { witnessed: 8, wanted: 9, others: 1, others_max: 1 };
    refused(result, &few, Refusal::SecureUnwitnessedCohort);
    assert!(victim.is_burned());
}
