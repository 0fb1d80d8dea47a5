//! The privacy ledger of a run over `kill -9` and an older backup, until its budget is gone.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use starling_testkit::Fleet;
use starling_testkit::fleet::{PATIENCE, number, rounds};
use starling_testkit::process::run;

use crate::world;

/// A budget that lasts for 20 rounds: without sampling, a multiplier of 4 and δ = 1e-3 cost 3.6051 then (dp-accounting 0.6.0).
const ROUNDS_OF_BUDGET: u64 = 20;

fn task() -> String {
    let noise = "mode = \"central\", clip = 0.01, noise_multiplier = 4.0, delta = 1e-3, epsilon_max = 3.65";
    world::task(2, 1_000, 1, &format!("quorum = 1.0\n[privacy]\nweights = \"uniform\"\ndp = {{ {noise} }}\n"))
}

fn status(fleet: &Fleet, run: u64) -> Value {
    fleet.ask_surely(&json!({ "verb": "run-status", "run": run }))
}

/// Asserts that the ledger shows no less than `released`, and returns what it shows.
#[track_caller]
fn assert_charged(status: &Value, released: u64) -> u64 {
    let charged = number(&status["privacy"], "rounds_charged");
    assert!(charged >= released, "{released} were released, and the ledger says {:#}", status["privacy"]);
    charged
}

fn exhausted(fleet: &Fleet, run: u64) -> Value {
    fleet.wait_status(run, "a budget that is gone", |status| (status["state"] == "exhausted").then(|| status.clone()))
}

#[test]
fn inv5_a_ledger_survives_kill_9_and_a_run_whose_budget_is_gone_stays_stopped() {
    let mut fleet = world::fleet(61, 2);
    fleet.start_aggregator();
    (0..2).for_each(|index| fleet.start_device(index));
    let run = fleet.start_run(&task(), 61);
    for seen in [2, 5, 9, 14] {
        let seen = rounds(&fleet.wait_rounds(run, seen)).len() as u64;
        fleet.aggregator().kill();
        fleet.start_aggregator();
        assert_charged(&status(&fleet, run), seen);
    }
    let last = exhausted(&fleet, run);
    let charged = assert_charged(&last, rounds(&last).len() as u64);
    assert_eq!(charged, ROUNDS_OF_BUDGET, "{last:#}");
    assert_eq!(
        rounds(&last).len() as u64,
        ROUNDS_OF_BUDGET,
        "central noise is charged with the version, once: {last:#}"
    );
    let spent = last["privacy"]["epsilon_spent"].as_f64().expect("noise bounds it");
    assert!(spent > 3.5 && spent <= 3.65, "{spent}");

    fleet.aggregator().kill();
    fleet.start_aggregator();
    fleet.wait_connected(run, 2);
    let again = status(&fleet, run);
    assert_eq!(again["state"], "exhausted");
    assert_eq!(
        number(&again["privacy"], "rounds_charged"),
        ROUNDS_OF_BUDGET,
        "it is shown for runs that are over, too"
    );
    assert_eq!(rounds(&again).len() as u64, ROUNDS_OF_BUDGET);
}

#[test]
fn inv5_after_an_older_backup_the_ledger_shows_no_less_than_was_released() {
    let mut fleet = world::fleet(62, 2);
    fleet.start_aggregator();
    (0..2).for_each(|index| fleet.start_device(index));
    let run = fleet.start_run(&task(), 62);
    fleet.wait_rounds(run, 3);
    let config = fleet.aggregator_config();
    let (backups, config) = (fleet.folder().join("backups"), config.to_str().expect("text").to_owned());
    let backups = backups.to_str().expect("text");
    let starling = |arguments: &[&str]| {
        let (status, out, err) = run_starling(arguments);
        assert!(status, "{arguments:?}: {out}{err}");
    };
    starling(&["aggregator", "backup", "create", "--to", backups, "--config", &config]);
    let seen = rounds(&fleet.wait_rounds(run, 9)).len() as u64;
    fleet.aggregator().kill();
    let state = fleet.folder().join("aggregator/state");
    ["records", "blobs"].iter().for_each(|name| fs::remove_dir_all(state.join(name)).expect("lost"));
    starling(&["aggregator", "backup", "restore", "--from", backups, "--config", &config]);
    fleet.start_aggregator();
    let restored = exhausted(&fleet, run);
    assert!((rounds(&restored).len() as u64) < seen, "the backup was older: {restored:#}");
    assert_eq!(assert_charged(&restored, seen), ROUNDS_OF_BUDGET, "all that could have run since");
    assert!(number(&restored["privacy"], "rounds_assumed") > 0, "{restored:#}");
}

#[test]
fn noise_with_a_memory_and_turns_survive_kill_9_until_every_device_has_had_its_turns() {
    const DEVICES: u32 = 3;
    let mut fleet = world::fleet(63, DEVICES);
    fleet.start_aggregator();
    (0..DEVICES).for_each(|index| fleet.start_device(index));
    let noise = "mode = \"central\", clip = 0.01, noise_multiplier = 4.0, delta = 1e-3, \
                 mechanism = { tree = { participations_max = 2, separation_min = 2 } }";
    let more = format!("fraction = 0.34\nquorum = 1.0\n[privacy]\nweights = \"uniform\"\ndp = {{ {noise} }}\n");
    let run = fleet.start_run(&world::task(DEVICES, 1_000, 1, &more), 63);
    for seen in [1, 3] {
        fleet.wait_rounds(run, seen);
        fleet.aggregator().kill();
        fleet.start_aggregator();
    }
    let over = |status: &Value| (status["state"] == "finished").then(|| status.clone());
    let last = fleet.wait_status(run, "a run whose devices have had their turns", over);
    world::assert_rounds_sound(&last);
    let turns: u64 = rounds(&last).iter().map(|round| number(round, "contributors")).sum();
    assert!(
        (5..=6).contains(&turns),
        "three devices have two turns each, and one may be too close to its first: {last:#}"
    );
    for index in 0..DEVICES {
        let ledger = crate::policy::privacy("ledger", &fleet, index);
        assert!((1..=2).contains(&number(&ledger["runs"][0], "rounds")), "{ledger:#}");
    }
    assert_eq!(number(&last["privacy"], "rounds_charged"), rounds(&last).len() as u64, "{last:#}");
}

fn run_starling(arguments: &[&str]) -> (bool, String, String) {
    let (status, out, err) = run("starling", Path::new(env!("CARGO_BIN_EXE_starling")), arguments, PATIENCE);
    (status.success(), out, err)
}
