//! Forms of weights that a plan asks for: pruned, integers, signs.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use starling_compress::WeightMap;
use starling_compress::method::binary::Binarised;
use starling_compress::method::prune::{Criterion, Mask, Shares, mask};
use starling_compress::method::quantise::FakeQuantised;
use starling_model::{Memory, Network, TrainPath};
use starling_spec::init::initial_parameters;
use starling_spec::shape::infer;
use starling_spec::{Backend, Optimizer, Schedule, TaskFile, TaskKind, TaskPlan, WeightForm};

use crate::{BACKENDS, plan, uniform};

const PATH: TrainPath = TrainPath { device: 1, round: 2 };

const LAYERS: &str = r#"[{"conv2d":{"out":4,"kernel":3}},"relu",{"max_pool2d":2},"flatten",{"linear":{"out":16}},"relu",{"linear":{"out":3}}]"#;

fn small(backend: Backend, weights: WeightForm) -> (TaskPlan, Memory, Vec<u32>, Vec<f32>) {
    let mut plan = plan(TaskKind::Classification, &[1, 8, 8], LAYERS, backend);
    plan.train.lr = 0.05;
    plan.train.batch = 8;
    plan.train.epochs = 3;
    plan.train.weights = weights;
    let data = Memory::classes(64, uniform(40 * 64, 1.0, 1), (0..40).map(|row| row % 3).collect());
    let parameters = initial_parameters(&plan.manifest().expect("a manifest"), plan.seed);
    (plan, data, (0..40).collect(), parameters)
}

fn shape(plan: &TaskPlan) -> starling_spec::shape::Network {
    infer(plan.kind, &plan.shape, &plan.layers).expect("a network")
}

#[test]
fn a_pruned_model_stays_pruned_whatever_the_optimiser() {
    for (backend, optimizer) in
        [(Backend::Auto, Optimizer::Sgd), (Backend::Flex, Optimizer::Momentum), (Backend::Ndarray, Optimizer::Adam)]
    {
        let (mut plan, data, rows, mut parameters) = small(backend, WeightForm::Pruned);
        plan.train.optimizer = optimizer;
        let shape = shape(&plan);
        let kept = mask(&shape, &parameters, Criterion::Magnitude, &Shares::Uniform(0.2));
        kept.apply(&mut parameters);
        let start = parameters.clone();
        let mut network = Network::new(&plan).expect("a network");
        network.train(&mut parameters, &data, &rows, PATH, &AtomicBool::new(false)).expect("it trains");
        let mut moved = 0;
        for ((after, before), kept) in parameters.iter().zip(&start).zip(kept.kept()) {
            assert!(*kept || *after == 0.0, "a pruned weight is {after}");
            moved += usize::from(after != before);
        }
        // Biases begin at 0 too, and are free: they and the kept weights have moved.
        assert!(moved > 50, "{moved}");
        assert_eq!(Mask::of_zeros(&shape, &parameters), kept);
    }
}

#[test]
fn integers_are_what_is_trained_and_what_is_evaluated() {
    for backend in BACKENDS {
        let (plan, data, rows, mut parameters) = small(backend, WeightForm::Integer(3));
        let start = parameters.clone();
        let quantised = FakeQuantised::new(&shape(&plan), 3);
        let mut network = Network::new(&plan).expect("a network");
        // One small step: the free weights move, the integers behind them need not.
        let mut one = plan.clone();
        one.train.batch = 0;
        one.train.epochs = 1;
        one.train.lr = 1e-6;
        let mut moved = start.clone();
        Network::new(&one)
            .expect("a network")
            .train(&mut moved, &data, &rows, PATH, &AtomicBool::new(false))
            .expect("a step");
        assert!(moved.iter().zip(&start).filter(|(after, before)| after != before).count() > 100);

        network.train(&mut parameters, &data, &rows, PATH, &AtomicBool::new(false)).expect("it trains");
        let mut computed = vec![0.0; parameters.len()];
        quantised.forward(&parameters, &mut computed);
        assert_ne!(parameters, computed);
        // A network of free weights, given the integers, is the network of the plan.
        let free = TaskPlan {
            train: starling_spec::TrainSettings { weights: WeightForm::Free, ..plan.train.clone() },
            ..plan.clone()
        };
        let mut plain = Network::new(&free).expect("a network");
        let found = network.evaluate(&parameters, &data, &rows).expect("figures");
        assert_eq!(found, plain.evaluate(&computed, &data, &rows).expect("figures"));
        assert_ne!(found, plain.evaluate(&parameters, &data, &rows).expect("figures"));
        let features = uniform(64, 1.0, 9);
        assert_eq!(
            network.predict(&parameters, &features).expect("outputs"),
            plain.predict(&computed, &features).expect("outputs")
        );
        // The gradient is the plain one at the integers; none of these weights lies beyond its last level and pushes outwards.
        let (loss, gradient) = network.loss_gradient(&parameters, &data, &rows).expect("a gradient");
        let (expected_loss, mut expected) = plain.loss_gradient(&computed, &data, &rows).expect("a gradient");
        quantised.backward(&parameters, &mut expected);
        assert_eq!((loss, gradient), (expected_loss, expected));
    }
}

/// Outputs of binary layers, inside a residual and in a convolution too, against `α sign(W)` by hand in a plain network.
#[test]
fn binary_layers_compute_with_signs() {
    let layers = |binary: &str| {
        format!(
            r#"[{{"conv2d":{{"out":4,"kernel":3{binary}}}}},"batch_norm","sign","flatten",{{"linear":{{"out":6{binary}}}}},"sign",
            {{"residual":{{"layers":[{{"linear":{{"out":6{binary}}}}}]}}}},{{"linear":{{"out":3}}}}]"#
        )
    };
    for backend in BACKENDS {
        let signs = plan(TaskKind::Classification, &[1, 6, 6], &layers(r#","binary":true"#), backend);
        let plain = plan(TaskKind::Classification, &[1, 6, 6], &layers(""), backend);
        let manifest = signs.manifest().expect("a manifest");
        let mut free = initial_parameters(&manifest, 1);
        for (name, zero) in [("0.conv2d.weight", 3), ("4.linear.weight", 5)] {
            let tensor = manifest.tensors.iter().find(|tensor| tensor.name == name).expect("a weight");
            free[tensor.offset + zero] = 0.0;
        }
        let mut by_hand = free.clone();
        for tensor in manifest.tensors.iter().filter(|tensor| tensor.shape.len() > 1 && !tensor.name.starts_with("7."))
        {
            let values = &free[tensor.range()];
            // Output channels: columns of a matrix, the first axis of a convolution.
            let channel = |index: usize| match tensor.shape.len() {
                2 => index % tensor.shape[1],
                _ => index / tensor.shape[1..].iter().product::<usize>(),
            };
            for (index, value) in values.iter().enumerate() {
                let members: Vec<f64> = (0..values.len())
                    .filter(|other| channel(*other) == channel(index))
                    .map(|other| f64::from(values[other].abs()))
                    .collect();
                #[allow(clippy::cast_possible_truncation, reason = "a mean is rounded to the precision of the weights")]
                let alpha = (members.iter().sum::<f64>() / members.len() as f64) as f32;
                by_hand[tensor.offset + index] = if *value >= 0.0 { alpha } else { -alpha };
            }
        }
        let features = uniform(36 * 20, 1.0, 3);
        let found = Network::new(&signs).expect("a network").predict(&free, &features).expect("outputs");
        let expected = Network::new(&plain).expect("a network").predict(&by_hand, &features).expect("outputs");
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{backend:?}");
        // The gradient by the real weights is that by the signs, brought back.
        let (data, rows) =
            (Memory::classes(36, features, (0..20).map(|row| row % 3).collect()), (0..20).collect::<Vec<_>>());
        let (_, gradient) =
            Network::new(&signs).expect("a network").loss_gradient(&free, &data, &rows).expect("a gradient");
        let (_, mut back) =
            Network::new(&plain).expect("a network").loss_gradient(&by_hand, &data, &rows).expect("a gradient");
        Binarised::new(&shape(&signs)).backward(&free, &mut back);
        assert!(gradient.iter().any(|slope| slope.abs() > 1e-2));
        assert!(gradient.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-5), "{backend:?}");
    }
}

/// The gradient of `sign` is that of `clamp(x, −1, 1)`: a network with sign last but one, against differences of the same network
/// with a clamp, which is linear between its kinks.
#[test]
fn the_signs_gradient_is_the_clamps() {
    for backend in BACKENDS {
        // y = v · sign(w x): the gradient by w is Σ 2 (y − t) v x [|w x| ≤ 1] / N.
        let plan = plan(
            TaskKind::Regression,
            &[1],
            r#"[{"linear":{"out":1,"bias":false}},"sign",{"linear":{"out":1,"bias":false}}]"#,
            backend,
        );
        let (w, v) = (0.8f32, 0.5f32);
        let inputs = [-2.0f32, -1.0, -0.3, 0.0, 0.6, 1.2, 1.3, 5.0];
        let targets = [0.3f32; 8];
        let data = Memory::values(1, inputs.to_vec(), targets.to_vec());
        let rows: Vec<u32> = (0..8).collect();
        let mut network = Network::new(&plan).expect("a network");
        let (_, gradient) = network.loss_gradient(&[w, v], &data, &rows).expect("a gradient");
        let (mut by_w, mut by_v) = (0f32, 0f32);
        for (x, target) in inputs.iter().zip(targets) {
            let sign = if w * x >= 0.0 { 1.0 } else { -1.0 };
            let slope = 2.0 * (v * sign - target) / 8.0;
            by_v += slope * sign;
            by_w += if (w * x).abs() <= 1.0 { slope * v * x } else { 0.0 };
        }
        assert!((gradient[0] - by_w).abs() < 1e-6 && (gradient[1] - by_v).abs() < 1e-6, "{gradient:?} {by_w} {by_v}");
    }
}

#[test]
fn a_binary_network_learns_the_digits() {
    let text = r#"
        name = "digits"
        kind = "classification"
        [data]
        format = "csv"
        train = "embedded:optdigits"
        test = "embedded:optdigits"
        shape = [64]
        scale = "unit"
        [model]
        layers = [
            { linear = { out = 256, bias = false } }, "batch_norm", "sign",
            { linear = { out = 256, bias = false, binary = true } }, "batch_norm", "sign",
            { linear = { out = 10, binary = true } },
        ]
        [train]
        optimizer = "adam"
        lr = 0.003
        schedule = "cosine"
        batch = 50
        epochs = 12
    "#;
    let task = TaskFile::parse(text, &[]).expect("a task");
    assert_eq!(task.train.schedule, Schedule::Cosine);
    let plan = TaskPlan::new(&task, 1).expect("a plan");
    let loaded = starling_data::load(&task.data, task.kind, &plan.shape, Path::new("."), 1).expect("digits");
    let test = loaded.test.expect("a test set");
    let manifest = plan.manifest().expect("a manifest");
    let mut parameters = initial_parameters(&manifest, plan.seed);
    let mut network = Network::new(&plan).expect("a network");
    let all = |len: usize| (0..u32::try_from(len).expect("small")).collect::<Vec<u32>>();
    network
        .train(&mut parameters, &loaded.train, &all(loaded.train.len()), PATH, &AtomicBool::new(false))
        .expect("it trains");
    let found = network.evaluate(&parameters, &test, &all(test.len())).expect("it evaluates");
    assert!(found.accuracy() >= 0.95, "{}", found.accuracy());
}
