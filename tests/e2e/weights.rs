//! Weights go into a run and come out of it.

use std::path::Path;
use std::process::{Command, Output};

use starling_testkit::Fleet;
use starling_testkit::fleet::number;

use crate::world;

fn starling(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_starling")).args(arguments).output().expect("the program starts")
}

#[track_caller]
fn succeed(arguments: &[&str]) -> String {
    let output = starling(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn text(path: &Path) -> String {
    path.to_str().expect("a printable path").to_owned()
}

/// What a file of weights holds beside its header; our files of one network have their tensors in one order.
fn weights(file: &str) -> Vec<u8> {
    let bytes = std::fs::read(file).expect("weights");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight"));
    bytes[8 + usize::try_from(header).expect("small")..].to_vec()
}

/// Of the devices, their data and the runs, so that a simulation has the same.
const SEED: &str = "17";

/// `run start` and `run export` of a fleet.
struct Operator<'a> {
    fleet: &'a Fleet,
    task: String,
}

impl Operator<'_> {
    fn path(&self, name: &str) -> String {
        text(&self.fleet.folder().join(name))
    }

    fn start(&self, weights: &str) -> Output {
        let config = text(&self.fleet.aggregator_config());
        let verb = ["aggregator", "run", "start", &self.task, "--config", &config, "--seed", SEED];
        starling(&[&verb[..], &["--weights", weights, "--json"]].concat())
    }

    fn export(&self, run: u64, out: &str, extra: &[&str]) -> Output {
        let (config, run) = (text(&self.fleet.aggregator_config()), run.to_string());
        starling(&[&["aggregator", "run", "export", &run, "--config", &config, "--out", out][..], extra].concat())
    }

    fn accuracy(&self, weights: &str) -> f64 {
        let said = succeed(&["model", "evaluate", &self.task, "--model", weights, "--json"]);
        let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        said["accuracy"].as_f64().expect("an accuracy")
    }
}

#[test]
fn a_run_begins_with_given_weights_and_its_model_comes_out() {
    let mut fleet = world::fleet(17, 2);
    let task = text(&fleet.folder().join("task.toml"));
    std::fs::write(&task, world::task(2, 4, 1, "server_lr = 1.25\nserver_decay = 0.5")).expect("the task is written");
    fleet.start_aggregator();
    let operator = Operator { fleet: &fleet, task: task.clone() };
    let start = operator.path("start.safetensors");
    succeed(&["model", "init", &task, "--seed", "99", "--out", &start]);

    // Nobody is connected: version 0 stays what it is.
    let begun = operator.start(&start);
    assert!(begun.status.success(), "{}", String::from_utf8_lossy(&begun.stderr));
    let begun: serde_json::Value = serde_json::from_slice(&begun.stdout).expect("JSON");
    let run = number(&begun, "run");
    let zero = operator.path("zero.safetensors");
    let exported = operator.export(run, &zero, &["--version", "0"]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    assert!(weights(&zero) == weights(&start), "version 0 is the weights that were given");
    let refused = operator.export(run, &zero, &["--version", "7"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("the newest is version 0"), "{said}");

    // A second run begins with the same weights: what one commits takes nothing from the other.
    let other = number(&serde_json::from_slice(&operator.start(&start).stdout).expect("JSON"), "run");
    (0..2).for_each(|index| fleet.start_device(index));
    for run in [run, other] {
        fleet.wait_status(run, "the end of the run", |status| (status["state"] == "finished").then_some(()));
    }
    let operator = Operator { fleet: &fleet, task };
    let (out, other_out) = (operator.path("out.safetensors"), operator.path("other.safetensors"));
    for (run, out) in [(run, &out), (other, &other_out)] {
        let exported = operator.export(run, out, &[]);
        assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    }
    assert!(weights(&out) == weights(&other_out), "inv 11: the same task, seed and weights");
    let simulated = operator.path("simulated.safetensors");
    let simulate = ["simulate", &operator.task, "--seed", SEED, "--weights", &start, "--out", &simulated];
    succeed(&simulate);
    assert!(weights(&out) == weights(&simulated), "a simulation takes the same steps");
    succeed(&[&simulate[..], &["--set", "federation.server_decay=0"]].concat());
    assert!(weights(&out) != weights(&simulated), "the last step is a smaller one");
    let (before, after) = (operator.accuracy(&start), operator.accuracy(&out));
    assert!(after > 0.7 && before < 0.4, "it learnt: {before} {after}");
    assert!(!Path::new(&format!("{out}.part")).exists());
}

#[test]
fn weights_of_another_network_are_refused_and_the_tensor_is_named() {
    let mut fleet = world::fleet(18, 1);
    let task = text(&fleet.folder().join("task.toml"));
    std::fs::write(&task, world::task(1, 2, 1, "")).expect("the task is written");
    fleet.start_aggregator();
    let operator = Operator { fleet: &fleet, task: task.clone() };
    let wrong = operator.path("wrong.safetensors");
    let layers = "model.layers=[\"flatten\", { linear = { out = 31 } }, \"relu\", { linear = { out = 10 } }]";
    succeed(&["model", "init", &task, "--set", layers, "--out", &wrong]);
    let said = |output: Output| {
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let shape = said(operator.start(&wrong));
    assert!(shape.contains("linear") && shape.contains("31") && shape.contains("wrong.safetensors"), "{shape}");
    let garbage = operator.path("garbage.safetensors");
    std::fs::write(&garbage, [7u8; 500]).expect("written");
    let header = said(operator.start(&garbage));
    assert!(header.contains("garbage.safetensors") && !header.contains("panicked"), "{header}");
    let vast = operator.path("vast.safetensors");
    std::fs::File::create(&vast).and_then(|file| file.set_len(1 << 30)).expect("a sparse file");
    let bytes = said(operator.start(&vast));
    assert!(bytes.contains("at most"), "inv 8: refused on its length: {bytes}");
    // Nothing of them stays.
    let config = text(&fleet.aggregator_config());
    assert_eq!(succeed(&["aggregator", "run", "list", "--config", &config, "--json"]).trim(), "[]");
}
