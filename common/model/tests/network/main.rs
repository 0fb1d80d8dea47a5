//! Networks through the public interface: outputs, gradients, determinism, refusals, and what they learn.

mod chains;
mod conformance;
mod determinism;
mod dp_sgd;
mod forms;
mod gradients;
mod learning;
mod refusals;
mod tuning;
mod vectors;

use starling_spec::random::{Purpose, Random};
use starling_spec::{Backend, Layer, Optimizer, Scale, TaskKind, TaskPlan, TrainSettings, UpdateSettings};

/// A plan for `layers`, which are JSON; SGD with a rate of 1 on everything at once, so that a step is the gradient.
fn plan(kind: TaskKind, shape: &[usize], layers: &str, backend: Backend) -> TaskPlan {
    let task = starling_spec::task::UpdateSection::default();
    TaskPlan {
        name: "test".into(),
        kind,
        shape: shape.to_vec(),
        scale: Scale::default(),
        standardise: None,
        moments: None,
        layers: serde_json::from_str::<Vec<Layer>>(layers).expect("layers"),
        backend,
        train: TrainSettings {
            optimizer: Optimizer::Sgd,
            lr: 1.0,
            momentum: 0.9,
            batch: 0,
            ..TrainSettings::default()
        },
        update: UpdateSettings { codec: task.codec, down: task.down, value_max_log2: 4, weight_max: task.weight_max },
        holdout: 0.0,
        holdout_seed: None,
        seed: 5,
        privacy: None,
    }
}

/// `count` values, uniform in ±`bound`.
fn uniform(count: usize, bound: f32, stream: u64) -> Vec<f32> {
    let mut random = Random::new(77, Purpose::Noise, &[stream]);
    (0..count).map(|_| bound * (2.0 * random.unit_f32() - 1.0)).collect()
}

const BACKENDS: [Backend; 3] = [Backend::Ndarray, Backend::Flex, Backend::Auto];
