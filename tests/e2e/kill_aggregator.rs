//! `kill -9` of the aggregator in a round: after its restart the run goes on from the last committed version (invariant 5).

use serde_json::Value;
use starling_testkit::fleet::{number, rounds};

use crate::world;

const DEVICES: u32 = 2;
const KILLS: usize = 3;

/// What a committed round is, apart from figures that a restart may forget.
fn committed(status: &Value) -> Vec<(u64, u64, u64, Value)> {
    let facts = |round: &Value| {
        (number(round, "round"), number(round, "version"), number(round, "contributors"), round["train_loss"].clone())
    };
    rounds(status).iter().map(facts).collect()
}

#[test]
fn inv5_a_run_goes_on_from_its_last_committed_version_after_kill_9() {
    let mut fleet = world::fleet(12, DEVICES);
    fleet.start_aggregator();
    let address = fleet.address();
    (0..DEVICES).for_each(|index| fleet.start_device(index));
    let total = 100_000;
    // Eight passes a round: most of the time is a round's, so a kill at any moment hits one under way.
    let run = fleet.start_run(&world::task(DEVICES, total, 8, "quorum = 1.0\n"), 12);

    for kill in 1..=KILLS {
        let before = committed(&fleet.wait_rounds(run, kill * 4));
        fleet.aggregator().kill();
        assert!(fleet.ask(&serde_json::json!({ "verb": "run-list" })).is_none(), "it is dead");
        fleet.start_aggregator();
        assert_eq!(fleet.address(), address);
        let status = fleet.wait_status(run, "the run after the restart", |status| {
            (status["state"] == "running").then(|| status.clone())
        });
        let after = committed(&status);
        assert!(after.len() >= before.len(), "a committed round is gone: {before:?} {after:?}");
        assert_eq!(after[..before.len()], before[..], "what was committed stays what it was");
        let status = fleet.wait_rounds(run, after.len() + 3);
        world::assert_rounds_sound(&status);
    }
    let status = fleet.wait_rounds(run, KILLS * 4 + 3);
    assert_eq!(status["run"], run, "it is the same run");
    assert_eq!(status["rounds_total"], total);
    for round in rounds(&status) {
        assert_eq!(number(round, "contributors"), u64::from(DEVICES), "inv 5: no update is lost: {status:#}");
    }
    let loss = |round: &Value| round["train_loss"].as_f64().expect("every training round has one");
    let (first, last) = (&rounds(&status)[0], rounds(&status).last().expect("there are many"));
    assert!(loss(last) < loss(first), "it goes on learning instead of starting again: {status:#}");
}
