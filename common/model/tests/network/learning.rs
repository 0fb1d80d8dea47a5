//! Networks learn: real digits, a sequence that needs memory, a line.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use starling_model::{Evaluated, Memory, Network, TrainPath};
use starling_spec::init::initial_parameters;
use starling_spec::{Backend, Optimizer, TaskFile, TaskKind, TaskPlan};

use crate::{plan, uniform};

fn digits(preset: &str, epochs: usize) -> Evaluated {
    let text = format!(
        "name = \"digits\"\nkind = \"classification\"\n[data]\nformat = \"csv\"\ntrain = \"embedded:optdigits\"\n\
         test = \"embedded:optdigits\"\nshape = [1, 8, 8]\nscale = \"unit\"\n[model]\npreset = \"{preset}\"\n\
         [train]\nlr = 0.1\nbatch = 10\n"
    );
    let task = TaskFile::parse(&text, &[]).expect("a task");
    let plan = TaskPlan::new(&task, 1).expect("a plan");
    let loaded = starling_data::load(&task.data, task.kind, &plan.shape, Path::new("."), 1).expect("digits");
    let test = loaded.test.expect("a test set");
    let mut parameters = initial_parameters(&plan.manifest().expect("a manifest"), plan.seed);
    let mut network = Network::new(&plan).expect("a network");
    let all = |len: usize| (0..u32::try_from(len).expect("small")).collect::<Vec<u32>>();
    let (rows, path) = (all(loaded.train.len()), TrainPath { device: 0, round: 0 });
    network.train_pooled(&mut parameters, &loaded.train, &rows, epochs, path, &mut |_, _| {}).expect("it trains");
    network.evaluate(&parameters, &test, &all(test.len())).expect("it evaluates")
}

#[test]
fn digits_cnn_reaches_its_accuracy() {
    let found = digits("digits-cnn", 8);
    assert!(found.accuracy() >= 0.965, "{}", found.accuracy());
}

#[test]
fn fedavg_2nn_learns_the_digits() {
    let found = digits("fedavg-2nn", 8);
    assert!(found.accuracy() >= 0.94, "{}", found.accuracy());
}

/// Each token repeats the one two positions before: no network without memory beats chance.
#[test]
fn sequences_are_remembered() {
    let context = 8usize;
    let first = uniform(64 * 2, 1.0, 3);
    let (mut tokens, mut next) = (Vec::new(), Vec::new());
    for text in first.chunks(2) {
        let token = |position: usize| u8::from(text[position % 2] > 0.0);
        tokens.extend((0..context).map(|position| f32::from(token(position))));
        next.extend((1..=context).map(|position| u32::from(token(position))));
    }
    let data = Memory::texts(context, tokens, next);
    let rows: Vec<u32> = (0..64).collect();
    for middle in [r#"{"gru":{"out":12}}"#, r#"{"residual":{"layers":[{"self_attention":{"heads":2}}]}}"#] {
        let layers =
            format!(r#"[{{"embedding":{{"tokens":2,"out":12,"positions":true}}}},{middle},{{"linear":{{"out":2}}}}]"#);
        let mut plan = plan(TaskKind::NextToken, &[context], &layers, Backend::Auto);
        plan.train.optimizer = Optimizer::Adam;
        plan.train.lr = 0.01;
        plan.train.epochs = 120;
        let mut parameters = initial_parameters(&plan.manifest().expect("a manifest"), 1);
        let mut network = Network::new(&plan).expect("a network");
        let path = TrainPath { device: 0, round: 0 };
        network.train(&mut parameters, &data, &rows, path, &AtomicBool::new(false)).expect("it trains");
        let found = network.evaluate(&parameters, &data, &rows).expect("figures");
        assert_eq!(found.examples, 64 * 8);
        // The second token of each text cannot be known: 15 of 16 can, and half of the rest by luck.
        assert!(found.accuracy() > 0.93, "{middle}: {}", found.accuracy());
    }
}

#[test]
fn a_line_is_fitted() {
    let features = uniform(200, 1.0, 4);
    let values = features.iter().map(|x| 3.0 * x - 1.0).collect();
    let data = Memory::values(1, features, values);
    let rows: Vec<u32> = (0..200).collect();
    for (optimizer, lr) in [(Optimizer::Sgd, 0.1), (Optimizer::Momentum, 0.05), (Optimizer::Adam, 0.05)] {
        let mut plan = plan(TaskKind::Regression, &[1], r#"[{"linear":{"out":1}}]"#, Backend::Auto);
        plan.train.optimizer = optimizer;
        plan.train.lr = lr;
        plan.train.batch = 20;
        plan.train.epochs = 40;
        let mut parameters = initial_parameters(&plan.manifest().expect("a manifest"), 1);
        let mut network = Network::new(&plan).expect("a network");
        let path = TrainPath { device: 0, round: 0 };
        network.train(&mut parameters, &data, &rows, path, &AtomicBool::new(false)).expect("it trains");
        let found = network.evaluate(&parameters, &data, &rows).expect("figures");
        assert!(found.loss() < 1e-4, "{optimizer:?}: {}", found.loss());
        assert!((parameters[0] - 3.0).abs() < 0.02 && (parameters[1] + 1.0).abs() < 0.02, "{parameters:?}");
    }
}

#[test]
fn one_step_at_rate_1_over_all_rows_goes_down_the_gradient() {
    let features = uniform(48, 1.0, 9);
    let values = features.iter().map(|x| 3.0 * x - 1.0).collect();
    let data = Memory::values(1, features, values);
    let rows: Vec<u32> = (0..48).collect();
    let mut plan = plan(TaskKind::Regression, &[1], r#"[{"linear":{"out":1}}]"#, Backend::Auto);
    (plan.train.optimizer, plan.train.lr, plan.train.batch) = (Optimizer::Sgd, 1.0, 48);
    (plan.train.epochs, plan.train.steps_max) = (7, 1);
    let before = initial_parameters(&plan.manifest().expect("a manifest"), 1);
    let mut network = Network::new(&plan).expect("a network");
    let (loss, gradient) = network.loss_gradient(&before, &data, &rows).expect("a gradient");
    let mut after = before.clone();
    let path = TrainPath { device: 0, round: 0 };
    let outcome = network.train(&mut after, &data, &rows, path, &AtomicBool::new(false)).expect("it trains");
    assert_eq!((outcome.steps, outcome.examples), (1, 48), "the seven passes end with the first step");
    assert!((f64::from(outcome.loss_mean) - loss).abs() < 1e-5, "{} {loss}", outcome.loss_mean);
    for ((before, after), slope) in before.iter().zip(&after).zip(&gradient) {
        assert!((before - after - slope).abs() < 1e-5, "{before} − {after} is not {slope}");
    }
}
