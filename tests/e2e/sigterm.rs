//! SIGTERM: both daemons stop by themselves, soon and well, and the next start goes on.

use std::time::Duration;

use crate::world;

/// A service manager kills after 90 s by default; a person does after a few.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

#[test]
fn both_daemons_stop_on_sigterm_in_a_round_and_go_on_afterwards() {
    let mut fleet = world::fleet(13, 2);
    fleet.start_aggregator();
    (0..2).for_each(|index| fleet.start_device(index));
    let run = fleet.start_run(&world::task(2, 10_000, 8, ""), 13);
    fleet.wait_rounds(run, 2);

    fleet.device(1).terminate();
    assert_eq!(fleet.device(1).wait_exit(STOP_PATIENCE).code(), Some(0), "asked to stop, and did");
    fleet.wait_connected(run, 1);

    fleet.aggregator().terminate();
    assert_eq!(fleet.aggregator().wait_exit(STOP_PATIENCE).code(), Some(0), "asked to stop, and did");
    assert!(fleet.device(0).exited().is_none(), "a device waits for its aggregator");

    fleet.start_aggregator();
    fleet.start_device(1);
    fleet.wait_connected(run, 2);
    let before = starling_testkit::fleet::rounds(&fleet.wait_rounds(run, 1)).len();
    let status = fleet.wait_rounds(run, before + 2);
    world::assert_rounds_sound(&status);
}

#[test]
fn an_idle_device_without_an_aggregator_stops_on_sigterm() {
    let mut fleet = world::fleet(14, 1);
    fleet.start_aggregator();
    fleet.start_device(0);
    starling_testkit::until("the device to connect", starling_testkit::fleet::PATIENCE, || {
        let answer = fleet.ask(&serde_json::json!({ "verb": "devices" }))?.ok()?;
        (answer["devices"].as_array()?.len() == 1).then_some(())
    });
    fleet.aggregator().kill();
    fleet.device(0).terminate();
    assert_eq!(fleet.device(0).wait_exit(STOP_PATIENCE).code(), Some(0));
}
