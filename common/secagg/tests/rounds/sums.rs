//! The decoded sum is that of the survivors, bit for bit, whoever goes away and when.

use proptest::prelude::*;
use starling_secagg::{Aborted, Phase, Topology};
use starling_wire::{DeviceId, Digest};

use crate::world::{Leaves, World, device_id, input, nobody, plain_sum, setup};

/// Parameters of `fedavg-2nn`.
const PARAMETERS: usize = 199_210;

const LEAVING: [Leaves; 5] =
    [Leaves::Advertising, Leaves::Sharing, Leaves::Masking, Leaves::Confirming, Leaves::Revealing];

/// Who goes away when, drawn from `seed`: `count` devices of `devices`, each in one of `phases`.
fn plan(devices: usize, count: usize, phases: &[Leaves], seed: u64) -> impl Fn(&DeviceId) -> Leaves + use<> {
    let mut order: Vec<DeviceId> = (0..devices).map(device_id).collect();
    order.sort_by_key(|id| Digest::of_parts(&[&seed.to_le_bytes(), &id.0]));
    let phases = phases.to_vec();
    move |id| {
        let place = order.iter().position(|other| other == id).expect("a device of the world");
        if place < count { phases[place % phases.len()] } else { Leaves::Never }
    }
}

fn sum_is_right(devices: usize, values: usize, value_max: u64, leaves: &dyn Fn(&DeviceId) -> Leaves, seed: u64) {
    let setup = setup(devices, values, value_max);
    let mut world = World::new(&setup, devices, seed, leaves);
    let sum = world.run(&|id| input(&setup, id, seed), leaves).expect("enough devices are left");
    let expected: Vec<DeviceId> = {
        let mut ids: Vec<_> = (0..devices).map(device_id).filter(|id| leaves(id) > Leaves::Masking).collect();
        ids.sort();
        ids
    };
    assert_eq!(sum.survivors(), expected);
    assert!(sum.values() == plain_sum(&setup, &expected, seed), "{devices} devices, seed {seed}");
}

#[test]
fn inv1_three_devices_survive_the_loss_of_one_in_each_phase() {
    sum_is_right(3, PARAMETERS, 32_767, &nobody, 1);
    for phase in [Leaves::Confirming, Leaves::Revealing] {
        sum_is_right(3, PARAMETERS, 32_767, &plan(3, 1, &[phase], 2), 2);
    }
    // One that goes away earlier leaves two survivors, which is no cohort.
    for (phase, closed) in [
        (Leaves::Advertising, Phase::Advertising),
        (Leaves::Sharing, Phase::Sharing),
        (Leaves::Masking, Phase::Masking),
    ] {
        let leaves = plan(3, 1, &[phase], 2);
        let setup = setup(3, 10, 5);
        let mut world = World::new(&setup, 3, 2, &leaves);
        let aborted = world.run(&|id| input(&setup, id, 2), &leaves).err();
        assert_eq!(aborted, Some(Aborted::TooFew { phase: closed, got: 2, wanted: 3 }));
        assert_eq!(world.aggregator.phase(), Phase::Aborted);
    }
}

#[test]
fn inv1_ten_devices_in_each_phase_in_turn_and_together() {
    for (seed, phase) in (0u64..).zip(LEAVING) {
        sum_is_right(10, PARAMETERS, 32_767, &plan(10, 3, &[phase], seed), seed);
    }
    sum_is_right(10, PARAMETERS, 127, &plan(10, 3, &LEAVING[1..4], 6), 6);
    sum_is_right(10, PARAMETERS, 7, &plan(10, 3, &LEAVING[2..], 7), 7);
}

#[test]
fn inv1_fifty_devices_in_each_phase_in_turn_and_together() {
    for (seed, phase) in (0u64..).zip(LEAVING) {
        sum_is_right(50, PARAMETERS, 127, &plan(50, 15, &[phase], seed), seed);
    }
    sum_is_right(50, PARAMETERS, 32_767, &plan(50, 15, &LEAVING, 7), 7);
}

#[test]
fn inv1_a_hundred_devices_with_drop_outs_in_every_phase() {
    sum_is_right(100, PARAMETERS, 32_767, &plan(100, 30, &LEAVING, 3), 3);
    sum_is_right(100, PARAMETERS, 7, &plan(100, 30, &[Leaves::Masking], 4), 4);
}

#[test]
fn inv1_two_hundred_devices_on_a_ring_with_drop_outs_in_every_phase() {
    let setup = setup(200, 1, 1);
    assert!(!Topology::of(200, setup.assumptions).expect("feasible").is_complete());
    sum_is_right(200, PARAMETERS, 127, &plan(200, 40, &LEAVING, 5), 5);
}

#[test]
fn below_the_threshold_the_attempt_is_given_up_in_every_phase() {
    let setup = setup(20, 10, 5);
    let threshold = Topology::of(20, setup.assumptions).expect("feasible").threshold();
    for phase in [Leaves::Masking, Leaves::Confirming, Leaves::Revealing] {
        let leaves = plan(20, 20 - threshold + 1, &[phase], 1);
        let mut world = World::new(&setup, 20, 1, &leaves);
        let aborted = world.run(&|id| input(&setup, id, 1), &leaves).err();
        let Some(Aborted::TooFewShares { got, wanted, .. }) = aborted else { panic!("{phase:?}: {aborted:?}") };
        assert_eq!(wanted, threshold);
        // Nobody is asked for shares whose neighbours have not confirmed.
        assert_eq!(got, if phase == Leaves::Confirming { 0 } else { threshold - 1 });
        // One more is enough.
        sum_is_right(20, 10, 5, &plan(20, 20 - threshold, &[phase], 1), 1);
    }
}

#[test]
fn a_revocation_before_the_input_is_a_drop_out_and_after_it_the_end() {
    let setup = setup(10, 100, 5);
    let revoked = device_id(4);
    // While envelopes come in.
    let mut world = World::new(&setup, 10, 1, &nobody);
    world.roster = world.aggregator.close_advertising().expect("ten devices");
    world.aggregator.revoke(&revoked).expect("it has merely dropped out");
    assert_eq!(world.aggregator.phase(), Phase::Sharing);
    // After the survivors were announced.
    let mut world = World::new(&setup, 10, 1, &nobody);
    world.share(&nobody).expect("ten devices");
    world.mask(&|id| input(&setup, id, 1), &nobody).expect("ten devices");
    assert_eq!(world.aggregator.revoke(&revoked), Err(Aborted::Revoked(revoked)));
    assert_eq!(world.aggregator.phase(), Phase::Aborted);
    assert!(world.aggregator.close_confirming().is_err());
    // One that has not survived changes nothing.
    let leaves = |id: &DeviceId| if *id == revoked { Leaves::Masking } else { Leaves::Never };
    let mut world = World::new(&setup, 10, 1, &leaves);
    world.share(&leaves).expect("ten devices");
    world.mask(&|id| input(&setup, id, 1), &leaves).expect("nine devices");
    world.aggregator.revoke(&revoked).expect("it is no survivor");
    world.confirm(&leaves).expect("nine devices");
    assert_eq!(world.unmask(&leaves).expect("nine devices").survivors().len(), 9);
}

#[test]
fn wrong_shares_are_left_out_while_there_are_others() {
    for (liars, right) in [(1, true), (7, false)] {
        let setup = setup(12, 50, 9);
        let mut world = World::new(&setup, 12, 1, &nobody);
        world.share(&nobody).expect("twelve devices");
        world.mask(&|id| input(&setup, id, 1), &nobody).expect("twelve devices");
        world.confirm(&nobody).expect("twelve devices");
        for (place, (id, request)) in world.requests.clone().into_iter().enumerate() {
            let fleet = &world.fleet;
            let device = world.devices.get_mut(&id).expect("a device of the world");
            let mut message = device.handle_unmask(&request, fleet).expect("an honest request").persisted();
            if place < liars {
                message[40..].fill(1);
            }
            world.aggregator.handle_reveal(id, &message).expect("shares of the right length");
        }
        assert!(world.aggregator.is_complete());
        let sum = world.aggregator.finish();
        let everybody: Vec<DeviceId> = (0..12).map(device_id).collect();
        match sum {
            Ok(sum) => assert!(right && sum.values() == plain_sum(&setup, &everybody, 1)),
            Err(aborted) => assert!(!right && matches!(aborted, Aborted::WrongShares(_)), "{aborted}"),
        }
    }
}

/// Bytes that a device sends at most: 1.1 × (m·w/8 + 215·k).
#[test]
fn a_device_sends_no_more_than_its_budget() {
    for (devices, value_max, width) in [(100, 32_767, 23), (100, 127, 15), (100, 7, 11), (200, 32_767, 24)] {
        let setup = setup(devices, PARAMETERS, value_max);
        assert_eq!(setup.ring().expect("a ring").width(), width);
        let degree = Topology::of(devices, setup.assumptions).expect("feasible").degree();
        let mut world = World::new(&setup, devices, 1, &nobody);
        world.share(&nobody).expect("everybody is there");
        let packed = setup.ring().expect("a ring").packed_len(PARAMETERS);
        // The vector's message is a header and the packed vector; the other phases' bytes are measured.
        let masked = world.device(&device_id(0)).mask(&input(&setup, &device_id(0), 1)).expect("an input").persisted();
        assert_eq!(masked.len(), 34 + packed);
        let shares_and_keys = world.bytes_up[&device_id(0)];
        // A confirmation, and a share of one secret of each holder.
        let rest = 34 + 64 + 34 + 36 * (degree + 1);
        let budget = (packed + 215 * degree) * 11 / 10;
        assert!(shares_and_keys + masked.len() + rest <= budget, "{devices}: {} > {budget}", shares_and_keys + rest);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn inv1_any_cohort_and_any_drop_outs(
        devices in 10usize..40, percent in 0usize..31, value_max in 1u64..1 << 50, seed in any::<u64>()
    ) {
        let leaves = plan(devices, devices * percent / 100, &LEAVING, seed);
        sum_is_right(devices, 33, value_max, &leaves, seed);
    }
}
