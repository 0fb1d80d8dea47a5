//! Train, compress, look into, evaluate, time, and hand on.

use std::path::Path;

use serde_json::Value;

use crate::{bench, json, starling, text};

/// Compresses the trained weights to `out` and gives the JSON.
fn compress(out: &Path, extra: &[&str]) -> Value {
    let bench = bench();
    let (task, weights) = (text(&bench.path("task.toml")), text(&bench.path("weights.safetensors")));
    let arguments = ["model", "compress", &task, "--weights", &weights, "--out", &text(out), "--effort", "quick"];
    json(&[&arguments[..], extra].concat())
}

fn accuracy(model: &Path, extra: &[&str]) -> f64 {
    let task = text(&bench().path("task.toml"));
    let judged = json(&[&["model", "evaluate", &task, "--model", &text(model)][..], extra].concat());
    judged["accuracy"].as_f64().expect("an accuracy")
}

#[test]
fn training_keeps_weights_that_evaluate_to_the_accuracy_that_it_reported() {
    let bench = bench();
    let trained = &bench.trained;
    assert!(trained["test_accuracy"].as_f64().expect("an accuracy") > 0.9, "{trained}");
    assert_eq!(trained["epochs"].as_array().map(Vec::len), Some(8), "the passes of a federated run");
    assert_eq!(trained["examples"].as_u64().zip(trained["validation_examples"].as_u64()), Some((3504, 319)));
    let weights = bench.path("weights.safetensors");
    for engine in ["burn-flex", "burn-ndarray", "starling"] {
        let found = accuracy(&weights, &["--engine", engine]);
        let difference = found - trained["test_accuracy"].as_f64().expect("an accuracy");
        // A sample on the edge between two classes may fall the other way when sums are rounded in another order.
        assert!(difference.abs() < 0.002, "{engine}: {found}");
    }
}

#[test]
fn a_release_is_what_the_report_says_and_answers_alike_in_a_fresh_process() {
    let bench = bench();
    let (out, page) = (bench.path("deep.release"), bench.path("deep.html"));
    let found = compress(&out, &["--method", "deep", "--max-accuracy-loss", "2", "--report", &text(&page)]);
    let bytes = std::fs::metadata(&out).expect("the release").len();
    assert_eq!(found["bytes"].as_u64(), Some(bytes), "every byte of the file counts");
    assert_eq!(found["fits"], true);
    let ratio = found["ratio"].as_f64().expect("a ratio");
    assert!(
        ratio > 10.0 && (ratio - found["bytes_f32"].as_f64().expect("bytes") / bytes as f64).abs() < 1e-9,
        "{ratio}"
    );
    let candidates = found["candidates"].as_array().expect("candidates");
    assert_eq!(candidates.iter().filter(|candidate| candidate["chosen"] == true).count(), 1);
    for key in ["name", "method", "accuracy", "loss", "bytes", "ratio", "macs", "latency_us_p50", "on_front"] {
        assert!(candidates.iter().all(|candidate| !candidate[key].is_null()), "{key}");
    }
    for key in
        ["baseline_accuracy", "baseline_latency_us_p50", "accuracy", "latency_us_p50", "macs", "why", "judged_on"]
    {
        assert!(!found[key].is_null(), "{key} in {found}");
    }
    assert!(std::fs::read_to_string(page).expect("the report").contains("</svg>"));

    let predictions = bench.path("deep.predictions");
    let tested = accuracy(&out, &["--predictions", &text(&predictions)]);
    assert!(tested > 0.88, "{tested}");
    let lines = std::fs::read_to_string(predictions).expect("predictions");
    assert_eq!(lines.lines().count(), 1797, "one a line");
    assert!(lines.lines().all(|line| line.parse::<u32>().is_ok_and(|class| class < 10)));
    // Our kernels and burn's forward pass of the decompressed weights.
    assert!((accuracy(&out, &["--engine", "burn-flex"]) - tested).abs() < 0.002);

    let inspected = json(&["model", "inspect", &text(&out)]);
    assert_eq!(inspected["bytes"].as_u64(), Some(bytes));
    let layers = inspected["layers"].as_array().expect("layers");
    let after: u64 = layers.iter().map(|layer| layer["bytes_after"].as_u64().expect("bytes")).sum();
    assert!(after < bytes && bytes - after < 300, "head and digest are {} bytes", bytes - after);
    let kept = layers[0]["kept_share"].as_f64().expect("a share");
    assert!(kept < 0.5 && layers[0]["form"].as_str().is_some_and(|form| form.starts_with("codebook")), "{layers:?}");
}

#[test]
fn a_limit_on_bytes_asks_for_the_most_accurate_that_fits() {
    let out = bench().path("small.release");
    let found = compress(&out, &["--method", "deep", "--max-bytes", "1500"]);
    assert_eq!(found["fits"], true, "{}", found["why"]);
    assert!(std::fs::metadata(&out).expect("the release").len() <= 1500);
    assert!(found["bytes"].as_u64().expect("bytes") > 1000, "the limit is made use of: {found}");
    assert!(found["why"].as_str().is_some_and(|why| why.contains("1500 bytes")), "{}", found["why"]);
}

#[test]
fn an_unreachable_limit_exits_with_5_and_names_the_nearest() {
    let bench = bench();
    let (task, weights) = (text(&bench.path("task.toml")), text(&bench.path("weights.safetensors")));
    let out = text(&bench.path("nearest.release"));
    let output = starling(&[
        "model",
        "compress",
        &task,
        "--weights",
        &weights,
        "--out",
        &out,
        "--method",
        "int8",
        "--max-bytes",
        "100",
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(5));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["fits"], false);
    assert!(found["why"].as_str().is_some_and(|why| why.contains("--max-bytes 100")), "{}", found["why"]);
}

#[test]
fn inv11_the_same_search_makes_the_same_file() {
    let bench = bench();
    let files = ["one.release", "two.release"].map(|name| bench.path(name));
    for file in &files {
        compress(file, &["--method", "deep", "--max-bytes", "2500"]);
    }
    let [one, two] = files.map(|file| std::fs::read(file).expect("a release"));
    assert_eq!(one, two);
}

#[test]
fn every_method_makes_something_that_runs() {
    let bench = bench();
    for (method, least) in [
        ("f16", 0.92),
        ("fixed:8", 0.92),
        ("int8", 0.92),
        ("int4", 0.85),
        ("codebook", 0.9),
        ("prune", 0.3),
        ("units", 0.3),
        ("layers", 0.5),
        ("binary", 0.5),
    ] {
        let out = bench.path(&format!("{method}.release").replace(':', "-"));
        let found = compress(&out, &["--method", method, "--max-accuracy-loss", "60"]);
        let of_method = |candidate: &Value| candidate["method"].as_str() == Some(method);
        assert!(found["candidates"].as_array().expect("candidates").iter().all(of_method), "{method}: {found}");
        let tested = accuracy(&out, &[]);
        assert!(tested > least, "{method}: {tested}");
    }
    let binary = json(&["model", "inspect", &text(&bench.path("binary.release"))]);
    let bits =
        |layer: &Value| layer["form"] == "binary" && layer["bits_per_weight"].as_f64().is_some_and(|bits| bits < 3.0);
    assert!(binary["layers"].as_array().expect("layers").iter().any(bits), "{binary}");
    // The residual block is the one thing that can be removed whole.
    let layers = json(&["model", "inspect", &text(&bench.path("layers.release"))]);
    assert_eq!(layers["layers"].as_array().map(Vec::len), Some(4), "two layers with a bias each: {layers}");
}

#[test]
fn weights_are_pruned_by_what_the_flags_say_and_the_report_says_so() {
    let bench = bench();
    for (by, flags, pace) in [
        ("magnitude", &["--one-shot"][..], "one-shot"),
        ("saliency", &["--prune-by", "saliency"], "gradual"),
        ("saliency", &["--prune-by", "saliency", "--prune-scope", "layer", "--one-shot"], "one-shot"),
        ("output", &["--prune-by", "output"], "gradual"),
    ] {
        let (out, page) = (bench.path("pruned-by.release"), bench.path("pruned-by.html"));
        let report = text(&page);
        let base = ["--method", "prune", "--max-bytes", "4000", "--report", &report];
        let found = compress(&out, &[&base[..], flags].concat());
        assert_eq!((found["pruning"]["by"].as_str(), found["pruning"]["pace"].as_str()), (Some(by), Some(pace)));
        let how = found["pruning"]["how"].as_str().expect("a sentence");
        let page = std::fs::read_to_string(page).expect("the report");
        assert!(page.contains(&format!("Weights were pruned {how}.")), "{how}");
        assert!(found["fits"] == true && accuracy(&out, &[]) > 0.6, "{by} {pace}: {found}");
    }
}

#[test]
fn integers_have_a_scale_a_channel_or_a_tensor() {
    let bench = bench();
    let out = bench.path("granular.release");
    let scales = |granularity: &str| {
        let found = compress(&out, &["--method", "int4", "--granularity", granularity, "--max-accuracy-loss", "60"]);
        assert_eq!(found["granularity"], granularity);
        (found["bytes"].as_u64().expect("bytes"), accuracy(&out, &[]))
    };
    let ((channel, by_channel), (tensor, by_tensor)) = (scales("channel"), scales("tensor"));
    // 48 + 48 + 48 + 10 channels of two bytes each against one scale for each of four tensors; 4-bit levels differ a little.
    assert!(tensor + 200 < channel, "{tensor} and {channel}");
    assert!(by_channel > 0.8 && by_tensor > 0.5, "{by_channel} and {by_tensor}");
}

#[test]
fn a_method_that_does_not_apply_writes_the_full_model_and_says_so() {
    let bench = bench();
    let (task, out) = (text(&bench.path("task.toml")), bench.path("plain.release"));
    let layers = "model.layers=[\"flatten\", { linear = { out = 10 } }]";
    let weights = text(&bench.path("plain.safetensors"));
    json(&["model", "init", &task, "--set", layers, "--out", &weights]);
    let base = ["model", "compress", &task, "--set", layers, "--weights", &weights, "--out"];
    let found = json(&[&base[..], &[&text(&out), "--method", "layers"]].concat());
    assert_eq!((found["chosen"].as_str(), found["fits"].as_bool()), (Some("f32"), Some(true)));
    let notes: Vec<&str> = found["notes"].as_array().expect("notes").iter().filter_map(Value::as_str).collect();
    assert!(notes.iter().any(|note| note.starts_with("removing whole layers does not apply")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("the release is the full model in floats")), "{notes:?}");
    assert_eq!(json(&["model", "inspect", &text(&out)])["layers"][0]["form"], "f32");
}

#[test]
fn devices_alone_can_tune_a_model() {
    let out = bench().path("federated.release");
    let found = compress(&out, &["--federated", "--method", "deep", "--max-bytes", "2000"]);
    assert!(found["judged_on"].as_str().is_some_and(|on| on.contains("4 simulated devices")), "{}", found["judged_on"]);
    assert_eq!(found["fits"], true, "{}", found["why"]);
    assert!(accuracy(&out, &[]) > 0.85);
}

#[test]
fn a_bench_times_every_engine() {
    let bench = bench();
    let (weights, task) = (text(&bench.path("weights.safetensors")), text(&bench.path("task.toml")));
    for engine in ["starling", "burn-flex", "burn-ndarray"] {
        let timed = json(&["model", "bench", &weights, "--engine", engine, "--runs", "300", "--batch", "4"]);
        assert_eq!((timed["engine"].as_str(), timed["inputs"].as_str()), (Some(engine), Some("noise")));
        let number = |key: &str| timed[key].as_f64().expect(key);
        assert!(number("latency_us_p50") > 0.0 && number("latency_us_p50") <= number("latency_us_p99"), "{timed}");
        assert!(number("throughput_per_s") > 0.0 && number("rss_mb") >= number("rss_above_empty_mb"), "{timed}");
        // 64·48 + 2·48·48 + 48·10.
        assert_eq!(timed["macs"].as_u64(), Some(8160), "{engine}");
    }
    let timed = json(&["model", "bench", &weights, &task, "--runs", "100"]);
    assert_eq!(timed["inputs"], "training rows");
}

#[test]
fn weights_go_out_to_other_tools_and_come_back() {
    let bench = bench();
    let (task, weights) = (text(&bench.path("task.toml")), text(&bench.path("weights.safetensors")));
    for (format, layout) in [("safetensors-torch", "torch"), ("safetensors", "starling")] {
        let (out, back) = (bench.path(&format!("{format}.out")), bench.path(&format!("{format}.back")));
        json(&["model", "export", &task, "--weights", &weights, "--format", format, "--out", &text(&out)]);
        let read = ["model", "import", &task, "--weights", &text(&out), "--layout", layout, "--out", &text(&back)];
        json(&read);
        let digest = |path: &Path| json(&["model", "inspect", &text(path)])["layers"].clone();
        assert_eq!(digest(&back), digest(&bench.path("weights.safetensors")));
        assert_eq!(accuracy(&back, &[]), accuracy(&bench.path("weights.safetensors"), &[]));
    }
    let onnx = bench.path("model.onnx");
    json(&["model", "export", &task, "--weights", &weights, "--format", "onnx", "--out", &text(&onnx)]);
    let bytes = std::fs::read(onnx).expect("the model");
    assert!(
        bytes.len() > 4 * 8160 && bytes.windows(4).any(|word| word == b"Gemm" || word == b"MatM"),
        "{}",
        bytes.len()
    );
}

#[test]
fn initial_weights_are_those_of_the_seed() {
    let bench = bench();
    let task = text(&bench.path("task.toml"));
    let init = |name: &str, seed: &str| {
        let out = bench.path(name);
        json(&["model", "init", &task, "--seed", seed, "--out", &text(&out)]);
        json(&["model", "inspect", &text(&out)])["digest"].clone()
    };
    assert_eq!(init("a.init", "1"), init("b.init", "1"));
    assert_ne!(init("a.init", "1"), init("c.init", "2"));
}
