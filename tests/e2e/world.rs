//! The fleet that these tests start, and what must hold of every run.

use serde_json::Value;
use starling_testkit::Fleet;
use starling_testkit::fleet::{number, rounds};

/// A digits task for `devices` devices: a small dense network, rounds of a fraction of a second.
pub(crate) fn task(devices: u32, rounds: u32, epochs: u32, more: &str) -> String {
    format!(
        r#"
        name = "digits"
        kind = "classification"
        [data]
        format = "csv"
        train = "embedded:optdigits"
        test = "embedded:optdigits"
        shape = [1, 8, 8]
        scale = "unit"
        [model]
        layers = ["flatten", {{ linear = {{ out = 32 }} }}, "relu", {{ linear = {{ out = 10 }} }}]
        [train]
        lr = 0.05
        epochs = {epochs}
        [federation]
        devices = {devices}
        devices_min = {devices}
        rounds = {rounds}
        {more}
        "#
    )
}

/// A fleet whose devices hold equal parts of the digits.
pub(crate) fn fleet(seed: u64, devices: u32) -> Fleet {
    fleet_with(seed, devices, "iid")
}

/// A fleet whose devices hold the digits split as `how` says.
pub(crate) fn fleet_with(seed: u64, devices: u32, how: &str) -> Fleet {
    let data = format!(
        r#"
        [[task]]
        name = "digits"
        [task.data]
        format = "csv"
        train = "embedded:optdigits"
        [task.partition]
        how = "{how}"
        devices = {devices}
        index = {{index}}
        seed = {seed}
        "#
    );
    Fleet::new(env!("CARGO_BIN_EXE_starling"), seed, &data)
}

/// A run of `task` on `devices` of the hidden bench clients, over: what its status says.
pub(crate) fn bench_run(seed: u64, devices: u32, task: &str) -> (Fleet, u64, Value) {
    let data = "[[task]]\nname = \"bench\"\n[task.data]\nformat = \"csv\"\ntrain = \"none\"\n";
    let mut fleet = Fleet::new(env!("CARGO_BIN_EXE_starling"), seed, data);
    fleet.start_aggregator();
    (0..devices).for_each(|index| fleet.start_device_as(index, "bench-client"));
    let run = fleet.start_run(task, seed);
    let status = fleet.wait_status(run, "the end of the run", |status| {
        assert_ne!(status["state"], "failed", "{status:#}");
        ["finished", "exhausted"].iter().any(|over| status["state"] == *over).then(|| status.clone())
    });
    (fleet, run, status)
}

/// Asserts that the committed rounds are 1, 2, 3, …, each with a newer version, and that nobody counts twice in one.
#[track_caller]
pub(crate) fn assert_rounds_sound(status: &Value) {
    let mut version = 0;
    for (index, round) in rounds(status).iter().enumerate() {
        assert_eq!(number(round, "round"), index as u64 + 1, "rounds are committed once and in order: {status:#}");
        assert!(number(round, "version") > version, "inv 4: versions only increase: {status:#}");
        version = number(round, "version");
        assert!(number(round, "contributors") <= number(round, "cohort"), "inv 2: {status:#}");
    }
}
