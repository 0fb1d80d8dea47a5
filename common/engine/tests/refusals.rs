//! Releases that are not what they say: each is refused by name, none panics, and features are checked too.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

#[path = "support/releases.rs"]
mod releases;

use releases::{layers, random, release};
use starling_compress::{Compressed, InputRange, Release, Values};
use starling_engine::{Engine, EngineError, Inference, InferenceError, calibrate, multiply_accumulates};
use starling_spec::TaskKind::{Classification, NextToken};
use starling_spec::random::Random;

fn small() -> Release {
    release(Classification, &[4], layers(r#"[{"linear": {"out": 3}}, "relu", {"linear": {"out": 2}}]"#), 1)
}

fn tensor(values: Values) -> Compressed {
    Compressed { kept: None, values }
}

/// What is wrong with the first weight, `[4, 3]`, as the engine says it.
fn problem(compressed: Compressed) -> String {
    let mut release = small();
    release.tensors[0] = compressed;
    let error = Engine::new(&release).expect_err("refused").to_string();
    assert!(error.starts_with("0.linear.weight: "), "{error}");
    error
}

#[test]
fn each_broken_tensor_is_named_with_what_is_wrong() {
    let kept = |kept: Vec<u32>, values: usize| Compressed { kept: Some(kept), values: Values::F32(vec![1.0; values]) };
    let integer = |bits, scales: usize, level| {
        tensor(Values::Integer { bits, scales: vec![1.0; scales], levels: vec![level; 12] })
    };
    let fixed = |bits, places, level| tensor(Values::Fixed { bits, places, levels: vec![level; 12] });
    let codebook =
        |centroids: usize, code| tensor(Values::Codebook { centroids: vec![0.5; centroids], codes: vec![code; 12] });
    for (compressed, word) in [
        (tensor(Values::F32(vec![0.0; 11])), "11 values"),
        (tensor(Values::F32(vec![f32::NAN; 12])), "not finite"),
        (tensor(Values::F16(vec![f32::INFINITY; 12])), "not finite"),
        (kept(vec![1, 2], 3), "3 values for 2"),
        (kept(vec![2, 2], 2), "rise"),
        (kept(vec![3, 1], 2), "rise"),
        (kept(vec![3, 12], 2), "kept weight 12"),
        (kept(vec![u32::MAX], 1), "kept weight"),
        (integer(1, 1, 0), "1 bits"),
        (integer(9, 1, 0), "9 bits"),
        (integer(8, 2, 0), "2 scales"),
        (integer(8, 0, 0), "0 scales"),
        (integer(4, 3, 8), "level 8"),
        (integer(8, 3, -128), "level -128"),
        (tensor(Values::Integer { bits: 8, scales: vec![f32::MAX], levels: vec![127; 12] }), "not finite"),
        (tensor(Values::Integer { bits: 8, scales: vec![f32::NAN], levels: vec![0; 12] }), "not finite"),
        (fixed(17, 0, 0), "17 bits"),
        (fixed(1, 0, 0), "1 bits"),
        (fixed(8, 127, 0), "127 places"),
        (fixed(8, 0, 128), "level 128"),
        (fixed(16, -126, 32767), "not finite"),
        (codebook(0, 0), "code book of 0"),
        (codebook(257, 0), "code book of 257"),
        (codebook(4, 4), "code 4"),
        (tensor(Values::Codebook { centroids: vec![f32::NAN], codes: vec![0; 12] }), "not finite"),
        (tensor(Values::Binary { scales: vec![1.0], positive: vec![true; 12] }), "1 scales"),
        (tensor(Values::Binary { scales: vec![f32::NAN; 3], positive: vec![true; 12] }), "not finite"),
        (
            Compressed { kept: Some(vec![0]), values: Values::Binary { scales: vec![1.0; 3], positive: vec![true] } },
            "pruned",
        ),
    ] {
        let error = problem(compressed);
        assert!(error.contains(word), "{error}, which does not say {word:?}");
    }
}

#[test]
fn lists_ranges_and_layers_are_checked() {
    let mut release = small();
    release.tensors.pop();
    let error = Engine::new(&release).expect_err("short");
    assert!(matches!(error, EngineError::Count { what: "tensors", expected: 4, found: 3 }), "{error}");
    assert!(multiply_accumulates(&release).is_err() && calibrate(&release, &[]).is_err());
    let mut release = small();
    release.inputs.push(None);
    assert!(matches!(Engine::new(&release), Err(EngineError::Count { what: "input ranges", .. })));
    for (low, high) in [
        (0.0, 0.0),
        (0.5, 1.0),
        (-1.0, -0.5),
        (f32::NAN, 1.0),
        (0.0, f32::INFINITY),
        (f32::MIN, f32::MAX),
        (0.0, 1e-44),
    ] {
        let mut release = small();
        release.inputs[2] = Some(InputRange { low, high });
        let error = Engine::new(&release).expect_err("no range").to_string();
        assert!(error.starts_with("2.linear.weight: the input range"), "{error}");
    }
    let mut release = small();
    release.layers = layers(r#"[{"conv2d": {"out": 3, "kernel": 2}}]"#);
    assert!(matches!(Engine::new(&release), Err(EngineError::Spec(_))));
    let mut release = small();
    release.layers = layers(r#"[{"linear": {"out": 3, "binary": true}}, {"linear": {"out": 2}}]"#);
    release.tensors[0] = Compressed { kept: Some(vec![3]), values: Values::F32(vec![1.0]) };
    assert!(Engine::new(&release).expect_err("pruned signs").to_string().contains("binary layer"));
}

#[test]
fn a_release_of_a_few_bytes_cannot_ask_for_gigabytes() {
    // The spec allows the weight, 2^30 values; the file keeps none of them.
    let side = 32_767;
    let layer =
        format!(r#"[{{"conv2d": {{"out": 2, "kernel": {side}, "padding": "same", "bias": false}}}}, "flatten"]"#);
    let mut release = small();
    (release.shape, release.layers) = (vec![1, 1, 1], layers(&layer));
    release.tensors = vec![Compressed { kept: Some(vec![]), values: Values::F32(vec![]) }];
    release.inputs = vec![None];
    if release.network().is_ok() {
        assert!(matches!(Engine::new(&release), Err(EngineError::Memory { layer: "conv2d", .. })));
    }
    // A matrix of 2^29 values, none kept.
    (release.shape, release.layers) = (vec![1 << 14], layers(r#"[{"linear": {"out": 32768, "bias": false}}]"#));
    let mut engine = Engine::new(&release).unwrap();
    assert!(engine.weight_bytes() < 1 << 20, "{} bytes", engine.weight_bytes());
    let mut outputs = Vec::new();
    engine.run_into(&vec![1.0; 1 << 14], &mut outputs).unwrap();
    assert!(outputs.len() == 1 << 15 && outputs.iter().all(|output| *output == 0.0));
    assert_eq!(multiply_accumulates(&release).unwrap(), 0);
}

#[test]
fn features_are_checked_and_outputs_left_as_they_were() {
    let mut engine = Engine::new(&small()).unwrap();
    let mut outputs = vec![7.0];
    let mut refused = |features: &[f32]| engine.run_into(features, &mut outputs).expect_err("refused");
    assert_eq!(refused(&[0.0; 5]), InferenceError::Length { found: 5, sample: 4 });
    assert!(matches!(refused(&[0.0, f32::NAN, 0.0, 0.0]), InferenceError::Feature { index: 1, .. }));
    let mut features = [0.0; 400];
    features[399] = f32::NEG_INFINITY;
    assert!(matches!(refused(&features), InferenceError::Feature { index: 399, .. }));
    engine.run_into(&[], &mut outputs).unwrap();
    assert_eq!(outputs, [7.0], "no samples, no outputs");
    engine.run_into(&[1.0; 8], &mut outputs).unwrap();
    assert_eq!((outputs.len(), outputs[0]), (5, 7.0), "two samples' outputs are appended");

    let text = layers(r#"[{"embedding": {"tokens": 5, "out": 3}}, {"linear": {"out": 5}}]"#);
    let mut engine = Engine::new(&release(NextToken, &[3], text, 1)).unwrap();
    for token in [-1.0, 5.0, 1e20] {
        let error = engine.run_into(&[0.0, token, 4.0], &mut outputs).expect_err("no such token");
        assert!(matches!(error, InferenceError::Token { index: 1, tokens: 5, .. }), "{error}");
    }
    engine.run_into(&[0.0, 4.9, 4.0], &mut outputs).unwrap();
}

#[test]
fn weights_that_overflow_panic_nowhere() {
    for json in [
        r#"["batch_norm", "sign", {"linear": {"out": 3, "binary": true}}, "batch_norm", "sign", {"linear": {"out": 2}}]"#,
        r#"[{"linear": {"out": 3}}, "batch_norm", "relu", {"linear": {"out": 2}}, "gelu", {"linear": {"out": 2}}]"#,
    ] {
        let mut release = release(Classification, &[4], layers(json), 1);
        let all: Vec<usize> = (0..release.tensors.len()).collect();
        releases::rewrite(&mut release, &all, |_, values| {
            Compressed::dense(values.iter().map(|value| value.signum() * f32::MAX).collect())
        });
        for range in [None, Some(InputRange { low: -1e30, high: 1e37 })] {
            release.inputs.fill(range);
            let mut outputs = Vec::new();
            Engine::new(&release).unwrap().run_into(&[f32::MAX, 1e30, -1.0, 0.0], &mut outputs).unwrap();
            assert_eq!(outputs.len(), 2);
        }
    }
}

/// Random damage to every part of a release: an engine is built or refused, and one that is built runs.
#[test]
fn damaged_releases_are_refused_or_run() {
    let networks = [
        (vec![6], r#"[{"linear": {"out": 5}}, "batch_norm", "relu", {"linear": {"out": 3}}]"#),
        (
            vec![2, 6, 5],
            r#"[{"conv2d": {"out": 3, "kernel": 3, "padding": "same"}}, "relu", {"max_pool2d": 2}, "flatten", {"linear": {"out": 3}}]"#,
        ),
        (
            vec![7],
            r#"["batch_norm", "sign", {"linear": {"out": 9, "binary": true}}, "batch_norm", "sign", {"linear": {"out": 3}}]"#,
        ),
    ];
    let (mut random, mut built) = (random(99), 0);
    for round in 0..30_000u64 {
        let (shape, json) = &networks[round as usize % networks.len()];
        let mut release = release(Classification, shape, layers(json), round % 5);
        for _ in 0..=random.below(3) {
            damage(&mut release, &mut random);
        }
        if let Ok(mut engine) = Engine::new(&release) {
            built += 1;
            let mut outputs = Vec::new();
            let features = releases::random_normals(shape.iter().product(), round);
            engine.run_into(&features, &mut outputs).unwrap();
            assert_eq!(outputs.len(), 3);
            multiply_accumulates(&release).unwrap();
        }
    }
    assert!((3_000..27_000).contains(&built), "{built} of 30,000 were built: both ways are tried");
}

fn damage(release: &mut Release, random: &mut Random) {
    let mut pick = |bound: usize| random.below(bound as u64) as usize;
    let index = pick(release.tensors.len());
    let count = [release.tensors[index].values.len(), 0, 1, 64][pick(8).min(3)];
    let float = [0.0, 1.0, -2.0, 1e-40, 1e38, f32::NAN][pick(6)];
    let bits = [2, 4, 8, 8, 16, 3, 0, 255][pick(8)];
    let values = match pick(6) {
        0 => Values::F32(vec![float; count]),
        1 => Values::F16(vec![float; count]),
        2 => Values::Fixed { places: [0, 6, -126, 127][pick(4)], bits, levels: vec![pick(200) as i16 - 100; count] },
        3 => Values::Integer { bits, scales: vec![float; [1, 3, 5, 9][pick(4)]], levels: vec![pick(3) as i8; count] },
        4 => Values::Codebook { centroids: vec![float; pick(4)], codes: vec![pick(4) as u8; count] },
        _ => Values::Binary { scales: vec![float; [1, 3, 5, 9][pick(4)]], positive: vec![pick(2) == 0; count] },
    };
    let kept = match pick(4) {
        0 => Some((0..count as u32).map(|at| at * [1, 1, 2][pick(3)]).collect()),
        _ => None,
    };
    match pick(6) {
        0 => release.inputs[index] = Some(InputRange { low: -float, high: float }),
        1 => release.inputs[index] = Some(InputRange { low: -1.0, high: 2.0 }),
        2 => release.tensors[index].kept = kept,
        _ => release.tensors[index] = Compressed { kept, values },
    }
}
