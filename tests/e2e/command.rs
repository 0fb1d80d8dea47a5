//! The commands that an operator types, from a CA to a finished run.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use starling_testkit::fleet::{PATIENCE, rounds};
use starling_testkit::process::run;

use crate::world;

fn starling(arguments: &[&str]) -> (i32, String, String) {
    let (status, out, err) = run("starling", Path::new(env!("CARGO_BIN_EXE_starling")), arguments, PATIENCE);
    (status.code().expect("it ended by itself"), out, err)
}

fn starling_ok(arguments: &[&str]) -> String {
    let (code, out, err) = starling(arguments);
    assert_eq!(code, 0, "{arguments:?}\n{out}\n{err}");
    out
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

#[test]
fn an_operator_makes_a_ca_and_certificates_with_the_command() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (ca, pump) = (folder.path().join("ca"), folder.path().join("pump"));
    starling_ok(&["certs", "init", "--dir", text(&ca)]);
    let (code, _, err) = starling(&["certs", "init", "--dir", text(&ca)]);
    assert_ne!(code, 0, "an authority is never overwritten");
    assert!(err.contains("never overwritten"), "{err}");
    let id = "00112233445566778899aabbccddeeff";
    let issue = |out: &str| {
        starling(&["certs", "issue", "device", "--name", "pump-4", "--authority", text(&ca), "--out", out, "--id", id])
    };
    assert_eq!(issue(text(&pump)).0, 0);
    assert_ne!(issue(text(&pump)).0, 0, "a key is never overwritten");
    let said = starling_ok(&["certs", "inspect", text(&pump.join("certificate.pem")), "--json"]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let leaf = &said["certificates"][0];
    assert_eq!((leaf["name"].as_str(), leaf["role"].as_str()), (Some("pump-4"), Some("device")));
    assert_eq!(leaf["id"].as_str(), Some(id));
    assert_eq!(starling(&["certs", "issue", "emperor", "--name", "x", "--authority", "x", "--out", "x"]).0, 2);
}

#[test]
fn a_run_is_started_and_followed_with_the_command() {
    let mut fleet = world::fleet(16, 2);
    let task = fleet.folder().join("digits.toml");
    fs::write(&task, world::task(2, 3, 1, "")).expect("the folder can be written");
    fleet.aggregator_options = vec!["--test-of".to_owned(), text(&task).to_owned()];
    fleet.start_aggregator();
    (0..2).for_each(|index| fleet.start_device(index));
    let config = fleet.aggregator_config();
    starling_ok(&["aggregator", "config", "check", "--config", text(&config)]);
    starling_ok(&["aggregator", "run", "start", text(&task), "--seed", "16", "--config", text(&config)]);
    let status = starling_testkit::until("three rounds", Duration::from_secs(120), || {
        let said = starling_ok(&["aggregator", "run", "status", "--json", "--config", text(&config)]);
        let status: Value = serde_json::from_str(&said).expect("JSON");
        (status["state"] == "finished").then_some(status)
    });
    assert_eq!(rounds(&status).len(), 3);
    world::assert_rounds_sound(&status);
    let accuracy = rounds(&status)[2]["test_accuracy"].as_f64().expect("its test set was given with --test-of");
    assert!(accuracy > 0.5, "three rounds of digits teach something: {accuracy}");
}
