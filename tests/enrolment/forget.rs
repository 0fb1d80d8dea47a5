//! Forgetting a device: nothing that it ever wrote can be read again, anywhere, and a certificate says so.

use std::fs;
use std::path::Path;

use serde_json::Value;
use starling_testkit::fleet::{PATIENCE, rounds};
use starling_testkit::until;
use starling_wire::Refusal;

use crate::scanner::find;
use crate::scene::{Scene, id, starling, text};

/// What the device has told of itself.
const NAME: &str = "pump-of-J-Doe";
const TAG: &str = "ward-7-north";

fn ok(arguments: &[&str]) -> String {
    let (code, out, err) = starling(arguments);
    assert_eq!(code, Some(0), "{arguments:?}\n{out}\n{err}");
    out + &err
}

/// The rounds whose version has an update of the device in it, as another reader of the log finds them.
fn rounds_of(log: &[Value], device: &str) -> Vec<u64> {
    let about = |record: &Value| (record["about"]["round"].as_u64(), record["about"]["attempt"].as_u64());
    let of = |what: &str, field: &str, value: &str| -> Vec<_> {
        let fits = |record: &&Value| {
            record["what"] == what && (field.is_empty() || record.pointer(field) == Some(&value.into()))
        };
        log.iter().filter(fits).map(about).collect()
    };
    let admitted = of("update-admitted", "/who", &format!("device:{device}"));
    let withdrawn = of("update-withdrawn", "/about/device", device);
    let committed = of("version-committed", "", "");
    admitted
        .into_iter()
        .filter(|place| !withdrawn.contains(place) && committed.contains(place))
        .filter_map(|(round, _)| round)
        .collect()
}

fn listed(ranges: &str) -> Vec<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let range = |range: &str| match range.split_once('-') {
        Some((first, last)) => number(first)..=number(last),
        None => number(range)..=number(range),
    };
    ranges.split(',').flat_map(range).collect()
}

#[track_caller]
fn assert_gone(roots: &[&Path]) {
    for needle in [NAME, TAG] {
        let found = find(roots, needle);
        assert!(found.is_empty(), "{needle:?} can be read: {found:?}");
    }
}

#[test]
fn what_a_forgotten_device_wrote_cannot_be_read_live_or_in_a_backup_with_any_key_that_is_left() {
    let mut scene = Scene::new("");
    scene.enrol("one", 0, 3);
    scene.enrol("two", 1, 3);
    let string = scene.invite(&["--name", NAME, "--tags", TAG]);
    assert_eq!(scene.join(&string, NAME).0, Some(0));
    scene.bind(NAME, 2, 3);
    // Somebody tries the string again under the same name, as a stranger does.
    let (code, _, err) = starling(&[
        "client",
        "join",
        &string,
        "--out",
        text(&scene.path("thief")),
        "--name",
        NAME,
        "--path",
        "loopback",
    ]);
    assert_ne!(code, Some(0), "{err}");
    scene.wait_operator_sees(Refusal::TokenUsed, NAME);
    let mut clients: Vec<_> = ["one", "two", NAME].iter().map(|name| scene.run(name)).collect();
    // Two of the three are in each round.
    scene.start_run(2, 1_000_000, "quorum = 0.5\ndeadline_ms = 5000");
    let device = id(&scene.device(NAME).expect("it is listed"));
    until("its first round", PATIENCE, || (!rounds_of(&scene.audit_log(), &device).is_empty()).then_some(()));

    let config = scene.config();
    let (state, key) = (scene.path("aggregator/state"), scene.path("aggregator/state.key"));
    let (backups, escrow, recovery) = (scene.path("backups"), scene.path("escrow"), scene.path("safe"));
    ok(&["aggregator", "key", "recovery-init", "--out", text(&recovery)]);
    let public = recovery.join("recovery.pub");
    ok(&["aggregator", "key", "escrow", "--to", text(&public), "--out", text(&escrow), "--config", text(&config)]);
    ok(&["aggregator", "backup", "create", "--to", text(&backups), "--config", text(&config)]);
    for needle in [NAME, TAG] {
        let found = find(&[&state, &key, &backups], needle);
        for place in [&state, &backups] {
            assert!(found.iter().any(|(path, _)| path.starts_with(place)), "{needle:?} is there before: {found:?}");
        }
    }

    // Asked what it would do, it does nothing; not asked, it does nothing either.
    let forget = ["aggregator", "device", "forget", NAME, "--config", text(&config)];
    let said = ok(&[&forget[..], &["--dry-run"]].concat());
    assert!(said.contains("has learnt from it in rounds") && said.contains("rounds to repeat"), "{said}");
    let (code, _, said) = starling(&forget);
    assert!(code == Some(2) && said.contains("add --yes"), "{said}");
    assert_eq!(scene.device(NAME).expect("it is there still")["connected"], true);

    let certificate = scene.path("erased.txt");
    let said = ok(&[&forget[..], &["--yes", "--out", text(&certificate)]].concat());
    assert!(said.contains("audit certificate"), "{said}");
    let refused = Refusal::Revoked.text();
    clients[2].wait_stderr("why it was cut", PATIENCE, |line| line.contains(refused).then_some(()));
    assert!(scene.device(NAME).is_none());
    assert_gone(&[&state, &key, &backups]);

    // The certificate holds without the daemon, tells the same rounds as the log, and names nobody.
    let public = scene.path("audit.pub");
    fs::copy(state.join("audit.pub"), &public).expect("copied");
    let check =
        |path: &Path| starling(&["aggregator", "audit", "certificate", text(path), "--key", text(&public), "--json"]);
    let (code, out, err) = check(&certificate);
    assert_eq!(code, Some(0), "{err}");
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&said["device"], &said["destroyed"]["key"]), (&device.as_str().into(), &true.into()));
    let log = scene.audit_log();
    assert_eq!(listed(said["runs"][0]["rounds"].as_str().expect("ranges")), rounds_of(&log, &device));
    let days = said["final_unix_s"]
        .as_u64()
        .zip(said["erased_unix_s"].as_u64())
        .map(|(last, now)| (last - now) as f64 / 86_400.0);
    assert!(days.is_some_and(|days| (6.9..=7.0).contains(&days)), "the escrow copy lives for seven days: {days:?}");
    assert!(!out.contains(NAME) && !out.contains(TAG));
    assert_eq!(
        log.iter()
            .filter(|record| record["what"] == "device-erased" && record["about"]["device"] == device.as_str())
            .count(),
        1
    );
    let changed = scene.path("changed.txt");
    let lie = fs::read_to_string(&certificate).expect("text").replace("\"key\": true", "\"key\": false");
    fs::write(&changed, lie).expect("written");
    assert_eq!(check(&changed).0, Some(5));
    // Asked again, it is the same.
    let again = ok(&["aggregator", "device", "forget", &device, "--yes", "--config", text(&config)]);
    assert!(again.contains(fs::read_to_string(&certificate).expect("text").trim()), "{again}");

    // It does not come back: not by itself, not with an earlier backup, and no trace of its trying has its name.
    clients[2].kill();
    let count = rounds(&scene.status()).len();
    scene.aggregator.as_mut().expect("it runs").terminate();
    scene.aggregator.as_mut().expect("it ran").wait_exit(PATIENCE);
    ["records", "blobs"].iter().for_each(|name| fs::remove_dir_all(state.join(name)).expect("the data are lost"));
    ok(&["aggregator", "backup", "restore", "--from", text(&backups), "--config", text(&config)]);
    assert_gone(&[&state, &key, &backups]);
    scene.start();
    let mut again = scene.run(NAME);
    assert_eq!(again.wait_exit(PATIENCE).code(), Some(3), "{}", again.transcript());
    assert!(again.stderr().join("\n").contains(refused), "{}", again.transcript());
    scene.wait_operator_sees(Refusal::Revoked, &device);
    assert!(scene.device(NAME).is_none(), "an earlier backup does not bring it back");
    until("rounds of the two others", PATIENCE, || (rounds(&scene.status()).len() > count).then_some(()));
    assert_gone(&[&state, &key, &backups]);

    // Until the escrow copy expires the keys can come back, as the certificate says: from the safe alone.
    let (code, _, err) = starling(&["aggregator", "device", "forget", &device, "--yes", "--config", text(&config)]);
    assert_eq!(code, Some(0), "after a restore the word is given again: {err}");
    let elsewhere = scene.path("elsewhere.toml");
    let other = fs::read_to_string(&config)
        .expect("text")
        .replace("\"state\"", "\"../elsewhere\"")
        .replace("tls/", "aggregator/tls/");
    fs::write(&elsewhere, other.replace("../ca", "ca").replace("../elsewhere", "elsewhere")).expect("written");
    let restore = ["aggregator", "backup", "restore", "--from", text(&backups), "--config", text(&elsewhere)];
    let (code, _, err) = starling(&restore);
    assert!(code != Some(0) && err.contains("a backup holds no keys"), "{err}");
    let secret = recovery.join("recovery.key");
    ok(&[&restore[..], &["--escrow", text(&escrow), "--recovery-key", text(&secret)]].concat());
    let place = scene.path("elsewhere");
    assert!(!find(&[&place, &scene.path("elsewhere.key")], NAME).is_empty(), "until then it is not final");

    // Invited anew, the machine is another device.
    fs::rename(scene.path(NAME), scene.path("before")).expect("its old folder");
    let string = scene.invite(&["--name", NAME]);
    assert_eq!(scene.join(&string, NAME).0, Some(0));
    let anew = scene.device(NAME).expect("it is listed");
    assert_ne!(id(&anew), device);
}
