//! What a person gets wrong, and what they are told.

use crate::{bench, complaint, text};

#[test]
fn an_unknown_method_lists_the_known_ones() {
    let bench = bench();
    let (task, weights) = (text(&bench.path("task.toml")), text(&bench.path("weights.safetensors")));
    let (said, code) =
        complaint(&["model", "compress", &task, "--weights", &weights, "--out", "never", "--method", "zip"]);
    assert!(said.contains("\"zip\"") && said.contains("codebook") && said.contains("units"), "{said}");
    assert_eq!(code, 2);
}

#[test]
fn a_file_that_is_no_model_is_named() {
    let bench = bench();
    let task = text(&bench.path("task.toml"));
    for (arguments, wanted) in [
        (vec!["model", "evaluate", &task, "--model", &task], "neither"),
        (vec!["model", "bench", &task], "neither"),
        (vec!["model", "inspect", &task], "neither"),
        (vec!["model", "compress", &task, "--weights", &task, "--out", "never"], "safetensors"),
        (vec!["model", "import", &task, "--weights", &task, "--layout", "torch", "--out", "never"], "header"),
        (vec!["model", "inspect", "/nowhere/at/all"], "cannot be read"),
    ] {
        let (said, code) = complaint(&arguments);
        assert!(said.contains(wanted) && !said.contains("panicked"), "{arguments:?}: {said}");
        assert_eq!(code, 1, "{arguments:?}");
    }
}

#[test]
fn weights_of_another_network_are_refused() {
    let bench = bench();
    let (task, weights) = (text(&bench.path("task.toml")), text(&bench.path("weights.safetensors")));
    let other = "model.layers=[\"flatten\", { linear = { out = 10 } }]";
    let (said, _) = complaint(&["model", "evaluate", &task, "--set", other, "--model", &weights]);
    assert!(said.contains("linear") && said.contains("weights.safetensors"), "{said}");
}

#[test]
fn a_broken_release_is_an_error() {
    let bench = bench();
    let (task, weights) = (text(&bench.path("task.toml")), text(&bench.path("weights.safetensors")));
    let out = bench.path("broken.release");
    let made = crate::starling(&[
        "model",
        "compress",
        &task,
        "--weights",
        &weights,
        "--out",
        &text(&out),
        "--method",
        "f16",
        "--max-accuracy-loss",
        "50",
    ]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut bytes = std::fs::read(&out).expect("the release");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&out, &bytes).expect("the release is spoilt");
    let (said, code) = complaint(&["model", "evaluate", &task, "--model", &text(&out)]);
    assert!(code == 1 && said.contains("broken.release") && !said.contains("panicked"), "{said}");
    std::fs::write(&out, &bytes[..middle]).expect("the release is cut");
    let (said, code) = complaint(&["model", "inspect", &text(&out)]);
    assert!(code == 1 && !said.contains("panicked"), "{said}");
}

#[test]
fn limits_that_make_no_sense_are_refused_as_arguments() {
    let bench = bench();
    let (task, weights) = (text(&bench.path("task.toml")), text(&bench.path("weights.safetensors")));
    let base = ["model", "compress", &task, "--weights", &weights, "--out", "never"];
    for extra in
        [["--max-latency-us", "-1"], ["--distil", "2"], ["--max-bytes", "many"], ["--effort", "some"], ["--lr", "0"]]
    {
        let (_, code) = complaint(&[&base[..], &extra[..]].concat());
        assert_eq!(code, 2, "{extra:?}");
    }
}

#[test]
fn devices_without_hold_outs_cannot_judge() {
    let bench = bench();
    let (task, weights) = (text(&bench.path("task.toml")), text(&bench.path("weights.safetensors")));
    let (said, _) = complaint(&[
        "model",
        "compress",
        &task,
        "--weights",
        &weights,
        "--out",
        "never",
        "--federated",
        "--set",
        "federation.holdout=0",
    ]);
    assert!(said.contains("federation.holdout"), "{said}");
}
