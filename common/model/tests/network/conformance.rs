//! The engine against burn: every layer and every form of weights, through the bytes of a release.
//!
//! Where weights are decoded to floats the two differ by rounding alone. Integer layers are held to burn on inputs that were
//! rounded to their 256 levels, layer by layer.

use starling_compress::method::binary::binary;
use starling_compress::method::codebook::cluster;
use starling_compress::method::quantise::{fixed_point, half, integer};
use starling_compress::{Compressed, Release, Values};
use starling_engine::{Engine, Inference, calibrate};
use starling_model::{BurnInference, Memory, Network, evaluate_with};
use starling_spec::init::initial_parameters;
use starling_spec::shape::{Node, Op};
use starling_spec::{Backend, Layer, ParamRole, TaskKind, TaskPlan};

use crate::{plan, uniform};

const SAMPLES: usize = 9;

/// Kind, shape of a sample and layers; together they name every key that a task file knows.
const CASES: &[(TaskKind, &[usize], &str)] = &[
    (
        TaskKind::Classification,
        &[2, 9, 9],
        r#"[{"conv2d":{"out":6,"kernel":3,"padding":"same"}},"batch_norm","relu",{"max_pool2d":2},{"depthwise_conv2d":{"kernel":3,"padding":"same"}},
        {"group_norm":{"groups":2}},"gelu",{"conv2d":{"out":8,"kernel":2,"stride":2}},{"avg_pool2d":2},"flatten",{"dropout":0.4},{"linear":{"out":5}}]"#,
    ),
    (
        TaskKind::Classification,
        &[3, 20],
        r#"[{"conv1d":{"out":7,"kernel":3,"padding":"same"}},"tanh",{"max_pool1d":{"size":3,"stride":2}},{"conv1d":{"out":6,"kernel":2}},
        "sigmoid",{"avg_pool1d":2},{"residual":{"layers":["layer_norm",{"conv1d":{"out":6,"kernel":3,"padding":"same"}},"relu"]}},
        "global_avg_pool",{"linear":{"out":4,"bias":false}}]"#,
    ),
    (
        TaskKind::NextToken,
        &[6],
        r#"[{"embedding":{"tokens":11,"out":8,"positions":true}},{"residual":{"layers":["layer_norm",{"self_attention":{"heads":2}}]}},
        {"gru":{"out":10}},{"linear":{"out":11}}]"#,
    ),
    (
        TaskKind::Classification,
        &[1, 8, 8],
        r#"[{"conv2d":{"out":5,"kernel":3}},"batch_norm","sign",{"conv2d":{"out":6,"kernel":3,"binary":true}},"batch_norm","sign","flatten",
        {"linear":{"out":20,"binary":true,"bias":false}},"batch_norm","sign",{"linear":{"out":4}}]"#,
    ),
    (
        TaskKind::Classification,
        &[3, 12],
        r#"["sign",{"conv1d":{"out":5,"kernel":4,"binary":true}},"relu","flatten",{"linear":{"out":6,"binary":true}},{"linear":{"out":3}}]"#,
    ),
    (
        TaskKind::Regression,
        &[7],
        r#"[{"linear":{"out":9}},"relu",{"residual":{"layers":[{"linear":{"out":9}}]}},{"linear":{"out":1}}]"#,
    ),
];

type Form = fn(&[f32], &[usize]) -> Values;

const FORMS: &[(&str, Form)] = &[
    ("f32", |values, _| Values::F32(values.to_vec())),
    ("f16", |values, _| half(values)),
    ("fixed8", |values, _| fixed_point(values, 8)),
    ("fixed12", |values, _| fixed_point(values, 12)),
    ("int8", |values, shape| integer(values, shape, 8, true)),
    ("int4", |values, shape| integer(values, shape, 4, false)),
    ("codebook", |values, _| cluster(values, 16)),
    ("binary", binary),
];

/// A plan and parameters that no layer finds trivial.
fn network(kind: TaskKind, shape: &[usize], layers: &str) -> (TaskPlan, Vec<f32>) {
    let plan = plan(kind, shape, layers, Backend::Auto);
    let manifest = plan.manifest().expect("a manifest");
    let mut parameters = initial_parameters(&manifest, 3);
    for tensor in &manifest.tensors {
        let noise = uniform(tensor.len(), 0.3, tensor.offset as u64);
        for (value, noise) in parameters[tensor.range()].iter_mut().zip(noise) {
            // Statistics begin at 0 and 1; a variance stays above 0.
            *value += noise;
        }
        assert!(tensor.role != ParamRole::Statistic || parameters[tensor.range()].iter().all(|value| *value > -0.5));
    }
    (plan, parameters)
}

/// Whether a tensor is the weight of a layer that computes with signs.
fn is_binary(nodes: &[Node], index: usize) -> bool {
    nodes.iter().any(|node| match &node.op {
        Op::Linear { weight, binary, .. } | Op::Conv1d { weight, binary, .. } | Op::Conv2d { weight, binary, .. } => {
            *weight == index && *binary
        }
        Op::Residual(nodes) => is_binary(nodes, index),
        _ => false,
    })
}

/// The release of a plan whose weights have the form `form`; with `pruned` every third of them is 0. Weights behind signs are
/// binary whatever is asked.
fn release(plan: &TaskPlan, parameters: &[f32], form: Form, pruned: bool) -> Release {
    let mut release = Release::float(plan, parameters);
    let network = release.network().expect("a network");
    for (index, tensor) in network.manifest.tensors.iter().enumerate().filter(|(_, tensor)| tensor.shape.len() > 1) {
        let values = &parameters[tensor.range()];
        release.tensors[index] = if is_binary(&network.nodes, index) {
            Compressed { kept: None, values: binary(values, &tensor.shape) }
        } else {
            let whole = form(values, &tensor.shape);
            match whole {
                Values::Binary { .. } => Compressed { kept: None, values: whole },
                whole if pruned => {
                    let kept: Vec<u32> =
                        (0..u32::try_from(values.len()).expect("small")).filter(|at| at % 3 != 0).collect();
                    let values = select(whole, &kept);
                    Compressed { kept: Some(kept), values }
                }
                values => Compressed { kept: None, values },
            }
        };
    }
    let bytes = release.to_bytes();
    let read = Release::from_bytes(&bytes).expect("its own bytes");
    assert_eq!(read.parameters(&network), release.parameters(&network), "what is written is what is read");
    read
}

/// The values at `kept`.
fn select(values: Values, kept: &[u32]) -> Values {
    fn at<T: Copy>(values: &[T], kept: &[u32]) -> Vec<T> {
        kept.iter().map(|index| values[*index as usize]).collect()
    }
    match values {
        Values::F32(values) => Values::F32(at(&values, kept)),
        Values::F16(values) => Values::F16(at(&values, kept)),
        Values::Fixed { places, bits, levels } => Values::Fixed { places, bits, levels: at(&levels, kept) },
        Values::Integer { bits, scales, levels } => Values::Integer { bits, scales, levels: at(&levels, kept) },
        Values::Codebook { centroids, codes } => Values::Codebook { centroids, codes: at(&codes, kept) },
        Values::Binary { .. } => unreachable!("binary weights are dense"),
    }
}

fn features(plan: &TaskPlan, samples: usize) -> Vec<f32> {
    let count = samples * plan.shape.iter().product::<usize>();
    match plan.kind {
        TaskKind::NextToken => {
            (0..count).map(|at| f32::from(u8::try_from((at * 7 + at / 5) % 11).expect("small"))).collect()
        }
        _ => uniform(count, 1.5, 70),
    }
}

fn run(inference: &mut dyn Inference, features: &[f32]) -> Vec<f32> {
    let mut outputs = Vec::new();
    inference.run_into(features, &mut outputs).expect("outputs");
    assert_eq!(outputs.len() * inference.input_len(), features.len() * inference.output_len());
    outputs
}

#[test]
fn every_layer_and_every_form_is_computed_as_burn_does() {
    let mut keys: Vec<&str> = Vec::new();
    for (kind, shape, layers) in CASES {
        let (plan, parameters) = network(*kind, shape, layers);
        collect(&plan.layers, &mut keys);
        let features = features(&plan, SAMPLES);
        for (name, form) in FORMS {
            for pruned in [false, true] {
                let release = release(&plan, &parameters, *form, pruned);
                let network = release.network().expect("a network");
                let computed = release.parameters(&network);
                let found = run(&mut Engine::new(&release).expect("an engine"), &features);
                let size = found.iter().fold(1f32, |size, value| size.max(value.abs()));
                for backend in [Backend::Flex, Backend::Ndarray, Backend::Auto] {
                    let mut burn = BurnInference::new(&plan, &computed, backend).expect("parameters");
                    for (at, (found, expected)) in found.iter().zip(run(&mut burn, &features)).enumerate() {
                        let what = format!("{name}, pruned {pruned}, {backend:?}, output {at} of {layers}");
                        assert!((found - expected).abs() < 5e-5 * size, "{what}: {found} against {expected}");
                    }
                }
            }
        }
    }
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 23, "a case for every key: {keys:?}");
}

fn collect(layers: &[Layer], keys: &mut Vec<&'static str>) {
    for layer in layers {
        keys.push(layer.key());
        if let Layer::Residual(residual) = layer {
            collect(&residual.layers, keys);
        }
    }
}

#[test]
fn integer_layers_compute_on_the_levels_of_their_inputs() {
    for (kind, shape, layers) in [
        (
            TaskKind::Classification,
            &[6][..],
            r#"[{"linear":{"out":12}},"relu",{"linear":{"out":7}},"tanh",{"linear":{"out":4}}]"#,
        ),
        (
            TaskKind::Classification,
            &[2, 10, 10],
            r#"[{"conv2d":{"out":6,"kernel":3}},"batch_norm","relu",{"max_pool2d":2},{"conv2d":{"out":9,"kernel":3,"padding":"same"}},"relu",
            "flatten",{"linear":{"out":5}}]"#,
        ),
        (
            TaskKind::Classification,
            &[2, 16],
            r#"[{"conv1d":{"out":6,"kernel":3,"stride":2}},"relu",{"max_pool1d":2},"flatten",{"linear":{"out":5}}]"#,
        ),
    ] {
        let (plan, parameters) = network(kind, shape, layers);
        let many = features(&plan, 200);
        for bits in [8, 5] {
            let form: Form = if bits == 8 { |v, s| integer(v, s, 8, true) } else { |v, s| integer(v, s, 5, false) };
            let mut release = release(&plan, &parameters, form, false);
            release.inputs = calibrate(&release, &many).expect("ranges");
            assert!(release.inputs.iter().flatten().count() >= 2);
            let found = run(&mut Engine::new(&release).expect("an engine"), &many);
            let expected = by_layers(&plan, &release, &many);
            let floats = {
                let computed = release.parameters(&release.network().expect("a network"));
                run(&mut BurnInference::new(&plan, &computed, Backend::Flex).expect("parameters"), &many)
            };
            let size = found.iter().fold(0f32, |size, value| size.max(value.abs()));
            let mean = |other: &[f32]| {
                let sum: f32 = found.iter().zip(other).map(|(a, b)| (a - b).abs()).sum();
                sum / f32::from(u16::try_from(found.len()).expect("few outputs")) / size
            };
            let largest = found.iter().zip(&expected).fold(0f32, |largest, (a, b)| largest.max((a - b).abs() / size));
            // A value between two levels may fall to either side in one of thousands; all else is rounding.
            println!(
                "{bits} bits: {:.2e} on average, {largest:.2e} at most; to floats {:.2e}",
                mean(&expected),
                mean(&floats)
            );
            assert!(mean(&expected) < 2e-5 && largest < 1e-2, "{layers}: {} {largest}", mean(&expected));
            assert!(mean(&floats) > 20.0 * mean(&expected), "levels are seen");
        }
    }
}

/// A plan of layers in a row that begins with an integer layer, run by burn in pieces: one for each integer layer with what
/// follows it, on inputs rounded to the levels of its range.
fn by_layers(plan: &TaskPlan, release: &Release, features: &[f32]) -> Vec<f32> {
    let network = release.network().expect("a network");
    let parameters = release.parameters(&network);
    let starts: Vec<(usize, usize)> = network
        .nodes
        .iter()
        .enumerate()
        .filter_map(|(at, node)| match &node.op {
            Op::Linear { weight, .. } | Op::Conv1d { weight, .. } | Op::Conv2d { weight, .. } => Some((at, *weight)),
            _ => None,
        })
        .collect();
    assert_eq!(starts[0].0, 0);
    let mut x = features.to_vec();
    for (piece, (start, weight)) in starts.iter().enumerate() {
        let range = release.inputs[*weight].expect("a range for each integer layer");
        let step = (range.high - range.low) / 255.0;
        let zero = (-range.low / step).round_ties_even();
        for x in &mut x {
            *x = ((*x / step + zero).round_ties_even().clamp(0.0, 255.0) - zero) * step;
        }
        let end = starts.get(piece + 1).map_or(plan.layers.len(), |(end, _)| *end);
        let mut layers = plan.layers[*start..end].to_vec();
        if network.nodes[end - 1].output.len() > 1 {
            layers.push(Layer::Flatten);
        }
        let alone = TaskPlan { shape: network.nodes[*start].input.clone(), layers, ..plan.clone() };
        let own =
            &parameters[network.manifest.tensors[*weight].offset..][..alone.manifest().expect("a manifest").len()];
        x = run(&mut BurnInference::new(&alone, own, Backend::Flex).expect("parameters"), &x);
    }
    x
}

#[test]
fn an_evaluation_is_the_same_through_any_inference() {
    let (plan, parameters) = network(CASES[0].0, CASES[0].1, CASES[0].2);
    let count = 150;
    let rows: Vec<u32> = (0..count).rev().collect();
    let data = Memory::classes(162, uniform(162 * 150, 1.5, 71), (0..count).map(|row| row % 5).collect());
    let expected = Network::new(&plan).expect("a network").evaluate(&parameters, &data, &rows).expect("figures");
    let release = Release::float(&plan, &parameters);
    let network = release.network().expect("a network");
    let mut burn = BurnInference::new(&plan, &parameters, Backend::Auto).expect("parameters");
    assert_eq!(evaluate_with(&mut burn, &network, &data, &rows).expect("figures"), expected);
    let mut engine = Engine::new(&release).expect("an engine");
    let found = evaluate_with(&mut engine, &network, &data, &rows).expect("figures");
    assert_eq!((found.examples, found.correct), (expected.examples, expected.correct));
    assert!((found.loss() - expected.loss()).abs() < 1e-5);
    assert!(evaluate_with(&mut engine, &network, &data, &[150]).expect_err("refused").to_string().contains("row 150"));
}
