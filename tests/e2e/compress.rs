//! A model is compressed by the devices that trained it: the search's runs go through a real aggregator.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::world;

fn compress(arguments: &[&str]) -> Output {
    let verb = ["model", "compress"];
    Command::new(env!("CARGO_BIN_EXE_starling")).args(verb).args(arguments).output().expect("the program starts")
}

#[track_caller]
fn said(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text(path: &Path) -> String {
    path.to_str().expect("a printable path").to_owned()
}

#[test]
fn inv11_a_live_fleet_compresses_to_the_same_release_as_a_simulated_one() {
    let mut fleet = world::fleet(23, 3);
    let task_text = world::task(3, 6, 2, "holdout = 0.2");
    let task = text(&fleet.folder().join("task.toml"));
    std::fs::write(&task, &task_text).expect("the task is written");
    fleet.start_aggregator();
    (0..3).for_each(|index| fleet.start_device(index));
    let run = fleet.start_run(&task_text, 23);
    fleet.wait_status(run, "the end of the run", |status| (status["state"] == "finished").then_some(()));

    let (config, number) = (text(&fleet.aggregator_config()), run.to_string());
    let path = |name: &str| text(&fleet.folder().join(name));
    let (live, simulated, weights) = (path("live.release"), path("simulated.release"), path("w.safetensors"));
    let limits = ["--effort", "quick", "--max-bytes", "1000", "--json"];
    let on_devices = [&task, "--federated", &number, "--config", &config, "--out", &live];
    let found = said(&compress(&[&on_devices[..], &limits].concat()));
    assert_eq!((&found["seed"], &found["fits"]), (&Value::from(23), &Value::from(true)), "{found:#}");
    let runs = fleet.ask_surely(&serde_json::json!({ "verb": "run-list" }));
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "the search leaves no run behind: {runs:#}");

    let export = ["aggregator", "run", "export", &number, "--config", &config, "--out", &weights];
    let exported = Command::new(env!("CARGO_BIN_EXE_starling")).args(export).output().expect("the program starts");
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let here = [&task, "--federated", "--weights", &weights, "--seed", "23", "--out", &simulated];
    let expected = said(&compress(&[&here[..], &limits].concat()));
    let candidates = |found: &Value| -> Vec<[Value; 3]> {
        let figures = |one: &Value| ["name", "accuracy", "bytes"].map(|key| one[key].clone());
        found["candidates"].as_array().expect("candidates").iter().map(figures).collect()
    };
    assert_eq!(candidates(&found), candidates(&expected));
    assert_eq!(found["chosen"], expected["chosen"]);
    assert_eq!(std::fs::read(&live).expect("a release"), std::fs::read(&simulated).expect("a release"));

    // What cannot be meant is said.
    let other = text(&fleet.folder().join("other.toml"));
    std::fs::write(&other, task_text.replace("\"digits\"", "\"others\"")).expect("written");
    let wrong = compress(&[&other, "--federated", &number, "--config", &config, "--out", &live]);
    let error = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && error.contains("is one of task \"digits\""), "{error}");
    let nowhere = compress(&[&task, "--federated", "7", "--weights", &weights, "--out", &live]);
    let error = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(!nowhere.status.success() && error.contains("--config"), "{error}");
}
