//! Tasks and releases that are kept to some devices: the others do not hear of them.

use std::path::PathBuf;

use serde_json::Value;
use starling_compress::Release;
use starling_spec::{TaskFile, TaskPlan};
use starling_testkit::fleet::{PATIENCE, number, rounds};
use starling_testkit::until;

use crate::scene::{Scene, text};

/// Joins with these tags and gets its part of the digits.
#[track_caller]
fn enrol(scene: &Scene, name: &str, index: u32, tags: &str) {
    let more: &[&str] = if tags.is_empty() { &["--name", name] } else { &["--name", name, "--tags", tags] };
    assert_eq!(scene.join(&scene.invite(more), name).0, Some(0));
    scene.bind(name, index, 3);
}

fn wait_connected(scene: &Scene, name: &str) {
    until("its connection", PATIENCE, || (scene.device(name)?["connected"] == true).then_some(()));
}

/// A release of the task in `path` with float weights.
fn release(scene: &Scene, path: &PathBuf) -> PathBuf {
    let task = TaskFile::parse(&std::fs::read_to_string(path).expect("a task"), &[]).expect("a task");
    let plan = TaskPlan::new(&task, 1).expect("a plan");
    let parameters = starling_spec::init::initial_parameters(&plan.manifest().expect("a manifest"), 1);
    let file = scene.path("digits.release");
    std::fs::write(&file, Release::float(&plan, &parameters).to_bytes()).expect("the folder can be written");
    file
}

/// The only release.
fn listed(scene: &Scene) -> Value {
    scene.ask(&["release", "list"])[0].clone()
}

#[test]
fn a_run_and_a_release_with_tags_reach_the_devices_that_have_them_and_no_other_hears_of_them() {
    let scene = Scene::new("");
    enrol(&scene, "both", 0, "north,pumps");
    enrol(&scene, "one", 1, "north");
    enrol(&scene, "none", 2, "");
    let mut clients: Vec<_> = ["both", "one", "none"].iter().map(|name| scene.run(name)).collect();
    ["both", "one", "none"].iter().for_each(|name| wait_connected(&scene, name));

    let task = scene.task(1, 1_000_000, "evaluate_every = 0");
    scene.ask(&["run", "start", text(&task), "--tags", "pumps,north"]);
    let status = scene.wait_rounds(2);
    assert_eq!(status["tags"], serde_json::json!(["pumps", "north"]));
    assert!(rounds(&status).iter().all(|round| number(round, "cohort") == 1), "{status:#}");
    assert_eq!((number(&status, "devices_connected"), number(&status, "devices_available")), (3, 1));

    // The release of a task is for those who may learn it, unless the operator says otherwise.
    let published = scene.ask(&["release", "publish", text(&release(&scene, &task)), "--task", "digits"]);
    assert_eq!(number(&published, "devices"), 1);
    let serve = |count: u64| until("who serves it", PATIENCE, || (listed(&scene)["serve"] == count).then_some(()));
    serve(1);
    assert_eq!(
        (number(&listed(&scene), "devices"), &listed(&scene)["tags"]),
        (1, &serde_json::json!(["pumps", "north"]))
    );

    // A tag brings a device in while it is connected, and taking it away sends it out again.
    let available = |count: u64| {
        until("devices of the run", PATIENCE, || (scene.status()["devices_available"] == count).then_some(()));
    };
    let tagged = scene.ask(&["device", "tag", "one", "--tags", "north,pumps"]);
    assert_eq!(tagged["tags"], serde_json::json!(["north", "pumps"]));
    available(2);
    serve(2);
    scene.ask(&["device", "tag", "both", "--tags", ""]);
    available(1);
    let before = rounds(&scene.status()).len();
    let status = scene.wait_rounds(before + 3);
    assert!(rounds(&status)[before + 1..].iter().all(|round| number(round, "cohort") == 1), "{status:#}");
    assert_eq!(scene.device("both").expect("listed")["tags"], serde_json::json!([]));

    // The device without a tag was told nothing at all.
    let said = clients[2].stderr().join("\n");
    assert!(!said.contains("a run is offered") && !said.contains("a release"), "{said}");
    let told = clients[0].stderr().join("\n");
    assert!(
        told.contains("a run is offered") && told.contains("a release"),
        "the others say what they hear of: {told}"
    );
    let log = scene.audit_log();
    assert_eq!(log.iter().filter(|record| record["what"] == "device-tagged").count(), 2);
    let none = scene.device("none").expect("listed")["device"].clone();
    let who = format!("device:{}", none.as_str().expect("an id"));
    let acts: Vec<_> =
        log.iter().filter(|record| record["who"] == who.as_str()).map(|record| &record["what"]).collect();
    assert!(acts.iter().all(|what| *what != "update-admitted"), "{acts:?}");
    clients.iter_mut().for_each(starling_testkit::Process::terminate);
}
