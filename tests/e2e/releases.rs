//! Releases: published, served while devices train, replaced without a failed request, refused when they are bad.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use starling_client::serving::ask::Asker;
use starling_compress::tensor::Values;
use starling_compress::{Compressed, Release};
use starling_spec::{Scale, TaskFile, TaskKind, TaskPlan};
use starling_testkit::fleet::{PATIENCE, number};
use starling_testkit::{Fleet, until};

use crate::world;

const DEVICES: u32 = 2;

/// A release of the digits task with the float weights of a seed.
fn release(fleet: &Fleet, seed: u64) -> PathBuf {
    let task = TaskFile::parse(&world::task(DEVICES, 1, 1, ""), &[]).expect("a task");
    let plan = TaskPlan::new(&task, seed).expect("a plan");
    let parameters = starling_spec::init::initial_parameters(&plan.manifest().expect("a manifest"), seed);
    let path = fleet.folder().join(format!("{seed}.release"));
    fs::write(&path, Release::float(&plan, &parameters).to_bytes()).expect("the folder can be written");
    path
}

/// One that the aggregator can read, but whose layer asks for more working memory than an engine gives.
fn unrunnable(fleet: &Fleet) -> PathBuf {
    let conv = r#"{"conv2d": {"out": 1, "kernel": 1501, "padding": "same", "bias": false}}"#;
    let layers = format!(r#"[{conv}, "global_avg_pool", {{"linear": {{"out": 2, "bias": false}}}}]"#);
    let pruned = || Compressed { kept: Some(vec![]), values: Values::F32(vec![]) };
    let release = Release {
        name: "digits".into(),
        kind: TaskKind::Classification,
        shape: vec![1, 7000, 7000],
        scale: Scale::None,
        standardise: None,
        layers: serde_json::from_str(&layers).expect("layers"),
        tensors: vec![pruned(), pruned()],
        inputs: vec![None, None],
    };
    let path = fleet.folder().join("unrunnable.release");
    fs::write(&path, release.to_bytes()).expect("the folder can be written");
    path
}

fn publish(fleet: &Fleet, file: &Path) -> Value {
    fleet.ask_surely(&json!({ "verb": "release-publish", "task": "digits", "path": file }))
}

/// Waits until `release list` maps to something.
#[track_caller]
fn listed<T>(fleet: &Fleet, what: &str, mut wanted: impl FnMut(&Value) -> Option<T>) -> T {
    until(what, PATIENCE, || wanted(&fleet.ask(&json!({ "verb": "release-list" }))?.ok()?[0]))
}

fn served_by_all(fleet: &Fleet, version: u64) {
    listed(fleet, "all devices to serve", |release| {
        (release["version"] == version && release["serve"] == DEVICES && release["hold"] == DEVICES).then_some(())
    });
}

fn socket(fleet: &Fleet, index: u32) -> PathBuf {
    fleet.folder().join(format!("device-{index}/state/serve.sock"))
}

/// The version and outputs that device 0 answers with.
fn asked(fleet: &Fleet) -> (u64, Vec<f32>) {
    let mut asker = Asker::connect(&socket(fleet, 0)).expect("the device listens");
    let (shape, outputs) = asker.ask("digits", 1, &[8.0; 64]).expect("an answer");
    (shape.version, outputs.to_vec())
}

#[test]
fn releases_are_served_and_swapped_while_devices_train_and_bad_ones_are_refused() {
    let mut fleet = world::fleet(21, DEVICES);
    fleet.start_aggregator();
    (0..DEVICES).for_each(|index| fleet.start_device(index));
    let published = publish(&fleet, &release(&fleet, 1));
    assert_eq!(number(&published, "version"), 1);
    served_by_all(&fleet, 1);
    let first = asked(&fleet);
    assert_eq!((first.0, first.1.len()), (1, 10));

    // Questions without a pause, through one connection, while a run trains and the release is replaced.
    let run = fleet.start_run(&world::task(DEVICES, 100_000, 8, ""), 21);
    fleet.wait_rounds(run, 2);
    let stop = Arc::new(AtomicBool::new(false));
    let asking = {
        let (stop, path) = (Arc::clone(&stop), socket(&fleet, 0));
        std::thread::spawn(move || {
            let mut asker = Asker::connect(&path).expect("the device listens");
            let mut versions = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let (shape, _) = asker.ask("digits", 1, &[8.0; 64]).expect("no request fails");
                versions.push(shape.version);
            }
            versions
        })
    };
    publish(&fleet, &release(&fleet, 2));
    served_by_all(&fleet, 2);
    let second = asked(&fleet);
    assert_eq!(second.0, 2);
    assert_ne!(second.1, first.1);

    publish(&fleet, &unrunnable(&fleet));
    listed(&fleet, "all devices to refuse", |release| {
        let refused = &release["refused"][0];
        let why = refused["reason"].as_str()?.contains("engine cannot run it");
        (release["version"] == 3 && refused["devices"] == DEVICES && why && release["serve_another"] == DEVICES)
            .then_some(())
    });
    assert_eq!(asked(&fleet), second, "the old one serves on");
    stop.store(true, Ordering::Relaxed);
    let versions = asking.join().expect("no request failed");
    assert!(versions.is_sorted() && versions.first() == Some(&1) && versions.last() == Some(&2), "{}", versions.len());
    let before = starling_testkit::fleet::rounds(&fleet.wait_rounds(run, 1)).len();
    world::assert_rounds_sound(&fleet.wait_rounds(run, before + 1));

    // A device that starts without its aggregator serves what is on its disk; one that was killed left its socket's file.
    fleet.aggregator().kill();
    fleet.device(0).kill();
    fleet.start_device(0);
    let again = until("the device to serve from its disk", PATIENCE, || {
        let mut asker = Asker::connect(&socket(&fleet, 0)).ok()?;
        let (shape, outputs) = asker.ask("", 1, &[8.0; 64]).ok()?;
        Some((shape.version, outputs.to_vec()))
    });
    assert_eq!(again, second);
}

#[test]
fn inv4_a_release_survives_the_aggregator_and_a_device_that_was_away_gets_it() {
    let mut fleet = world::fleet(22, 1);
    fleet.start_aggregator();
    publish(&fleet, &release(&fleet, 1));
    let second = release(&fleet, 2);
    assert_eq!(number(&publish(&fleet, &second), "version"), 2);
    let again = fleet.ask(&json!({ "verb": "release-publish", "task": "digits", "path": second }));
    assert!(again.expect("an answer").expect_err("the same file").contains("version 2 already"));
    fleet.aggregator().kill();
    fleet.start_aggregator();
    fleet.start_device(0);
    listed(&fleet, "the device to serve", |release| (release["version"] == 2 && release["serve"] == 1).then_some(()));

    // What an operator and a device's owner see with the commands.
    let starling = |arguments: &[&str]| {
        let (status, out, err) = starling_testkit::process::run("starling", fleet.binary(), arguments, PATIENCE);
        assert!(status.success(), "{arguments:?}\n{out}\n{err}");
        out
    };
    let config = fleet.folder().join("device-0/config.toml");
    let config = config.to_str().expect("a temporary path is text");
    let samples = fleet.folder().join("samples.csv");
    fs::write(&samples, format!("{}\n", vec!["8"; 64].join(",")).repeat(3)).expect("the folder can be written");
    let out = starling(&["client", "predict", "--config", config, "--input", samples.to_str().expect("text")]);
    let classes: Vec<u32> = out.lines().map(|line| line.parse().expect("a class a line")).collect();
    assert_eq!(classes.len(), 3);
    until("the status file", Duration::from_secs(10), || {
        starling(&["client", "status", "--config", config]).contains("digits version 2").then_some(())
    });
    let aggregator = fleet.aggregator_config();
    let list = starling(&["aggregator", "release", "list", "--config", aggregator.to_str().expect("text")]);
    assert!(list.lines().any(|line| line.starts_with("digits ")), "{list}");
}
