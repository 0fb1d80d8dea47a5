//! Which shares the aggregator asks for.

use starling_secagg::{Refused, Topology};
use starling_wire::{DeviceId, Refusal};

use super::refused;
use crate::world::{Leaves, World, device_id, input, setup};

/// Ten devices of which one has dropped out after sharing; everybody has confirmed. Gives the world, the dropped device and a victim.
fn confirmed() -> (World, DeviceId, DeviceId) {
    let setup = setup(10, 5, 5);
    let dropped = device_id(4);
    let leaves = move |id: &DeviceId| if *id == dropped { Leaves::Masking } else { Leaves::Never };
    let mut world = World::new(&setup, 10, 1, &leaves);
    world.share(&leaves).expect("ten devices");
    world.mask(&|id| input(&setup, id, 1), &leaves).expect("nine devices");
    world.confirm(&leaves).expect("nine devices");
    let victim = world.aggregator.survivors()[0];
    (world, dropped, victim)
}

// The fields of a request among ten devices: which neighbours confirmed, which seeds and which keys are asked for.
const CONFIRMED_AT: usize = 34;
const SEEDS_AT: usize = 36;
const KEYS_AT: usize = 38;
const SIGNATURES_AT: usize = 40;

/// The position of a device among the victim's neighbours, which are all others in order.
fn position(world: &World, victim: &DeviceId, other: &DeviceId) -> usize {
    world.devices.keys().filter(|id| *id != victim).position(|id| id == other).expect("it is a neighbour")
}

#[test]
fn both_shares_of_one_device_are_refused() {
    for survivor in [true, false] {
        let (mut world, dropped, victim) = confirmed();
        let peer = if survivor {
            *world.devices.keys().find(|id| **id != victim && **id != dropped).expect("a survivor")
        } else {
            dropped
        };
        let at = position(&world, &victim, &peer);
        let mut request = world.requests[&victim].clone();
        for set in [SEEDS_AT, KEYS_AT] {
            request[set + at / 8] |= 1 << (at % 8);
        }
        let device = world.devices.get_mut(&victim).expect("it is there");
        refused(device.handle_unmask(&request, &world.fleet), &Refused::BothShares(peer), Refusal::SecureBothShares);
        assert!(device.is_burned());
        let honest = &world.requests[&victim];
        refused(device.handle_unmask(honest, &world.fleet), &Refused::Burned, Refusal::SecureBurned);
    }
}

#[test]
fn the_share_that_the_survivor_list_does_not_allow_is_refused() {
    let (mut world, dropped, victim) = confirmed();
    // The seed of a drop-out, whose vector may merely be late, and no key.
    let at = position(&world, &victim, &dropped);
    let mut request = world.requests[&victim].clone();
    request[SEEDS_AT + at / 8] |= 1 << (at % 8);
    request[KEYS_AT + at / 8] &= !(1 << (at % 8));
    let device = world.devices.get_mut(&victim).expect("it is there");
    refused(
        device.handle_unmask(&request, &world.fleet),
        &Refused::ForbiddenShare(dropped),
        Refusal::SecureForbiddenShare,
    );
    // The key of a survivor, and of the device itself.
    for own in [false, true] {
        let (mut world, dropped, victim) = confirmed();
        let peer = *world.devices.keys().find(|id| **id != victim && **id != dropped).expect("a survivor");
        let (peer, at) = if own { (victim, 9) } else { (peer, position(&world, &victim, &peer)) };
        let mut request = world.requests[&victim].clone();
        request[SEEDS_AT + at / 8] &= !(1 << (at % 8));
        request[KEYS_AT + at / 8] |= 1 << (at % 8);
        let device = world.devices.get_mut(&victim).expect("it is there");
        refused(
            device.handle_unmask(&request, &world.fleet),
            &Refused::ForbiddenShare(peer),
            Refusal::SecureForbiddenShare,
        );
    }
}

#[test]
fn the_other_share_in_a_second_request_is_refused() {
    let (mut world, dropped, victim) = confirmed();
    let honest = world.requests[&victim].clone();
    let device = world.devices.get_mut(&victim).expect("it is there");
    let shares = device.handle_unmask(&honest, &world.fleet).expect("an honest request");
    assert_eq!(device.handle_unmask(&honest, &world.fleet), Ok(shares), "the same request is answered alike");
    let at = world.devices.keys().filter(|id| **id != victim).position(|id| *id == dropped).expect("it is a neighbour");
    let mut second = honest;
    second[SEEDS_AT + at / 8] |= 1 << (at % 8);
    second[KEYS_AT + at / 8] &= !(1 << (at % 8));
    let device = world.devices.get_mut(&victim).expect("it is there");
    let result = device.handle_unmask(&second, &world.fleet);
    refused(result, &Refused::SecondUnmasking, Refusal::SecureSecondUnmasking);
    assert!(device.is_burned(), "the keys went with the first answer");
}

#[test]
fn too_few_confirmations_are_refused() {
    let (mut world, _, victim) = confirmed();
    let threshold = Topology::of(10, world.setup.assumptions).expect("feasible").threshold();
    let honest = world.requests[&victim].clone();
    assert_eq!(honest.len(), SIGNATURES_AT + 64 * (threshold - 1));
    // The last of them is left out.
    let mut request = honest[..honest.len() - 64].to_vec();
    let last = (0..9).rev().find(|at| request[CONFIRMED_AT + at / 8] >> (at % 8) & 1 == 1).expect("somebody confirmed");
    request[CONFIRMED_AT + last / 8] &= !(1 << (last % 8));
    let device = world.devices.get_mut(&victim).expect("it is there");
    let expected = Refused::TooFewConfirmations { got: threshold - 1, wanted: threshold };
    refused(device.handle_unmask(&request, &world.fleet), &expected, Refusal::SecureTooFewConfirmations);
}

#[test]
fn a_confirmation_that_nobody_signed_is_refused() {
    let (mut world, _, victim) = confirmed();
    let mut request = world.requests[&victim].clone();
    request[SIGNATURES_AT + 70] ^= 1;
    let first_two: Vec<usize> =
        (0..9).filter(|at| request[CONFIRMED_AT + at / 8] >> (at % 8) & 1 == 1).take(2).collect();
    let forged = *world.devices.keys().filter(|id| **id != victim).nth(first_two[1]).expect("a neighbour");
    let device = world.devices.get_mut(&victim).expect("it is there");
    let expected = Refused::SurvivorsDisagree(forged);
    refused(device.handle_unmask(&request, &world.fleet), &expected, Refusal::SecureSurvivorsDisagree);
}

#[test]
fn phases_cannot_be_skipped() {
    let (mut world, _, _) = confirmed();
    let outsider = device_id(4);
    // The dropped device has sent no vector: it confirms nothing and unmasks nothing.
    let (survivors, request) = (world.survivors.clone(), world.requests.values().next().expect("a request").clone());
    let key = crate::world::Identity::of(&outsider);
    let device = world.devices.get_mut(&outsider).expect("it is there");
    let expected = Refused::OutOfTurn("this device has sent no input yet");
    refused(device.handle_survivors(&survivors, &key), &expected, Refusal::SecureOutOfTurn);
    let expected = Refused::OutOfTurn("there is no survivor list yet");
    refused(device.handle_unmask(&request, &world.fleet), &expected, Refusal::SecureOutOfTurn);
    assert!(!device.is_burned(), "a message out of turn is no attack yet");
}
