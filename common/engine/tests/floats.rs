//! Every layer in floats, against the naive interpreter: in every build, for every way to write weights, in any batch.
#![allow(clippy::cast_precision_loss, clippy::unwrap_used, reason = "tests")]

#[path = "support/naive.rs"]
mod naive;
#[path = "support/releases.rs"]
mod releases;

use releases::{layers, pruned, random_normals, release, rewrite, weights};
use starling_compress::{Compressed, Release, Values};
use starling_engine::{Engine, Inference, Level};
use starling_spec::TaskKind::{self, Classification, NextToken, Regression};

const LEVELS: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

/// A few samples that fit a release: token numbers where it begins with an embedding.
fn features(release: &Release, samples: usize, seed: u64) -> Vec<f32> {
    let values = random_normals(release.shape.iter().product::<usize>() * samples, seed);
    let tokens = release.layers.first().is_some_and(|layer| layer.key() == "embedding");
    if tokens { values.iter().map(|value| (value.abs() * 3.0).floor().min(6.0)).collect() } else { values }
}

fn run(engine: &mut Engine, features: &[f32]) -> Vec<f32> {
    let mut outputs = Vec::new();
    engine.run_into(features, &mut outputs).unwrap();
    outputs
}

/// The engine's outputs are the oracle's, up to roundings; the same whether samples come alone or together.
fn agrees(release: &Release, what: &str) {
    let network = release.network().unwrap();
    let parameters = release.parameters(&network);
    let samples = 5;
    let features = features(release, samples, 77);
    let sample = features.len() / samples;
    let expected: Vec<f64> =
        features.chunks(sample).flat_map(|features| naive::outputs(&network, &parameters, features)).collect();
    let size = expected.iter().fold(1.0, |size: f64, value| size.max(value.abs()));
    for level in LEVELS {
        let mut engine = Engine::with_level(release, level).unwrap();
        let together = run(&mut engine, &features);
        let alone: Vec<f32> = features.chunks(sample).flat_map(|features| run(&mut engine, features)).collect();
        assert_eq!(together, alone, "{what}, {level:?}: a sample's outputs depend on its batch");
        assert_eq!(together.len(), expected.len());
        for (index, (found, expected)) in together.iter().zip(&expected).enumerate() {
            let gap = (f64::from(*found) - expected).abs();
            assert!(gap <= 2e-5 * size, "{what}, {level:?}, output {index}: {found}, expected {expected}");
        }
    }
}

const NETWORKS: [(TaskKind, &[usize], &str); 20] = [
    (Classification, &[7], r#"[{"linear": {"out": 5}}, "relu", {"linear": {"out": 3, "bias": false}}]"#),
    (Regression, &[33], r#"[{"linear": {"out": 40}}, "batch_norm", "relu", {"dropout": 0.3}, {"linear": {"out": 1}}]"#),
    (
        Classification,
        &[3, 4, 5],
        r#"["batch_norm", "flatten", "gelu", {"linear": {"out": 17}}, "tanh", {"linear": {"out": 3}}]"#,
    ),
    (
        Classification,
        &[1, 9, 9],
        r#"[{"conv2d": {"out": 4, "kernel": 3}}, "batch_norm", "relu", {"max_pool2d": 2}, "flatten", {"linear": {"out": 4}}]"#,
    ),
    (
        Classification,
        &[3, 8, 11],
        r#"[{"conv2d": {"out": 6, "kernel": 5, "padding": "same", "bias": false}}, "sigmoid", {"avg_pool2d": {"size": 3, "stride": 2}}, "flatten", {"linear": {"out": 4}}]"#,
    ),
    (
        Classification,
        &[2, 11, 9],
        r#"[{"conv2d": {"out": 5, "kernel": 3, "stride": 2, "padding": "same"}}, "relu", {"conv2d": {"out": 3, "kernel": 1, "stride": 2}}, "global_avg_pool"]"#,
    ),
    (
        Classification,
        &[4, 10, 7],
        r#"[{"depthwise_conv2d": {"kernel": 3, "padding": "same"}}, "relu", {"depthwise_conv2d": {"kernel": 2, "stride": 2}}, "global_avg_pool", {"linear": {"out": 2}}]"#,
    ),
    (
        Classification,
        &[6, 8, 8],
        r#"[{"group_norm": {"groups": 3}}, {"conv2d": {"out": 4, "kernel": 3}}, "relu", "flatten", {"linear": {"out": 2}}]"#,
    ),
    (
        Classification,
        &[3, 50],
        r#"[{"conv1d": {"out": 8, "kernel": 5, "stride": 2}}, "relu", {"max_pool1d": 2}, {"conv1d": {"out": 4, "kernel": 3, "padding": "same"}}, {"avg_pool1d": {"size": 3, "stride": 1}}, "flatten", {"linear": {"out": 3}}]"#,
    ),
    (
        Classification,
        &[3, 40],
        r#"["layer_norm", {"linear": {"out": 6}}, "batch_norm", "relu", {"linear": {"out": 5}}, "global_avg_pool"]"#,
    ),
    (
        Classification,
        &[12],
        r#"[{"residual": {"layers": [{"linear": {"out": 12}}, "relu", {"residual": {"layers": ["batch_norm", "tanh"]}}, {"linear": {"out": 12}}]}}, "relu", {"linear": {"out": 3}}]"#,
    ),
    (
        Classification,
        &[4, 6, 6],
        r#"[{"residual": {"layers": [{"conv2d": {"out": 4, "kernel": 3, "padding": "same"}}, "batch_norm", "relu", {"conv2d": {"out": 4, "kernel": 3, "padding": "same"}}]}}, "relu", "global_avg_pool"]"#,
    ),
    (NextToken, &[9], r#"[{"embedding": {"tokens": 7, "out": 5}}, {"gru": {"out": 6}}, {"linear": {"out": 7}}]"#),
    (
        NextToken,
        &[10],
        r#"[{"embedding": {"tokens": 7, "out": 12, "positions": true}}, {"residual": {"layers": ["layer_norm", {"self_attention": {"heads": 3}}]}}, {"residual": {"layers": ["layer_norm", {"linear": {"out": 20}}, "gelu", {"linear": {"out": 12}}]}}, "layer_norm", {"linear": {"out": 7}}]"#,
    ),
    (
        NextToken,
        &[6],
        r#"[{"embedding": {"tokens": 7, "out": 4}}, {"self_attention": {"heads": 2, "causal": false}}, {"linear": {"out": 7}}]"#,
    ),
    (Classification, &[20], r#"["sign", {"linear": {"out": 6}}, "sign", {"linear": {"out": 3}}]"#),
    (
        Classification,
        &[1, 28, 28],
        r#"[{"conv2d": {"out": 20, "kernel": 5}}, {"max_pool2d": 2}, {"conv2d": {"out": 10, "kernel": 5}}, {"max_pool2d": {"size": 3, "stride": 2}}, "flatten", {"linear": {"out": 10}}]"#,
    ),
    (
        Classification,
        &[1, 3, 3],
        r#"[{"conv2d": {"out": 2, "kernel": 7, "padding": "same"}}, "flatten", {"linear": {"out": 2}}]"#,
    ),
    (
        Classification,
        &[2, 5],
        r#"[{"conv1d": {"out": 3, "kernel": 5, "stride": 7}}, "flatten", {"linear": {"out": 2}}]"#,
    ),
    (
        Classification,
        &[130],
        r#"[{"linear": {"out": 100}}, "relu", {"linear": {"out": 70}}, "sigmoid", {"linear": {"out": 33}}]"#,
    ),
];

#[test]
fn every_layer_gives_what_the_oracle_gives() {
    for (index, (kind, shape, json)) in NETWORKS.iter().enumerate() {
        agrees(&release(*kind, shape, layers(json), index as u64), json);
    }
}

#[test]
fn sparse_weights_give_what_the_oracle_gives() {
    for (index, (kind, shape, json)) in NETWORKS.iter().enumerate() {
        for share in [0.0, 0.05, 0.15, 0.4] {
            let float = release(*kind, shape, layers(json), index as u64);
            agrees(&pruned(float, |_| share), &format!("{share} of {json}"));
        }
    }
}

#[test]
fn every_way_to_write_weights_gives_what_the_oracle_gives() {
    type Rewritten = fn(&[usize], Vec<f32>) -> Compressed;
    let forms: [Rewritten; 5] = [
        |shape, values| releases::integer(shape, &values, 8),
        |shape, values| releases::integer(shape, &values, 3),
        |_, values| {
            #[allow(clippy::cast_possible_truncation, reason = "weights lie well inside")]
            let levels = values.iter().map(|value| (value * 2048.0).round() as i16).collect();
            Compressed { kept: None, values: Values::Fixed { places: 11, bits: 16, levels } }
        },
        |_, values| {
            let kept: Vec<u32> =
                (0u32..).zip(&values).filter(|(_, value)| **value > 0.0).map(|(index, _)| index).collect();
            let values = kept.iter().map(|index| values[*index as usize]).collect();
            Compressed { kept: Some(kept), values: Values::F16(values) }
        },
        |shape, values| {
            let channels = starling_compress::tensor::channels(shape);
            let scales = (0..channels).map(|channel| 0.01 + channel as f32 * 0.001).collect();
            let positive = values.iter().map(|value| *value >= 0.0).collect();
            Compressed { kept: None, values: Values::Binary { scales, positive } }
        },
    ];
    for (index, (kind, shape, json)) in NETWORKS.iter().enumerate() {
        for (form, rewritten) in forms.iter().enumerate() {
            let mut release = release(*kind, shape, layers(json), index as u64);
            let tensors = weights(&release);
            rewrite(&mut release, &tensors, *rewritten);
            agrees(&release, &format!("form {form} of {json}"));
        }
    }
}

#[test]
fn tables_and_projections_may_be_sparse_too() {
    for (index, (kind, shape, json)) in NETWORKS.iter().enumerate().filter(|(_, network)| network.0 == NextToken) {
        let mut release = release(*kind, shape, layers(json), index as u64);
        let matrices: Vec<usize> = release
            .network()
            .unwrap()
            .manifest
            .tensors
            .iter()
            .enumerate()
            .filter(|(_, tensor)| tensor.shape.len() == 2)
            .map(|(index, _)| index)
            .collect();
        rewrite(&mut release, &matrices, |_, values| {
            let kept: Vec<u32> = (0u32..).step_by(9).take_while(|index| (*index as usize) < values.len()).collect();
            let values = kept.iter().map(|index| values[*index as usize]).collect();
            Compressed { kept: Some(kept), values: Values::F32(values) }
        });
        agrees(&release, json);
    }
}
