//! Binary layers, exactly: against plain products of ±1, in every build and any batch.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::unwrap_used, reason = "tests")]

#[path = "support/naive.rs"]
mod naive;
#[path = "support/releases.rs"]
mod releases;

use releases::{BINARY_MLP, layers, random_normals, release};
use starling_compress::tensor::{channel_of, channels};
use starling_compress::{Compressed, Release, Values};
use starling_engine::{Engine, Inference, Level};
use starling_spec::TaskKind::Classification;

const LEVELS: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

/// Binary layers throughout, with norms that shift and turn signs, images and signals with and without padding, and signs
/// that pass through pools, changes of shape and residuals.
const NETWORKS: [(&[usize], &str); 11] = [
    (&[20], r#"["sign", {"linear": {"out": 3, "binary": true, "bias": false}}]"#),
    (
        &[130],
        r#"["batch_norm", "sign", {"linear": {"out": 70, "binary": true}}, "batch_norm", "sign", {"linear": {"out": 65, "binary": true}}, "sign", {"linear": {"out": 3, "binary": true}}]"#,
    ),
    (&[1, 28, 28], BINARY_MLP),
    (
        &[3, 7, 6],
        r#"["batch_norm", "sign", {"conv2d": {"out": 5, "kernel": 3, "padding": "same", "binary": true}}, "batch_norm", "sign", {"conv2d": {"out": 70, "kernel": 3, "stride": 2, "binary": true}}, "sign", "flatten", {"linear": {"out": 3, "binary": true}}]"#,
    ),
    (
        &[66, 4, 5],
        r#"["sign", {"conv2d": {"out": 3, "kernel": 3, "padding": "same", "binary": true, "bias": false}}, {"max_pool2d": 2}, "batch_norm", "sign", "flatten", {"linear": {"out": 2, "binary": true}}]"#,
    ),
    (
        &[5, 30],
        r#"["sign", {"conv1d": {"out": 9, "kernel": 5, "stride": 2, "padding": "same", "binary": true}}, "relu", {"conv1d": {"out": 4, "kernel": 3, "binary": true}}, "sign", {"max_pool1d": 2}, {"conv1d": {"out": 4, "kernel": 2, "binary": true}}, "flatten", {"linear": {"out": 3}}]"#,
    ),
    (
        &[4, 10],
        r#"["sign", {"linear": {"out": 6, "binary": true}}, "batch_norm", "sign", {"linear": {"out": 5, "binary": true}}, "flatten", {"linear": {"out": 3}}]"#,
    ),
    (
        &[12],
        r#"[{"residual": {"layers": ["batch_norm", "sign", {"linear": {"out": 12, "binary": true}}]}}, {"residual": {"layers": ["batch_norm", "sign", {"linear": {"out": 12, "binary": true}}, "batch_norm", "sign"]}}, {"linear": {"out": 4}}]"#,
    ),
    (
        &[1, 9, 9],
        r#"[{"conv2d": {"out": 8, "kernel": 3}}, "batch_norm", "sign", {"dropout": 0.2}, {"conv2d": {"out": 8, "kernel": 3, "binary": true}}, {"max_pool2d": 2}, "batch_norm", "sign", "flatten", {"linear": {"out": 5}}]"#,
    ),
    (
        &[40],
        r#"["sign", {"linear": {"out": 20, "binary": true}}, "relu", {"linear": {"out": 6, "binary": true}}, "tanh", {"linear": {"out": 2}}]"#,
    ),
    (
        &[2, 4, 4],
        r#"["sign", {"conv2d": {"out": 2, "kernel": 7, "padding": "same", "binary": true}}, "flatten", "sign", {"linear": {"out": 2, "binary": true}}]"#,
    ),
];

/// Signs with scales that are powers of two, so that floats of dots are exact; some scales are 0 or below.
fn signs(mut release: Release, seed: u64) -> Release {
    let mut random = releases::random(seed);
    let network = release.network().unwrap();
    let layers = serde_json::to_value(&release.layers).unwrap().to_string();
    for tensor in releases::weights(&release) {
        let shape = &network.manifest.tensors[tensor].shape;
        let scale = |_| [0.5f32, 0.25, 1.0, -0.5, 0.0][random.below(5) as usize];
        let scales = (0..channels(shape)).map(scale).collect::<Vec<_>>();
        let count = shape.iter().product::<usize>();
        let positive = (0..count).map(|_| random.below(2) == 0).collect();
        if layers.contains("binary") {
            release.tensors[tensor] = Compressed { kept: None, values: Values::Binary { scales, positive } };
        }
    }
    release
}

fn agrees(release: &Release, what: &str) {
    let network = release.network().unwrap();
    let parameters = release.parameters(&network);
    let sample = network.input.iter().product::<usize>();
    let mut features = random_normals(sample * 4, 5);
    features.iter_mut().step_by(7).for_each(|value| *value = 0.0);
    features.iter_mut().step_by(11).for_each(|value| *value = -0.0);
    let expected: Vec<f64> = features.chunks(sample).flat_map(|x| naive::outputs(&network, &parameters, x)).collect();
    let size = expected.iter().fold(1.0, |size: f64, value| size.max(value.abs()));
    for level in LEVELS {
        let mut engine = Engine::with_level(release, level).unwrap();
        let mut together = Vec::new();
        engine.run_into(&features, &mut together).unwrap();
        let mut alone = Vec::new();
        features.chunks(sample).for_each(|x| engine.run_into(x, &mut alone).unwrap());
        assert_eq!(together, alone, "{what}, {level:?}");
        for (index, (found, expected)) in together.iter().zip(&expected).enumerate() {
            // A sign that went the other way would show as a step far above roundings.
            let gap = (f64::from(*found) - expected).abs();
            assert!(gap <= 1e-5 * size, "{what}, {level:?}, output {index}: {found}, expected {expected}");
        }
    }
}

#[test]
fn binary_networks_give_what_products_of_signs_give() {
    for (index, (shape, json)) in NETWORKS.iter().enumerate() {
        for seed in 0..4 {
            let float = release(Classification, shape, layers(json), index as u64 + 10 * seed);
            agrees(&signs(float, seed), json);
        }
    }
}

#[test]
fn dots_are_exact_whole_numbers() {
    let mut release = release(Classification, &[100], layers(NETWORKS[0].1), 1);
    let positive = (0..300).map(|index| index % 7 < 3).collect();
    release.tensors[0] = Compressed { kept: None, values: Values::Binary { scales: vec![1.0; 3], positive } };
    let features = random_normals(100 * 50, 8);
    let network = release.network().unwrap();
    let parameters = release.parameters(&network);
    for level in LEVELS {
        let mut outputs = Vec::new();
        Engine::with_level(&release, level).unwrap().run_into(&features, &mut outputs).unwrap();
        let expected = features.chunks(100).flat_map(|x| naive::outputs(&network, &parameters, x));
        assert!(outputs.iter().map(|value| f64::from(*value)).eq(expected), "{level:?}");
    }
}

/// A binary layer whose weights are still floats computes with `α sign(W)`.
#[test]
fn float_weights_of_a_binary_layer_are_taken_by_their_signs() {
    for (index, (shape, json)) in NETWORKS.iter().enumerate() {
        let float = release(Classification, shape, layers(json), 20 + index as u64);
        let mut written = float.clone();
        let binary = binary_tensors(&float);
        releases::rewrite(&mut written, &binary, |shape, values| {
            let mut sums = vec![0f64; channels(shape)];
            values.iter().enumerate().for_each(|(at, value)| sums[channel_of(shape, at)] += f64::from(value.abs()));
            let count = (values.len() / channels(shape)) as f64;
            let scales = sums.iter().map(|sum| (sum / count) as f32).collect();
            Compressed {
                kept: None,
                values: Values::Binary { scales, positive: values.iter().map(|v| *v >= 0.0).collect() },
            }
        });
        let features = random_normals(float.shape.iter().product::<usize>() * 3, 2);
        let outputs = |release: &Release| {
            let mut outputs = Vec::new();
            Engine::new(release).unwrap().run_into(&features, &mut outputs).unwrap();
            outputs
        };
        assert_eq!(outputs(&float), outputs(&written), "{json}");
    }
}

/// The weights of layers that are marked binary.
fn binary_tensors(release: &Release) -> Vec<usize> {
    use starling_spec::shape::{Node, Op};
    fn walk(nodes: &[Node], found: &mut Vec<usize>) {
        for node in nodes {
            match &node.op {
                Op::Linear { weight, binary: true, .. }
                | Op::Conv1d { weight, binary: true, .. }
                | Op::Conv2d { weight, binary: true, .. } => found.push(*weight),
                Op::Residual(nodes) => walk(nodes, found),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(&release.network().unwrap().nodes, &mut found);
    found
}
