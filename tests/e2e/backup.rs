//! A disk is lost while a run is under way: the backup and the recovery key bring the run back, at most one round behind.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use starling_testkit::fleet::{PATIENCE, rounds};
use starling_testkit::process::run;

use crate::world;

/// From the lost disk to a state that the daemon starts with.
const RECOVERY_TIME: Duration = Duration::from_secs(60);

fn starling(arguments: &[&str]) -> (i32, String) {
    let (status, out, err) = run("starling", Path::new(env!("CARGO_BIN_EXE_starling")), arguments, PATIENCE);
    (status.code().expect("it ended by itself"), out + &err)
}

#[test]
fn inv5_a_run_comes_back_from_a_lost_disk_with_the_recovery_key_and_not_without_it() {
    let mut fleet = world::fleet(31, 2);
    fleet.start_aggregator();
    (0..2).for_each(|index| fleet.start_device(index));
    let run = fleet.start_run(&world::task(2, 100_000, 8, "quorum = 1.0\n"), 31);
    fleet.wait_rounds(run, 3);

    let path = |name: &str| fleet.folder().join(name).to_str().expect("a temporary path is text").to_owned();
    let config = fleet.aggregator_config().to_str().expect("text").to_owned();
    let (backups, escrow, recovery) = (path("backups"), path("escrow"), path("recovery"));
    let (secret, public) = (format!("{recovery}/recovery.key"), format!("{recovery}/recovery.pub"));
    let ok = |arguments: &[&str]| {
        let (code, said) = starling(arguments);
        assert_eq!(code, 0, "{arguments:?}\n{said}");
        said
    };
    ok(&["aggregator", "key", "recovery-init", "--out", &recovery]);
    ok(&["aggregator", "key", "escrow", "--to", &public, "--out", &escrow, "--config", &config]);
    ok(&["aggregator", "backup", "create", "--to", &backups, "--config", &config]);
    let saved = rounds(&fleet.wait_rounds(run, 3)).len();
    ok(&["aggregator", "backup", "verify", "--from", &backups, "--config", &config]);

    fleet.aggregator().kill();
    let state = fleet.aggregator_config().with_file_name("state");
    let began = Instant::now();
    fs::remove_dir_all(&state).expect("rm -rf");
    fs::remove_file(state.with_extension("key")).expect("the master key lay beside it");
    let restore = ["aggregator", "backup", "restore", "--from", &backups, "--config", &config];
    let (code, said) = starling(&restore);
    assert!(code != 0 && said.contains("a backup holds no keys"), "{said}");
    ok(&[&restore[..], &["--escrow", &escrow, "--recovery-key", &secret]].concat());
    fleet.start_aggregator();
    assert!(began.elapsed() < RECOVERY_TIME, "{:?}", began.elapsed());

    let status = fleet.wait_rounds(run, saved + 1);
    world::assert_rounds_sound(&status);
    assert!(rounds(&status).len() > saved, "the next round commits");
}
