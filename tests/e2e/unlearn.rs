//! Unlearning: a run goes back to before a device's first round and learns anew without it. Where the same devices take part, that is byte for
//! byte the run that never had it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use starling_testkit::Fleet;
use starling_testkit::fleet::{PATIENCE, number, rounds};
use starling_testkit::process::run;
use starling_wire::Role;

use crate::world;

/// Rounds that are compared.
const COMPARED: u64 = 4;

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

fn starling(arguments: &[&str]) -> (Option<i32>, String, String) {
    let (status, out, err) = run("starling", Path::new(env!("CARGO_BIN_EXE_starling")), arguments, PATIENCE);
    (status.code(), out, err)
}

fn fleet(seed: u64, sections: &str) -> (Fleet, u64) {
    // The data of three, of which two begin.
    let mut fleet = world::fleet(seed, 3);
    fleet.aggregator_sections = sections.to_owned();
    fleet.start_aggregator();
    (0..2).for_each(|index| fleet.start_device(index));
    let run = fleet.start_run(&world::task(2, 1_000_000, 1, "quorum = 1.0\n"), seed);
    (fleet, run)
}

/// The digest of each version of a run, from the audit log.
fn versions(fleet: &Fleet, run: u64) -> BTreeMap<u64, String> {
    let path = fleet.folder().join("log.jsonl");
    let config = fleet.aggregator_config();
    let (code, _, err) = starling(&["aggregator", "audit", "export", "--config", text(&config), "--out", text(&path)]);
    assert_eq!(code, Some(0), "{err}");
    let lines = fs::read_to_string(&path).expect("it was exported");
    let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let committed = records.filter(|record| record["what"] == "version-committed" && record["about"]["run"] == run);
    let version = |record: Value| {
        let digest = record["about"]["digest"].as_str().expect("a digest").to_owned();
        (number(&record["about"], "version"), digest)
    };
    committed.map(version).collect()
}

/// Forgets the third device of a fleet, after it has contributed, and returns the version that the new run begins from.
fn unlearned(seed: u64, sections: &str) -> u64 {
    let (mut fleet, run) = fleet(seed, sections);
    fleet.wait_rounds(run, 3);
    fleet.start_device(2);
    let device = fleet.pki.identity(Role::Device, 2).id.to_string();
    let plan = || fleet.ask_surely(&json!({ "verb": "device-forget-plan", "device": device }));
    let plan = starling_testkit::until("its first round", PATIENCE, || {
        Some(plan()).filter(|plan| plan["runs"][0].is_object())
    });
    let config = fleet.aggregator_config();
    let forget = ["aggregator", "device", "forget", &device, "--unlearn", "--yes", "--json", "--config", text(&config)];
    let (code, out, err) = starling(&forget);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("rounds to repeat") && err.contains("MB up"), "the cost is said first: {err}");
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    let new = &answer["unlearned"][0];
    assert_eq!(new["run"], run, "{answer:#}");
    let (new_run, from) = (number(new, "new_run"), number(new, "from_version"));
    assert!(from < number(&plan["runs"][0], "version_first"), "before its first round");

    let done = |status: &Value| (rounds(status).len() as u64 >= COMPARED).then(|| status.clone());
    let status = fleet.wait_status(new_run, "rounds of the new run", done);
    assert_eq!(number(&rounds(&status)[0], "version"), from + 1, "it goes on from there");
    assert!(rounds(&status).iter().all(|round| round["contributors"] == 2), "{status:#}");
    let old = fleet.wait_status(run, "the end of the old run", |status| {
        (status["state"] == "stopped" && status["replaced_by"] == new_run).then(|| status.clone())
    });
    assert_eq!(old["version_digest"], "", "its models are gone");
    let number = run.to_string();
    let (code, _, err) =
        starling(&["aggregator", "run", "export", &number, "--out", "/nowhere", "--config", text(&config)]);
    assert!(code != Some(0) && (err.contains("has taken its place") || err.contains("/nowhere")), "{err}");

    // The run that never had the device.
    let (reference, run) = self::fleet(seed, "");
    reference.wait_rounds(run, usize::try_from(from + COMPARED).expect("few"));
    let (ours, theirs) = (versions(&fleet, new_run), versions(&reference, run));
    for version in from + 1..=from + COMPARED {
        assert_eq!(ours[&version], theirs[&version], "version {version}, from {from}");
    }
    from
}

#[test]
fn inv11_a_run_that_unlearned_a_device_is_the_run_that_never_had_it() {
    let from = unlearned(61, "[versions]\nevery_rounds = 1\nkeep = 1000\n");
    assert!(from >= 3, "two devices have made three versions before it came: {from}");
}

#[test]
fn without_kept_versions_a_run_begins_anew_from_its_seed() {
    assert_eq!(unlearned(62, ""), 0);
}
