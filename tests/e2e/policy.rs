//! A device whose owner forbids a round stays away, and the operator sees by which rule; what it has spent is written down before it is sent.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde_json::Value;
use starling_testkit::Fleet;
use starling_testkit::fleet::{PATIENCE, number, rounds};
use starling_testkit::process::run;
use starling_wire::{PolicyRule, Role};

use crate::world;

/// Writes the configuration of a device, with these lines at its end.
pub(crate) fn configure(fleet: &Fleet, index: u32, more: &str) {
    let config = fleet.configure_client(&format!("device-{index}"), &fleet.pki.issue(Role::Device, index), index);
    let mut file = OpenOptions::new().append(true).open(config).expect("it was just written");
    file.write_all(more.as_bytes()).expect("the folder can be written");
}

/// What `starling client privacy VERB` says of a device.
pub(crate) fn privacy(verb: &str, fleet: &Fleet, index: u32) -> Value {
    let config = fleet.folder().join(format!("device-{index}/config.toml"));
    let config = config.to_str().expect("a temporary path is text");
    let arguments = ["client", "privacy", verb, "--config", config, "--json"];
    let (status, out, err) = run("starling", Path::new(env!("CARGO_BIN_EXE_starling")), arguments, PATIENCE);
    assert!(status.success(), "{err}");
    serde_json::from_str(&out).expect("JSON")
}

#[test]
fn inv13_the_operator_sees_by_which_rule_each_device_stays_away() {
    let mut fleet = world::fleet(51, 4);
    fleet.start_aggregator();
    configure(&fleet, 1, "[policy]\nsecure_aggregation = true\n");
    configure(&fleet, 2, "[policy]\nepsilon_lifetime = 8.0\n");
    configure(&fleet, 3, "[policy]\nmetrics = false\n");
    (0..4).for_each(|index| fleet.start_device(index));
    let run = fleet.start_run(&world::task(4, 2, 1, "quorum = 0.1\nholdout = 0.2\nevaluate_every = 2\n"), 51);
    let status =
        fleet.wait_status(run, "the end of the run", |status| (status["state"] == "finished").then(|| status.clone()));
    for round in rounds(&status) {
        assert_eq!(number(round, "contributors"), 2, "two train, two stay away: {status:#}");
    }
    let times = |rule: PolicyRule| {
        let declined = status["declined"].as_array().expect("a list");
        declined.iter().find(|entry| entry["reason"] == rule.text()).map_or(0, |entry| number(entry, "times"))
    };
    assert_eq!(times(PolicyRule::SecureAggregation), 3, "two rounds and an evaluation: {status:#}");
    assert_eq!(times(PolicyRule::Noise), 2, "{status:#}");
    assert_eq!(times(PolicyRule::Metrics), 1, "it trains, and does not evaluate: {status:#}");
    for (index, said) in [(1, "only sums over at least"), (2, "sees this device's update by itself")] {
        let sees = privacy("statement", &fleet, index)["sees"][0].to_string();
        assert!(sees.contains(said), "{sees}");
    }
    let loss = |round: &Value| round["train_loss"].as_f64().is_some_and(|loss| loss > 0.0);
    assert!(rounds(&status).iter().all(loss), "the loss is that of the device that says it: {status:#}");
}

#[test]
fn inv5_a_killed_devices_ledger_shows_no_less_than_what_has_left() {
    let mut fleet = world::fleet(52, 1);
    fleet.start_aggregator();
    fleet.start_device(0);
    let run = fleet.start_run(&world::task(1, 100_000, 1, ""), 52);
    for kill in 1..=4 {
        fleet.wait_rounds(run, 3 * kill);
        fleet.device(0).kill();
        let spent = privacy("ledger", &fleet, 0);
        // Nobody else takes part: whatever is committed by now was this device's.
        let status = fleet.ask_surely(&serde_json::json!({ "verb": "run-status", "run": run }));
        let committed = rounds(&status).len() as u64;
        let counted = number(&spent["runs"][0], "rounds");
        assert!(counted >= committed, "{committed} rounds are committed, and the ledger shows {spent:#}");
        assert!(spent["epsilon_spent"].is_null(), "nothing bounds what is not noised: {spent:#}");
        fleet.start_device(0);
    }
    let last = rounds(&fleet.ask_surely(&serde_json::json!({ "verb": "run-status", "run": run }))).len();
    fleet.wait_rounds(run, last + 1);
    assert!(number(&privacy("ledger", &fleet, 0)["runs"][0], "rounds") > 0, "a running client's is readable too");
}
