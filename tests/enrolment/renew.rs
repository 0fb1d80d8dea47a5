//! The life of a certificate: rotated every few seconds while rounds go by, and brought back after it has expired.

use starling_testkit::fleet::{PATIENCE, number, rounds};
use starling_testkit::until;
use starling_wire::Refusal;

use crate::scene::{Scene, id, text};

fn certificate(scene: &Scene, name: &str) -> String {
    std::fs::read_to_string(scene.path(name).join("certificate.pem")).unwrap_or_default()
}

#[test]
fn certificates_of_all_are_rotated_every_few_seconds_and_no_round_is_lost() {
    let mut scene = Scene::new("certificate_s = 12");
    let names = ["one", "two"];
    names.iter().zip(0..).for_each(|(name, index)| scene.enrol(name, index, 2));
    let mut clients: Vec<_> = names.iter().map(|name| scene.run(name)).collect();
    scene.start_run(2, 1_000_000, "quorum = 1.0");
    let ids: Vec<String> = names.iter().map(|name| id(&scene.device(name).expect("listed"))).collect();
    let mut seen: Vec<std::collections::BTreeSet<String>> = vec![Default::default(); 2];
    until("four certificates of each device", PATIENCE, || {
        for (seen, name) in seen.iter_mut().zip(names) {
            seen.insert(certificate(&scene, name));
        }
        seen.iter().all(|seen| seen.len() >= 4).then_some(())
    });
    let status = scene.wait_rounds(3);
    for round in rounds(&status) {
        assert_eq!((number(round, "attempt"), number(round, "contributors")), (1, 2), "no round suffers: {round}");
    }
    for (client, (name, before)) in clients.iter_mut().zip(names.iter().zip(&ids)) {
        assert!(client.exited().is_none(), "{}", client.transcript());
        let connections =
            client.stderr().iter().filter(|line| line.contains("connected") && line.contains("epoch")).count();
        assert_eq!(connections, 1, "one connection lives through all of it: {}", client.transcript());
        assert_eq!(id(&scene.device(name).expect("listed")), *before, "the identity survives its keys");
    }
    // However often keys change, a witness that reads the log counts two devices.
    let witness = scene.path("witness.key");
    let counted = scene.ask(&["audit", "cosign", "--key", text(&witness), "--devices-max", "2"]);
    assert_eq!(number(&counted, "devices"), 2, "{counted}");
    assert!(number(&counted, "renewed_new") >= 6, "three renewals of each: {counted}");
    // A copy of the first key is worth nothing once later ones were seen, and the fleet comes back after a restart.
    scene.aggregator.as_mut().expect("it runs").terminate();
    scene.aggregator.as_mut().expect("it ran").wait_exit(PATIENCE);
    scene.start();
    until("both are back", PATIENCE, || {
        names.iter().all(|name| scene.device(name).is_some_and(|device| device["connected"] == true)).then_some(())
    });
}

#[test]
fn a_device_that_slept_past_its_certificates_end_comes_back_within_the_grace() {
    let scene = Scene::new("certificate_s = 6\ngrace_s = 3600");
    scene.enrol("pump", 0, 1);
    let asleep = certificate(&scene, "pump");
    until("the certificate's end", PATIENCE, || {
        let device = scene.device("pump")?;
        let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
        (device["certificate_expires_unix_s"].as_u64()? < now_s).then_some(())
    });
    let client = scene.run("pump");
    until("its connection", PATIENCE, || (scene.device("pump")?["connected"] == true).then_some(()));
    assert_ne!(certificate(&scene, "pump"), asleep, "{}", client.transcript());
}

#[test]
fn without_a_grace_an_expired_certificate_is_the_end() {
    let scene = Scene::new("certificate_s = 2");
    scene.enrol("pump", 0, 1);
    until("the certificate's end", PATIENCE, || {
        let device = scene.device("pump")?;
        let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
        (device["certificate_expires_unix_s"].as_u64()? + 1 < now_s).then_some(())
    });
    let mut client = scene.run("pump");
    assert_eq!(client.wait_exit(PATIENCE).code(), Some(3), "{}", client.transcript());
    let said = client.stderr().join("\n");
    assert!(said.contains(Refusal::GraceOver.text()) || said.contains(Refusal::CertificateExpired.text()), "{said}");
    scene.wait_operator_sees(Refusal::GraceOver, "expired certificate");
}
