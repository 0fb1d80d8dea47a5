//! `starling privacy` as a person runs it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn starling(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_starling")).args(arguments).output().expect("the program starts")
}

/// The example with DP-FedAvg: 1,000 devices, q = 0.1, 100 rounds, δ = 1e-4.
fn task() -> String {
    let task = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fashion-dp-fedavg.toml");
    task.to_str().expect("a printable path").to_owned()
}

/// `starling privacy plan` of it.
fn plan(extra: &[&str]) -> Output {
    let task = task();
    let verb = ["privacy", "plan", &task];
    let clip = ["--set", "privacy.dp.clip=0.5", "--set", "privacy.dp.noise_multiplier=4"];
    starling(&[&verb[..], &clip, extra].concat())
}

fn planned(extra: &[&str]) -> Value {
    let output = plan(&[extra, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn figures(values: &Value, key: &str) -> Vec<f64> {
    let values = values.as_array().expect("a list").iter();
    values.map(|value| value[key].as_f64().expect("a figure")).collect()
}

fn close(got: &Value, expected: f64) -> bool {
    (got.as_f64().expect("a figure") / expected - 1.0).abs() < 2e-3
}

#[test]
fn a_plan_says_what_noise_costs_and_how_long_a_budget_lasts() {
    // dp-accounting 0.6.0, PLD: z = 4 spends 0.8154, z = 2 spends 1.9659.
    let plan = planned(&["--epsilon", "1.966"]);
    assert!(close(&plan["noise_multiplier_for_epsilon"], 2.0), "{plan:#}");
    let rows = plan["noise"].as_array().expect("rows");
    let noise = figures(&plan["noise"], "noise_multiplier");
    assert!(noise.len() == 6 && noise.is_sorted() && noise[0] == 1.0 && noise[5] == 16.0, "{noise:?}");
    let spent: Vec<Vec<f64>> = rows.iter().map(|row| figures(&row["spent"], "epsilon")).collect();
    assert!(spent.iter().all(|row| row.is_sorted() && row.len() == 4), "more rounds spend more: {spent:?}");
    assert!(spent.windows(2).all(|pair| pair[0][3] > pair[1][3]), "more noise spends less: {spent:?}");
    let own: Vec<&Value> = rows.iter().filter(|row| row["is_tasks"] == true).collect();
    assert_eq!((own.len(), &own[0]["spent"][3]["rounds"]), (1, &100.into()));
    assert!(close(&own[0]["spent"][3]["epsilon"], 0.8154), "{:#}", own[0]);
    for row in rows {
        // Where all rounds spend less than the budget it lasts for more of them.
        let lasts = row["rounds_within"].as_u64().expect("rounds");
        let all = row["spent"][3]["epsilon"].as_f64().expect("a figure");
        assert_eq!(lasts >= 100, all <= 1.966, "{row:#}");
    }
}

#[test]
fn a_plan_says_how_far_the_noise_moves_the_mean() {
    // z · clip / (q · N) = 4 · 0.5 / 100; over 25,450 coordinates, in clips: 4 · √25450 / 100.
    let own = |plan: &Value| {
        let rows = plan["noise"].as_array().expect("rows");
        rows.iter().find(|row| row["is_tasks"] == true).expect("the task's own").clone()
    };
    let central = own(&planned(&[]));
    assert!(close(&central["deviation_of_mean"], 0.02) && close(&central["noise_per_clip"], 6.381), "{central:#}");
    assert!(central["rounds_within"].is_null(), "no budget was named");
    // Noise of its own on each of 100 updates.
    let local = own(&planned(&["--set", "privacy.dp.mode=local", "--set", "federation.participation=any"]));
    assert!(close(&local["deviation_of_mean"], 0.2), "{local:#}");
    // In shares of which those of 80 honest devices are enough: the shares of 100 are √(100 / 80) as much.
    let secure = "privacy={ secure_aggregation = true, weights = \"uniform\", cohort_min = 90, corrupt = 0.1, dp = { mode = \"distributed\", \
                  clip = 0.5, noise_multiplier = 4.0, delta = 1e-4 } }";
    let shares = ["--set", "federation.participation=any", "--set", "update.codec=q4", "--set", secure];
    let output = starling(&[&["privacy", "plan", &task()][..], &shares, &["--json"]].concat());
    let shares = own(&serde_json::from_slice(&output.stdout).expect("JSON"));
    assert!(close(&shares["deviation_of_mean"], 0.02236), "{shares:#}");
}

#[test]
fn every_figure_comes_with_what_it_means() {
    let tree = "privacy.dp.mechanism={ tree = { participations_max = 10, separation_min = 10 } }";
    for extra in [&[][..], &["--set", "federation.participation=any", "--set", tree]] {
        let plan = planned(extra);
        let said = String::from_utf8(self::plan(extra).stdout).expect("text");
        for key in ["unit", "neighbours", "sampling", "adversary"] {
            let meaning = plan[key].as_str().unwrap_or_else(|| panic!("{key} in {plan:#}"));
            assert!(said.contains(meaning), "{key}: {said}");
        }
        assert!(said.contains("delta 1e-4") && said.contains("√t") == extra.is_empty(), "{said}");
    }
}

#[test]
fn a_plan_of_no_noise_names_the_key() {
    let task = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits.toml");
    let output = starling(&["privacy", "plan", task.to_str().expect("a printable path")]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("privacy.dp = nothing"), "{said}");
}
