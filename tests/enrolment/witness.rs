//! Witnesses of the enrolments: a fleet whose owners name one sums nothing before it has looked.

use serde_json::Value;
use starling_testkit::fleet::{PATIENCE, number, rounds};
use starling_testkit::until;
use starling_wire::Refusal;

use crate::scene::{Scene, starling, text};

const SECURE: &str = "deadline_ms = 4000\n[update]\ncodec = \"q8\"\nweight_max = 1000\n[privacy]\nsecure_aggregation = true\n\
                      clip = 2.0\ncorrupt = 0.0\ndropout = 0.0";

/// The witness looks at the log and co-signs it.
fn cosign(scene: &Scene) -> Value {
    scene.ask(&["audit", "cosign", "--key", text(&scene.path("witness.key")), "--name", "witness.example"])
}

#[test]
fn a_secure_round_commits_once_a_witness_has_seen_who_is_enrolled_and_not_before() {
    let scene = Scene::new("");
    // Before anybody is in the fleet: the owners need the witness's key.
    let key = cosign(&scene)["witness"].as_str().expect("its public key").to_owned();
    let names = ["one", "two", "three"];
    for (name, index) in names.iter().zip(0..) {
        scene.enrol(name, index, 3);
        let path = scene.path(name).join("starling-client.toml");
        let written = std::fs::read_to_string(&path).expect("join has written it");
        let policy = format!("[policy]\nsecure_aggregation = true\ncohort_min = 3\nroster_witness = [\"{key}\"]\n");
        std::fs::write(&path, written + &policy).expect("the folder can be written");
    }
    let _clients: Vec<_> = names.iter().map(|name| scene.run(name)).collect();
    names.iter().for_each(|name| scene.wait_connected(name));
    scene.start_run(3, 2, SECURE);
    // All of them stay away, and the operator sees why.
    let status = until("three refusals", PATIENCE, || {
        let status = scene.status();
        let reason = Refusal::SecureUnwitnessedCohort.text();
        let declined = status["declined"].as_array()?.iter().find(|declined| declined["reason"] == reason)?;
        (number(declined, "times") >= 3).then_some(status)
    });
    assert_eq!(rounds(&status).len(), 0, "{status:#}");
    let answer = cosign(&scene);
    assert_eq!(number(&answer, "devices"), 3, "{answer:#}");
    let status = scene.wait_rounds(2);
    assert!(rounds(&status).iter().all(|round| number(round, "contributors") == 3), "{status:#}");

    // A witness that knows of two devices refuses to sign for three.
    let config = scene.config();
    let arguments = ["aggregator", "audit", "cosign", "--devices-max", "2", "--key"];
    let key = scene.path("witness.key");
    let arguments = [&arguments[..], &[text(&key), "--config", text(&config)]].concat();
    let (code, _, err) = starling(&arguments);
    assert!(code == Some(1) && err.contains("not signed: 3 devices were enrolled"), "{code:?} {err}");

    // Each device is in the log with the key of its certificate.
    let log = scene.audit_log();
    for name in names {
        let device = scene.device(name).expect("it is listed");
        let who = format!("device:{}", device["device"].as_str().expect("an id"));
        let joined = log.iter().find(|record| record["what"] == "device-enrolled" && record["who"] == who);
        let digest = joined.and_then(|record| record["about"]["digest"].as_str()).expect("the digest of a key");
        assert!(digest.starts_with(device["key_fingerprint"].as_str().expect("a fingerprint")), "{digest} {device}");
    }
}
