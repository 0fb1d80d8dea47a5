//! Throwing devices out: at once, for good, and out of the round under way.

use std::time::{Duration, Instant};

use starling_testkit::fleet::{PATIENCE, number, rounds};
use starling_testkit::until;
use starling_wire::Refusal;

use crate::scene::{Scene, id};

/// A revoked device's connection is gone within this.
const CUT: Duration = Duration::from_secs(1);

#[test]
fn a_device_revoked_in_the_middle_of_a_round_is_cut_at_once_and_its_update_is_not_in_it() {
    let mut scene = Scene::new("");
    ["one", "two", "three"].iter().zip(0..).for_each(|(name, index)| scene.enrol(name, index, 3));
    let mut clients: Vec<_> = ["one", "two", "three"].iter().map(|name| scene.run(name)).collect();
    scene.start_run(3, 1_000_000, "quorum = 0.5\ndeadline_ms = 30000");
    scene.wait_rounds(2);
    // With one device lying still a round stays open, and the two others are in it.
    clients[2].pause();
    let (mut last, mut looks) = (0, 0);
    let open = until("a round that waits for the third", PATIENCE, || {
        let count = rounds(&scene.status()).len();
        looks = if count == last { looks + 1 } else { 0 };
        last = count;
        // A round takes a tenth of a second, and so does a look.
        (looks == 10).then_some(count)
    });
    let device = id(&scene.device("one").expect("it is listed"));
    let spoken = Instant::now();
    scene.ask(&["device", "revoke", &device]);
    let said = Refusal::Revoked.text();
    clients[0].wait_stderr("why it was cut", PATIENCE, |line| line.contains(said).then_some(()));
    let cut = spoken.elapsed();
    assert!(cut < CUT + Duration::from_secs(1), "the command and the cut took {cut:?}");
    let aggregator = scene.aggregator.as_mut().expect("it runs");
    aggregator.wait_stderr("the exact way", PATIENCE, |line| line.contains("taken out of the round").then_some(()));
    clients[2].resume();
    let status = scene.wait_rounds(open + 1);
    let round = &rounds(&status)[open];
    assert_eq!(number(round, "contributors"), 2, "the revoked one is not in it: {round}");
    assert_eq!(scene.device("one").expect("listed")["state"], "revoked");

    // The audit log has the acts, and its contributors are those that were not withdrawn.
    let log = scene.audit_log();
    let words = |what: &str| log.iter().filter(|record| record["what"] == what).count();
    assert_eq!((words("invite-issued"), words("device-enrolled")), (3, 3));
    assert_eq!((words("device-revoked"), words("update-withdrawn")), (1, 1));
    let revoked = log.iter().find(|record| record["what"] == "device-revoked").expect("counted above");
    assert!(revoked["about"]["device"] == device.as_str() && revoked["who"].to_string().contains("uid:"), "{revoked}");

    // It is refused from now on, and after a restart.
    scene.aggregator.as_mut().expect("it runs").terminate();
    scene.aggregator.as_mut().expect("it ran").wait_exit(PATIENCE);
    scene.start();
    clients[0].kill();
    let mut again = scene.run("one");
    assert_eq!(again.wait_exit(PATIENCE).code(), Some(3), "{}", again.transcript());
    assert!(again.stderr().join("\n").contains(said), "{}", again.transcript());
    scene.wait_operator_sees(Refusal::Revoked, "one");
}

#[test]
fn a_suspended_device_is_out_until_it_is_resumed_and_a_revocation_list_names_it() {
    let scene = Scene::new("");
    scene.enrol("pump", 0, 1);
    let mut client = scene.run("pump");
    let connected = |wanted: bool| {
        until("its connection", PATIENCE, || (scene.device("pump")?["connected"] == wanted).then_some(()));
    };
    connected(true);
    scene.ask(&["device", "suspend", "pump"]);
    connected(false);
    client.wait_stderr("why", PATIENCE, |line| line.contains(Refusal::Suspended.text()).then_some(()));
    scene.wait_operator_sees(Refusal::Suspended, "pump");
    let list = scene.path("crl.pem");
    scene.ask(&["device", "crl", "--out", list.to_str().expect("text")]);
    let shown = std::process::Command::new("openssl").args(["crl", "-noout", "-text", "-in"]).arg(&list).output();
    match shown {
        Ok(shown) => {
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            assert!(shown.contains("Certificate Hold") && shown.contains("Serial Number"), "{shown}");
        }
        Err(error) => eprintln!("SKIPPED: openssl cannot be run ({error})"),
    }
    scene.ask(&["device", "resume", "pump"]);
    connected(true);
}

#[test]
fn a_copied_identity_is_found_and_refused_until_the_operator_has_looked() {
    let scene = Scene::new("");
    scene.enrol("pump", 0, 1);
    let copy = scene.path("copy");
    std::fs::create_dir(&copy).expect("a new folder");
    for name in ["key.pem", "certificate.pem", "ca.pem", "starling-client.toml"] {
        std::fs::copy(scene.path("pump").join(name), copy.join(name)).expect("stolen");
    }
    let (mut one, mut two) = (scene.run("pump"), scene.run("copy"));
    let said = Refusal::ClonedKey.text();
    for client in [&mut one, &mut two] {
        client.wait_stderr("why it is refused", PATIENCE, |line| line.contains(said).then_some(()));
    }
    scene.wait_operator_sees(Refusal::ClonedKey, "pump");
    assert_eq!(scene.device("pump").expect("listed")["state"], "cloned");
}
