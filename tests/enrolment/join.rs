//! The join string: from two folders to a device in a round, and everything that is no use without it.

use std::os::unix::fs::PermissionsExt as _;

use starling_testkit::fleet::PATIENCE;
use starling_testkit::{Process, until};
use starling_wire::{JoinString, Refusal, Token};

use crate::scene::{Scene, binary, id, starling, text};

#[test]
fn a_machine_joins_with_nothing_but_the_string_and_takes_part_in_a_round() {
    let scene = Scene::new("");
    let string = scene.invite(&["--name", "pump-4", "--tags", "north,wet", "--expires", "5m"]);
    // Typed by hand: lower case, spaces.
    let typed = string.to_lowercase().replace('-', " ");
    let (code, err) = scene.join(&typed, "pump-4");
    assert_eq!(code, Some(0), "{err}");
    let folder = scene.path("pump-4");
    let mode = |name: &str| std::fs::metadata(folder.join(name)).expect("written").permissions().mode() & 0o777;
    assert_eq!(mode("key.pem"), 0o600);
    let device = scene.device("pump-4").expect("it is listed");
    assert_eq!((device["state"].as_str(), device["tags"][1].as_str()), (Some("active"), Some("wet")));
    scene.bind("pump-4", 0, 1);
    let mut client = scene.run("pump-4");
    scene.start_run(1, 2, "");
    scene.wait_rounds(2);
    assert!(client.exited().is_none());
    until("seen now", PATIENCE, || (scene.device("pump-4")?["connected"] == true).then_some(()));

    // The same folder does not join twice, and a second folder gets nothing for a string that was used.
    let (code, err) = scene.join(&string, "pump-4");
    assert_eq!(code, Some(2), "{err}");
    let (code, err) = scene.join(&string, "thief");
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains(Refusal::TokenUsed.text()), "{err}");
    scene.wait_operator_sees(Refusal::TokenUsed, "thief");
    check_with_openssl(&scene);
}

/// OpenSSL accepts the chain that a join has written, and reads the identity.
fn check_with_openssl(scene: &Scene) {
    let (leaf, ca) = (scene.path("pump-4/certificate.pem"), scene.path("pump-4/ca.pem"));
    let arguments = ["verify", "-x509_strict", "-CAfile", text(&ca), "-untrusted", text(&leaf), text(&leaf)];
    let Ok(verified) = std::process::Command::new("openssl").args(arguments).output() else {
        eprintln!("SKIPPED: openssl cannot be run, so nothing was compared with it");
        return;
    };
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

#[test]
fn a_lost_answer_strands_no_device() {
    let scene = Scene::new("");
    let string = scene.invite(&["--name", "pump"]);
    assert_eq!(scene.join(&string, "pump").0, Some(0));
    let first = std::fs::read_to_string(scene.path("pump/certificate.pem")).expect("written");
    // As if the answer had never come: the key is there, the certificate is not.
    std::fs::remove_file(scene.path("pump/certificate.pem")).expect("it was there");
    std::fs::remove_file(scene.path("pump/ca.pem")).expect("it was there");
    let (code, err) = scene.join(&string, "pump");
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(std::fs::read_to_string(scene.path("pump/certificate.pem")).expect("written"), first);
}

#[test]
fn wrong_tokens_and_wrong_aggregators_are_refused_with_distinct_codes() {
    let scene = Scene::new("");
    let expired = scene.ask(&["device", "invite", "--expires", "1s"]);
    let good: JoinString = scene.invite(&[]).parse().expect("our own");

    // An aggregator of another CA at the same address: nothing is said to it.
    let elsewhere = JoinString { ca_fingerprint: [7; 16], ..good };
    let (code, err) = scene.join(&elsewhere.to_string(), "misled");
    assert!(code == Some(3) && err.contains("nothing was sent"), "{err}");
    scene.wait_operator_sees(Refusal::ForeignCertificate, "127.0.0.1");

    // A typing error is found before anybody is asked.
    let mut mistyped = good.to_string();
    let last = mistyped.pop().expect("not empty");
    mistyped.push(if last == 'Z' { 'Y' } else { 'Z' });
    let (code, err) = scene.join(&mistyped, "mistyped");
    assert_eq!(code, Some(2), "{err}");

    until("the invitation's end", PATIENCE, || {
        let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
        (now_s > expired["expires_unix_s"].as_u64()?).then_some(())
    });
    let (code, err) = scene.join(expired["join"].as_str().expect("a join string"), "late");
    assert_eq!(code, Some(3), "{err}");
    scene.wait_operator_sees(Refusal::TokenExpired, "late");

    // Guesses, until the address is shut out; then not even the right token helps.
    let guess = JoinString { token: Some(Token([9; 12])), ..good }.to_string();
    let mut seen = Vec::new();
    for attempt in 0..12 {
        let (_, err) = scene.join(&guess, &format!("guess-{attempt}"));
        let reason = [Refusal::TokenUnknown, Refusal::TooManyAttempts].into_iter().find(|one| err.contains(one.text()));
        seen.push(reason.unwrap_or_else(|| panic!("{err}")));
    }
    assert_eq!((seen[0], seen[11]), (Refusal::TokenUnknown, Refusal::TooManyAttempts));
    let (_, err) = scene.join(&good.to_string(), "unlucky");
    assert!(err.contains(Refusal::TooManyAttempts.text()), "{err}");
    scene.wait_operator_sees(Refusal::TokenUnknown, "guess-0");
    scene.wait_operator_sees(Refusal::TooManyAttempts, "unlucky");
    // The audit log has the first of each kind; whoever repeats one does not fill the disk.
    let log = scene.audit_log();
    let refused = |reason: Refusal| {
        log.iter().filter(|record| record["what"] == "enrolment-refused" && record["code"] == reason.code()).count()
    };
    let kinds = [Refusal::TokenExpired, Refusal::TokenUnknown, Refusal::TooManyAttempts];
    assert_eq!(kinds.map(refused), [1, 1, 1]);
}

#[test]
fn a_fleet_without_tokens_is_approved_one_by_one() {
    let scene = Scene::new("approval = true");
    let string = scene.invite(&["--open"]);
    let start = |name: &str| {
        let out = scene.path(name);
        let words = ["client", "join", &string, "--out", text(&out), "--name", name, "--path", "loopback"];
        Process::spawn(name, binary(), words)
    };
    let (mut good, mut bad) = (start("good"), start("bad"));
    let wait = |name: &str| {
        until("an applicant", PATIENCE, || {
            let listed = scene.ask(&["device", "list", "--pending"]);
            listed.as_array()?.iter().find(|device| device["name"] == name).cloned()
        })
    };
    let shown = wait("good")["key_fingerprint"].as_str().expect("a fingerprint").to_owned();
    good.wait_stderr("its key", PATIENCE, |line| line.contains(&shown).then_some(()));
    scene.ask(&["device", "approve", &id(&wait("good"))]);
    scene.ask(&["device", "reject", &id(&wait("bad"))]);
    assert_eq!(good.wait_exit(PATIENCE).code(), Some(0), "{}", good.transcript());
    assert_eq!(bad.wait_exit(PATIENCE).code(), Some(3), "{}", bad.transcript());
    assert!(bad.stderr().join("\n").contains(Refusal::Rejected.text()));
    let log = scene.audit_log();
    let by_operator = |what: &str| {
        log.iter().filter(|record| record["what"] == what && record["who"].to_string().contains("uid:")).count()
    };
    assert_eq!((by_operator("device-enrolled"), by_operator("enrolment-refused")), (1, 1));
    scene.wait_operator_sees(Refusal::Rejected, "bad");
}

#[test]
fn without_an_authority_enrolment_is_off_and_says_so() {
    let mut fleet = starling_testkit::Fleet::new(env!("CARGO_BIN_EXE_starling"), 5, "");
    fleet.start_aggregator();
    let config = fleet.aggregator_config();
    let (code, _, err) = starling(&["aggregator", "device", "invite", "--config", text(&config)]);
    assert!(code == Some(1) && err.contains("[enrolment] authority"), "{err}");
    let root = starling_certs::inspect::fingerprint(fleet.pki.ca_pem()).expect("a certificate").0;
    let string = JoinString {
        address: fleet.address(),
        ca_fingerprint: *root.first_chunk().expect("32 bytes"),
        token: Some(Token([1; 12])),
    };
    let out = fleet.folder().join("nobody");
    let (code, _, err) = starling(&["client", "join", &string.to_string(), "--out", text(&out), "--path", "loopback"]);
    assert!(code == Some(3) && err.contains(Refusal::EnrolmentOff.text()), "{err}");
}
