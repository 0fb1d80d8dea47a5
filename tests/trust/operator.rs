//! What the operator is told: early, when devices would refuse a bundle, and afterwards, why they did.

use serde_json::json;
use starling_testkit::fleet::PATIENCE;
use starling_testkit::pki::deploy;
use starling_testkit::until;
use starling_wire::{Distrust, Role};

use crate::commands::{DEVICES, Workshop, task};
use crate::publisher::TASK;

#[test]
fn the_aggregator_says_early_what_devices_would_refuse() {
    let mut workshop = Workshop::new(601);
    workshop.fleet.start_aggregator();
    let release = workshop.release("first.release", 1.0);
    let (roots, bundle) = (workshop.at("root.bundle"), format!("{release}.bundle"));
    let offered = |why: &str| {
        let said = workshop.offer(&release).expect_err("devices would refuse it");
        assert!(said.contains(why), "expected {why:?}: {said}");
    };
    let state = |version: &str, expires: &str| {
        let (alice, bob) = (workshop.at("alice.key"), workshop.at("bob.key"));
        let stated = ["release", &release, "--roots", &roots, "--version", version, "--expires", expires];
        workshop.publish(&[&stated[..], &["--key", &alice, "--key", &bob]].concat());
    };
    workshop.publish(&["release", &release, "--roots", &roots, "--version", "3", "--key", &workshop.at("bob.key")]);
    offered("1 of the 2 signatures");
    state("3", "90d");
    offered("no freshness statement");
    workshop.freshness(&[&bundle]);
    // Another file beside the bundle.
    workshop.release("first.release", 2.0);
    offered("made for other bytes");
    workshop.release("first.release", 1.0);
    let said =
        workshop.operator(&["release", "publish", &release, "--task", TASK, "--bundle", &bundle, "--version", "9"]);
    assert!(said.expect_err("another version").contains("version 3 was signed"));
    std::fs::write(workshop.path("first.release.bundle"), b"no bundle at all").expect("written");
    offered("does not begin as a trust document");
    state("3", "80d");
    // The robot remembers what it named: another statement of the same version is not named.
    let renamed = ["freshness", &bundle, "--roots", &roots, "--out", &workshop.at("fresh.bundle")];
    let said = workshop.starling(&[&["publish"], &renamed[..]].concat()).expect_err("named before");
    assert!(said.contains("a higher --version"), "{said}");
    state("4", "90d");
    workshop.freshness(&[&bundle]);
    workshop.offer(&release).expect("good at last");
    state("5", "1s");
    workshop.freshness(&[&bundle]);
    until("the statement to run out", PATIENCE, || {
        workshop.offer(&release).err().filter(|said| said.contains("expired"))
    });
    // A bundle of an older statement, kept somewhere.
    let other = workshop.signed_release("other.release", 2.0, "6", ["alice", "bob"]);
    workshop.offer(&other).expect("published");
    std::fs::copy(workshop.path("other.release"), workshop.path("first.release")).expect("copied");
    state("2", "90d");
    std::fs::remove_file(workshop.path("fresh.bundle")).expect("a robot that has forgotten");
    workshop.freshness(&[&bundle]);
    offered("version 2 is not above the last, 6");
}

#[test]
fn an_operator_sees_that_devices_take_nothing_unsigned() {
    let mut workshop = Workshop::new(602);
    workshop.start();
    let release = workshop.release("first.release", 1.0);
    let said = workshop
        .operator(&["release", "publish", &release, "--task", TASK])
        .expect("the aggregator asks for no signatures");
    assert!(said.contains("unsigned"), "{said}");
    until("all devices to refuse", PATIENCE, || {
        let list = workshop.fleet.ask(&json!({ "verb": "release-list" }))?.ok()?;
        let refused = &list[0]["refused"][0];
        (refused["reason"] == Distrust::Unsigned.text() && refused["devices"] == DEVICES).then_some(())
    });
    let run = workshop.fleet.start_run(&task(3), 1);
    workshop.fleet.wait_status(run, "the devices to decline", |status| {
        let declined = &status["declined"][0];
        (declined["reason"] == Distrust::Unsigned.text() && status["rounds_committed"] == 0).then_some(())
    });
    let status = workshop.operator(&["run", "status"]).expect("an answer");
    assert!(status.contains("declined") && status.contains("it is not signed"), "{status}");
}

#[test]
fn a_publisher_elsewhere_sends_release_and_bundle_with_a_certificate_of_that_role() {
    let mut workshop = Workshop::new(603);
    workshop.start();
    let address = workshop.fleet.address().to_string();
    let by = |role: Role, index: u32| {
        let folder = workshop.path(&role.to_string());
        deploy(&workshop.fleet.pki.issue(role, index), &folder, None);
        folder.display().to_string()
    };
    let (publisher, auditor) = (by(Role::Publisher, 901), by(Role::Auditor, 902));
    let from = |identity: &str, arguments: &[&str]| {
        workshop.starling(&[&["aggregator"], arguments, &["--remote", &address, "--identity", identity]].concat())
    };
    let first = workshop.signed_release("first.release", 1.0, "1", ["alice", "bob"]);
    let bundle = format!("{first}.bundle");
    let publish = ["release", "publish", &first, "--task", TASK, "--bundle", &bundle];

    // Who may read may not publish; and what devices would refuse is refused over this way as well.
    let said = from(&auditor, &publish).expect_err("an auditor reads");
    assert!(said.contains("release-publish") && said.contains("code 71"), "{said}");
    let other = workshop.release("other.release", 2.0);
    let said = from(&publisher, &["release", "publish", &other, "--task", TASK, "--bundle", &bundle]);
    assert!(said.as_ref().is_err_and(|said| said.contains("made for other bytes")), "{said:?}");

    let said = from(&publisher, &publish).expect("published");
    assert!(said.contains("signed"), "{said}");
    workshop.served_by_all(1);
    // A renewed freshness statement goes the same way.
    workshop.freshness(&[]);
    let said = from(&publisher, &["trust", "renew", &workshop.at("fresh.bundle")]).expect("renewed");
    assert!(said.contains("1 releases"), "{said}");
    for device in 0..DEVICES {
        until("the newer freshness statement", PATIENCE, || {
            workshop.status(device)?.trust.filter(|trust| trust.freshness_version == Some(2))
        });
    }
}
