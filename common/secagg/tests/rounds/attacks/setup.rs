//! What the aggregator asks for before anything has been said.

use starling_secagg::{Assumptions, Device, Guard, Policy, Refused, Setup};
use starling_wire::{Address, Digest, Refusal, RunId};

use super::refused;
use crate::world::{Identity, RUN, begin_one, device_id, entropy, policy, setup};

fn begin(setup: &Setup, policy: &Policy, guard: &mut Guard, seed: u64) -> Result<(), Refused> {
    let id = device_id(0);
    Device::begin(setup, policy, id, guard, &entropy(&id, seed), &Identity::of(&id)).map(drop)
}

#[test]
fn another_weight_cap_than_the_plans_is_refused() {
    let honest = setup(10, 5, 5);
    // A cap of one example makes every device but the victim negligible, or the victim alone heavy.
    let inflated = Setup { weight_max: 1 << 20, ..honest };
    let result = begin(&inflated, &policy(&honest), &mut Guard::new(RUN), 1);
    refused(result, &Refused::InflatedWeight { got: 1 << 20, wanted: 1 }, Refusal::SecureInflatedWeight);
}

#[test]
fn an_input_beyond_the_bound_is_refused_before_it_is_masked() {
    let setup = setup(10, 3, 5);
    let mut world = crate::world::World::new(&setup, 10, 1, &crate::world::nobody);
    world.share(&crate::world::nobody).expect("ten devices");
    let device = world.device(&device_id(0));
    refused(device.mask(&[0, -6, 0]), &Refused::InputRange { index: 1, bound: 5 }, Refusal::SecureInputRange);
    refused(device.mask(&[0, i64::MIN, 0]), &Refused::InputRange { index: 1, bound: 5 }, Refusal::SecureInputRange);
    refused(device.mask(&[0; 4]), &Refused::InputLength { got: 4, wanted: 3 }, Refusal::SecureVectorLength);
    // Its caller may try again with what it should have been.
    device.mask(&[5, -5, 0]).expect("within the bound");
}

#[test]
fn a_plan_that_the_device_does_not_know_is_refused() {
    let honest = setup(10, 5, 5);
    let other = Setup { plan: Digest::of(b"a larger clipping norm"), ..honest };
    let expected = Refused::WeakSetup("its plan is not the one that this device knows");
    refused(begin(&other, &policy(&honest), &mut Guard::new(RUN), 1), &expected, Refusal::SecureWeakSetup);
}

#[test]
fn assumptions_below_the_owners_are_refused() {
    let honest = setup(10, 5, 5);
    let weak = Setup { assumptions: Assumptions { corrupt_per_mille: 0, dropout_per_mille: 0 }, ..honest };
    let expected = Refused::WeakSetup("it assumes fewer colluders");
    refused(begin(&weak, &policy(&honest), &mut Guard::new(RUN), 1), &expected, Refusal::SecureWeakSetup);
}

#[test]
fn setups_that_cannot_be_are_refused() {
    let honest = setup(10, 5, 5);
    for wrong in [
        Setup { values: 0, ..honest },
        Setup { values: u32::MAX, ..honest },
        Setup { value_max: 0, ..honest },
        Setup { value_max: u64::MAX, sum_max: u64::MAX, ..honest },
        Setup { sum_max: honest.value_max - 1, ..honest },
        Setup { sum_max: 10 * honest.value_max + 1, ..honest },
        Setup { cohort_min: 2, ..honest },
        Setup { cohort_min: 11, ..honest },
        Setup { cohort_max: u16::MAX, ..honest },
        Setup { weight_max: 0, ..honest },
    ] {
        let policy = Policy { weight_max: wrong.weight_max, ..policy(&honest) };
        let result = begin(&wrong, &policy, &mut Guard::new(RUN), 1);
        assert_eq!(result.err().map(|refused| refused.refusal()), Some(Refusal::SecureSetup), "{wrong:?}");
    }
}

#[test]
fn a_round_is_not_replayed() {
    let setup = setup(10, 5, 5);
    let mut guard = Guard::new(RUN);
    begin(&setup, &policy(&setup), &mut guard, 1).expect("the first time");
    let expected = Refused::ReplayedRound { run: 3, round: 1, attempt: 1 };
    refused(begin(&setup, &policy(&setup), &mut guard, 2), &expected, Refusal::SecureReplayedRound);
    // Nor the rounds of another run with this run's guard.
    let elsewhere = Setup { address: Address { run: RunId(9), round: 5, ..setup.address }, ..setup };
    let expected = Refused::ReplayedRound { run: 9, round: 5, attempt: 1 };
    refused(begin(&elsewhere, &policy(&setup), &mut guard, 2), &expected, Refusal::SecureReplayedRound);
    let next = Setup { address: Address { attempt: 2, ..setup.address }, ..setup };
    begin(&next, &policy(&setup), &mut guard, 2).expect("a new attempt");
}

#[test]
fn an_entropy_source_that_repeats_itself_is_refused() {
    let first = setup(10, 5, 5);
    let next = Setup { address: Address { round: 2, ..first.address }, ..first };
    let mut guard = Guard::new(RUN);
    begin(&first, &policy(&first), &mut guard, 1).expect("the first time");
    // The guard as the disk has it after a restart.
    let mut guard = Guard::from_bytes(&guard.to_bytes(), None).expect("its own bytes");
    refused(begin(&next, &policy(&first), &mut guard, 1), &Refused::ReusedSeed, Refusal::SecureReusedSeed);
}

#[test]
fn a_new_attempt_has_new_keys() {
    let first = setup(10, 5, 5);
    let next = Setup { address: Address { attempt: 2, ..first.address }, ..first };
    let keys = |setup: &Setup, seed| {
        begin_one(setup, device_id(0), seed).expect("an honest setup").1[34 + 54..34 + 118].to_vec()
    };
    assert_ne!(keys(&first, 1), keys(&first, 2));
    // Even from the same entropy.
    let (one, other) = (keys(&first, 1), keys(&next, 1));
    assert!(one[..32] != other[..32] && one[32..] != other[32..]);
}
