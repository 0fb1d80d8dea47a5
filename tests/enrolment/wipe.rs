//! A device that is given away: its client is stopped, and what it knew is gone.

use std::fs;

use starling_testkit::fleet::PATIENCE;
use starling_testkit::until;

use crate::scene::{Scene, starling, text};

#[test]
fn a_wiped_device_has_no_key_no_state_and_backups_that_open_for_nobody() {
    let scene = Scene::new("");
    scene.enrol("pump", 0, 1);
    let folder = scene.path("pump");
    let (config, backups) = (folder.join("starling-client.toml"), scene.path("pump-backups"));
    let written = fs::read_to_string(&config).expect("join has written it");
    fs::write(&config, format!("{written}\n[backup]\nto = {:?}\nevery_s = 1\n", text(&backups))).expect("written");
    let mut client = scene.run("pump");
    scene.start_run(1, 1_000_000, "");
    scene.wait_rounds(2);
    // Its backups are made while it runs.
    let backup =
        |verb: &str| starling(&["client", "backup", verb, "--from", text(&backups), "--config", text(&config)]);
    until("two backups", PATIENCE, || {
        let (code, out, _) = starling(&["client", "backup", "list", "--from", text(&backups)]);
        (code == Some(0) && out.lines().count() >= 2).then_some(())
    });

    let wipe = ["client", "wipe", "--config", text(&config)];
    let (code, _, err) = starling(&wipe);
    assert!(code == Some(2) && err.contains("add --yes"), "{err}");
    assert!(client.exited().is_none() && folder.join("key.pem").exists());
    let (code, out, err) = starling(&[&wipe[..], &["--yes"]].concat());
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(out.contains("stopped the client") && out.contains("destroyed the master key"), "{out}");
    assert_eq!(client.wait_exit(PATIENCE).code(), Some(0), "it was asked, not killed: {}", client.transcript());
    let mut left: Vec<_> =
        fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("an entry").file_name()).collect();
    left.sort();
    assert_eq!(left, ["ca.pem", "starling-client.toml"], "neither key, certificate nor state");

    let (code, _, err) = backup("restore");
    assert!(code != Some(0) && err.contains("a backup holds no keys"), "{err}");
    let (code, _, err) = starling(&["client", "run", "--config", text(&config)]);
    assert_eq!(code, Some(2), "it is nobody: {err}");
    let (code, out, _) = starling(&[&wipe[..], &["--yes"]].concat());
    assert!(code == Some(0) && out.contains("nothing left to destroy"), "{out}");
}
