//! Who is in the roster: Sybils, swapped keys, tiny cohorts, devices that train from something else.

use starling_secagg::limits::MEMBER_BYTES;
use starling_secagg::{Device, Guard, Policy, Refused, Setup};
use starling_wire::{Address, DeviceId, Digest, Refusal};

use super::refused;
use crate::world::{Certificates, Identity, RUN, World, begin_one, device_id, entropy, nobody, policy, setup};

/// Where the members of a roster begin, and the fields of a member.
const MEMBERS_AT: usize = 36;
const MODEL_AT: usize = 22;
const MASK_KEY_AT: usize = 54;
const ENVELOPE_KEY_AT: usize = 86;

/// A roster message of these members, in ascending order.
fn roster(setup: &Setup, mut members: Vec<Vec<u8>>) -> Vec<u8> {
    members.sort();
    let mut out = vec![1, 2];
    out.extend_from_slice(&setup.digest().0);
    out.extend_from_slice(&u16::try_from(members.len()).expect("a small cohort").to_le_bytes());
    members.iter().for_each(|member| out.extend_from_slice(member));
    out
}

/// The members of an honest roster of ten.
fn members(setup: &Setup) -> (World, Vec<Vec<u8>>) {
    let mut world = World::new(setup, 10, 1, &nobody);
    let honest = world.aggregator.close_advertising().expect("ten devices");
    let members = honest[MEMBERS_AT..].chunks(MEMBER_BYTES).map(<[u8]>::to_vec).collect();
    assert_eq!(roster(setup, members), honest);
    let members = honest[MEMBERS_AT..].chunks(MEMBER_BYTES).map(<[u8]>::to_vec).collect();
    (world, members)
}

/// The roster index of a device that is not the victim, and its id.
fn other(members: &[Vec<u8>], victim: &DeviceId) -> (usize, DeviceId) {
    let index = members.iter().position(|member| member[..16] != victim.0).expect("ten devices");
    (index, DeviceId(members[index][..16].try_into().expect("16 bytes")))
}

/// What `setup`'s device of this name would advertise, as a member of a roster.
fn member(setup: &Setup, id: DeviceId, seed: u64) -> Vec<u8> {
    begin_one(setup, id, seed).expect("an honest setup").1[34..].to_vec()
}

#[test]
fn a_cohort_below_the_owners_minimum_is_refused() {
    let setup = setup(10, 5, 5);
    let (mut world, members) = members(&setup);
    let victim = device_id(0);
    let own = members.iter().position(|member| member[..16] == victim.0).expect("it is there");
    let two = vec![members[own].clone(), members[(own + 1) % 10].clone()];
    let result = world.devices.get_mut(&victim).expect("it is there").handle_roster(&roster(&setup, two), &world.fleet);
    refused(result, &Refused::TinyCohort { got: 2, wanted: 3 }, Refusal::SecureTinyCohort);
    assert!(world.device(&victim).is_burned());

    // The owner may ask for more than the setup does.
    let strict = Policy { cohort_min: 11, ..policy(&setup) };
    let key = Identity::of(&victim);
    let begun = Device::begin(&setup, &strict, victim, &mut Guard::new(RUN), &entropy(&victim, 2), &key);
    refused(begun.map(drop), &Refused::TinyCohort { got: 10, wanted: 11 }, Refusal::SecureTinyCohort);
}

#[test]
fn sybils_without_certificates_are_refused() {
    let setup = setup(10, 5, 5);
    let (mut world, mut members) = members(&setup);
    let victim = device_id(0);
    let sybil = DeviceId([9; 16]);
    let (replaced, _) = other(&members, &victim);
    members[replaced] = member(&setup, sybil, 1);
    let message = roster(&setup, members);
    let result = world.devices.get_mut(&victim).expect("it is there").handle_roster(&message, &world.fleet);
    refused(result, &Refused::UncertifiedMember(sybil), Refusal::SecureUncertifiedMember);
}

#[test]
fn one_device_or_one_key_under_two_names_is_refused() {
    let setup = setup(12, 5, 5);
    let victim = device_id(0);
    // The same member twice.
    let (mut world, mut twice) = members(&setup);
    let (index, name) = other(&twice, &victim);
    twice.push(twice[index].clone());
    let result =
        world.devices.get_mut(&victim).expect("it is there").handle_roster(&roster(&setup, twice), &world.fleet);
    refused(result, &Refused::DuplicateMember(name), Refusal::SecureDuplicateMember);
    // Two certified colluders with one key.
    let (mut world, mut shared) = members(&setup);
    let (index, _) = other(&shared, &victim);
    let copied = shared[index][MASK_KEY_AT..ENVELOPE_KEY_AT].to_vec();
    let sybil = DeviceId([255; 16]);
    let mut colluder = member(&setup, sybil, 1);
    colluder[MASK_KEY_AT..ENVELOPE_KEY_AT].copy_from_slice(&copied);
    shared.push(colluder);
    let result =
        world.devices.get_mut(&victim).expect("it is there").handle_roster(&roster(&setup, shared), &world.fleet);
    refused(result, &Refused::DuplicateMember(sybil), Refusal::SecureDuplicateMember);
}

#[test]
fn swapped_keys_are_refused() {
    let setup = setup(10, 5, 5);
    let victim = device_id(0);
    for at in [MASK_KEY_AT, ENVELOPE_KEY_AT] {
        let (mut world, mut members) = members(&setup);
        let (index, name) = other(&members, &victim);
        // A key that the aggregator knows the secret of.
        members[index][at..at + 32].copy_from_slice(&Digest::of(b"some other key").0);
        let message = roster(&setup, members);
        let result = world.devices.get_mut(&victim).expect("it is there").handle_roster(&message, &world.fleet);
        refused(result, &Refused::SwappedKeys(name), Refusal::SecureSwappedKeys);
    }
}

#[test]
fn keys_of_low_order_are_refused_even_when_a_colluder_signs_them() {
    let setup = setup(10, 5, 5);
    let victim = device_id(0);
    let (mut world, mut members) = members(&setup);
    let (index, name) = other(&members, &victim);
    members[index][ENVELOPE_KEY_AT..ENVELOPE_KEY_AT + 32].fill(0);
    let signed = [
        b"starling/1 secagg advertise\0",
        &setup.digest().0[..],
        &name.0,
        &members[index][MASK_KEY_AT..ENVELOPE_KEY_AT + 32],
    ]
    .concat();
    let signature = starling_secagg::IdentityKey::sign(&Identity::of(&name), &signed);
    members[index][ENVELOPE_KEY_AT + 32..].copy_from_slice(&signature);
    let message = roster(&setup, members);
    let result = world.devices.get_mut(&victim).expect("it is there").handle_roster(&message, &world.fleet);
    refused(result, &Refused::WeakKeys(name), Refusal::SecureWeakKeys);
}

#[test]
fn a_roster_without_the_devices_own_keys_is_refused() {
    let setup = setup(10, 5, 5);
    let victim = device_id(0);
    let (mut world, mut members) = members(&setup);
    let own = members.iter().position(|member| member[..16] == victim.0).expect("it is there");
    // Its own keys of another attempt's entropy, properly signed by itself.
    members[own] = member(&setup, victim, 77);
    let message = roster(&setup, members);
    let result = world.devices.get_mut(&victim).expect("it is there").handle_roster(&message, &world.fleet);
    refused(result, &Refused::OwnKeysChanged, Refusal::SecureOwnKeysChanged);
}

#[test]
fn devices_that_were_given_another_model_are_refused_and_could_not_be_summed() {
    let setup = setup(10, 5, 5);
    let victim = device_id(0);
    let other_setup = Setup { model: Digest::of(b"another model"), ..setup };
    let (mut world, mut members) = members(&setup);
    let (index, name) = other(&members, &victim);
    members[index] = member(&other_setup, name, 1);
    let message = roster(&setup, members.clone());
    let device = world.devices.get_mut(&victim).expect("it is there");
    refused(device.handle_roster(&message, &world.fleet), &Refused::OtherModel(name), Refusal::SecureOtherModel);
    // The aggregator writes the victim's model into it: the signature does not cover that.
    members[index][MODEL_AT..MASK_KEY_AT].copy_from_slice(&setup.model.0);
    let (mut device, _) = begin_one(&setup, victim, 1).expect("an honest setup");
    let result = device.handle_roster(&roster(&setup, members), &world.fleet);
    refused(result, &Refused::SwappedKeys(name), Refusal::SecureSwappedKeys);
    // And the victim shows its own model to nobody who trains from another.
    let (mut device, _) = begin_one(&setup, victim, 1).expect("an honest setup");
    let whole = roster(&other_setup, vec![member(&other_setup, victim, 1), member(&other_setup, name, 1)]);
    refused(device.handle_roster(&whole, &world.fleet), &Refused::OtherAttempt, Refusal::SecureOtherAttempt);
}

#[test]
fn advertisements_of_an_earlier_round_are_refused() {
    let setup = setup(10, 5, 5);
    let victim = device_id(0);
    for address in [Address { round: 2, ..setup.address }, Address { attempt: 9, ..setup.address }] {
        let (mut world, mut members) = members(&setup);
        let (index, name) = other(&members, &victim);
        members[index] = member(&Setup { address, ..setup }, name, 1);
        let message = roster(&setup, members);
        let result = world.devices.get_mut(&victim).expect("it is there").handle_roster(&message, &world.fleet);
        refused(result, &Refused::StaleMember(name), Refusal::SecureStaleMember);
    }
}

#[test]
fn a_second_roster_is_refused() {
    let setup = setup(10, 5, 5);
    let victim = device_id(0);
    let (mut world, members) = members(&setup);
    let first = roster(&setup, members.clone());
    let device = world.devices.get_mut(&victim).expect("it is there");
    let shares = device.handle_roster(&first, &world.fleet).expect("an honest roster");
    assert_eq!(device.handle_roster(&first, &world.fleet), Ok(shares), "the same roster is answered alike");
    let (index, _) = other(&members, &victim);
    let fewer = members.into_iter().enumerate().filter(|(at, _)| *at != index).map(|(_, member)| member).collect();
    refused(
        device.handle_roster(&roster(&setup, fewer), &world.fleet),
        &Refused::SecondRoster,
        Refusal::SecureSecondRoster,
    );
    assert!(device.is_burned());
}

#[test]
fn a_roster_larger_than_the_setup_allows_is_refused() {
    let setup = setup(10, 5, 5);
    let (_, mut members) = members(&setup);
    members.push(member(&setup, DeviceId([255; 16]), 1));
    let (mut device, _) = begin_one(&setup, device_id(0), 1).expect("an honest setup");
    let result = device.handle_roster(&roster(&setup, members), &Certificates::default());
    refused(result, &Refused::CohortTooLarge { got: 11, allowed: 10 }, Refusal::SecureTopology);
}
