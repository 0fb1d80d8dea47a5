//! Gradients against central differences of the training loss, tensor by tensor, on both backends.

use std::sync::atomic::AtomicBool;

use starling_model::{Memory, Network, TrainPath};
use starling_spec::init::initial_parameters;
use starling_spec::{Backend, ParamRole, TaskKind};

use crate::{BACKENDS, plan, uniform};

const PATH: TrainPath = TrainPath { device: 3, round: 2 };
const SAMPLES: usize = 6;

/// The loss at `parameters`, and the parameters after one step of plain descent with rate 1.
fn step(network: &mut Network, parameters: &[f32], data: &Memory) -> (f64, Vec<f32>) {
    let mut stepped = parameters.to_vec();
    let rows: Vec<u32> = (0..6).collect();
    let outcome = network.train(&mut stepped, data, &rows, PATH, &AtomicBool::new(false)).expect("a step");
    assert_eq!((outcome.steps, outcome.examples), (1, 6));
    (f64::from(outcome.loss_mean), stepped)
}

/// The derivative along a random direction in each tensor, from gradients and from differences.
fn check(kind: TaskKind, shape: &[usize], layers: &str, data: &Memory) {
    for backend in BACKENDS {
        let plan = plan(kind, shape, layers, backend);
        let manifest = plan.manifest().expect("a manifest");
        let mut network = Network::new(&plan).expect("a network");
        let mut parameters = initial_parameters(&manifest, 1);
        // Biases off zero: at 0 a ReLU's kink or a symmetric state could hide a mistake.
        for (index, value) in uniform(parameters.len(), 0.1, 9).into_iter().enumerate() {
            parameters[index] += value;
        }
        let (_, stepped) = step(&mut network, &parameters, data);
        for (index, tensor) in manifest.tensors.iter().enumerate() {
            if tensor.role != ParamRole::Trainable {
                continue;
            }
            let direction = uniform(tensor.len(), 1.0, index as u64);
            let norm = direction.iter().map(|value| value * value).sum::<f32>().sqrt();
            let along: f64 = tensor
                .range()
                .zip(&direction)
                .map(|(at, value)| f64::from(parameters[at] - stepped[at]) * f64::from(value / norm))
                .sum();
            let size = 4e-3f32;
            let moved = |sign: f32| {
                let mut moved = parameters.clone();
                for (at, value) in tensor.range().zip(&direction) {
                    moved[at] += sign * size * value / norm;
                }
                moved
            };
            let above = step(&mut network, &moved(1.0), data).0;
            let below = step(&mut network, &moved(-1.0), data).0;
            let difference = (above - below) / (2.0 * f64::from(size));
            // Rounding of the f32 loss alone gives 6e-8 · loss / 8e-3 ≈ 2e-5.
            let bound = 2e-4 + 5e-3 * difference.abs();
            assert!((along - difference).abs() < bound, "{} on {backend:?}: {along} against {difference}", tensor.name);
        }
    }
}

fn images(shape: &[usize], classes: u32) -> Memory {
    let len = shape.iter().product();
    Memory::classes(len, uniform(SAMPLES * len, 1.0, 100), (0..6).map(|row| row % classes).collect())
}

#[test]
fn dense_networks_with_every_smooth_activation_and_dropout() {
    for activation in [r#""tanh""#, r#""sigmoid""#, r#""gelu""#, r#"{"dropout":0.4}"#] {
        let layers = format!(
            r#"[{{"linear":{{"out":9}}}},{activation},{{"residual":{{"layers":[{{"linear":{{"out":9}}}},"tanh"]}}}},{{"linear":{{"out":4}}}}]"#
        );
        check(TaskKind::Classification, &[5], &layers, &images(&[5], 4));
    }
}

#[test]
fn convolutions_and_mean_pools() {
    let layers = r#"[{"conv2d":{"out":4,"kernel":3,"padding":"same"}},"tanh",{"avg_pool2d":2},
        {"depthwise_conv2d":{"kernel":3,"padding":"same"}},{"conv2d":{"out":5,"kernel":3,"stride":2}},"tanh","flatten",{"linear":{"out":3}}]"#;
    check(TaskKind::Classification, &[2, 11, 11], layers, &images(&[2, 11, 11], 3));
    let layers = r#"[{"conv1d":{"out":4,"kernel":3,"padding":"same"}},"tanh",{"avg_pool1d":2},{"conv1d":{"out":5,"kernel":2,"stride":2}},
        "global_avg_pool",{"linear":{"out":3}}]"#;
    check(TaskKind::Classification, &[2, 13], layers, &images(&[2, 13], 3));
}

#[test]
fn largest_value_pools_and_relu() {
    let layers = r#"[{"conv2d":{"out":3,"kernel":3}},{"max_pool2d":2},"relu","flatten",{"linear":{"out":3}}]"#;
    check(TaskKind::Classification, &[1, 8, 8], layers, &images(&[1, 8, 8], 3));
    let layers = r#"[{"conv1d":{"out":3,"kernel":3}},{"max_pool1d":{"size":3,"stride":2}},"relu","flatten",{"linear":{"out":3}}]"#;
    check(TaskKind::Classification, &[1, 12], layers, &images(&[1, 12], 3));
}

#[test]
fn normalisations() {
    for norm in [r#""batch_norm""#, r#"{"group_norm":{"groups":2}}"#, r#""layer_norm""#] {
        let layers =
            format!(r#"[{{"conv2d":{{"out":4,"kernel":3}}}},{norm},"tanh","flatten",{{"linear":{{"out":3}}}}]"#);
        check(TaskKind::Classification, &[2, 6, 6], &layers, &images(&[2, 6, 6], 3));
        let layers = format!(r#"[{{"linear":{{"out":6}}}},{norm},"tanh",{{"linear":{{"out":3}}}}]"#);
        check(TaskKind::Classification, &[5], &layers, &images(&[5], 3));
    }
}

#[test]
fn texts() {
    let tokens: Vec<f32> =
        (0..SAMPLES * 4).map(|index| f32::from(u8::try_from((index * 7) % 5).expect("small"))).collect();
    let next: Vec<u32> = (0..24).map(|index: u32| (index * 3) % 5).collect();
    let data = Memory::texts(4, tokens, next);
    for middle in [r#"{"gru":{"out":6}}"#, r#"{"residual":{"layers":["layer_norm",{"self_attention":{"heads":2}}]}}"#] {
        let layers =
            format!(r#"[{{"embedding":{{"tokens":5,"out":6,"positions":true}}}},{middle},{{"linear":{{"out":5}}}}]"#);
        check(TaskKind::NextToken, &[4], &layers, &data);
    }
}

#[test]
fn regressions() {
    let data = Memory::values(5, uniform(SAMPLES * 5, 1.0, 100), uniform(SAMPLES, 2.0, 101));
    check(TaskKind::Regression, &[5], r#"[{"linear":{"out":7}},"tanh",{"linear":{"out":1}}]"#, &data);
}

#[test]
fn running_statistics_follow_the_batch_and_only_they_are_no_gradients() {
    for backend in [Backend::Flex, Backend::Ndarray] {
        let plan = plan(TaskKind::Classification, &[2], r#"["batch_norm",{"linear":{"out":2}}]"#, backend);
        let manifest = plan.manifest().expect("a manifest");
        let data = Memory::classes(2, vec![0., 1., 2., 1., 4., 1., 6., 1., 8., 1., 10., 1.], vec![0, 1, 0, 1, 0, 1]);
        let parameters = initial_parameters(&manifest, 1);
        let mut network = Network::new(&plan).expect("a network");
        let (_, stepped) = step(&mut network, &parameters, &data);
        // Channel 0 has mean 5 and unbiased variance 14; channel 1 is constant. The running values move a tenth of the way.
        let (mean, variance) = (manifest.tensors[2].range(), manifest.tensors[3].range());
        for (got, expected) in stepped[mean].iter().chain(&stepped[variance]).zip([0.5, 0.1, 0.9 + 1.4, 0.9]) {
            assert!((got - expected).abs() < 1e-5, "{got} is not {expected}");
        }
    }
}
