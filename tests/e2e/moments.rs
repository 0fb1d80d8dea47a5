//! Means and deviations of features that lie on many devices: found under masks, and scaled by in the next run.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use starling_spec::{DataSection, Standardisation, TaskKind};
use starling_testkit::Fleet;
use starling_testkit::fleet::number;

use crate::world;

const SEED: u64 = 41;
const DEVICES: u32 = 5;

fn starling(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_starling")).args(arguments).output().expect("the program starts")
}

#[track_caller]
fn succeed(arguments: &[&str]) -> String {
    let output = starling(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The digits in numbers from 0 to 16, split like the devices' where they are simulated.
fn task(more: &str) -> String {
    let task = world::task(DEVICES, 3, 1, &format!("partition = \"shards:2\"\nquorum = 1.0\n{more}"));
    task.replace("scale = \"unit\"", "range = { low = 0, high = 16 }\n        scale = \"standardise\"")
}

/// The moments of the pooled rows, found by the definition.
fn pooled() -> (Vec<f64>, Vec<f64>) {
    let section: DataSection = toml::from_str("format = \"csv\"\ntrain = \"embedded:optdigits\"").expect("a section");
    let data = starling_data::load(&section, TaskKind::Classification, &[64], Path::new(""), 1).expect("data").train;
    let rows: Vec<u32> = (0..u32::try_from(data.len()).expect("few")).collect();
    let mut features = Vec::new();
    data.features_into(&rows, &mut features);
    let column = |index: usize| features.iter().skip(index).step_by(64).map(|value| f64::from(*value));
    let mean: Vec<f64> = (0..64).map(|index| column(index).sum::<f64>() / rows.len() as f64).collect();
    let squares = |index: usize| column(index).map(|value| (value - mean[index]).powi(2)).sum::<f64>();
    let deviation = (0..64).map(|index| (squares(index) / rows.len() as f64).sqrt()).collect();
    (mean, deviation)
}

/// Runs `text` to its end and exports what it has made.
fn export(fleet: &Fleet, text: &str, name: &str) -> String {
    let run = fleet.start_run(text, SEED);
    let status = fleet.wait_status(run, "the end of the run", |status| {
        assert_ne!(status["state"], "failed", "{status:#}");
        (status["state"] == "finished").then(|| status.clone())
    });
    let last = status["rounds"].as_array().and_then(|rounds| rounds.last()).expect("a round");
    assert_eq!(number(last, "contributors"), u64::from(DEVICES), "{status:#}");
    let out = fleet.folder().join(name).to_str().expect("a printable path").to_owned();
    let config = fleet.aggregator_config().to_str().expect("a printable path").to_owned();
    succeed(&["aggregator", "run", "export", &run.to_string(), "--config", &config, "--out", &out]);
    out
}

fn simulated(fleet: &Fleet, text: &str) -> String {
    let path = |name: &str| fleet.folder().join(name).to_str().expect("a printable path").to_owned();
    let (file, out) = (path("simulated.toml"), path("simulated.safetensors"));
    std::fs::write(&file, text).expect("written");
    succeed(&["simulate", &file, "--seed", &SEED.to_string(), "--out", &out]);
    out
}

#[test]
fn devices_scale_by_what_they_have_found_together_under_masks() {
    // Each holds two of the ten digits, so that none has the others' means.
    let mut fleet = world::fleet_with(SEED, DEVICES, "shards:2");
    fleet.start_aggregator();
    (0..DEVICES).for_each(|index| fleet.start_device(index));
    let secure = "
        [update]
        codec = \"q4\"
        weight_max = 1000
        [privacy]
        secure_aggregation = true
        clip = 0.5
        subset = 0.1";
    // Two shards of ten are at most 766 rows: each counts as many as it has.
    let found = export(&fleet, &task(&format!("goal = \"moments\"\n{secure}")), "moments.safetensors");
    let json: Value = serde_json::from_str(&succeed(&["model", "moments", &found, "--json"])).expect("JSON");
    let standardise: Standardisation = serde_json::from_value(json["standardise"].clone()).expect("a standardisation");
    let (mean, deviation) = pooled();
    for index in 0..64 {
        let (got, wanted) = (f64::from(standardise.mean.at(index)), mean[index]);
        // Random rounding of 16 bits, once a device, moves a mean by about 0.0004 and a variance by about 0.007, in the features' units.
        assert!((got - wanted).abs() < 0.01, "feature {index}: mean {got}, pooled {wanted}");
        let (got, wanted) = (f64::from(standardise.deviation.at(index)), deviation[index]);
        // What hardly ever changes is divided by half its interval.
        let is_flat = got == 8.0 && wanted.powi(2) < 0.08;
        assert!(
            is_flat || (got * got - wanted * wanted).abs() < 0.064,
            "feature {index}: deviation {got}, pooled {wanted}"
        );
    }

    // The file of both runs, and what was found at its end: devices and a simulation train alike.
    let text = format!("{}\n{}", task(""), succeed(&["model", "moments", &found]));
    let trained = export(&fleet, &text, "trained.safetensors");
    let weights = |file: &str| {
        let bytes = std::fs::read(file).expect("weights");
        let header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().expect("eight"))).expect("small");
        bytes[8 + header..].to_vec()
    };
    assert!(weights(&trained) == weights(&simulated(&fleet, &text)), "every device scales by the same");
    let own = export(&fleet, &task(""), "own.safetensors");
    assert!(weights(&trained) != weights(&own), "and without it by what it finds alone");

    // Without masks the vectors are those of a simulation, to the last bit.
    let plain = task("goal = \"moments\"");
    assert!(weights(&export(&fleet, &plain, "plain.safetensors")) == weights(&simulated(&fleet, &plain)));

    let refused = |arguments: &[&str]| {
        let output = starling(arguments);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(&["model", "moments", &trained]);
    assert!(said.contains("trained.safetensors holds weights") && said.contains("federation.goal"), "{said}");
    let said = refused(&["model", "inspect", &found]);
    assert!(said.contains("starling model moments"), "{said}");
}
