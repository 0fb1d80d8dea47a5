//! `kill -9` of a device in a round: the round commits without it, and the device comes back.

use std::time::{Duration, Instant};

use starling_testkit::fleet::{number, rounds};

use crate::world;

const DEVICES: u32 = 3;

/// Rounds take a tenth of a second; one that takes this long waits for somebody.
const STANDING: Duration = Duration::from_millis(800);

#[test]
fn a_round_commits_without_a_killed_device_which_then_rejoins() {
    let mut fleet = world::fleet(11, DEVICES);
    fleet.start_aggregator();
    (0..DEVICES).for_each(|index| fleet.start_device(index));
    // A device that vanishes says nothing. It is missed at the deadline, not after the idle time-out.
    let task = world::task(DEVICES, 10_000, 4, "deadline_ms = 4000\nquorum = 0.5\n");
    let run = fleet.start_run(&task.replace("devices_min = 3", "devices_min = 2"), 11);
    fleet.wait_rounds(run, 2);

    // A device that lies still holds the round up: when the round has stood for a while, it waits for this device alone.
    fleet.device(2).pause();
    let (mut last, mut since) = (0, Instant::now());
    let standing = fleet.wait_status(run, "a round that stands still", |status| {
        let round = number(status, "round");
        if round != last {
            (last, since) = (round, Instant::now());
        }
        (since.elapsed() > STANDING).then_some(round)
    });
    fleet.device(2).kill();
    let lonely = fleet.wait_status(run, "a round of three devices that commits with two", |status| {
        let mut later = rounds(status).iter().filter(|round| number(round, "round") >= standing);
        let found = later.find(|round| number(round, "contributors") == 2 && number(round, "cohort") == 3)?;
        Some(number(found, "round"))
    });

    fleet.start_device(2);
    let status = fleet.wait_status(run, "a later round with all three", |status| {
        let mut later = rounds(status).iter().filter(|round| number(round, "round") > lonely);
        later.any(|round| number(round, "contributors") == 3).then(|| status.clone())
    });
    world::assert_rounds_sound(&status);
    assert!(fleet.device(0).exited().is_none() && fleet.device(1).exited().is_none(), "the others took no harm");
}
