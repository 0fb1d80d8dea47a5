//! From `starling publish` to devices that serve and train: the commands of a publisher with two key holders and a machine for
//! freshness, a real aggregator, and real devices.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use starling_client::serving::ask::Asker;
use starling_client::status::Status;
use starling_testkit::fleet::PATIENCE;
use starling_testkit::{Fleet, until};

use crate::publisher::{TASK, release_bytes};

pub(crate) const DEVICES: u32 = 2;

/// A fleet whose devices have pinned the root that the commands make.
pub(crate) struct Workshop {
    pub(crate) fleet: Fleet,
}

impl Workshop {
    /// Keys and a root: two of alice, bob and carol publish, the robot says what is newest. Nobody is started.
    #[track_caller]
    pub(crate) fn new(seed: u64) -> Self {
        let data = format!(
            r#"
            [trust]
            root = "../root.bundle"
            [[task]]
            name = "{TASK}"
            [task.data]
            format = "csv"
            train = "embedded:optdigits"
            [task.partition]
            how = "iid"
            devices = {DEVICES}
            index = {{index}}
            seed = {seed}
            "#
        );
        let workshop = Self { fleet: Fleet::new(env!("CARGO_BIN_EXE_starling"), seed, &data) };
        for name in ["root", "alice", "bob", "carol", "robot"] {
            workshop.publish(&["key", "--out", &workshop.at(&format!("{name}.key"))]);
        }
        workshop.make_root(&[], "alice,bob", "root.bundle");
        workshop
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.fleet.folder().join(name)
    }

    /// A root under which two of `publishers` have to sign.
    #[track_caller]
    pub(crate) fn make_root(&self, more: &[&str], publishers: &str, out: &str) {
        let of =
            |names: &str| names.split(',').map(|name| self.at(&format!("{name}.pub"))).collect::<Vec<_>>().join(",");
        let (root, freshness) = (format!("1:{}", of("root")), format!("1:{}", of("robot")));
        let (publishers, out) = (format!("*=2:{}", of(publishers)), self.at(out));
        let key = self.at("root.key");
        let arguments = ["root", "--root", &root, "--freshness", &freshness, "--publisher", &publishers, "--out", &out];
        self.publish(&[&arguments[..], &["--key", &key], more].concat());
    }

    /// Runs `starling publish …`, which has to go well. What it says.
    #[track_caller]
    pub(crate) fn publish(&self, arguments: &[&str]) -> String {
        self.starling(&[&["publish"], arguments].concat()).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    /// Runs `starling …`: what it says on stdout, or all it says and its exit code.
    pub(crate) fn starling(&self, arguments: &[&str]) -> Result<String, String> {
        let (status, out, err) = starling_testkit::process::run("starling", self.fleet.binary(), arguments, PATIENCE);
        if status.success() { Ok(out) } else { Err(format!("{:?}\n{out}\n{err}", status.code())) }
    }

    /// The same for the operator's verbs.
    pub(crate) fn operator(&self, arguments: &[&str]) -> Result<String, String> {
        let config = self.fleet.aggregator_config().display().to_string();
        self.starling(&[&["aggregator"], arguments, &["--config", &config]].concat())
    }

    /// A release file.
    pub(crate) fn release(&self, name: &str, weight: f32) -> String {
        std::fs::write(self.path(name), release_bytes(weight)).expect("the folder can be written");
        self.at(name)
    }

    /// A release file with its bundle, signed by two and named as the newest. The path of the release.
    #[track_caller]
    pub(crate) fn signed_release(&self, name: &str, weight: f32, version: &str, signers: [&str; 2]) -> String {
        let release = self.release(name, weight);
        let bundle = format!("{release}.bundle");
        self.publish(&["release", &release, "--roots", &self.at("root.bundle"), "--version", version]);
        for signer in signers {
            self.publish(&["sign", &bundle, "--key", &self.at(&format!("{signer}.key"))]);
        }
        self.freshness(&[&bundle]);
        release
    }

    /// Names bundles as the newest.
    #[track_caller]
    pub(crate) fn freshness(&self, bundles: &[&str]) {
        let (roots, out, key) = (self.at("root.bundle"), self.at("fresh.bundle"), self.at("robot.key"));
        self.publish(&[&["freshness"], bundles, &["--roots", &roots, "--out", &out, "--key", &key]].concat());
    }

    /// Publishes a release with its bundle.
    pub(crate) fn offer(&self, release: &str) -> Result<String, String> {
        self.operator(&["release", "publish", release, "--task", TASK, "--bundle", &format!("{release}.bundle")])
    }

    pub(crate) fn start(&mut self) {
        self.fleet.start_aggregator();
        (0..DEVICES).for_each(|index| self.fleet.start_device(index));
    }

    #[track_caller]
    pub(crate) fn served_by_all(&self, version: u64) {
        until("all devices to serve", PATIENCE, || {
            let list = self.fleet.ask(&json!({ "verb": "release-list" }))?.ok()?;
            let release = &list[0];
            (release["version"] == version && release["serve"] == DEVICES && release["signed"] == true).then_some(())
        });
    }

    pub(crate) fn status(&self, device: u32) -> Option<Status> {
        Status::read(&self.path(&format!("device-{device}/state"))).ok()
    }

    fn asked(&self) -> u64 {
        let socket = self.path("device-0/state/serve.sock");
        let mut asker = Asker::connect(Path::new(&socket)).expect("the device listens");
        asker.ask(TASK, 1, &[8.0; 64]).expect("an answer").0.version
    }
}

/// A task for the devices of the workshop.
pub(crate) fn task(rounds: u32) -> String {
    format!(
        r#"
        name = "{TASK}"
        kind = "classification"
        [data]
        format = "csv"
        train = "embedded:optdigits"
        shape = [64]
        scale = "unit"
        [model]
        layers = [{{ linear = {{ out = 10 }} }}]
        [train]
        lr = 0.05
        [federation]
        devices = {DEVICES}
        devices_min = {DEVICES}
        rounds = {rounds}
        "#
    )
}

#[test]
fn what_two_people_sign_is_served_and_trained_and_a_rotation_reaches_every_device() {
    let mut workshop = Workshop::new(501);
    workshop.start();
    let first = workshop.signed_release("first.release", 1.0, "1", ["alice", "bob"]);
    let (roots, bundle) = (workshop.at("root.bundle"), format!("{first}.bundle"));
    let verified = workshop.publish(&["verify", &bundle, "--roots", &roots, "--release", &first]);
    assert!(verified.contains("good: version 1"), "{verified}");
    let said = workshop.offer(&first).expect("published");
    assert!(said.contains("signed"), "{said}");
    workshop.served_by_all(1);
    assert_eq!(workshop.asked(), 1);
    let config = workshop.at("device-0/config.toml");
    until("the signature in the status", PATIENCE, || {
        let status = workshop.starling(&["client", "status", "--config", &config]).ok()?;
        (status.contains("version 1") && status.contains("served, signed") && status.contains("root version 1"))
            .then_some(())
    });

    // The plan is signed, too: with the seed and the overrides that the run is started with.
    let file = workshop.at("task.toml");
    std::fs::write(&file, task(1_000)).expect("written");
    let plan = workshop.at("task.bundle");
    let alike = ["--seed", "7", "--set", "train.lr=0.04"];
    let (alice, bob) = (workshop.at("alice.key"), workshop.at("bob.key"));
    let stated = ["plan", &file, "--roots", &roots, "--version", "1", "--out", &plan, "--key", &alice, "--key", &bob];
    workshop.publish(&[&stated[..], &alike].concat());
    workshop.freshness(&[&plan]);
    workshop.publish(&[&["verify", &plan, "--roots", &roots, "--plan", &file][..], &alike].concat());
    workshop.operator(&[&["run", "start", &file, "--bundle", &plan][..], &alike].concat()).expect("started");
    workshop.fleet.wait_rounds(1, 2);

    // Carol takes alice's place. The old roots lead to the new one; the devices are told while they train.
    workshop.make_root(&["--replaces", &roots], "bob,carol", "root.bundle");
    // What alice signed and the devices hold goes on; what is new has to be signed by those who may now.
    let second = workshop.signed_release("second.release", 2.0, "2", ["bob", "carol"]);
    workshop.offer(&second).expect("published");
    workshop.served_by_all(2);
    for device in 0..DEVICES {
        until("the newer root", PATIENCE, || workshop.status(device)?.trust.filter(|trust| trust.root_version == 2));
    }
    let before = starling_testkit::fleet::rounds(&workshop.fleet.wait_rounds(1, 1)).len();
    workshop.fleet.wait_rounds(1, before + 2);
    let refused = workshop.starling(&["publish", "sign", &format!("{second}.bundle"), "--key", &alice]);
    assert!(refused.expect_err("alice has no say").contains("the root gives it no say"));
}

#[test]
fn a_freshness_statement_is_renewed_for_everything_at_once() {
    let mut workshop = Workshop::new(502);
    workshop.start();
    let release = workshop.signed_release("first.release", 1.0, "1", ["alice", "bob"]);
    workshop.offer(&release).expect("published");
    workshop.served_by_all(1);
    let file = workshop.at("task.toml");
    std::fs::write(&file, task(1_000)).expect("written");
    let (roots, plan) = (workshop.at("root.bundle"), workshop.at("task.bundle"));
    let (alice, bob) = (workshop.at("alice.key"), workshop.at("bob.key"));
    workshop.publish(&[
        "plan",
        &file,
        "--roots",
        &roots,
        "--version",
        "1",
        "--out",
        &plan,
        "--key",
        &alice,
        "--key",
        &bob,
    ]);
    workshop.freshness(&[&plan]);
    workshop.operator(&["run", "start", &file, "--bundle", &plan]).expect("started");
    workshop.fleet.wait_rounds(1, 1);
    // A timer somewhere does this every few days.
    workshop.freshness(&[]);
    let fresh = workshop.at("fresh.bundle");
    let said = workshop.operator(&["trust", "renew", &fresh]).expect("renewed");
    assert!(said.contains("1 releases and 1 runs"), "{said}");
    for device in 0..DEVICES {
        until("the newer freshness statement", PATIENCE, || {
            workshop.status(device)?.trust.filter(|trust| trust.freshness_version == Some(3))
        });
    }
    // It is durable on the aggregator, and the older one is not taken back.
    workshop.fleet.aggregator().kill();
    workshop.fleet.start_aggregator();
    let list: Value = workshop.fleet.ask_surely(&json!({ "verb": "release-list" }));
    let until_unix_s = list[0]["fresh_until_unix_s"].as_u64().expect("a freshness statement");
    assert!(until_unix_s > crate::publisher::now_unix_s() + 6 * 86_400);
    let refused = workshop.operator(&["trust", "renew", &format!("{release}.bundle")]).expect("an answer");
    assert!(refused.contains("0 releases and 0 runs") && refused.contains("older than 3"), "{refused}");
    let before = starling_testkit::fleet::rounds(&workshop.fleet.wait_rounds(1, 1)).len();
    workshop.fleet.wait_rounds(1, before + 1);
}
