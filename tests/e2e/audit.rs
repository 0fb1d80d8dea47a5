//! The audit log of real processes: what an operator, an auditor without a daemon, a device and a witness do with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use starling_store::{Batch, Store};
use starling_testkit::Fleet;
use starling_testkit::fleet::PATIENCE;
use starling_testkit::process::run;
use starling_wire::Role;

use crate::world;

const DEVICES: u32 = 2;

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

/// A fleet whose run of two rounds is over.
fn after_two_rounds(seed: u64) -> (Fleet, u64) {
    let mut fleet = world::fleet(seed, DEVICES);
    fleet.start_aggregator();
    (0..DEVICES).for_each(|index| fleet.start_device(index));
    let run = fleet.start_run(&world::task(DEVICES, 2, 1, "quorum = 1.0\n"), seed);
    fleet.wait_status(run, "the end of the run", |status| (status["state"] == "finished").then_some(()));
    (fleet, run)
}

fn export(fleet: &Fleet) -> PathBuf {
    let path = fleet.folder().join("export.jsonl");
    starling_ok(&[
        "aggregator",
        "audit",
        "export",
        "--config",
        text(&fleet.aggregator_config()),
        "--out",
        text(&path),
        "--personal",
    ]);
    path
}

fn public_key(fleet: &Fleet) -> PathBuf {
    fleet.folder().join("aggregator/state/audit.pub")
}

/// Writes `lines`, and says what `audit verify` and how the command ended.
fn verify(fleet: &Fleet, lines: &[String]) -> (i32, Value) {
    let path = fleet.folder().join("changed.jsonl");
    fs::write(&path, lines.join("\n") + "\n").expect("the folder can be written");
    let key = public_key(fleet);
    let (code, out, err) =
        starling(&["aggregator", "audit", "verify", "--json", "--file", text(&path), "--key", text(&key)]);
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("JSON: {out}\n{err}")))
}

fn problems(report: &Value) -> Vec<&str> {
    report["findings"].as_array().into_iter().flatten().filter_map(|finding| finding["problem"].as_str()).collect()
}

#[test]
fn a_run_is_exported_verified_offline_and_any_change_is_located() {
    let (fleet, run) = after_two_rounds(41);
    let said = starling_ok(&["aggregator", "audit", "verify", "--config", text(&fleet.aggregator_config())]);
    assert!(said.contains("the log is whole"), "{said}");

    let lines: Vec<String> =
        fs::read_to_string(export(&fleet)).expect("it was written").lines().map(str::to_owned).collect();
    let (code, report) = verify(&fleet, &lines);
    assert_eq!((code, &report["whole"]), (0, &true.into()), "{report:#}");
    assert_eq!(report["personal"], DEVICES, "each device's name is known");
    let records: Vec<Value> = lines
        .iter()
        .filter(|line| line.starts_with("{\"seq\""))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let count = |what: &str| records.iter().filter(|record| record["what"] == what).count();
    assert_eq!(count("update-admitted"), 2 * DEVICES as usize);
    assert_eq!((count("version-committed"), count("device-connected")), (2, DEVICES as usize));
    assert_eq!((count("daemon-started"), count("run-started"), count("run-finished")), (1, 1, 1));
    let uid = records.iter().find(|record| record["what"] == "run-started").map(|record| record["who"].clone());
    assert!(uid.as_ref().and_then(Value::as_str).is_some_and(|who| who.starts_with("uid:")), "{uid:?}");
    let status = fleet.ask_surely(&serde_json::json!({ "verb": "run-status", "run": run }));
    let last = records.iter().rfind(|record| record["what"] == "version-committed").expect("two of them");
    assert_eq!(last["about"]["digest"], status["version_digest"]);
    assert!(!lines[..=records.len()].concat().contains("device-0"), "a name stands behind a commitment");

    // Flip a byte, drop, swap: each is found by the number of its line.
    let middle = records.len() / 2;
    let mut flipped = lines.clone();
    flipped[middle] = flipped[middle].replacen("\"code\":0", "\"code\":1", 1);
    let (code, report) = verify(&fleet, &flipped);
    assert_eq!(
        (code, problems(&report)),
        (5, vec![&*format!("line {}: record {} was changed", middle + 1, middle - 1)])
    );
    let mut dropped = lines.clone();
    dropped.remove(middle);
    let (_, report) = verify(&fleet, &dropped);
    assert_eq!(problems(&report), [format!("line {}: record {} is missing", middle + 1, middle - 1)]);
    let mut swapped = lines.clone();
    swapped.swap(middle, middle + 1);
    let (_, report) = verify(&fleet, &swapped);
    assert!(problems(&report)[0].starts_with(&format!("line {}: record", middle + 1)), "{report:#}");
    assert!(problems(&report)[0].ends_with("stands in another place"), "{report:#}");
}

#[test]
fn a_verifier_that_shares_no_code_agrees() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/audit/verify.py");
    let python = |path: &Path, key: &Path| {
        let output = Command::new("python3").args([&script, path, key]).output();
        output.map(|output| (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no python3 on this machine, so the independent verifier was not run");
        return;
    }
    let (fleet, _) = after_two_rounds(42);
    let path = export(&fleet);
    let key = public_key(&fleet);
    let (code, said) = python(&path, &key).expect("python3 runs");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("whole: "), "{said}");
    let whole = fs::read(&path).expect("it was written");
    // Without its optional package the script does not check signatures, so those are left alone.
    let signed = whole.windows(13).position(|window| window == b"{\"checkpoint\"").expect("there are checkpoints");
    for place in (0..signed - 1).step_by(signed / 40) {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        fs::write(&path, changed).expect("the folder can be written");
        let (code, said) = python(&path, &key).expect("python3 runs");
        assert_eq!(code, Some(1), "byte {place}: {said}");
    }
}

#[test]
fn a_log_that_was_changed_on_the_disk_is_said_at_the_start_and_located() {
    let (mut fleet, _) = after_two_rounds(43);
    fleet.aggregator().terminate();
    fleet.aggregator().wait_exit(PATIENCE);
    {
        let state = fleet.folder().join("aggregator/state");
        let store =
            Store::open(&state, &starling_store::KeySource::beside(&state)).expect("the daemon has let go of it");
        let key = "00000000000000000003";
        let line = store.get::<String>("audit", key).expect("readable").expect("the third record is there");
        let mut batch = Batch::new();
        batch.put("audit", key, &line.replace("\"outcome\":\"done\"", "\"outcome\":\"failed\"")).expect("it fits");
        store.commit(batch).expect("written");
    }
    fleet.start_aggregator();
    let said = |line: &str| (line.contains("audit log") && line.contains("changed from outside")).then_some(());
    fleet.aggregator().wait_stderr("that the log was changed", PATIENCE, said);
    let config = fleet.aggregator_config();
    let (code, out, err) = starling(&["aggregator", "audit", "verify", "--config", text(&config)]);
    assert_eq!(code, 5, "{out}\n{err}");
    assert!(out.contains("record 3 was changed"), "{out}");
}

#[test]
fn a_device_keeps_receipts_and_a_stranger_is_in_the_log() {
    let (fleet, run) = after_two_rounds(44);
    let config = fleet.folder().join("device-1/config.toml");
    let receipts = starling_testkit::until("two receipts", PATIENCE, || {
        let said = starling_ok(&["client", "receipts", "--json", "--config", text(&config)]);
        let receipts: Vec<Value> = serde_json::from_str(&said).expect("JSON");
        (receipts.len() == 2).then_some(receipts)
    });
    for (receipt, round) in receipts.iter().zip(1..) {
        assert_eq!((&receipt["run"], &receipt["round"]), (&run.into(), &round.into()));
        assert_eq!(receipt["problem"], Value::Null);
    }
    let device = fleet.pki.identity(Role::Device, 1).id.to_string();
    let aggregator = fleet.aggregator_config();
    let run = run.to_string();
    let shown =
        starling_ok(&["aggregator", "audit", "receipt", &run, "2", &device, "--json", "--config", text(&aggregator)]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["record"], receipts[1]["record"], "both sides hold the same record");
    let (code, _, err) =
        starling(&["aggregator", "audit", "receipt", &run, "9", &device, "--config", text(&aggregator)]);
    assert_ne!(code, 0);
    assert!(err.contains("round 9"), "{err}");

    let stranger = starling_testkit::Pki::new(99).issue(Role::Device, 5);
    let config = fleet.configure_client("stranger", &stranger, 0);
    let mut process = fleet.spawn_client("stranger", &config);
    process.wait_exit(PATIENCE);
    starling_testkit::until("the stranger in the log", PATIENCE, || {
        let lines = fs::read_to_string(export(&fleet)).expect("it was written");
        lines.lines().any(|line| line.contains("\"who\":\"stranger\"") && line.contains("\"code\":2,")).then_some(())
    });
}

#[test]
fn a_witness_cosigns_and_refuses_another_past() {
    let (fleet, _) = after_two_rounds(45);
    let config = fleet.aggregator_config();
    let key = fleet.folder().join("witness.key");
    let cosign = || {
        starling(&[
            "aggregator",
            "audit",
            "cosign",
            "--key",
            text(&key),
            "--name",
            "witness.example",
            "--config",
            text(&config),
        ])
    };
    let (code, said, err) = cosign();
    assert_eq!(code, 0, "{said}\n{err}");
    let public = fleet.folder().join("witness.pub");
    fs::write(&public, said.lines().last().expect("the key")).expect("the folder can be written");
    assert_eq!(cosign().0, 0, "the log goes on from what the witness saw");
    let report = starling_ok(&[
        "aggregator",
        "audit",
        "verify",
        "--json",
        "--config",
        text(&config),
        "--witness",
        text(&public),
    ]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((&report["whole"], &report["cosignatures"]), (&true.into(), &2.into()), "{report:#}");

    // A log that was begun anew under the same key is no continuation.
    let seen = fleet.folder().join("witness.key.seen");
    let other = starling_ok(&["aggregator", "audit", "checkpoint", "--config", text(&config)]);
    assert!(other.starts_with("starling-audit/"), "{other}");
    let kept = fs::read_to_string(&seen).expect("the witness remembers");
    let root = kept.lines().nth(2).expect("a checkpoint's third line is its root");
    let another = format!("{}=", if root.starts_with('A') { "B" } else { "A" }.repeat(43));
    fs::write(&seen, kept.replacen(root, &another, 1)).expect("the folder can be written");
    let (code, _, err) = cosign();
    assert_ne!(code, 0, "what the witness remembers was changed: {err}");
}
