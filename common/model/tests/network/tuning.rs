//! Training beside the plan: maps, schedules, teachers, and what compression asks.

use std::sync::atomic::AtomicBool;

use starling_compress::WeightMap;
use starling_model::{Memory, ModelError, Network, Teacher, TrainPath, Tuning};
use starling_spec::init::initial_parameters;
use starling_spec::{Backend, Optimizer, Schedule, TaskKind, TaskPlan, TrainSettings};

use crate::{BACKENDS, plan, uniform};

const LAYERS: &str = r#"[{"conv2d":{"out":4,"kernel":3}},"batch_norm","tanh","flatten",{"linear":{"out":6}},"tanh",{"linear":{"out":3}}]"#;
const PATH: TrainPath = TrainPath { device: 1, round: 2 };

fn small(backend: Backend) -> (TaskPlan, Memory, Vec<u32>) {
    let mut plan = plan(TaskKind::Classification, &[1, 6, 6], LAYERS, backend);
    plan.train.lr = 0.1;
    plan.train.batch = 8;
    plan.train.epochs = 3;
    let classes: Vec<u32> = (0..40).map(|row| row % 3).collect();
    let mut features = uniform(40 * 36, 1.0, 1);
    for (sample, class) in features.chunks_exact_mut(36).zip(&classes) {
        sample[*class as usize * 4] += 1.5;
    }
    (plan, Memory::classes(36, features, classes), (0..40).collect())
}

fn start(plan: &TaskPlan) -> Vec<f32> {
    initial_parameters(&plan.manifest().expect("a manifest"), plan.seed)
}

fn tuning<'a>(
    settings: &TrainSettings,
    stop: &'a AtomicBool,
    on_epoch: &'a mut dyn FnMut(usize, &[f32]),
) -> Tuning<'a> {
    Tuning { settings: settings.clone(), path: PATH, map: None, teacher: None, stop, on_epoch }
}

/// The network computes with half of each free parameter.
struct Halves;

impl WeightMap for Halves {
    fn forward(&self, free: &[f32], computed: &mut [f32]) {
        for (computed, free) in computed.iter_mut().zip(free) {
            *computed = 0.5 * free;
        }
    }

    fn backward(&self, _free: &[f32], gradient: &mut [f32]) {
        gradient.iter_mut().for_each(|slope| *slope *= 0.5);
    }
}

struct Same;

impl WeightMap for Same {
    fn forward(&self, free: &[f32], computed: &mut [f32]) {
        computed.copy_from_slice(free);
    }

    fn backward(&self, _free: &[f32], _gradient: &mut [f32]) {}
}

#[test]
fn a_map_that_changes_nothing_trains_to_the_same_bits() {
    for backend in BACKENDS {
        let (plan, data, rows) = small(backend);
        let mut network = Network::new(&plan).expect("a network");
        let stop = AtomicBool::new(false);
        let (mut plain, mut mapped) = (start(&plan), start(&plan));
        let outcome = network.train(&mut plain, &data, &rows, PATH, &stop).expect("it trains");
        let mut seen = Vec::new();
        let mut on_epoch = |epoch: usize, free: &[f32]| seen.push((epoch, free.to_vec()));
        let tuning = Tuning { map: Some(&Same), ..tuning(&plan.train, &stop, &mut on_epoch) };
        assert_eq!(network.tune(&mut mapped, &data, &rows, tuning).expect("it trains"), outcome);
        assert_eq!(plain, mapped);
        assert_eq!(seen.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(seen[2].1, mapped);
    }
}

/// With `w = v / 2` the chain rule makes a step of rate `4 lr` on `v` one of rate `lr` on `w`.
#[test]
fn gradients_go_back_through_the_map() {
    let mut plan =
        plan(TaskKind::Classification, &[5], r#"[{"linear":{"out":6}},"tanh",{"linear":{"out":3}}]"#, Backend::Auto);
    plan.train.lr = 0.25;
    plan.train.epochs = 4;
    let data = Memory::classes(5, uniform(12 * 5, 1.0, 3), (0..12).map(|row| row % 3).collect());
    let rows: Vec<u32> = (0..12).collect();
    let stop = AtomicBool::new(false);
    let mut network = Network::new(&plan).expect("a network");
    let mut plain = start(&plan);
    let mut doubled: Vec<f32> = plain.iter().map(|value| 2.0 * value).collect();
    network.train(&mut plain, &data, &rows, PATH, &stop).expect("it trains");
    let settings = TrainSettings { lr: 1.0, ..plan.train.clone() };
    let mut nothing = |_: usize, _: &[f32]| {};
    let tuning = Tuning { map: Some(&Halves), ..tuning(&settings, &stop, &mut nothing) };
    network.tune(&mut doubled, &data, &rows, tuning).expect("it trains");
    // Powers of two throughout: the bits agree.
    assert_eq!(plain, doubled.iter().map(|value| 0.5 * value).collect::<Vec<_>>());
}

#[test]
fn settings_of_a_tuning_stand_instead_of_the_plans() {
    let (plan, data, rows) = small(Backend::Auto);
    let settings =
        TrainSettings { optimizer: Optimizer::Adam, lr: 0.01, batch: 20, epochs: 5, ..TrainSettings::default() };
    let other = TaskPlan { train: settings.clone(), ..plan.clone() };
    let stop = AtomicBool::new(false);
    let (mut expected, mut tuned) = (start(&plan), start(&plan));
    let outcome = Network::new(&other).expect("a network").train(&mut expected, &data, &rows, PATH, &stop);
    let mut nothing = |_: usize, _: &[f32]| {};
    let mut network = Network::new(&plan).expect("a network");
    let found = network.tune(&mut tuned, &data, &rows, tuning(&settings, &stop, &mut nothing)).expect("it trains");
    assert_eq!(found, outcome.expect("it trains"));
    assert_eq!(found.steps, 10);
    assert_eq!(tuned, expected);
}

/// A network of one weight under a constant slope: the cosine's rates add up by hand.
#[test]
fn the_cosine_spans_all_steps_of_a_training() {
    let mut plan = plan(TaskKind::Regression, &[1], r#"[{"linear":{"out":1,"bias":false}}]"#, Backend::Auto);
    plan.train.schedule = Schedule::Cosine;
    plan.train.lr = 1e-3;
    plan.train.batch = 1;
    plan.train.epochs = 2;
    // The target is so far away that the slope −2 (y − w) hardly moves.
    let data = Memory::values(1, vec![1.0; 4], vec![1e3; 4]);
    let mut network = Network::new(&plan).expect("a network");
    let stop = AtomicBool::new(false);
    let mut parameters = vec![0.0];
    network.train(&mut parameters, &data, &[0, 1, 2, 3], PATH, &stop).expect("it trains");
    let mut expected = 0f64;
    for step in 0..8 {
        let rate = 1e-3 * 0.5 * (1.0 + (std::f64::consts::PI * f64::from(step) / 8.0).cos());
        expected += rate * 2.0 * (1e3 - expected);
    }
    assert!((f64::from(parameters[0]) - expected).abs() < 1e-3, "{} against {expected}", parameters[0]);
    let mut pooled = vec![0.0];
    network.train_pooled(&mut pooled, &data, &[0, 1, 2, 3], 2, PATH, &mut |_, _| {}).expect("it trains");
    assert_eq!(pooled, parameters);
}

#[test]
fn a_student_follows_its_teacher_and_not_the_labels() {
    let teacher_plan = plan(TaskKind::Classification, &[4], r#"[{"linear":{"out":3}}]"#, Backend::Auto);
    let knows = uniform(teacher_plan.manifest().expect("a manifest").len(), 2.0, 8);
    let teacher = Network::new(&teacher_plan).expect("a network");
    let features = uniform(200 * 4, 1.0, 9);
    // Labels that say nothing.
    let data = Memory::classes(4, features.clone(), vec![0; 200]);
    let rows: Vec<u32> = (0..200).collect();
    let stop = AtomicBool::new(false);
    let mut nothing = |_: usize, _: &[f32]| {};
    let settings = TrainSettings { lr: 0.5, batch: 20, epochs: 60, ..TrainSettings::default() };
    let mut student = Network::new(&teacher_plan).expect("a network");
    let mut parameters = vec![0.0; knows.len()];
    let predict = teacher.predictor(&knows).expect("parameters");
    let mut outputs = |features: &[f32]| predict(features);
    let tuning = Tuning {
        teacher: Some(Teacher { outputs: &mut outputs, temperature: 2.0, share: 1.0 }),
        ..tuning(&settings, &stop, &mut nothing)
    };
    let outcome = student.tune(&mut parameters, &data, &rows, tuning).expect("it learns");
    assert!(outcome.loss_mean.is_finite());
    let best = |outputs: &[f32]| -> Vec<usize> {
        let largest = |row: &[f32]| (0..3).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("three outputs");
        outputs.chunks(3).map(largest).collect()
    };
    let (said, heard) =
        (predict(&features).expect("outputs"), student.predict(&parameters, &features).expect("outputs"));
    let agreed = best(&said).iter().zip(best(&heard)).filter(|(said, heard)| **said == *heard).count();
    assert!(agreed >= 195, "{agreed} of 200");
    assert!(best(&said).iter().any(|class| *class != 0));
}

#[test]
fn a_teacher_that_does_not_fit_is_refused() {
    let (plan, data, rows) = small(Backend::Auto);
    let stop = AtomicBool::new(false);
    let mut network = Network::new(&plan).expect("a network");
    let mut refused = |temperature: f32, share: f32, given: usize| {
        let mut nothing = |_: usize, _: &[f32]| {};
        let mut outputs = |_: &[f32]| Ok(vec![0.0; given]);
        let teacher = Some(Teacher { outputs: &mut outputs, temperature, share });
        let tuning = Tuning { teacher, ..tuning(&plan.train, &stop, &mut nothing) };
        network.tune(&mut start(&plan), &data, &rows, tuning).expect_err("refused").to_string()
    };
    assert_eq!(refused(0.0, 0.5, 24), "the teacher's temperature is 0; expected a number above 0");
    assert_eq!(refused(1.0, 1.5, 24), "the teacher's share is 1.5; expected a number from 0 to 1");
    assert_eq!(refused(1.0, 0.5, 7), "the teacher gives 7 outputs for a batch where the network gives 24");
    let mut nothing = |_: usize, _: &[f32]| {};
    let mut fails = |_: &[f32]| Err(ModelError::Stopped);
    let teacher = Some(Teacher { outputs: &mut fails, temperature: 1.0, share: 0.5 });
    let tuning = Tuning { teacher, ..tuning(&plan.train, &stop, &mut nothing) };
    assert!(matches!(network.tune(&mut start(&plan), &data, &rows, tuning), Err(ModelError::Stopped)));
}

/// The gradient of a probe against differences of the evaluated loss: more rows than one evaluation batch, running statistics.
#[test]
fn a_probe_tells_the_evaluated_loss_and_its_gradient() {
    for backend in BACKENDS {
        let (plan, _, _) = small(backend);
        let data = Memory::classes(36, uniform(100 * 36, 1.0, 5), (0..100).map(|row| row % 3).collect());
        let rows: Vec<u32> = (0..100).collect();
        let mut network = Network::new(&plan).expect("a network");
        let parameters = start(&plan);
        let (loss, gradient) = network.loss_gradient(&parameters, &data, &rows).expect("a gradient");
        let evaluated = network.evaluate(&parameters, &data, &rows).expect("figures");
        assert!((loss - evaluated.loss()).abs() < 1e-5);
        let manifest = plan.manifest().expect("a manifest");
        for tensor in &manifest.tensors {
            let direction = uniform(tensor.len(), 1.0, tensor.offset as u64);
            let mut loss_at = |size: f32| {
                let mut moved = parameters.clone();
                tensor.range().zip(&direction).for_each(|(at, value)| moved[at] += size * value);
                network.evaluate(&moved, &data, &rows).expect("figures").loss()
            };
            let difference = (loss_at(3e-3) - loss_at(-3e-3)) / 6e-3;
            let along: f64 =
                gradient[tensor.range()].iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
            if tensor.role == starling_spec::ParamRole::Statistic {
                assert_eq!(along, 0.0);
            } else {
                assert!(
                    (along - difference).abs() < 3e-4 + 5e-3 * difference.abs(),
                    "{}: {along} {difference}",
                    tensor.name
                );
            }
        }
        let outputs = network.predict(&parameters, &{
            let mut features = Vec::new();
            starling_model::Samples::features_into(&data, &rows, &mut features);
            features
        });
        let (probed, expected) =
            (network.outputs(&parameters, &data, &rows).expect("outputs"), outputs.expect("outputs"));
        assert!(probed.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4) && probed.len() == 300);
        assert!(network.outputs(&[0.0], &data, &rows).is_err());
    }
}
