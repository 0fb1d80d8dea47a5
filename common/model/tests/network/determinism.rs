//! Invariant 11: the seed and the path decide, and nothing else does.

use std::sync::atomic::AtomicBool;

use starling_model::{Memory, Network, TrainPath};
use starling_spec::init::initial_parameters;
use starling_spec::{Backend, TaskKind, TaskPlan};

use crate::{BACKENDS, plan, uniform};

const LAYERS: &str = r#"[{"conv2d":{"out":4,"kernel":3}},"relu",{"max_pool2d":2},"flatten",{"dropout":0.3},{"linear":{"out":16}},"relu",{"linear":{"out":4}}]"#;

fn small(backend: Backend) -> (TaskPlan, Memory) {
    let mut plan = plan(TaskKind::Classification, &[1, 8, 8], LAYERS, backend);
    plan.train.lr = 0.05;
    plan.train.batch = 7;
    plan.train.epochs = 2;
    (plan, Memory::classes(64, uniform(60 * 64, 1.0, 1), (0..60).map(|row| row % 4).collect()))
}

fn trained(plan: &TaskPlan, data: &Memory, path: TrainPath) -> Vec<u32> {
    let mut parameters = initial_parameters(&plan.manifest().expect("a manifest"), plan.seed);
    let rows: Vec<u32> = (0..60).collect();
    let mut network = Network::new(plan).expect("a network");
    network.train(&mut parameters, data, &rows, path, &AtomicBool::new(false)).expect("it trains");
    parameters.into_iter().map(f32::to_bits).collect()
}

#[test]
fn inv11_the_same_path_gives_the_same_bits_on_any_number_of_threads() {
    for backend in BACKENDS {
        let (plan, data) = small(backend);
        let path = TrainPath { device: 1, round: 1 };
        let alone = trained(&plan, &data, path);
        let together: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| trained(&plan, &data, path))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
        });
        assert!(together.iter().all(|other| *other == alone), "{backend:?}");
        assert_ne!(trained(&plan, &data, TrainPath { device: 2, round: 1 }), alone);
        assert_ne!(trained(&plan, &data, TrainPath { device: 1, round: 2 }), alone);
    }
}

#[test]
fn inv11_a_network_carries_nothing_from_one_training_to_the_next() {
    let (plan, data) = small(Backend::Auto);
    let rows: Vec<u32> = (0..60).collect();
    let mut network = Network::new(&plan).expect("a network");
    let start = initial_parameters(&plan.manifest().expect("a manifest"), plan.seed);
    let mut results = Vec::new();
    for _ in 0..2 {
        let mut parameters = start.clone();
        let path = TrainPath { device: 1, round: 1 };
        network.train(&mut parameters, &data, &rows, path, &AtomicBool::new(false)).expect("it trains");
        network.evaluate(&parameters, &data, &rows).expect("it evaluates");
        results.push(parameters);
    }
    assert_eq!(results[0], results[1]);
}

#[test]
fn pooled_training_keeps_its_optimiser_and_shows_each_epoch() {
    let (mut plan, data) = small(Backend::Auto);
    plan.train.optimizer = starling_spec::Optimizer::Adam;
    plan.train.lr = 0.01;
    let rows: Vec<u32> = (0..60).collect();
    let mut network = Network::new(&plan).expect("a network");
    let mut parameters = initial_parameters(&plan.manifest().expect("a manifest"), plan.seed);
    let path = TrainPath { device: 0, round: 0 };
    let mut seen = Vec::new();
    let mut show = |epoch: usize, parameters: &[f32]| seen.push((epoch, parameters.to_vec()));
    network.train_pooled(&mut parameters, &data, &rows, 2, path, &mut show).expect("it trains");
    assert_eq!(seen.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(seen[1].1, parameters);
    // The same two epochs in one training are the same steps.
    let mut again = initial_parameters(&plan.manifest().expect("a manifest"), plan.seed);
    network.train(&mut again, &data, &rows, path, &AtomicBool::new(false)).expect("it trains");
    assert_eq!(again, parameters);
}

#[test]
fn dropout_is_silent_in_evaluation() {
    let (plan, data) = small(Backend::Auto);
    let mut still = plan.clone();
    still.layers.remove(4);
    let parameters = initial_parameters(&plan.manifest().expect("a manifest"), 1);
    let rows: Vec<u32> = (0..60).collect();
    let with = Network::new(&plan).expect("a network").evaluate(&parameters, &data, &rows).expect("figures");
    let without = Network::new(&still).expect("a network").evaluate(&parameters, &data, &rows).expect("figures");
    assert_eq!(with, without);
}
