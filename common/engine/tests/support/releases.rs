//! Releases with seeded random weights: what a network would compute with, not what it has learnt.
#![allow(dead_code, reason = "each test and bench uses a part of this")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "random values are rounded on purpose")]
#![allow(clippy::cast_precision_loss, clippy::unwrap_used, reason = "small counts, and JSON of our own")]

use starling_compress::tensor::{channel_of, channels};
use starling_compress::{Compressed, Release, Values};
use starling_engine::calibrate;
use starling_spec::manifest::{ParamRole, Start};
use starling_spec::random::{Purpose, Random};
use starling_spec::{Layer, Scale, TaskKind, preset};

/// 784-300-100-10 with signs between: batch normalisation and a sign before each binary layer, the last one real.
pub(crate) const BINARY_MLP: &str = r#"["flatten",
    "batch_norm", "sign", {"linear": {"out": 300, "binary": true}},
    "batch_norm", "sign", {"linear": {"out": 100, "binary": true}},
    "batch_norm", "sign", {"linear": {"out": 10}}]"#;

/// The layers in `json`.
pub(crate) fn layers(json: &str) -> Vec<Layer> {
    serde_json::from_str(json).unwrap()
}

/// A generator for tests.
pub(crate) fn random(seed: u64) -> Random {
    Random::new(seed, Purpose::Noise, &[])
}

/// A release of a preset for images of 28 × 28.
pub(crate) fn preset_release(name: &str, seed: u64) -> Release {
    release(TaskKind::Classification, &[1, 28, 28], preset::layers(name).unwrap(), seed)
}

/// A release in floats: weights as an initialiser draws them, and biases and statistics that are not trivial.
pub(crate) fn release(kind: TaskKind, shape: &[usize], layers: Vec<Layer>, seed: u64) -> Release {
    let mut release = Release {
        name: "random".into(),
        kind,
        shape: shape.to_vec(),
        scale: Scale::None,
        standardise: None,
        layers,
        tensors: Vec::new(),
        inputs: Vec::new(),
    };
    let manifest = release.network().unwrap().manifest;
    let mut random = random(seed);
    for tensor in &manifest.tensors {
        let mut value = || match (tensor.start, tensor.role) {
            (Start::Uniform(bound), _) => bound * (2.0 * random.unit_f32() - 1.0),
            (Start::Constant(value), ParamRole::Statistic) if value > 0.0 => 0.5 + random.unit_f32(),
            (Start::Constant(value), _) => value + random.normal() as f32 * 0.2,
        };
        release.tensors.push(Compressed::dense((0..tensor.len()).map(|_| value()).collect()));
        release.inputs.push(None);
    }
    release
}

/// The tensors that are weights of linear layers and convolutions.
pub(crate) fn weights(release: &Release) -> Vec<usize> {
    let manifest = release.network().unwrap().manifest;
    let is = |name: &str| name.ends_with(".weight") && !name.contains("attention");
    (0..manifest.tensors.len()).filter(|index| is(&manifest.tensors[*index].name)).collect()
}

/// Rewrites each of these tensors; `f` sees its shape and its floats.
pub(crate) fn rewrite(release: &mut Release, tensors: &[usize], mut f: impl FnMut(&[usize], Vec<f32>) -> Compressed) {
    let network = release.network().unwrap();
    let parameters = release.parameters(&network);
    for index in tensors {
        let tensor = &network.manifest.tensors[*index];
        release.tensors[*index] = f(&tensor.shape, parameters[tensor.range()].to_vec());
    }
}

/// Integers with a scale a channel.
pub(crate) fn integer(shape: &[usize], values: &[f32], bits: u8) -> Compressed {
    let top = f32::from((1i16 << (bits - 1)) - 1);
    let mut scales = vec![1e-6f32; channels(shape)];
    for (index, value) in values.iter().enumerate() {
        let scale = &mut scales[channel_of(shape, index)];
        *scale = scale.max(value.abs() / top);
    }
    let level = |(index, value): (usize, &f32)| (value / scales[channel_of(shape, index)]).round() as i8;
    let levels = values.iter().enumerate().map(level).collect();
    Compressed { kept: None, values: Values::Integer { bits, scales, levels } }
}

/// The same release with integer weights of `bits` and calibrated inputs.
pub(crate) fn integers(mut release: Release, bits: u8, features: &[f32]) -> Release {
    let weights = weights(&release);
    let inputs = calibrate(&release, features).unwrap();
    rewrite(&mut release, &weights, |shape, values| integer(shape, &values, bits));
    release.inputs = inputs;
    release
}

/// Keeps the largest weights of each tensor, the share that `share` gives for its position, as a code book of 16.
pub(crate) fn pruned(mut release: Release, share: impl Fn(usize) -> f64) -> Release {
    let weights = weights(&release);
    let mut position = 0;
    rewrite(&mut release, &weights, |_, values| {
        let mut order: Vec<u32> = (0..values.len() as u32).collect();
        order.sort_by(|a, b| values[*b as usize].abs().total_cmp(&values[*a as usize].abs()));
        order.truncate(((values.len() as f64 * share(position)) as usize).max(1));
        order.sort_unstable();
        position += 1;
        let top = values.iter().fold(0f32, |top, value| top.max(value.abs()));
        let centroids: Vec<f32> = (0..16).map(|code| (code as f32 - 7.5) / 7.5 * top).collect();
        let code = |value: f32| ((value / top * 7.5 + 7.5).round() as u8).min(15);
        let codes = order.iter().map(|index| code(values[*index as usize])).collect();
        Compressed { kept: Some(order), values: Values::Codebook { centroids, codes } }
    });
    release
}

/// Samples of 784 that look like images of digits: about `ink` of the pixels are not 0.
pub(crate) fn images(count: usize, ink: f64, seed: u64) -> Vec<f32> {
    let mut random = random(seed);
    let mut image = Vec::new();
    for _ in 0..count {
        // Strokes rather than noise: runs of ink along the lines.
        let mut on = false;
        for _ in 0..784 {
            let turn = if on { (1.0 - ink) / 5.0 } else { ink / 5.0 };
            on ^= random.unit_f64() < turn;
            image.push(if on { 0.05 + 0.95 * random.unit_f32() } else { 0.0 });
        }
    }
    image
}

/// Normal values: none is 0.
pub(crate) fn random_normals(count: usize, seed: u64) -> Vec<f32> {
    let mut random = random(seed);
    (0..count).map(|_| random.normal() as f32).collect()
}
