//! Compression without data: what a search asks is done on the task's devices, in ordinary rounds.
//!
//! Only updates, sums of figures, gradients and the ranges of activations leave a device; this command's side sees no sample.
//! The devices are simulated in this process by the run machine, codecs and fold of real ones (see [`crate::simulation`]).

use std::num::NonZeroUsize;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use starling_compress::method::prune::{Criterion, Shares, mask};
use starling_compress::{InputRange, Release};
use starling_engine::Engine;
use starling_model::{Evaluated, Network, evaluate_with};
use starling_search::{Constraint, FineTune, Model, SearchError, Tuner};
use starling_spec::shape::infer;
use starling_spec::{CodecSpec, Optimizer, TaskPlan, WeightForm};

use crate::simulation::{evaluate_held_out, simulate_in};
use crate::task_input::TaskInput;
use crate::world::World;

/// Samples a step of fine-tuning on a device.
const BATCH: usize = 32;

/// Rows of a device that it calibrates, and measures losses and gradients, on.
const CALIBRATION_ROWS: usize = 500;

/// Passes over its data that a device makes a round; there is a round for each pass that a tuning asks for. More rounds learn the
/// devices' data by heart: twice as many cost 0.5 points on the test set.
const LOCAL_EPOCHS: usize = 2;

/// How much higher the learning rate is than in one place: a mean over devices takes shorter steps. On lenet-300-100 and
/// Fashion-MNIST at a tenth of the weights it makes 89.6 % out of 88.9 %.
const LR_FACTOR: f64 = 3.0;

/// A fine-tuning is at most this many runs, each with a lower learning rate: rounds of one run share one plan.
const RUNS_MAX: usize = 6;

/// The side that has data is the task's devices.
pub(super) struct FederatedTuner {
    input: TaskInput,
    world: World,
    threads: usize,
    bar: ProgressBar,
}

impl FederatedTuner {
    /// The devices of `input`, which need something to hold out.
    pub(super) fn new(input: &TaskInput, bar: ProgressBar) -> Result<Self> {
        ensure!(
            input.task.federation.holdout > 0.0,
            "task {:?} holds nothing out on its devices, so nothing could be judged there; set federation.holdout",
            input.task.name
        );
        let mut input = input.clone();
        input.task.federation.target = None;
        input.task.federation.evaluate_every = 0;
        let world = World::new(&input)?.without_test();
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Self { input, world, threads, bar })
    }

    fn plan_of(&self, model: &Model) -> TaskPlan {
        TaskPlan { layers: model.layers.clone(), ..self.input.plan.clone() }
    }

    fn tune(&self, model: &mut Model, tuning: &FineTune<'_>) -> Result<()> {
        let mut weights = WeightForm::Pruned;
        match tuning.constraint {
            Constraint::Free => weights = WeightForm::Free,
            // Clusters that move are the search's own; devices keep the zeros, and the code book is tuned afterwards.
            Constraint::Pruned | Constraint::Clustered(_) => {}
            Constraint::Shared(_) => weights = WeightForm::Shared,
            Constraint::Share(share) => {
                let shape = infer(self.input.plan.kind, &self.input.plan.shape, &model.layers)?;
                mask(&shape, &model.parameters, Criterion::Lamp, &Shares::Global(share)).apply(&mut model.parameters);
            }
        }
        let rounds_all = tuning.epochs;
        let runs = RUNS_MAX.min(rounds_all);
        for run in 0..runs {
            let rounds = rounds_all * (run + 1) / runs - rounds_all * run / runs;
            let mut input = self.input.clone();
            input.plan = self.plan_of(model);
            let train = &mut input.plan.train;
            train.optimizer = Optimizer::Adam;
            #[allow(clippy::cast_precision_loss, reason = "a handful of runs")]
            let progress = (run as f64 + 0.5) / runs as f64;
            train.lr = LR_FACTOR * tuning.lr * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
            (train.batch, train.epochs, train.weights) = (BATCH, LOCAL_EPOCHS, weights);
            // Each run has a seed of its own: the same batches in every run would be learnt by heart.
            input.plan.seed = self.input.plan.seed.wrapping_add(self.bar.position());
            input.plan.update.down = CodecSpec::F32;
            // What is masked or shared must come back so (see the task's check of `update.codec`).
            if weights == WeightForm::Shared || matches!(input.plan.update.codec, CodecSpec::Eden(_)) {
                input.plan.update.codec = CodecSpec::F32;
            }
            input.task.federation.rounds = u32::try_from(rounds).context("fewer than 2^32 rounds")?;
            let world = self.world.with_plan(input.plan.clone())?;
            let start = Some(std::mem::take(&mut model.parameters));
            let (_, parameters) = simulate_in(&world, &input, start, self.threads, &self.bar)?;
            model.parameters = parameters;
        }
        Ok(())
    }

    /// Sums what `each` finds on the devices, weighted by their rows.
    fn over_devices<T>(&self, mut each: impl FnMut(&[u32]) -> Result<T>) -> Result<Vec<(T, f64)>> {
        let devices = self.world.devices.iter().filter(|device| device.has_training_rows());
        let found = devices.map(|device| {
            let rows = device.training_rows();
            let rows = &rows[..CALIBRATION_ROWS.min(rows.len())];
            #[allow(clippy::cast_precision_loss, reason = "at most CALIBRATION_ROWS")]
            Ok((each(rows)?, rows.len() as f64))
        });
        found.collect()
    }

    fn mean_loss(&self, model: &Model) -> Result<f64> {
        let mut network = Network::new(&self.plan_of(model))?;
        let found =
            self.over_devices(|rows| Ok(network.evaluate(&model.parameters, &self.world.loaded.train, rows)?.loss()))?;
        let weight: f64 = found.iter().map(|(_, weight)| weight).sum();
        Ok(found.iter().map(|(loss, weight)| loss * weight).sum::<f64>() / weight)
    }

    fn mean_gradient(&self, model: &Model) -> Result<Vec<f32>> {
        let mut network = Network::new(&self.plan_of(model))?;
        let found =
            self.over_devices(|rows| Ok(network.loss_gradient(&model.parameters, &self.world.loaded.train, rows)?.1))?;
        let weight: f64 = found.iter().map(|(_, weight)| weight).sum();
        let mut mean = vec![0f32; model.parameters.len()];
        for (gradient, rows) in found {
            #[allow(clippy::cast_possible_truncation, reason = "a share")]
            let share = (rows / weight) as f32;
            mean.iter_mut().zip(gradient).for_each(|(mean, value)| *mean += share * value);
        }
        Ok(mean)
    }

    fn held_out_release(&self, release: &Release) -> Result<Evaluated> {
        let shape = release.network()?;
        let mut engine = Engine::new(release)?;
        let mut total = Evaluated::default();
        for device in self.world.devices.iter().filter(|device| device.holds_out()) {
            let part = evaluate_with(&mut engine, &shape, &self.world.loaded.train, device.held_out_rows())?;
            total.examples += part.examples;
            total.correct += part.correct;
            total.loss_sum += part.loss_sum;
        }
        Ok(total)
    }

    /// The widest range of each layer's inputs that any device has seen.
    fn ranges(&self, release: &Release) -> Result<Vec<Option<InputRange>>> {
        let found = self.over_devices(|rows| {
            let mut features = Vec::new();
            self.world.loaded.train.features_into(rows, &mut features);
            Ok(starling_engine::calibrate(release, &features)?)
        })?;
        let widest = found.into_iter().map(|(ranges, _)| ranges).reduce(|mut widest, ranges| {
            for (widest, range) in widest.iter_mut().zip(ranges) {
                *widest = match (*widest, range) {
                    (Some(a), Some(b)) => Some(InputRange { low: a.low.min(b.low), high: a.high.max(b.high) }),
                    (a, b) => a.or(b),
                };
            }
            widest
        });
        widest.context("no device has data to calibrate on")
    }
}

/// What a device or a round says, as a search's error.
fn failed(doing: &'static str) -> impl Fn(anyhow::Error) -> SearchError {
    move |error| SearchError::Tuner { doing, source: error.into() }
}

impl Tuner for FederatedTuner {
    fn evaluate(&mut self, model: &Model) -> Result<Evaluated, SearchError> {
        let evaluated =
            || evaluate_held_out(&self.world.with_plan(self.plan_of(model))?, &model.parameters, self.threads);
        evaluated().map_err(failed("evaluating on the devices"))
    }

    fn evaluate_release(&mut self, release: &Release) -> Result<Evaluated, SearchError> {
        self.held_out_release(release).map_err(failed("evaluating a release on the devices"))
    }

    fn loss(&mut self, model: &Model) -> Result<f64, SearchError> {
        self.mean_loss(model).map_err(failed("measuring the loss on the devices"))
    }

    fn gradient(&mut self, model: &Model) -> Result<Vec<f32>, SearchError> {
        self.mean_gradient(model).map_err(failed("measuring the gradient on the devices"))
    }

    fn fine_tune(&mut self, model: &mut Model, tuning: &FineTune<'_>) -> Result<(), SearchError> {
        self.tune(model, tuning).map_err(failed("fine-tuning on the devices"))
    }

    fn calibrate(&mut self, release: &Release) -> Result<Vec<Option<InputRange>>, SearchError> {
        self.ranges(release).map_err(failed("calibrating on the devices"))
    }

    fn inputs(&mut self, _: usize) -> Vec<f32> {
        Vec::new()
    }

    fn judged_on(&self) -> String {
        format!(
            "the rows that {} devices hold out",
            self.world.devices.iter().filter(|device| device.holds_out()).count()
        )
    }
}
