//! Bytes that are no messages, envelopes that do not open, and what a masked vector looks like.

use starling_secagg::{Aggregator, Refused};
use starling_wire::{DeviceId, Refusal};

use crate::world::{Identity, Leaves, World, begin_one, device_id, input, nobody, setup};

/// What each message of an honest attempt becomes when it is cut or grows is refused by whoever gets it, and changes nothing.
#[test]
fn inv8_cut_and_grown_messages_are_refused_and_change_nothing() {
    let setup = setup(10, 5, 5);
    let mut world = World::new(&setup, 10, 1, &nobody);
    let (id, key) = (device_id(0), Identity::of(&device_id(0)));
    let variants = |message: &[u8]| -> Vec<Vec<u8>> {
        let mut variants: Vec<Vec<u8>> = (0..message.len()).map(|cut| message[..cut].to_vec()).collect();
        variants.push([message, &[0]].concat());
        variants
    };
    let malformed = |result: Result<(), Refused>| {
        let code = result.expect_err("it is no message").refusal();
        let expected = [Refusal::SecureMalformed, Refusal::SecureOutOfTurn, Refusal::SecureVectorLength];
        assert!(expected.contains(&code), "{code}");
    };
    let (_, advertised) = begin_one(&setup, id, 1).expect("an honest setup");
    let mut fresh = Aggregator::new(&setup).expect("an honest setup");
    for bytes in variants(&advertised) {
        malformed(fresh.handle_advertisement(id, &bytes, &world.fleet));
    }
    assert_eq!(fresh.answered(), 0);

    world.roster = world.aggregator.close_advertising().expect("ten devices");
    let roster = world.roster.clone();
    let device = world.devices.get_mut(&id).expect("it is there");
    // A roster is long: every seventh cut is enough.
    for bytes in variants(&roster).into_iter().step_by(7) {
        malformed(device.handle_roster(&bytes, &world.fleet).map(drop));
    }
    for (id, device) in &mut world.devices {
        let shares = device.handle_roster(&roster, &world.fleet).expect("an honest roster").persisted();
        for bytes in variants(&shares).into_iter().step_by(31) {
            malformed(world.aggregator.handle_shares(*id, &bytes));
        }
        world.aggregator.handle_shares(*id, &shares).expect("honest envelopes");
    }
    for (other, envelopes) in world.aggregator.close_sharing().expect("ten devices") {
        let device = world.devices.get_mut(&other).expect("it is there");
        for bytes in variants(&envelopes).into_iter().step_by(31) {
            malformed(device.handle_envelopes(&bytes));
        }
        device.handle_envelopes(&envelopes).expect("honest envelopes");
        let masked = device.mask(&[0; 5]).expect("an input").persisted();
        for bytes in variants(&masked) {
            malformed(world.aggregator.handle_masked(other, &bytes));
        }
        world.aggregator.handle_masked(other, &masked).expect("an honest vector");
    }
    let survivors = world.aggregator.close_masking().expect("ten devices");
    let device = world.devices.get_mut(&id).expect("it is there");
    for bytes in variants(&survivors) {
        malformed(device.handle_survivors(&bytes, &key).map(drop));
    }
    // A list with a bit after the last device.
    let mut longer = survivors.clone();
    *longer.last_mut().expect("a list") |= 0x80;
    malformed(device.handle_survivors(&longer, &key).map(drop));
    for (other, device) in &mut world.devices {
        let confirmed = device.handle_survivors(&survivors, &Identity::of(other)).expect("an honest list").persisted();
        for bytes in variants(&confirmed) {
            malformed(world.aggregator.handle_confirmation(*other, &bytes, &world.fleet));
        }
        world.aggregator.handle_confirmation(*other, &confirmed, &world.fleet).expect("an honest signature");
    }
    for (other, request) in world.aggregator.close_confirming().expect("ten devices") {
        let device = world.devices.get_mut(&other).expect("it is there");
        for bytes in variants(&request).into_iter().step_by(5) {
            malformed(device.handle_unmask(&bytes, &world.fleet).map(drop));
        }
        let shares = device.handle_unmask(&request, &world.fleet).expect("an honest request").persisted();
        for bytes in variants(&shares).into_iter().step_by(5) {
            malformed(world.aggregator.handle_reveal(other, &bytes));
        }
        world.aggregator.handle_reveal(other, &shares).expect("honest shares");
    }
    assert_eq!(world.aggregator.finish().expect("ten devices").values(), [0; 5]);
}

#[test]
fn an_envelope_that_was_changed_or_came_from_elsewhere_is_refused() {
    let setup = setup(10, 5, 5);
    for swapped in [false, true] {
        let mut world = World::new(&setup, 10, 1, &nobody);
        world.roster = world.aggregator.close_advertising().expect("ten devices");
        let roster = world.roster.clone();
        for (id, device) in &mut world.devices {
            let shares = device.handle_roster(&roster, &world.fleet).expect("an honest roster").persisted();
            world.aggregator.handle_shares(*id, &shares).expect("honest envelopes");
        }
        let (victim, mut envelopes) = world.aggregator.close_sharing().expect("ten devices").remove(0);
        let at = 34 + 2;
        if swapped {
            let (first, second) = envelopes[at..].split_at_mut(88);
            first.swap_with_slice(&mut second[..88]);
        } else {
            envelopes[at + 5] ^= 1;
        }
        let sender = *world.devices.keys().find(|id| **id != victim).expect("a neighbour");
        let result = world.device(&victim).handle_envelopes(&envelopes);
        assert_eq!(result, Err(Refused::BadEnvelope(sender)));
        assert_eq!(Refused::BadEnvelope(sender).refusal(), Refusal::SecureBadEnvelope);
    }
}

#[test]
fn other_envelopes_for_the_same_attempt_are_refused() {
    let setup = setup(10, 5, 5);
    let mut world = World::new(&setup, 10, 1, &nobody);
    world.share(&nobody).expect("ten devices");
    let victim = device_id(0);
    let first = world.envelopes[&victim].clone();
    assert_eq!(world.device(&victim).handle_envelopes(&first), Ok(()), "the same envelopes change nothing");
    // The first neighbour's is taken out: the device would mask with fewer.
    let mut fewer = first[..first.len() - 88].to_vec();
    fewer[35] &= !1;
    assert_eq!(world.device(&victim).handle_envelopes(&fewer), Err(Refused::SecondEnvelopes));
    assert_eq!(Refused::SecondEnvelopes.refusal(), Refusal::SecureSecondEnvelopes);
    assert!(world.device(&victim).is_burned());
}

#[test]
fn a_device_whose_neighbours_have_not_shared_is_refused_its_input() {
    let setup = setup(10, 5, 5);
    let stay: Vec<DeviceId> = (0..5).map(device_id).collect();
    let leaves = |id: &DeviceId| if stay.contains(id) { Leaves::Never } else { Leaves::Sharing };
    let mut world = World::new(&setup, 10, 1, &leaves);
    world.roster = world.aggregator.close_advertising().expect("ten devices");
    let roster = world.roster.clone();
    for id in &stay {
        let device = world.devices.get_mut(id).expect("it is there");
        let shares = device.handle_roster(&roster, &world.fleet).expect("an honest roster").persisted();
        world.aggregator.handle_shares(*id, &shares).expect("honest envelopes");
    }
    let (victim, envelopes) = world.aggregator.close_sharing().expect("five devices").remove(0);
    let expected = Refused::TooFewHolders { got: 5, wanted: 6 };
    assert_eq!(world.device(&victim).handle_envelopes(&envelopes), Err(expected.clone()));
    assert_eq!(expected.refusal(), Refusal::SecureTooFewHolders);
}

#[test]
fn the_aggregator_refuses_what_it_has_not_asked_for() {
    let setup = setup(10, 5, 5);
    let stranger = DeviceId([77; 16]);
    let mut world = World::new(&setup, 10, 1, &nobody);
    // An advertisement in another device's name, and of a device without a certificate.
    let (_, message) = begin_one(&setup, stranger, 1).expect("an honest setup");
    let mut fresh = Aggregator::new(&setup).expect("an honest setup");
    let refused = fresh.handle_advertisement(device_id(0), &message, &world.fleet);
    assert_eq!(refused, Err(Refused::Unexpected(stranger)));
    let refused = fresh.handle_advertisement(stranger, &message, &world.fleet);
    assert_eq!(refused, Err(Refused::UncertifiedMember(stranger)));
    // Another vector in the place of the first, and one from somebody else.
    world.share(&nobody).expect("ten devices");
    let id = device_id(0);
    let masked = world.device(&id).mask(&input(&setup, &id, 1)).expect("an input").persisted();
    world.aggregator.handle_masked(id, &masked).expect("the first");
    world.aggregator.handle_masked(id, &masked).expect("the same bytes again");
    assert_eq!(world.aggregator.answered(), 1);
    let mut other = masked.clone();
    other[36] ^= 1;
    assert_eq!(world.aggregator.handle_masked(id, &other), Err(Refused::Unexpected(id)));
    assert_eq!(world.aggregator.handle_masked(stranger, &masked), Err(Refused::Unexpected(stranger)));
}

#[test]
fn a_masked_vector_is_uniform_whatever_its_input() {
    // 100,000 zeros under masks, in a ring of 2^6: chi-square over the 64 values, 99.99 % quantile of 63 degrees of freedom: 113.
    let setup = setup(3, 100_000, 10);
    assert_eq!(setup.ring().expect("a ring").width(), 6);
    let mut world = World::new(&setup, 3, 1, &nobody);
    world.share(&nobody).expect("three devices");
    let message = world.device(&device_id(0)).mask(&vec![0; 100_000]).expect("an input").persisted();
    let mut counts = [0u32; 64];
    let bits = |at: usize| u32::from(message[34 + at / 8]) >> (at % 8) & 1;
    (0..100_000).for_each(|index| counts[(0..6).map(|bit| bits(6 * index + bit) << bit).sum::<u32>() as usize] += 1);
    let expected = 100_000.0 / 64.0;
    let chi_square: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    assert!(chi_square < 113.0, "{chi_square}");
}
