//! Commands that start processes of their own: what they report, and that nothing stays behind.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn starling() -> Command {
    Command::new(env!("CARGO_BIN_EXE_starling"))
}

fn json(arguments: &[&str]) -> Value {
    let output = starling().args(arguments).output().expect("the program starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON on stdout, and nothing else")
}

fn assert_positive(json: &Value, keys: &[&str]) {
    for key in keys {
        assert!(json[key].as_f64().is_some_and(|value| value > 0.0), "{key} in {json}");
    }
}

#[test]
fn the_demo_reports_the_contracts_fields() {
    let json = json(&["demo", "--devices", "2", "--rounds", "2", "--json"]);
    assert_eq!((&json["devices"], &json["rounds"]), (&2.into(), &2.into()));
    let figures = ["test_accuracy", "pooled_accuracy", "wall_s", "round_s_median"];
    let costs =
        ["bytes_up_per_device_round", "bytes_down_per_device_round", "rss_client_mb_max", "rss_aggregator_mb_max"];
    assert_positive(&json, &figures);
    assert_positive(&json, &costs);
}

#[test]
fn the_runtimes_bench_reports_the_contracts_fields() {
    let sizes = ["--devices", "2", "--params", "100000", "--rounds", "3", "--path", "internet"];
    let arguments: Vec<&str> = ["bench", "runtime", "--json"].into_iter().chain(sizes).collect();
    let json = json(&arguments);
    let times = ["round_s_median", "updates_per_s", "nothing_to_first_round_s"];
    let memory = ["peak_rss_server_mb", "peak_rss_client_mb", "idle_rss_client_mb"];
    assert_positive(&json, &times);
    assert_positive(&json, &memory);
    // These may be below the 10 ms in which the kernel counts.
    assert!(json["server_cpu_s_per_round"].is_number() && json["client_cpu_s_per_client_round"].is_number(), "{json}");
    assert_eq!((&json["params"], &json["updates"]), (&100_000.into(), &6.into()));
    for key in ["bytes_up_per_client_round", "bytes_down_per_client_round"] {
        let bytes = json[key].as_f64().expect("a number");
        assert!((400_000.0..401_000.0).contains(&bytes), "{key}: {bytes}");
    }
}

/// Processes that name `folder` in their arguments.
fn children(folder: &std::path::Path) -> usize {
    let needle = folder.as_os_str().as_encoded_bytes();
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    let names_it = |line: Vec<u8>| line.windows(needle.len()).any(|window| window == needle);
    processes.filter(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(names_it)).count()
}

/// Starts a demo, waits for its processes, sends `signal` and waits until none of them is left.
fn end_with(signal: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut demo = starling();
    demo.args(["demo", "--devices", "3"]).env("TMPDIR", folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut demo = demo.spawn().expect("the program starts");
    wait_until(|| children(folder.path()) == 4, "an aggregator and three devices");
    let sent = Command::new("kill").args([signal, &demo.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    assert!(!demo.wait().expect("the demo ends").success());
    wait_until(|| children(folder.path()) == 0, "nobody is left");
    folder
}

fn wait_until(holds: impl Fn() -> bool, what: &str) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_interrupted_demo_leaves_neither_processes_nor_files() {
    let folder = end_with("-INT");
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0);
}

#[test]
fn a_killed_demo_leaves_no_processes() {
    end_with("-KILL");
}
