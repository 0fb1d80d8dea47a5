//! A disk is lost while a run is under way: the daemon's own backups and the recovery key bring the run back, at most one round behind. And a
//! device's state is backed up while its client runs, and comes back from that.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use starling_testkit::fleet::{PATIENCE, rounds};
use starling_testkit::process::run;

use crate::world;

/// From the lost disk to the next committed round.
const RECOVERY_TIME: Duration = Duration::from_secs(60);

fn starling(arguments: &[&str]) -> (i32, String) {
    let (status, out, err) = run("starling", Path::new(env!("CARGO_BIN_EXE_starling")), arguments, PATIENCE);
    (status.code().expect("it ended by itself"), out + &err)
}

fn ok(arguments: &[&str]) -> String {
    let (code, said) = starling(arguments);
    assert_eq!(code, 0, "{arguments:?}\n{said}");
    said
}

/// The files of all backups, without the lock.
fn files(backups: &Path) -> Vec<PathBuf> {
    let within = |folder: &str| fs::read_dir(backups.join(folder)).expect("it is there");
    let all = ["objects", "backups"].into_iter().flat_map(within);
    all.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn inv5_a_run_comes_back_from_a_lost_disk_with_the_recovery_key_and_not_without_it() {
    let mut fleet = world::fleet(31, 2);
    let folder = fleet.folder().to_owned();
    let path = |name: &str| folder.join(name).to_str().expect("a temporary path is text").to_owned();
    let (backups, escrow, recovery) = (path("backups"), path("escrow"), path("recovery"));
    let (secret, public) = (format!("{recovery}/recovery.key"), format!("{recovery}/recovery.pub"));
    ok(&["aggregator", "key", "recovery-init", "--out", &recovery]);
    fleet.aggregator_sections = format!(
        "[backup]\nto = {backups:?}\nevery_rounds = 1\nkeep = 3\n\
         [backup.escrow]\nrecovery_pub = {public:?}\nto = {escrow:?}\n"
    );
    fleet.start_aggregator();
    (0..2).for_each(|index| fleet.start_device(index));
    // Rounds of about a second: longer than a backup takes.
    let run = fleet.start_run(&world::task(2, 100_000, 60, "quorum = 1.0\n"), 31);
    fleet.wait_rounds(run, 3);
    let config = fleet.aggregator_config().to_str().expect("text").to_owned();
    let list = || ok(&["aggregator", "backup", "list", "--from", &backups]).lines().count();
    starling_testkit::until("as many backups as are kept", PATIENCE, || {
        // While one is being made the folder is locked.
        let (code, said) = starling(&["aggregator", "backup", "list", "--from", &backups]);
        (code == 0 && said.lines().count() == 3).then_some(())
    });

    let seen = rounds(&fleet.ask_surely(&serde_json::json!({ "verb": "run-status", "run": run }))).len();
    fleet.aggregator().kill();
    let began = Instant::now();
    let state = fleet.aggregator_config().with_file_name("state");
    // What verifies the audit log lies elsewhere, too. The key that signs it is in no backup.
    let (log_key, public_log_key) = (state.join("audit.key"), path("audit.pub"));
    let log_key = fs::read(log_key).expect("the log has a key");
    fs::copy(state.join("audit.pub"), &public_log_key).expect("it is public");
    for file in files(Path::new(&backups)) {
        let bytes = fs::read(&file).expect("read");
        assert!(!bytes.windows(log_key.len()).any(|part| part == log_key), "{} holds a key", file.display());
    }
    let restore = ["aggregator", "backup", "restore", "--from", &backups, "--config", &config];
    fs::remove_dir_all(&state).expect("rm -rf");
    fs::remove_file(state.with_extension("key")).expect("the master key lay beside it");
    let (code, said) = starling(&restore);
    assert!(code != 0 && said.contains("a backup holds no keys"), "{said}");
    let other = path("other");
    ok(&["aggregator", "key", "recovery-init", "--out", &other]);
    let (code, said) =
        starling(&[&restore[..], &["--escrow", &escrow, "--recovery-key", &format!("{other}/recovery.key")]].concat());
    assert!(code != 0 && said.contains("encrypted to this recovery key"), "another key opens nothing: {said}");
    ok(&[&restore[..], &["--escrow", &escrow, "--recovery-key", &secret]].concat());
    fleet.start_aggregator();
    let request = serde_json::json!({ "verb": "run-status", "run": run });
    let back = rounds(&fleet.ask_surely(&request)).len();
    let status = fleet.wait_rounds(run, back + 1);
    let took = began.elapsed();
    world::assert_rounds_sound(&status);
    // The log goes on under the key that its readers know: with the escrow copy it came back.
    assert_eq!(fs::read(state.join("audit.key")).expect("it is back"), log_key);
    let verify = ["aggregator", "audit", "verify", "--config", &config, "--key", &public_log_key];
    assert!(ok(&verify).contains("the log is whole"));
    eprintln!(
        "{} of {seen} rounds were lost; the next one was in after {:.1} s",
        seen.saturating_sub(back),
        took.as_secs_f64()
    );
    assert!(seen <= back + 1, "{seen} rounds were seen, {back} came back");
    assert!(took < RECOVERY_TIME, "{took:?}");

    // A byte of any file, at many places: it is named, and a restore takes an older backup.
    fleet.aggregator().terminate();
    fleet.aggregator().wait_exit(PATIENCE);
    assert_eq!(list(), 3);
    let verify = ["aggregator", "backup", "verify", "--from", &backups, "--config", &config];
    ok(&verify);
    for (index, file) in files(Path::new(&backups)).into_iter().enumerate() {
        let whole = fs::read(&file).expect("read");
        let mut bytes = whole.clone();
        let at = index * 977 % bytes.len();
        bytes[at] ^= 1 << (index % 8);
        fs::write(&file, bytes).expect("damaged");
        let (code, said) = starling(&verify);
        let name = file.file_name().and_then(|name| name.to_str()).expect("text");
        let named = said.lines().any(|line| line.contains("DAMAGED") && line.contains(name));
        assert!(code == 5 && named, "byte {at} of {name}: {said}");
        fs::write(&file, whole).expect("mended");
    }
    let newest = files(Path::new(&backups))
        .into_iter()
        .filter(|file| file.parent().is_some_and(|of| of.ends_with("backups")))
        .max();
    let newest = newest.expect("a manifest");
    fs::write(&newest, b"rotten").expect("damaged");
    ["records", "blobs"].iter().for_each(|name| fs::remove_dir_all(state.join(name)).expect("lost again"));
    let said = ok(&restore);
    let name = newest.file_name().and_then(|name| name.to_str()).expect("text");
    assert!(said.contains(&format!("skipped {name}")) && said.contains("restored "), "{said}");
}

#[test]
fn a_running_client_backs_itself_up_when_its_owner_asks() {
    let mut fleet = world::fleet(37, 1);
    let folder = fleet.folder().to_owned();
    let path = |name: &str| folder.join(name).to_str().expect("a temporary path is text").to_owned();
    let (backups, escrow, recovery) = (path("backups"), path("escrow"), path("recovery"));
    ok(&["client", "key", "recovery-init", "--out", &recovery]);
    fleet.start_aggregator();
    fleet.start_device(0);
    let run = fleet.start_run(&world::task(1, 1_000_000, 1, ""), 37);
    fleet.wait_rounds(run, 2);

    let (config, state) = (path("device-0/config.toml"), folder.join("device-0/state"));
    let create = ["client", "backup", "create", "--to", &backups, "--config", &config];
    let said = ok(&create);
    assert!(said.contains("backup ") && said.contains(" files"), "{said}");
    let public = format!("{recovery}/recovery.pub");
    let escrowed = ok(&["client", "key", "escrow", "--to", &public, "--out", &escrow, "--config", &config]);
    assert!(escrowed.contains("escrow copy"), "{escrowed}");
    // What cannot be done is said with its reason, and the client goes on.
    let (code, said) = starling(&["client", "backup", "create", "--to", "/proc/backups", "--config", &config]);
    assert!(code == 1 && said.contains("/proc/backups"), "{code}: {said}");
    let before = starling_testkit::fleet::rounds(&fleet.wait_rounds(run, 1)).len();
    fleet.wait_rounds(run, before + 1);

    // Stopped, it is the command itself that works; the state that was backed up then comes back with the recovery key.
    fleet.device(0).terminate();
    fleet.device(0).wait_exit(PATIENCE);
    ok(&create);
    let verify = ["client", "backup", "verify", "--from", &backups, "--config", &config];
    assert_eq!(ok(&verify).lines().filter(|line| line.contains("good  restored and read")).count(), 2);
    fs::remove_dir_all(&state).expect("rm -rf");
    fs::remove_file(state.with_extension("key")).expect("the master key lay beside it");
    let secret = format!("{recovery}/recovery.key");
    let with_keys = ["--escrow", &escrow, "--recovery-key", &secret];
    ok(&[&["client", "backup", "restore", "--from", &backups, "--config", &config], &with_keys[..]].concat());
    fleet.start_device(0);
    let before = starling_testkit::fleet::rounds(&fleet.wait_rounds(run, 1)).len();
    fleet.wait_rounds(run, before + 1);
}
