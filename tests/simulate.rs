//! `starling simulate` as a person runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

fn starling(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_starling")).args(arguments).output().expect("the program starts")
}

/// The bytes of the JSON of a short simulation of the demo's task.
fn simulate(extra: &[&str]) -> Vec<u8> {
    let task = example("digits.toml");
    let mut arguments = vec!["simulate", task.to_str().expect("a printable path")];
    arguments.extend(["--set", "federation.rounds=2", "--set", "federation.evaluate_every=1"]);
    arguments.extend(extra);
    arguments.push("--json");
    let output = starling(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn inv11_the_same_seed_gives_the_same_bytes_for_any_number_of_threads() {
    let one = simulate(&["--seed", "7", "--threads", "1"]);
    assert_eq!(one, simulate(&["--seed", "7", "--threads", "1"]), "the same twice");
    assert_eq!(one, simulate(&["--seed", "7", "--threads", "2"]), "with two threads");
    let other = simulate(&["--seed", "8", "--threads", "2"]);
    let digest = |json: &[u8]| serde_json::from_slice::<Value>(json).expect("JSON")["model_digest"].clone();
    assert_ne!(digest(&one), digest(&other), "another seed is another run");
}

#[test]
fn the_json_holds_the_contracts_fields() {
    let json: Value = serde_json::from_slice(&simulate(&["--set", "federation.target=0.2"])).expect("JSON");
    let round = &json["rounds"][0];
    for key in ["round", "cohort", "test_accuracy", "test_loss", "bytes_up", "bytes_down", "heldout_accuracy"] {
        assert!(round[key].is_number(), "{key} in {round}");
    }
    assert!(round.get("epsilon").is_some_and(Value::is_null), "no privacy is spent: {round}");
    assert_eq!(json["rounds_to_target"], 1);
    assert_eq!(json["rounds"].as_array().map(Vec::len), Some(1), "the run stops at its target");
    assert_eq!(json["final_accuracy"], round["test_accuracy"]);
}

#[test]
fn over_selection_folds_as_many_as_asked_for_and_stays_reproducible() {
    let extra = ["--set", "federation.fraction=0.5", "--set", "federation.over_selection=1.5"];
    let first = simulate(&extra);
    assert_eq!(first, simulate(&extra));
    let json: Value = serde_json::from_slice(&first).expect("JSON");
    assert_eq!((&json["rounds"][0]["cohort"], &json["rounds"][0]["contributors"]), (&6.into(), &4.into()));
}

#[test]
fn a_private_run_says_what_it_has_spent_and_stops_before_its_budget_is_gone() {
    let dp = "privacy.dp={ mode = \"central\", clip = 0.3, noise_multiplier = 4.0, delta = 1e-4, epsilon_max = 0.8 }";
    let extra = ["federation.participation=poisson", "federation.fraction=0.5", "federation.evaluate_every=0"];
    let extra = extra.into_iter().chain(["federation.rounds=50", "privacy.weights=uniform", dp]);
    let extra: Vec<&str> = extra.flat_map(|set| ["--set", set]).chain(["--seed", "3"]).collect();
    let first = simulate(&extra);
    assert_eq!(first, simulate(&extra), "noise and coins follow from the seed");
    let json: Value = serde_json::from_slice(&first).expect("JSON");
    let spent: Vec<f64> =
        json["rounds"].as_array().expect("rounds").iter().map(|round| round["epsilon"].as_f64().expect("ε")).collect();
    assert!(spent.windows(2).all(|pair| pair[0] < pair[1]) && spent.len() > 1, "{spent:?}");
    assert!(spent[spent.len() - 1] <= 0.8, "{spent:?}");
    let privacy = &json["privacy"];
    assert_eq!((&privacy["simulated"], &privacy["unit"]), (&true.into(), &"device".into()));
    assert_eq!(privacy["stopped_after"], spent.len());
    assert!(["neighbours", "sampling", "adversary"].iter().all(|key| privacy[key].is_string()), "{privacy}");
}

#[test]
fn noise_in_shares_goes_through_secure_sums_and_is_charged_without_amplification() {
    let run = |noise_multiplier: &str| {
        let dp = format!(
            "privacy.dp={{ mode = \"distributed\", clip = 0.5, noise_multiplier = {noise_multiplier}, delta = 1e-3 }}"
        );
        let sets = ["federation.evaluate_every=0", "privacy.secure_aggregation=true", "privacy.weights=uniform", &dp];
        let extra: Vec<&str> =
            sets.into_iter().chain(["privacy.cohort_min=5"]).flat_map(|set| ["--set", set]).collect();
        serde_json::from_slice::<Value>(&simulate(&extra)).expect("JSON")
    };
    let noisy = run("4.0");
    assert_eq!(noisy, run("4.0"), "a simulation's noise follows from the seed");
    assert_ne!(noisy["model_digest"], run("0.0")["model_digest"]);
    // Two rounds at z = 4 have ρ = 2 / 32: by the closed form of concentrated privacy, √(4ρ ln(1/δ)) + ρ = 1.38 at most.
    let epsilon = noisy["rounds"][1]["epsilon"].as_f64().expect("ε");
    assert!((1.0..1.38).contains(&epsilon), "{epsilon}");
    assert!(noisy["rounds"][0]["train_loss"].is_null(), "devices say nothing of it");
    assert!(noisy["privacy"]["adversary"].as_str().is_some_and(|words| words.contains("the aggregator among them")));
}

#[test]
fn under_noise_a_sum_says_the_mean_figures_with_noise_of_their_own() {
    let dp = "privacy.dp={ mode = \"distributed\", clip = 0.5, noise_multiplier = 0.2, delta = 1e-3, evaluation_noise = 0.2, loss_noise = 0.2 }";
    let sets = ["privacy.secure_aggregation=true", "privacy.weights=uniform", "privacy.cohort_min=5", dp];
    let extra: Vec<&str> = sets.into_iter().flat_map(|set| ["--set", set]).collect();
    let json: Value = serde_json::from_slice(&simulate(&extra)).expect("JSON");
    let round = &json["rounds"][0];
    assert!(round["heldout_worst_tenth"].is_null(), "{round}");
    // A fifth of a device, of ten or so, is 0.4 of 16 nats.
    let [said, tested] = ["heldout_loss", "test_loss"].map(|key| round[key].as_f64().expect("a loss"));
    assert!((said - tested).abs() < 2.0, "{round}");
    // And two points. Ten points are what hold-outs and the test set may differ by.
    let accuracy = round["heldout_accuracy"].as_f64().expect("an accuracy");
    assert!((accuracy - round["test_accuracy"].as_f64().expect("tested")).abs() < 0.25, "{round}");
    assert!(json["rounds"][1]["heldout_accuracy"].is_null(), "nobody has judged the last version: {json}");
}

#[test]
fn devices_of_secure_sums_say_inside_them_how_a_version_does() {
    let sets = ["privacy.secure_aggregation=true", "privacy.clip=2.0", "update.weight_max=500", "federation.rounds=3"];
    let sets = sets.into_iter().chain(["federation.evaluate_every=2"]);
    let extra: Vec<&str> = sets.flat_map(|set| ["--set", set]).collect();
    let json: Value = serde_json::from_slice(&simulate(&extra)).expect("JSON");
    let told: Vec<bool> = (0..3).map(|round| json["rounds"][round]["heldout_loss"].is_number()).collect();
    assert_eq!(told, [false, true, false], "the devices of round 3 spoke of version 2: {json}");
    let round = &json["rounds"][1];
    let accuracy = round["heldout_accuracy"].as_f64().expect("an accuracy");
    assert!((0.0..=1.0).contains(&accuracy) && round["heldout_worst_tenth"].is_null(), "{round}");
    // As the test set sees the same version, of the same rows' kind: ten points are four standard errors of 380 rows.
    assert!((accuracy - round["test_accuracy"].as_f64().expect("tested")).abs() < 0.25, "{round}");
}

#[test]
fn moments_under_noise_are_charged_for_one_round_and_off_by_what_the_noise_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let found = |noise_multiplier: &str| {
        let out = folder.path().join("moments.safetensors").to_str().expect("a printable path").to_owned();
        let dp = format!(
            "privacy.dp={{ mode = \"central\", clip = 0.5, noise_multiplier = {noise_multiplier}, delta = 1e-3 }}"
        );
        let sets = ["federation.goal=moments", "data.range={ low = 0, high = 16 }", "privacy.weights=uniform", &dp];
        let extra: Vec<&str> = sets.into_iter().flat_map(|set| ["--set", set]).chain(["--out", &out]).collect();
        let run: Value = serde_json::from_slice(&simulate(&extra)).expect("JSON");
        assert_eq!(run["rounds"].as_array().map(Vec::len), Some(1), "{run}");
        assert!(run["rounds"][0]["test_accuracy"].is_null(), "moments classify nothing: {run}");
        let said = starling(&["model", "moments", &out, "--json"]);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let said: Value = serde_json::from_slice(&said.stdout).expect("JSON");
        let mean: Vec<f64> = said["standardise"]["mean"]
            .as_array()
            .expect("means")
            .iter()
            .map(|mean| mean.as_f64().expect("a mean"))
            .collect();
        (run["rounds"][0]["epsilon"].as_f64(), mean)
    };
    let ((none, exact), (spent, noisy)) = (found("0.0"), found("0.1"));
    assert!(none.is_none() && spent.is_some_and(|spent| spent > 10.0), "{none:?} {spent:?}");
    // z · √(2 · 64) / 8 of half the interval, which is 8; over 64 features a deviation is known to 9 %.
    let expected = 0.1 * 128f64.sqrt() / 8.0 * 8.0;
    let off = (noisy.iter().zip(&exact).map(|(noisy, exact)| (noisy - exact).powi(2)).sum::<f64>() / 64.0).sqrt();
    assert!((off / expected - 1.0).abs() < 0.3, "{off}, expected {expected}");
}

#[test]
fn an_override_that_no_task_has_is_named() {
    let task = example("digits.toml");
    let output = starling(&["simulate", task.to_str().expect("a printable path"), "--set", "train.learning_rate=1"]);
    assert_eq!(output.status.code(), Some(2), "a wrong task is a wrong use");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("learning_rate") && stderr.contains("digits.toml"), "{stderr}");
}

#[test]
fn pooled_training_makes_as_many_passes_as_the_federation() {
    let task = example("digits.toml");
    let task = task.to_str().expect("a printable path");
    let output = starling(&["train", task, "--set", "federation.rounds=2", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let epochs = json["epochs"].as_array().expect("a list");
    assert_eq!(epochs.len(), 2);
    assert!(epochs[1]["test_accuracy"].as_f64().is_some_and(|accuracy| accuracy > 0.8), "{json}");
}

#[test]
fn noise_on_examples_is_told_with_all_that_its_figure_means_and_ends_a_device_at_its_budget() {
    // One device with all 3,823 digits: 39 steps an epoch, each drawing 100 of them as expected.
    let settings = [
        "train.dp_sgd={ clip = 1.0, noise_multiplier = 1.0, delta = 1e-5, epsilon_max = 2.0 }",
        "train.batch=100",
        "train.lr=0.5",
        "model.layers=[\"flatten\", { linear = { out = 10 } }]",
        "federation.devices=1",
        "federation.partition=iid",
        "federation.holdout=0",
        "federation.evaluate_every=0",
        "federation.rounds=400",
    ];
    let extra: Vec<&str> = settings.iter().flat_map(|setting| ["--set", *setting]).collect();
    let bytes = simulate(&extra);
    assert_eq!(bytes, simulate(&[&extra[..], &["--threads", "2"]].concat()), "inv 11: noise and coins of the seed");
    let json: Value = serde_json::from_slice(&bytes).expect("JSON");
    let rounds = json["rounds"].as_array().expect("rounds");
    let spent: Vec<f64> = rounds.iter().map(|round| round["example_epsilon"].as_f64().expect("a figure")).collect();
    let last = spent[spent.len() - 1];
    assert!(spent.len() > 1 && spent.len() < 400 && spent.is_sorted() && last <= 2.0, "{spent:?}");
    let told = &json["example_privacy"];
    assert_eq!((&told["unit"], &told["simulated"]), (&"example of one device".into(), &true.into()), "{told:#}");
    assert_eq!((&told["devices_exhausted"], &told["steps_max"]), (&1.into(), &(39 * spent.len()).into()), "{told:#}");
    for word in ["neighbours", "sampling", "adversary"] {
        assert!(told[word].as_str().is_some_and(|text| !text.is_empty()), "{told:#}");
    }
    assert!(rounds.iter().all(|round| round["train_loss"].is_null()), "the loss of examples stays at home");
    assert!(json["final_accuracy"].as_f64().is_some_and(|accuracy| accuracy > 0.5), "{}", json["final_accuracy"]);
    // By hand: all steps at once, and one round more, which the device did not take part in.
    let by_hand = |rounds: usize| {
        let (rate, steps) = ((100.0f64 / 3823.0).to_string(), (39 * rounds).to_string());
        let settings = ["--noise-multiplier", "1", "--delta", "1e-5", "--unit", "example", "--json"];
        let output =
            starling(&[&["privacy", "epsilon", "--sampling-rate", &rate, "--steps", &steps], &settings[..]].concat());
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        answer["epsilon"].as_f64().expect("a figure")
    };
    assert_eq!(by_hand(spent.len()), last);
    assert!(by_hand(spent.len() + 1) > 2.0);
}
