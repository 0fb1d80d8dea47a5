//! A lost disk after somebody was thrown out: with `[backup]` they stay out, and where only an older backup is left, the operator's words are given
//! again from an export of the audit log.

use std::fs;

use starling_testkit::fleet::PATIENCE;
use starling_testkit::until;
use starling_wire::Refusal;

use crate::scene::{Scene, id, starling, text};

const BACKUPS: &str = "\n[backup]\nto = \"../backups\"\nkeep = 2\n[backup.escrow]\nrecovery_pub = \"../recovery/recovery.pub\"\nto = \"../escrow\"\n";

/// How many backups the audit log knows of.
fn made(scene: &Scene) -> usize {
    scene.audit_log().iter().filter(|record| record["what"] == "backup-created").count()
}

/// Does what the operator says, and waits until it is backed up.
#[track_caller]
fn say(scene: &Scene, verb: &str, device: &str) {
    let before = made(scene);
    scene.ask(&["device", verb, device]);
    until(&format!("a backup after {verb} {device}"), PATIENCE, || (made(scene) > before).then_some(()));
}

fn state_of(scene: &Scene, name: &str) -> Option<String> {
    Some(scene.device(name)?["state"].as_str()?.to_owned())
}

/// The ids of the backups, oldest first.
fn backups(scene: &Scene) -> Vec<String> {
    let entries = fs::read_dir(scene.path("backups/backups")).expect("it is there");
    let mut ids: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    ids.sort();
    ids
}

/// The disk is lost; what the restore says on stderr.
#[track_caller]
fn lose_and_restore(scene: &mut Scene, more: &[&str]) -> String {
    scene.aggregator.take().expect("it runs").kill();
    let state = scene.path("aggregator/state");
    fs::remove_dir_all(&state).expect("rm -rf");
    fs::remove_file(state.with_extension("key")).expect("the master key lay beside it");
    let (config, from) = (scene.config(), scene.path("backups"));
    let (escrow, key) = (scene.path("escrow"), scene.path("recovery/recovery.key"));
    let restore = ["aggregator", "backup", "restore", "--config", text(&config), "--from", text(&from)];
    let keys = ["--escrow", text(&escrow), "--recovery-key", text(&key)];
    let (code, out, err) = starling(&[&restore[..], &keys, more].concat());
    assert_eq!(code, Some(0), "{out}{err}");
    scene.start();
    err
}

/// The device is refused for good.
#[track_caller]
fn assert_out(scene: &Scene, name: &str, reason: Refusal) {
    let mut client = scene.run(name);
    client.wait_stderr("why it is refused", PATIENCE, |line| line.contains(reason.text()).then_some(()));
}

#[test]
fn who_was_thrown_out_stays_out_when_the_disk_is_lost() {
    let mut scene = Scene::new(BACKUPS);
    let recovery = scene.path("recovery");
    assert_eq!(starling(&["aggregator", "key", "recovery-init", "--out", text(&recovery)]).0, Some(0));
    ["one", "two", "three"].iter().for_each(|name| scene.enrol(name, 0, 1));
    // With its next start the daemon finds the recovery key, and backs itself up.
    scene.stop();
    scene.start();
    until("the regular backup", PATIENCE, || (made(&scene) == 1).then_some(()));
    let regular = backups(&scene);
    assert_eq!(regular.len(), 1);
    scene.enrol("late", 0, 1);
    let late = id(&scene.device("late").expect("listed"));
    say(&scene, "revoke", "one");
    say(&scene, "suspend", "two");
    say(&scene, "revoke", "late");
    // What an auditor takes home now and then.
    scene.audit_log();
    let export = scene.path("taken-home.jsonl");
    fs::copy(scene.path("log.jsonl"), &export).expect("copied");
    assert_eq!(backups(&scene).len(), 2, "decisions share a place: the regular one is still there");

    let hint = lose_and_restore(&mut scene, &[]);
    assert!(hint.contains("device revoke --from-audit"), "{hint}");
    let states = || ["one", "two", "three", "late"].map(|name| state_of(&scene, name).unwrap_or_default());
    assert_eq!(states(), ["revoked", "suspended", "active", "revoked"]);
    assert_out(&scene, "one", Refusal::Revoked);
    assert_out(&scene, "late", Refusal::Revoked);

    // The newest backup is lost as well: the one from before knows nothing of it, and says what to do.
    let newest = backups(&scene).pop().expect("there are some");
    assert_ne!(newest, regular[0]);
    let hint = lose_and_restore(&mut scene, &["--id", &regular[0]]);
    assert!(hint.contains("device revoke --from-audit"), "{hint}");
    assert_eq!(state_of(&scene, "one").as_deref(), Some("active"));
    assert_eq!(state_of(&scene, "late"), None, "it came after that backup");

    let config = scene.config();
    let again = |export: &std::path::Path| {
        starling(&["aggregator", "device", "revoke", "--from-audit", text(export), "--config", text(&config)])
    };
    let changed = scene.path("changed.jsonl");
    let words = fs::read_to_string(&export).expect("read").replace("device-suspended", "device-resumed");
    fs::write(&changed, words).expect("written");
    let (code, _, err) = again(&changed);
    assert!(code == Some(1) && err.contains("nothing was done"), "{err}");
    let (code, out, err) = again(&export);
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(out.lines().count(), 3, "{out}");
    for name in ["one", "two"] {
        assert_eq!(state_of(&scene, name), Some(if name == "one" { "revoked" } else { "suspended" }.to_owned()));
    }
    let listed = scene.ask(&["device", "list"]);
    let unknown = listed.as_array().expect("lines").iter().find(|line| line["device"] == late.as_str());
    assert_eq!(unknown.expect("it is known as thrown out")["state"], "revoked");
    assert_eq!(state_of(&scene, "three").as_deref(), Some("active"));
    assert_out(&scene, "late", Refusal::Revoked);
    let (code, out, _) = again(&export);
    assert_eq!((code, out.as_str()), (Some(0), ""), "given once, there is nothing left to give");
}
