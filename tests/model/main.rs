//! `starling model` as a person runs it, on the digits that every build carries.

mod round_trip;
mod wrong;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// A task that trains in a second: a perceptron on the embedded digits.
const TASK: &str = r#"
    name = "small-digits"
    kind = "classification"
    [data]
    format = "csv"
    train = "embedded:optdigits"
    test = "embedded:optdigits"
    label = -1
    shape = [1, 8, 8]
    scale = "unit"
    [model]
    layers = [
      "flatten", { linear = { out = 48 } }, "relu",
      { residual = { layers = [{ linear = { out = 48 } }, "relu", { linear = { out = 48 } }] } },
      { linear = { out = 10 } },
    ]
    [train]
    optimizer = "adam"
    lr = 0.003
    batch = 32
    epochs = 1
    schedule = "cosine"
    [federation]
    devices = 4
    rounds = 8
    holdout = 0.1
"#;

/// A folder with the task and its trained weights, made once for all tests here.
struct Bench {
    folder: TempDir,
    trained: Value,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("task.toml"), TASK).expect("the task is written");
        let mut bench = Bench { folder, trained: Value::Null };
        let out = bench.path("weights.safetensors");
        bench.trained = json(&["model", "train", &text(&bench.path("task.toml")), "--out", &text(&out)]);
        bench
    })
}

fn text(path: &Path) -> String {
    path.to_str().expect("a printable path").to_owned()
}

fn starling(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_starling")).args(arguments).output().expect("the program starts")
}

/// What the program prints as JSON; it has to succeed.
fn json(arguments: &[&str]) -> Value {
    let output = starling(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON on stdout")
}

/// What the program complains about, and its exit code; it has to fail.
fn complaint(arguments: &[&str]) -> (String, i32) {
    let output = starling(arguments);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code().expect("it exited"))
}
