//! The same task, seed and cohorts give the same model in one process and over the network: codecs, fold and training are
//! functions of their inputs, and cohorts are drawn from the set of devices (invariants 1 and 11).

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn starling(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_starling")).args(arguments).output().expect("the program starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Runs the demo's processes and the simulation with the same settings and compares what they learnt.
fn compare(codec: &str, down: &str) {
    let (codec, down) = (format!("update.codec={codec}"), format!("update.down={down}"));
    // Half of the devices take part in a round, so that the draw of cohorts is compared as well.
    let settings = ["--seed", "5", "--set", &codec, "--set", &down, "--set", "federation.fraction=0.5"];
    let demo: Vec<&str> = ["demo", "--devices", "4", "--rounds", "3", "--json"].into_iter().chain(settings).collect();
    let task = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits.toml");
    let task = task.to_str().expect("a printable path");
    let sizes = ["--set", "federation.devices=4", "--set", "federation.rounds=3", "--json"];
    let simulate: Vec<&str> = ["simulate", task].into_iter().chain(sizes).chain(settings).collect();

    let real = starling(&demo);
    let simulated = starling(&simulate);
    let curve: Vec<Value> =
        simulated["rounds"].as_array().expect("rounds").iter().map(|round| round["test_accuracy"].clone()).collect();
    assert_eq!(real["curve"].as_array(), Some(&curve));
    assert_eq!(real["model_digest"], simulated["model_digest"]);
}

#[test]
fn inv11_processes_and_simulation_learn_the_same_bytes_in_f32() {
    compare("f32", "f32");
}

#[test]
fn inv11_processes_and_simulation_learn_the_same_bytes_with_8_bits() {
    compare("q8", "f16");
}

#[test]
fn inv11_processes_and_simulation_owe_the_same_after_sparse_updates() {
    compare("topk:0.05", "f32");
}
