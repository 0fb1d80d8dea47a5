//! A device that is killed, restarted, or rolled back to an older copy of its disk says again what it said, or nothing.

use starling_secagg::{Device, Guard, Kind, Refused, Restored, Setup};
use starling_wire::{Address, Refusal};

use crate::world::{Identity, RUN, World, device_id, entropy, input, nobody, policy, setup};

/// What a device's disk holds after each phase, and what it sent in each.
struct Life {
    setup: Setup,
    records: Vec<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    // The aggregator's messages of the same phases.
    asked: Vec<Vec<u8>>,
}

fn live() -> Life {
    let setup = setup(10, 20, 50);
    let id = device_id(0);
    let mut world = World::new(&setup, 10, 1, &nobody);
    world.share(&nobody).expect("ten devices");
    world.mask(&|id| input(&setup, id, 1), &nobody).expect("ten devices");
    world.confirm(&nobody).expect("ten devices");
    // The same device again, step by step: all that it does is a function of its entropy and of what it is told.
    let key = Identity::of(&id);
    let (mut device, advertised) =
        Device::begin(&setup, &policy(&setup), id, &mut Guard::new(RUN), &entropy(&id, 1), &key).expect("honest");
    let shared = device.handle_roster(&world.roster, &world.fleet).expect("an honest roster");
    device.handle_envelopes(&world.envelopes[&id]).expect("honest envelopes");
    let masked = device.mask(&input(&setup, &id, 1)).expect("an input");
    let confirmed = device.handle_survivors(&world.survivors, &key).expect("an honest list");
    let revealed = device.handle_unmask(&world.requests[&id], &world.fleet).expect("an honest request");
    assert!(device.is_burned(), "after the last phase the keys are gone");
    let unsent = [advertised, shared, masked, confirmed, revealed];
    Life {
        setup,
        records: unsent.iter().map(|unsent| unsent.record().to_vec()).collect(),
        sent: unsent.into_iter().map(starling_secagg::Unsent::persisted).collect(),
        asked: vec![world.roster, world.envelopes[&id].clone(), world.survivors, world.requests[&id].clone()],
    }
}

#[test]
fn inv5_a_restarted_device_repeats_itself_byte_for_byte_or_stays_silent() {
    let life = live();
    // Whatever part of the journal a crash, or an older copy of the disk, has left.
    for kept in 0..=life.records.len() {
        let restored = Restored::read(&life.setup, life.records[..kept].iter().map(Vec::as_slice));
        assert_eq!(restored.advertisement(), life.sent.first().filter(|_| kept > 0).map(Vec::as_slice));
        for (phase, asked) in life.asked.iter().enumerate() {
            let answer = restored.handle(asked);
            if phase + 1 < kept {
                assert_eq!(answer, Ok(&life.sent[phase + 1][..]));
            } else {
                assert_eq!(answer, Err(Refused::Burned));
            }
        }
    }
    assert_eq!(Refused::Burned.refusal(), Refusal::SecureBurned);
}

#[test]
fn inv5_a_restarted_device_says_nothing_new_to_other_words() {
    let life = live();
    // Rolled back to where the vector was sent and the survivors were not known yet.
    let restored = Restored::read(&life.setup, life.records[..3].iter().map(Vec::as_slice));
    let mut other_list = life.asked[2].clone();
    other_list[34] ^= 2;
    assert_eq!(restored.handle(&other_list), Err(Refused::Burned));
    // After it has confirmed one list, another gets the signature of the first.
    let restored = Restored::read(&life.setup, life.records.iter().map(Vec::as_slice));
    assert_eq!(restored.handle(&other_list), Ok(&life.sent[3][..]));
    for nonsense in [&[][..], &[1], &[1, 255], &[1, Kind::Reveal as u8]] {
        assert_eq!(restored.handle(nonsense), Err(Refused::Burned));
    }
}

#[test]
fn a_torn_record_and_one_of_another_attempt_are_left_out() {
    let life = live();
    let masked = &life.records[2];
    for cut in [0, 3, 35, 67, 68, masked.len() - 1] {
        let restored = Restored::read(&life.setup, [&masked[..cut]]);
        assert_eq!(restored.handle(&life.asked[1]), Err(Refused::Burned), "{cut}");
    }
    let mut flipped = masked.clone();
    flipped[100] ^= 1;
    assert_eq!(Restored::read(&life.setup, [&flipped[..]]).handle(&life.asked[1]), Err(Refused::Burned));
    let next = Setup { address: Address { attempt: 2, ..life.setup.address }, ..life.setup };
    assert_eq!(Restored::read(&next, [&masked[..]]).handle(&life.asked[1]), Err(Refused::Burned));
}

#[test]
fn no_record_holds_a_secret() {
    // The records are what was sent; the seeds and keys that begin an attempt are nowhere in them.
    let life = live();
    for (record, sent) in life.records.iter().zip(&life.sent) {
        assert_eq!(record[68..], sent[..]);
        assert_eq!(record.len(), 68 + sent.len());
    }
}

#[test]
fn an_older_guard_is_seen_where_a_counter_cannot_be_turned_back() {
    let (setup, id) = (setup(10, 20, 50), device_id(0));
    let mut guard = Guard::new(RUN);
    let old = guard.to_bytes();
    let key = Identity::of(&id);
    drop(Device::begin(&setup, &policy(&setup), id, &mut guard, &entropy(&id, 1), &key).expect("honest"));
    let counter = guard.begun();
    let rolled_back = Guard::from_bytes(&old, Some(counter)).expect_err("it is older than the counter");
    assert_eq!(rolled_back, Refused::RolledBack { begun: 0, counted: 1 });
    assert_eq!(rolled_back.refusal(), Refusal::SecureRolledBack);
    // A crash between the guard's write and the counter's step is none.
    assert_eq!(Guard::from_bytes(&guard.to_bytes(), Some(0)), Ok(guard));
}
