//! DP-SGD: what a step makes of its examples, and the noise on it.

use std::sync::atomic::AtomicBool;

use starling_model::{Memory, ModelError, Network, TrainPath};
use starling_privacy::noise::Simulated;
use starling_spec::init::initial_parameters;
use starling_spec::{Backend, DpSgd, ParamRole, TaskKind, TaskPlan};

use crate::{BACKENDS, plan, uniform};

const PATH: TrainPath = TrainPath { device: 3, round: 2 };

fn private(plan: &TaskPlan, clip: f64, noise_multiplier: f64) -> TaskPlan {
    let mut plan = plan.clone();
    plan.train.dp_sgd = Some(DpSgd { clip, noise_multiplier, delta: 1e-5, epsilon_max: None });
    plan
}

/// What one step with a rate of 1 on all of `rows` takes off the parameters.
fn moved(plan: &TaskPlan, parameters: &[f32], data: &Memory, rows: &[u32]) -> Vec<f32> {
    let (mut network, mut stepped) = (Network::new(plan).expect("a network"), parameters.to_vec());
    let never = AtomicBool::new(false);
    let outcome = if plan.train.dp_sgd.is_some() {
        network.train_private(&mut stepped, data, rows, PATH, &never, &mut Simulated::new(4, &[]))
    } else {
        network.train(&mut stepped, data, rows, PATH, &never)
    };
    assert_eq!(outcome.expect("a step").steps, 1);
    parameters.iter().zip(&stepped).map(|(before, after)| before - after).collect()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn a_step_is_the_mean_of_each_examples_clipped_gradient() {
    let layers =
        r#"[{"conv2d":{"out":3,"kernel":3}},"relu",{"group_norm":{"groups":1}},"flatten",{"linear":{"out":4}}]"#;
    let data = Memory::classes(36, uniform(6 * 36, 1.0, 1), vec![0, 1, 2, 3, 0, 1]);
    let rows: Vec<u32> = (0..6).collect();
    for backend in BACKENDS {
        let plain = plan(TaskKind::Classification, &[1, 6, 6], layers, backend);
        let manifest = plain.manifest().expect("a manifest");
        assert!(manifest.tensors.iter().all(|tensor| tensor.role == ParamRole::Trainable));
        let parameters = initial_parameters(&manifest, 1);
        let alone: Vec<Vec<f32>> = rows.iter().map(|row| moved(&plain, &parameters, &data, &[*row])).collect();
        let mut norms: Vec<f64> = alone.iter().map(|gradient| norm(gradient)).collect();
        norms.sort_by(f64::total_cmp);
        // Three are clipped, three are not.
        let clip = (norms[2] + norms[3]) / 2.0;
        let got = moved(&private(&plain, clip, 0.01), &parameters, &data, &rows);
        for (index, got) in got.iter().enumerate() {
            let clipped = alone.iter().map(|gradient| f64::from(gradient[index]) / (norm(gradient) / clip).max(1.0));
            let expected = clipped.sum::<f64>() / 6.0;
            // Six deviations of the noise, and the parameters' own rounding.
            let bound = 6.0 * 0.01 * clip / 6.0 + 1e-6;
            assert!((f64::from(*got) - expected).abs() < bound, "{index} on {backend:?}: {got} against {expected}");
        }
    }
}

#[test]
fn every_parameter_moves_with_noise_of_the_deviation_that_is_charged() {
    let layers = r#"[{"linear":{"out":400}}]"#;
    let plain = plan(TaskKind::Classification, &[500], layers, Backend::Auto);
    let data = Memory::classes(500, uniform(4 * 500, 1.0, 2), vec![0, 1, 2, 3]);
    let parameters = vec![0.0; plain.manifest().expect("a manifest").len()];
    let got = moved(&private(&plain, 0.5, 3.0), &parameters, &data, &[0, 1, 2, 3]);
    // Over the batch of four. Gradients of a norm of 0.5 at most add a 1,800,000th to the square of each of 200,400 coordinates.
    let deviation = norm(&got) / (got.len() as f64).sqrt();
    assert!((deviation / (3.0 * 0.5 / 4.0) - 1.0).abs() < 0.01, "{deviation}");
    assert!(got.iter().all(|value| *value != 0.0));
}

#[test]
fn an_empty_draw_is_a_step_of_noise_alone() {
    let mut plan = private(&plan(TaskKind::Classification, &[3], r#"[{"linear":{"out":2}}]"#, Backend::Auto), 1.0, 1.0);
    plan.train.batch = 1;
    plan.train.steps_max = 40;
    // One of a thousand a step: most of forty steps draw one, and some none.
    let data = Memory::classes(3, uniform(3000, 1.0, 3), vec![0; 1000]);
    let rows: Vec<u32> = (0..1000).collect();
    let (mut network, mut parameters) = (Network::new(&plan).expect("a network"), vec![0.0; 8]);
    let never = AtomicBool::new(false);
    let outcome = network
        .train_private(&mut parameters, &data, &rows, PATH, &never, &mut Simulated::new(5, &[]))
        .expect("a training");
    assert_eq!((outcome.steps, outcome.examples), (40, 1000), "each step is charged, so each is taken");
}

#[test]
fn training_does_not_go_the_wrong_way_by_mistake() {
    let plain = plan(TaskKind::Classification, &[3], r#"[{"linear":{"out":2}}]"#, Backend::Auto);
    let asked = private(&plain, 1.0, 1.0);
    let data = Memory::classes(3, uniform(12, 1.0, 0), vec![0, 1, 0, 1]);
    let (mut parameters, never) = (vec![0.0; 8], AtomicBool::new(false));
    let result = Network::new(&asked).expect("a network").train(&mut parameters, &data, &[0, 1], PATH, &never);
    assert!(matches!(result, Err(ModelError::Noise(_))), "{result:?}");
    let mut source = Simulated::new(1, &[]);
    let mut network = Network::new(&plain).expect("a network");
    let result = network.train_private(&mut parameters, &data, &[0, 1], PATH, &never, &mut source);
    assert!(matches!(result, Err(ModelError::Noise(_))), "{result:?}");
    assert_eq!(parameters, [0.0; 8]);
}
