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
    let wanted = "broken.release is a release that cannot be read: the release is damaged or cut off";
    assert!(code == 1 && said.contains(wanted) && said.contains("fetch it again"), "{said}");
    std::fs::write(&out, &bytes[..middle]).expect("the release is cut");
    let (said, code) = complaint(&["model", "inspect", &text(&out)]);
    assert!(code == 1 && said.contains(wanted), "{said}");
    bytes[4] = 9;
    std::fs::write(&out, &bytes).expect("a release of another format");
    let (said, code) = complaint(&["model", "inspect", &text(&out)]);
    assert!(code == 1 && said.contains("a release of format 9, and this program reads format 1"), "{said}");
}

#[test]
fn a_release_is_no_float_weights_and_says_what_would_be() {
    let bench = bench();
    let task = text(&bench.path("task.toml"));
    // A release begins with these four letters, whatever follows.
    let release = bench.path("some.release");
    std::fs::write(&release, b"STRL\x01and so on").expect("a file");
    let release = text(&release);
    for arguments in [
        vec!["model", "import", &task, "--weights", &release, "--layout", "torch", "--out", "never"],
        vec!["model", "compress", &task, "--weights", &release, "--out", "never"],
    ] {
        let (said, code) = complaint(&arguments);
        assert!(said.contains("some.release is a release, whose weights are compressed"), "{said}");
        assert!(said.contains("`starling model export`") && code == 1, "{said}");
    }
}

#[test]
fn results_that_have_nowhere_to_go_are_refused_before_the_work() {
    let bench = bench();
    let (task, weights) = (text(&bench.path("task.toml")), text(&bench.path("weights.safetensors")));
    let (folder, good) = (text(&bench.path("")), text(&bench.path("checked.release")));
    for flag in ["--out", "--report", "--json"] {
        // Thorough would take minutes: the refusal comes first.
        let mut arguments = vec!["model", "compress", &task, "--weights", &weights, "--effort", "thorough"];
        if flag != "--out" {
            arguments.extend(["--out", &good]);
        }
        for nowhere in ["/nowhere/at/all/file", &folder] {
            let (said, code) = complaint(&[&arguments[..], &[flag, nowhere]].concat());
            assert!(said.contains("cannot be written") && said.contains(nowhere) && code == 1, "{flag}: {said}");
        }
    }
    assert!(!bench.path("checked.release").exists(), "looking whether a file can be written leaves none behind");
}

#[test]
fn ways_of_pruning_that_exclude_each_other_are_refused_as_arguments() {
    let bench = bench();
    let (task, weights) = (text(&bench.path("task.toml")), text(&bench.path("weights.safetensors")));
    let base = ["model", "compress", &task, "--weights", &weights, "--out", "never"];
    let (said, code) = complaint(&[&base[..], &["--prune-by", "output", "--prune-scope", "layer"]].concat());
    assert!(code == 2 && said.contains("scope \"global\""), "{said}");
    let (said, code) = complaint(&[&base[..], &["--prune-by", "hessian"]].concat());
    assert!(code == 2 && said.contains("saliency") && said.contains("output"), "{said}");
}

#[test]
fn the_help_lists_what_exit_codes_mean() {
    let output = crate::starling(&["--help"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let codes: Vec<&str> = said.lines().skip_while(|line| *line != "Exit codes:").skip(1).collect();
    for (line, code) in codes.iter().zip(["0", "1", "2", "3", "4", "5", "101"]) {
        assert_eq!(line.split_whitespace().next(), Some(code), "{said}");
    }
    assert_eq!(codes.len(), 7, "{said}");
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
