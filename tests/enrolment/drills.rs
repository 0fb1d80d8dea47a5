//! The drills of docs/DRILLS.md, step by step: what an operator does when a key, the authority or time itself is lost.

use starling_testkit::fleet::{PATIENCE, number, rounds};
use starling_testkit::{Process, until};

use crate::scene::{Scene, id, now_unix_s, starling, text};

/// Who signed the certificate in `folder`, as `certs inspect` says it.
fn issuer(scene: &Scene, file: &str) -> Option<String> {
    let (code, out, _) = starling(&["certs", "inspect", text(&scene.path(file)), "--json"]);
    let said: serde_json::Value = serde_json::from_str(&out).ok()?;
    (code == Some(0)).then(|| said["certificates"][0]["issuer"].as_str().map(str::to_owned))?
}

/// The id in the certificate in `file`.
fn holder(scene: &Scene, file: &str) -> String {
    let (_, out, err) = starling(&["certs", "inspect", text(&scene.path(file)), "--json"]);
    let said: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("JSON: {err}"));
    said["certificates"][0]["id"].as_str().expect("an id").to_owned()
}

fn connections(client: &Process) -> usize {
    client.stderr().iter().filter(|line| line.contains("connected") && line.contains("epoch")).count()
}

#[test]
fn drill_1_a_rolled_issuing_key_reaches_everybody_while_rounds_go_on() {
    let mut scene = Scene::with_own_life("certificate_s = 12", Some(12));
    ["one", "two"].iter().zip(0..).for_each(|(name, index)| scene.enrol(name, index, 2));
    let mut clients: Vec<_> = ["one", "two"].iter().map(|name| scene.run(name)).collect();
    scene.start_run(2, 1_000_000, "quorum = 1.0");
    scene.wait_rounds(1);
    let files = ["aggregator/tls/certificate.pem", "one/certificate.pem", "two/certificate.pem"];
    let before: Vec<_> = files.iter().map(|file| issuer(&scene, file).expect("a certificate")).collect();
    assert!(before.iter().all(|issuer| *issuer == before[0]), "{before:?}");

    // Step by step, as the document says.
    let ca = scene.path("ca");
    std::fs::copy(scene.path("offline-root.key"), ca.join("root.key")).expect("brought back");
    let (code, said, err) = starling(&["certs", "roll-issuing", "--dir", text(&ca)]);
    assert_eq!(code, Some(0), "{said}{err}");
    std::fs::remove_file(ca.join("root.key")).expect("taken offline again");

    until("certificates of the new key for all", PATIENCE, || {
        let rolled = |file: &&str| issuer(&scene, file).is_some_and(|issuer| issuer != before[0]);
        files.iter().all(rolled).then_some(())
    });
    let committed = rounds(&scene.status()).len();
    let status = scene.wait_rounds(committed + 2);
    for round in rounds(&status) {
        assert_eq!((number(round, "attempt"), number(round, "contributors")), (1, 2), "no round suffers: {round}");
    }
    for client in &mut clients {
        assert!(client.exited().is_none(), "{}", client.transcript());
        assert_eq!(connections(client), 1, "one connection lives through all of it: {}", client.transcript());
    }
    // What was signed by either key is good for a connection that begins now.
    clients.drain(..).for_each(drop);
    let _again = scene.run("one");
    scene.wait_connected("one");
    scene.stop();
}

#[test]
fn drill_2_a_lost_issuing_key_is_replaced_from_the_offline_root() {
    let mut scene = Scene::new("certificate_s = 12");
    scene.enrol("pump", 0, 1);
    let _client = scene.run("pump");
    scene.wait_connected("pump");
    let device = id(&scene.device("pump").expect("listed"));

    // The folder of the authority is gone, and with it the issuing key. The root's key and certificate are in the safe.
    scene.stop();
    let (ca, root) = (scene.path("ca"), scene.path("root.pem"));
    std::fs::copy(ca.join("root.pem"), &root).expect("in the safe");
    std::fs::remove_dir_all(&ca).expect("lost");
    std::fs::create_dir(&ca).expect("a new folder");
    std::fs::copy(scene.path("offline-root.key"), ca.join("root.key")).expect("brought back");
    std::fs::copy(&root, ca.join("root.pem")).expect("brought back");
    let (code, said, err) = starling(&["certs", "roll-issuing", "--dir", text(&ca)]);
    assert_eq!(code, Some(0), "{said}{err}");
    std::fs::remove_file(ca.join("root.key")).expect("taken offline again");
    scene.start();

    scene.wait_connected("pump");
    let seen = issuer(&scene, "pump/certificate.pem");
    until("a certificate of the new issuing key", PATIENCE, || {
        (issuer(&scene, "pump/certificate.pem") != seen).then_some(())
    });
    assert_eq!(id(&scene.device("pump").expect("listed")), device, "the device is who it was");
    scene.enrol("late", 0, 1);
}

#[test]
fn drill_3_a_lost_root_means_a_new_authority_and_every_device_joins_again() {
    let mut scene = Scene::new("");
    scene.enrol("pump", 0, 1);
    let mut before = scene.run("pump");
    scene.wait_connected("pump");
    let old = id(&scene.device("pump").expect("listed"));
    let own = holder(&scene, "aggregator/tls/certificate.pem");

    scene.stop();
    let (ca, tls) = (scene.path("ca"), scene.path("aggregator/tls"));
    for folder in [&ca, &tls] {
        std::fs::remove_dir_all(folder).expect("lost");
    }
    let _ = std::fs::remove_file(scene.path("offline-root.key"));
    assert_eq!(starling(&["certs", "init", "--dir", text(&ca)]).0, Some(0));
    let issue = ["certs", "issue", "aggregator", "--authority", text(&ca), "--name", "agg", "--out", text(&tls)];
    assert_eq!(starling(&[&issue[..], &["--id", &own]].concat()).0, Some(0));
    scene.start();

    // Neither side takes the other for what it was.
    before.wait_stderr("that it does not trust the new authority", PATIENCE, |line| {
        line.contains("certificate").then_some(())
    });
    assert_ne!(scene.device("pump").expect("still listed")["connected"], true);
    before.kill();
    scene.ask(&["device", "revoke", &old]);

    // The device joins into a new folder; what it has learnt to know is the operator's to forget.
    let (code, err) = scene.join(&scene.invite(&["--name", "pump-again"]), "pump-again");
    assert_eq!(code, Some(0), "{err}");
    scene.bind("pump-again", 0, 1);
    let _client = scene.run("pump-again");
    scene.start_run(1, 1, "");
    let status = scene.wait_rounds(1);
    assert_eq!(number(&rounds(&status)[0], "contributors"), 1);
    assert_ne!(id(&scene.device("pump-again").expect("listed")), old, "a new key of a new authority is a new device");
}

#[test]
fn drill_4_an_aggregator_that_was_away_for_longer_than_a_certificates_life_finds_its_fleet_again() {
    let mut scene = Scene::with_own_life("certificate_s = 6\ngrace_s = 3600", Some(6));
    scene.enrol("pump", 0, 1);
    let mut client = scene.run("pump");
    scene.start_run(1, 1_000_000, "");
    let before = rounds(&scene.wait_rounds(1)).len();
    let device = id(&scene.device("pump").expect("listed"));
    let end_s = scene.device("pump").expect("listed")["certificate_expires_unix_s"].as_u64().expect("a time");
    scene.stop();

    // Everybody's certificate runs out meanwhile: the device's last one was renewed at most a third of its life ago.
    until("the end of every certificate", PATIENCE, || (now_unix_s() > end_s + 12).then_some(()));
    scene.start();
    scene.wait_connected("pump");
    let after = rounds(&scene.status()).len();
    scene.wait_rounds(after.max(before) + 1);
    assert!(client.exited().is_none(), "{}", client.transcript());
    assert_eq!(id(&scene.device("pump").expect("listed")), device, "the identity survives");
}
