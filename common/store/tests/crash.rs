//! kill -9 of a process that commits: what it had acknowledged is there, and a batch is there whole or not at all.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use starling_store::{Batch, KeySource, Store};

/// Set in the process that is going to be killed: its state folder.
const CHILD: &str = "STARLING_STORE_CRASH_CHILD";
const TEST: &str = "inv5_kill_nine_loses_no_acknowledged_commit_and_tears_no_batch";

#[test]
fn inv5_kill_nine_loses_no_acknowledged_commit_and_tears_no_batch() {
    if let Ok(folder) = env::var(CHILD) {
        commit_for_ever(Path::new(&folder));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let state = folder.path().join("state");
    let mut epoch_last = 0;
    let mut number_last = 0;
    for acknowledged in [1, 3, 7, 12, 20] {
        let number = run_and_kill(&state, acknowledged);
        let store = Store::open(&state, &KeySource::beside(&state)).expect("the store opens after kill -9");
        let first = store.get::<u64>("t", "first").expect("read").expect("there");
        let second = store.get::<u64>("u", "second").expect("read").expect("there");
        assert_eq!(first, second, "a batch is atomic over tables");
        assert!(
            first >= number && first > number_last,
            "{first} is there, {number} was acknowledged, {number_last} before"
        );
        let epoch = store.next_epoch().expect("an epoch");
        assert!(epoch >= epoch_last + 2, "the killed process had one too");
        assert!(store.blobs().expect("listed").is_empty());
        (epoch_last, number_last) = (epoch, first);
    }
}

/// Runs this test binary as the process that commits, kills it after so many acknowledgements and returns the last one.
fn run_and_kill(state: &Path, acknowledged: usize) -> u64 {
    let mut child = Command::new(env::current_exe().expect("the path of this test"))
        .args(["--exact", TEST, "--nocapture"])
        .env(CHILD, state)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test binary runs");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let numbers = output.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix("committed ")?.parse().ok());
    let last = numbers.take(acknowledged).last().expect("acknowledged at least one");
    child.kill().expect("killed");
    child.wait().expect("reaped");
    last
}

fn commit_for_ever(state: &Path) -> ! {
    let store = Store::open(state, &KeySource::beside(state)).expect("the store opens");
    store.next_epoch().expect("an epoch");
    let mut number = store.get::<u64>("t", "first").expect("read").unwrap_or(0);
    println!();
    loop {
        number += 1;
        let mut batch = Batch::new();
        batch.put("t", "first", &number).expect("a record");
        batch.put("u", "second", &number).expect("a record");
        store.commit(batch).expect("committed");
        println!("committed {number}");
        std::io::stdout().flush().expect("flushed");
    }
}
