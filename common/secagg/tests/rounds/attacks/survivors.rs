//! Which survivors the aggregator announces, and to whom.

use std::collections::BTreeSet;

use starling_secagg::{Assumptions, Refused, Setup, Topology};
use starling_wire::{DeviceId, Refusal};

use super::refused;
use crate::world::{Identity, Leaves, World, device_id, input, nobody, setup};

/// The survivor list of `world`'s session that `contains` draws.
fn list(world: &World, contains: &dyn Fn(usize) -> bool) -> Vec<u8> {
    let mut message = world.survivors[..34].to_vec();
    let devices = world.devices.len();
    let mut bits = vec![0u8; devices.div_ceil(8)];
    (0..devices).filter(|index| contains(*index)).for_each(|index| bits[index / 8] |= 1 << (index % 8));
    message.extend_from_slice(&bits);
    message
}

fn masked(devices: usize) -> World {
    let setup = setup(devices, 5, 5);
    let mut world = World::new(&setup, devices, 1, &nobody);
    world.share(&nobody).expect("everybody is there");
    world.mask(&|id| input(&setup, id, 1), &nobody).expect("everybody is there");
    world
}

/// The device at a roster index.
fn at(world: &World, index: usize) -> DeviceId {
    *world.devices.keys().nth(index).expect("an index of the roster")
}

#[test]
fn two_survivor_lists_shown_to_different_devices_are_seen() {
    let mut world = masked(10);
    let (honest, victim) = (world.survivors.clone(), at(&world, 9));
    let without_three = list(&world, &|index| index != 3);
    // Everybody but the victim confirms a list without device 3.
    let mut signatures = Vec::new();
    for index in (0..9).filter(|index| *index != 3) {
        let id = at(&world, index);
        let message = world.device(&id).handle_survivors(&without_three, &Identity::of(&id)).expect("a fair list");
        signatures.push((index, message.persisted()[34..].to_vec()));
    }
    world.device(&victim).handle_survivors(&honest, &Identity::of(&victim)).expect("a fair list");
    // The victim's neighbours are all others, in order; it is shown the signatures that there are.
    let mut request = vec![1, 8];
    request.extend_from_slice(&honest[2..34]);
    let mut confirmed = [0u8; 2];
    signatures.iter().for_each(|(index, _)| confirmed[index / 8] |= 1 << (index % 8));
    request.extend_from_slice(&confirmed);
    request.extend_from_slice(&[0xff, 0x03, 0, 0]);
    signatures.iter().for_each(|(_, signature)| request.extend_from_slice(signature));
    let expected = Refused::SurvivorsDisagree(at(&world, 0));
    let result = world.devices.get_mut(&victim).expect("it is there").handle_unmask(&request, &world.fleet);
    refused(result, &expected, Refusal::SecureSurvivorsDisagree);
    assert!(world.device(&victim).is_burned());
}

#[test]
fn a_second_survivor_list_after_a_revocation_is_refused() {
    let mut world = masked(10);
    let (honest, victim) = (world.survivors.clone(), at(&world, 0));
    let key = Identity::of(&victim);
    let first = world.device(&victim).handle_survivors(&honest, &key).expect("a fair list");
    assert_eq!(
        world.device(&victim).handle_survivors(&honest, &key),
        Ok(first.clone()),
        "the same list is answered alike"
    );
    let without_nine = list(&world, &|index| index != 9);
    let result = world.device(&victim).handle_survivors(&without_nine, &key);
    refused(result, &Refused::SecondSurvivors, Refusal::SecureSecondSurvivors);
    // It helps with neither list from now on, and still says what it has said.
    assert_eq!(world.device(&victim).handle_survivors(&honest, &key), Ok(first));
    let ids: Vec<DeviceId> = world.devices.keys().copied().collect();
    for id in ids.into_iter().filter(|id| *id != victim) {
        let message = world.device(&id).handle_survivors(&honest, &Identity::of(&id)).expect("a fair list").persisted();
        world.aggregator.handle_confirmation(id, &message, &world.fleet).expect("an honest signature");
    }
    let message = {
        let survivors = honest.clone();
        world.device(&victim).handle_survivors(&survivors, &key).expect("what it has said").persisted()
    };
    world.aggregator.handle_confirmation(victim, &message, &world.fleet).expect("an honest signature");
    let requests = world.aggregator.close_confirming().expect("nine devices");
    let (_, request) = requests.into_iter().find(|(id, _)| *id == victim).expect("the victim is asked");
    let result = world.devices.get_mut(&victim).expect("it is there").handle_unmask(&request, &world.fleet);
    refused(result, &Refused::Burned, Refusal::SecureBurned);
}

#[test]
fn too_few_survivors_are_refused() {
    let mut world = masked(10);
    let victim = at(&world, 0);
    let two = list(&world, &|index| index < 2);
    let result = world.device(&victim).handle_survivors(&two, &Identity::of(&victim));
    refused(result, &Refused::TooFewSurvivors { got: 2, wanted: 3 }, Refusal::SecureTooFewSurvivors);
    // Enough for the owner, but not for the threshold around the device.
    let victim = at(&world, 1);
    let four = list(&world, &|index| index < 4);
    let result = world.device(&victim).handle_survivors(&four, &Identity::of(&victim));
    refused(result, &Refused::TooFewSurvivors { got: 4, wanted: 6 }, Refusal::SecureTooFewSurvivors);
}

#[test]
fn a_survivor_list_without_the_device_is_refused() {
    let mut world = masked(10);
    let victim = at(&world, 0);
    let others = list(&world, &|index| index != 0);
    let result = world.device(&victim).handle_survivors(&others, &Identity::of(&victim));
    refused(result, &Refused::NotASurvivor, Refusal::SecureNotASurvivor);
}

#[test]
fn a_survivor_that_never_shared_is_refused() {
    let setup = setup(10, 5, 5);
    let absent = device_id(4);
    let leaves = |id: &DeviceId| if *id == absent { Leaves::Sharing } else { Leaves::Never };
    let mut world = World::new(&setup, 10, 1, &leaves);
    world.share(&leaves).expect("nine devices");
    world.mask(&|id| input(&setup, id, 1), &leaves).expect("nine devices");
    let everybody = list(&world, &|_| true);
    let victim = world.aggregator.survivors()[0];
    let result = world.device(&victim).handle_survivors(&everybody, &Identity::of(&victim));
    refused(result, &Refused::SurvivorNeverShared(absent), Refusal::SecureSurvivorNeverShared);
}

#[test]
fn survivors_that_were_chosen_to_come_apart_are_refused() {
    // On a ring, two stretches without honest survivors cut the sum in two, and the graph is known to everybody. One such stretch is
    // refused by devices that are not even near it.
    let setup =
        Setup { assumptions: Assumptions { corrupt_per_mille: 100, dropout_per_mille: 100 }, ..setup(200, 5, 5) };
    let mut world = World::new(&setup, 200, 1, &nobody);
    world.share(&nobody).expect("everybody is there");
    world.mask(&|id| input(&setup, id, 1), &nobody).expect("everybody is there");
    let degree = Topology::of(200, setup.assumptions).expect("feasible").degree();
    let neighbours = |id: &DeviceId| -> BTreeSet<DeviceId> { world.aggregator.neighbours(id).into_iter().collect() };
    // The neighbour that has the fewest neighbours in common with a device is the last one on one of its sides, and those in common are
    // what lies between.
    let middle = at(&world, 0);
    let around = neighbours(&middle);
    let in_common = |other: &DeviceId| around.intersection(&neighbours(other)).copied().collect::<BTreeSet<_>>();
    let last = *around.iter().min_by_key(|other| in_common(other).len()).expect("it has neighbours");
    let mut stretch = in_common(&last);
    stretch.insert(last);
    assert_eq!(stretch.len(), degree / 2);
    let victim =
        *world.devices.keys().find(|id| neighbours(id).is_disjoint(&stretch)).expect("the ring is long enough");
    let ids: Vec<DeviceId> = world.devices.keys().copied().collect();
    let split = list(&world, &|index| !stretch.contains(&ids[index]));
    let result = world.device(&victim).handle_survivors(&split, &Identity::of(&victim));
    refused(result, &Refused::SurvivorsSplit, Refusal::SecureSurvivorsSplit);
}

#[test]
fn messages_of_an_earlier_attempt_are_refused_and_do_no_harm() {
    let mut world = masked(10);
    let earlier = World::new(&world.setup, 10, 2, &nobody);
    let victim = at(&world, 0);
    let stale = {
        let mut earlier = earlier;
        earlier.share(&nobody).expect("ten devices");
        earlier.mask(&|id| input(&setup(10, 5, 5), id, 1), &nobody).expect("ten devices");
        earlier.survivors
    };
    let key = Identity::of(&victim);
    refused(world.device(&victim).handle_survivors(&stale, &key), &Refused::OtherAttempt, Refusal::SecureOtherAttempt);
    let honest = world.survivors.clone();
    world.device(&victim).handle_survivors(&honest, &key).expect("it takes part in its own attempt");
}
