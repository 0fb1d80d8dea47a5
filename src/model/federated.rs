//! Calibration, fine-tuning and evaluation on devices only, in ordinary rounds.
//!
//! The devices are simulated ones here ([`crate::simulation`]), with the run machine, codecs and fold of a real run; what the
//! search sees is what an aggregator sees: updates folded into one vector, sums of figures, ranges. Pruning, clustering and the
//! choice need no data and stay with the search.
//!
//! | the search asks for | the devices do |
//! | --- | --- |
//! | fine-tuning | rounds of local training; a pruned model's zeros stay zero on the device |
//! | weights that may come back | the aggregator keeps all weights and sends the worthiest; updates move them all |
//! | shared values | rounds that keep zeros; the aggregator sends each weight's centroid, and updates move the weights |
//! | the gradient of the loss | one round of one step on each device's whole set |
//! | evaluation, loss | sums over hold-outs, over training rows |
//! | calibration | each device's own ranges, of which the aggregator keeps the hull |

use std::cell::OnceCell;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use starling_compress::method::prune::{self, Criterion, Shares};
use starling_compress::{InputRange, Release, WeightMap};
use starling_engine::Engine;
use starling_model::{Evaluated, Network, evaluate_with};
use starling_search::{Clustered, Constraint, FineTune, Model, SearchError, Tuner};
use starling_spec::shape::infer;
use starling_spec::{Optimizer, Schedule, TaskPlan, TrainSettings, WeightForm};

use crate::simulation::{evaluate_held_out, simulate_in};
use crate::task_input::TaskInput;
use crate::world::World;

/// Samples a step on a device: small, since each device makes only its own part of the steps.
const BATCH: usize = 16;

/// The local learning rate against that of pooled fine-tuning. The mean over devices takes back what single devices overshoot.
const LR: f64 = 1.0;

/// The part of a pruning's rounds in which weights may come back.
const MOVING_SHARE: f64 = 0.6;

/// Rows of a device's training set that calibration and losses are measured on.
const CALIBRATION_ROWS: usize = 500;

/// Devices in this process, and the rounds they have made so far.
pub(super) struct FederatedTuner {
    input: TaskInput,
    world: World,
    threads: usize,
    bar: ProgressBar,
    rounds: u64,
}

impl FederatedTuner {
    /// The devices of `input`'s federation.
    pub(super) fn new(input: &TaskInput, bar: ProgressBar) -> Result<Self> {
        anyhow::ensure!(
            input.task.federation.holdout > 0.0,
            "devices evaluate on their hold-outs, and the task holds nothing out: set federation.holdout"
        );
        let world = World::new(input)?;
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Ok(Self { input: input.clone(), world, threads, bar, rounds: 0 })
    }

    /// The devices under `model`'s layers and local training of `train`.
    fn devices(&self, model: &Model, train: TrainSettings) -> Result<(TaskInput, World)> {
        let mut input = self.input.clone();
        // Each round draws its own batches, as the rounds of one run do.
        let seed = input.seed.wrapping_add(self.rounds);
        input.plan = TaskPlan { layers: model.layers.clone(), train, seed, ..input.plan };
        input.task.federation.rounds = 1;
        input.task.federation.evaluate_every = 0;
        input.task.federation.target = None;
        let world = self.world.with_plan(input.plan.clone())?;
        Ok((input, world))
    }

    /// One round from `model`: the parameters of the version that it commits.
    fn round(&mut self, model: &Model, train: TrainSettings) -> Result<Vec<f32>> {
        self.rounds += 1;
        let (input, world) = self.devices(model, train)?;
        let silent = ProgressBar::hidden();
        simulate_in(&world, &input, Some(model.parameters.clone()), self.threads, &silent).map(|(_, after)| after)
    }

    /// Tunes in rounds. The aggregator keeps `free` and sends what the constraint makes of it; updates move `free`, so that what
    /// the constraint takes away from a version is not lost to it.
    fn tune(&mut self, model: &mut Model, tuning: &FineTune<'_>) -> Result<()> {
        let shape = infer(self.input.plan.kind, &self.input.plan.shape, &model.layers)?;
        let rounds = tuning.epochs;
        let mut free = model.parameters.clone();
        let (mut mask, clustered) = (None, OnceCell::new());
        for round in 0..rounds {
            #[allow(clippy::cast_precision_loss, reason = "counts of rounds are small")]
            let passed = round as f64 / rounds as f64;
            let mut holds = true;
            match tuning.constraint {
                Constraint::Free => {
                    holds = false;
                    model.parameters.copy_from_slice(&free);
                }
                Constraint::Pruned => model.parameters.copy_from_slice(&free),
                Constraint::Share(share) => {
                    holds = passed >= MOVING_SHARE;
                    if !holds || mask.is_none() {
                        mask = Some(prune::mask(&shape, &free, Criterion::Lamp, &Shares::Global(share)));
                    }
                    model.parameters.copy_from_slice(&free);
                    mask.iter().for_each(|mask| mask.apply(&mut model.parameters));
                }
                Constraint::Clustered(centroids) => clustered
                    .get_or_init(|| Clustered::new(&shape, &free, centroids))
                    .forward(&free, &mut model.parameters),
                Constraint::Shared(map) => map.forward(&free, &mut model.parameters),
            }
            let train = TrainSettings {
                optimizer: Optimizer::Adam,
                // The first round at full rate, the last one near 0: half a cosine, round by round.
                lr: tuning.lr * LR * 0.5 * (1.0 + (std::f64::consts::PI * passed).cos()),
                batch: BATCH,
                epochs: 1,
                schedule: Schedule::Constant,
                weights: if holds { WeightForm::Pruned } else { WeightForm::Free },
                ..TrainSettings::default()
            };
            let after = self.round(model, train)?;
            for ((free, after), sent) in free.iter_mut().zip(&after).zip(&model.parameters) {
                *free += after - sent;
            }
            self.bar.inc(1);
        }
        match tuning.constraint {
            Constraint::Free | Constraint::Pruned => model.parameters.copy_from_slice(&free),
            Constraint::Share(share) => {
                let mask = mask.unwrap_or_else(|| prune::mask(&shape, &free, Criterion::Lamp, &Shares::Global(share)));
                model.parameters.copy_from_slice(&free);
                mask.apply(&mut model.parameters);
            }
            Constraint::Clustered(centroids) => {
                clustered.get_or_init(|| Clustered::new(&shape, &free, centroids)).forward(&free, &mut model.parameters)
            }
            Constraint::Shared(map) => map.forward(&free, &mut model.parameters),
        }
        Ok(())
    }

    /// Sums over the devices of what `judge` finds on some of their rows.
    fn sum(
        &self,
        rows: impl Fn(usize) -> Vec<u32>,
        mut judge: impl FnMut(&[u32]) -> Result<Evaluated>,
    ) -> Result<Evaluated> {
        let mut total = Evaluated::default();
        for device in 0..self.world.devices.len() {
            let rows = rows(device);
            if !rows.is_empty() {
                let found = judge(&rows)?;
                total.examples += found.examples;
                total.correct += found.correct;
                total.loss_sum += found.loss_sum;
            }
        }
        Ok(total)
    }

    fn some_training_rows(&self, device: usize) -> Vec<u32> {
        let rows = self.world.devices[device].training_rows();
        rows[..CALIBRATION_ROWS.min(rows.len())].to_vec()
    }

    fn held_out(&self, release: &Release) -> Result<Evaluated> {
        let shape = release.network()?;
        let Ok(mut engine) = Engine::new(release) else {
            let model = Model { layers: release.layers.clone(), parameters: release.parameters(&shape) };
            return self.evaluated(&model);
        };
        self.sum(
            |device| self.world.devices[device].held_out_rows().to_vec(),
            |rows| Ok(evaluate_with(&mut engine, &shape, &self.world.loaded.train, rows)?),
        )
    }

    fn evaluated(&self, model: &Model) -> Result<Evaluated> {
        let (_, world) = self.devices(model, TrainSettings::default())?;
        evaluate_held_out(&world, &model.parameters, self.threads)
    }

    fn ranges(&self, release: &Release) -> Result<Vec<Option<InputRange>>> {
        let mut hull: Option<Vec<Option<InputRange>>> = None;
        let mut features = Vec::new();
        for device in 0..self.world.devices.len() {
            let rows = self.some_training_rows(device);
            if rows.is_empty() {
                continue;
            }
            self.world.loaded.train.features_into(&rows, &mut features);
            let ranges = starling_engine::calibrate(release, &features)?;
            hull = Some(match hull {
                None => ranges,
                Some(hull) => hull.into_iter().zip(ranges).map(|(one, other)| wider(one, other)).collect(),
            });
        }
        hull.context("no device has a row to calibrate on")
    }
}

/// The range that holds both.
fn wider(one: Option<InputRange>, other: Option<InputRange>) -> Option<InputRange> {
    match (one, other) {
        (Some(one), Some(other)) => Some(InputRange { low: one.low.min(other.low), high: one.high.max(other.high) }),
        (one, other) => one.or(other),
    }
}

/// Names what the devices failed at.
fn failed(doing: &'static str) -> impl Fn(anyhow::Error) -> SearchError {
    move |error| SearchError::Tuner { doing, source: error.into() }
}

impl Tuner for FederatedTuner {
    fn evaluate(&mut self, model: &Model) -> Result<Evaluated, SearchError> {
        self.evaluated(model).map_err(failed("evaluation on the devices"))
    }

    fn evaluate_release(&mut self, release: &Release) -> Result<Evaluated, SearchError> {
        self.held_out(release).map_err(failed("evaluation on the devices"))
    }

    fn loss(&mut self, model: &Model) -> Result<f64, SearchError> {
        let plan = TaskPlan { layers: model.layers.clone(), ..self.input.plan.clone() };
        let mut network = Network::new(&plan).map_err(SearchError::model("building the network"))?;
        let found = self.sum(
            |device| self.some_training_rows(device),
            |rows| Ok(network.evaluate(&model.parameters, &self.world.loaded.train, rows)?),
        );
        found.map(|found| found.loss()).map_err(failed("measuring the loss on the devices"))
    }

    fn gradient(&mut self, model: &Model) -> Result<Vec<f32>, SearchError> {
        // One step of size 1 over the whole of each device's set moves the mean by the gradient.
        let train =
            TrainSettings { optimizer: Optimizer::Sgd, lr: 1.0, batch: 0, epochs: 1, ..TrainSettings::default() };
        let after = self.round(model, train).map_err(failed("measuring the gradient on the devices"))?;
        Ok(model.parameters.iter().zip(after).map(|(before, after)| before - after).collect())
    }

    fn fine_tune(&mut self, model: &mut Model, tuning: &FineTune<'_>) -> Result<(), SearchError> {
        self.tune(model, tuning).map_err(failed("fine-tuning on the devices"))
    }

    fn calibrate(&mut self, release: &Release) -> Result<Vec<Option<InputRange>>, SearchError> {
        self.ranges(release).map_err(failed("calibration on the devices"))
    }

    /// None: samples do not leave their devices.
    fn inputs(&mut self, _samples: usize) -> Vec<f32> {
        Vec::new()
    }

    fn judged_on(&self) -> String {
        let examples: usize = self.world.devices.iter().map(|device| device.held_out_rows().len()).sum();
        format!("{examples} rows that {} devices hold out", self.world.devices.len())
    }
}
