//! Compression without data: what a search asks is done on a task's devices, in ordinary runs.
//!
//! Only updates, sums of figures and the ranges of activations leave a device; this command's side sees no sample.
//!
//! | the search asks for | the run |
//! | --- | --- |
//! | fine-tuning | rounds of training from the weights at hand, under their mask or code book |
//! | the loss, the gradient | one round of one step of plain SGD at rate 1: FedSGD (McMahan et al. 2017, §2) |
//! | the accuracy | `federation.goal = "evaluate"` |
//! | input ranges | `federation.goal = "ranges"` |
//!
//! Who does the runs is behind [`Fleet`]: devices simulated in this process, or those of a running aggregator.

mod live;
mod simulated;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use starling_compress::method::prune::{Criterion, Shares, mask};
use starling_compress::{InputRange, Release};
use starling_model::Evaluated;
use starling_protocol::run::Answer;
use starling_search::{Constraint, FineTune, Model, SearchError, Tuner};
use starling_spec::shape::infer;
use starling_spec::task::Goal;
use starling_spec::{CodecSpec, Optimizer, Schedule, TaskFile, WeightForm};

use crate::task_input::TaskInput;

pub(super) use live::LiveFleet;
pub(super) use simulated::SimulatedFleet;

/// Samples a step of fine-tuning on a device.
const BATCH: usize = 32;

/// The most rows of a device that a loss and a gradient are of: one step of this many.
const GRADIENT_ROWS: usize = 500;

/// The largest entry of a gradient, and of an update by it: that of a network which has just lost a layer is still far below.
const GRADIENT_MAX: f64 = 1024.0;

/// Passes over its data that a device makes a round; there is a round for each pass that a tuning asks for. More rounds learn the
/// devices' data by heart: twice as many cost 0.5 points on the test set.
const LOCAL_EPOCHS: usize = 2;

/// How much higher the learning rate is than in one place: a mean over devices takes shorter steps. On lenet-300-100 and
/// Fashion-MNIST at a tenth of the weights it makes 89.6 % out of 88.9 %.
const LR_FACTOR: f64 = 3.0;

/// A fine-tuning is at most this many runs, each with a lower learning rate: rounds of one run share one plan.
const RUNS_MAX: usize = 6;

/// What came of a run.
pub(super) struct Ran {
    /// The newest version's parameters.
    parameters: Vec<f32>,
    /// The mean training loss of the last round.
    train_loss: Option<f64>,
    /// What the run found out, where that is its goal.
    answer: Option<Answer>,
}

/// The devices of a task, as one who starts runs sees them.
pub(super) trait Fleet {
    /// Does the run of `input`, from the parameters `start`, to its end.
    fn run(&mut self, input: &TaskInput, start: Vec<f32>) -> Result<Ran>;

    /// Who holds out what accuracies are measured on, in words.
    fn holders(&self) -> String;
}

/// The side that has data is a fleet.
pub(super) struct FederatedTuner<'a> {
    input: TaskInput,
    fleet: &'a mut dyn Fleet,
    bar: ProgressBar,
}

impl<'a> FederatedTuner<'a> {
    /// The devices of `input`, which need something to hold out; its seed is that of their hold-outs.
    pub(super) fn new(input: &TaskInput, fleet: &'a mut dyn Fleet, bar: ProgressBar) -> Result<Self> {
        ensure!(
            input.task.federation.holdout > 0.0,
            "task {:?} holds nothing out on its devices, so nothing could be judged there; set federation.holdout",
            input.task.name
        );
        Ok(Self { input: input.clone(), fleet, bar })
    }

    /// The task of a run about `model`, with what `change` makes different.
    fn task_of(&self, model: &Model, seed: u64, change: impl FnOnce(&mut TaskFile)) -> Result<TaskInput> {
        let mut task = self.input.task.clone();
        (task.model.preset, task.model.layers) = (None, Some(model.layers.clone()));
        let federation = &mut task.federation;
        (federation.target, federation.evaluate_every) = (None, 0);
        // Its runs are short and have schedules of their own; one step down a gradient is to be that.
        (federation.server_lr, federation.server_decay) = (1.0, 0.0);
        // Every run holds the same rows out, whatever its own seed is.
        federation.holdout_seed = Some(self.input.plan.holdout_seed());
        task.update.down = CodecSpec::F32;
        change(&mut task);
        let text = toml::to_string(&task).context("the task of a run cannot be written as TOML")?;
        TaskInput::parse(&text, &[], self.input.base.clone(), seed)
    }

    /// A run with a goal of one round.
    fn ask(&mut self, model: &Model, goal: Goal) -> Result<Answer> {
        let input = self.task_of(model, self.input.seed, |task| {
            (task.federation.goal, task.federation.rounds) = (goal, 1);
            task.train.weights = WeightForm::Free;
        })?;
        let answer = self.fleet.run(&input, model.parameters.clone())?.answer;
        answer.context("the run ended without its answer")
    }

    fn held_out(&mut self, model: &Model) -> Result<Evaluated> {
        match self.ask(model, Goal::Evaluate)? {
            Answer::HeldOut(sums) if sums.examples > 0 => {
                Ok(Evaluated { examples: sums.examples, correct: sums.correct, loss_sum: sums.loss_sum })
            }
            _ => anyhow::bail!("no device holds anything out; set federation.holdout"),
        }
    }

    fn ranges(&mut self, model: &Model) -> Result<Vec<Option<InputRange>>> {
        let Answer::Ranges(found) = self.ask(model, Goal::Ranges)? else {
            anyhow::bail!("the run answered another question");
        };
        let range = |range: starling_wire::ValueRange| InputRange { low: range.low, high: range.high };
        Ok(found.ranges.into_iter().map(|found| found.map(range)).collect())
    }

    /// The mean loss over the devices' training rows, and the parameters after one step down its gradient.
    fn step_down(&mut self, model: &Model) -> Result<Ran> {
        let input = self.task_of(model, self.input.seed, |task| {
            let train = &mut task.train;
            (train.optimizer, train.lr, train.schedule) = (Optimizer::Sgd, 1.0, Schedule::Constant);
            (train.batch, train.epochs, train.steps_max) = (GRADIENT_ROWS, 1, 1);
            train.weights = WeightForm::Free;
            task.federation.rounds = 1;
            (task.update.codec, task.update.value_max) = (CodecSpec::F32, GRADIENT_MAX);
        })?;
        self.fleet.run(&input, model.parameters.clone())
    }

    fn tune(&mut self, model: &mut Model, tuning: &FineTune<'_>) -> Result<()> {
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
            #[allow(clippy::cast_precision_loss, reason = "a handful of runs")]
            let progress = (run as f64 + 0.5) / runs as f64;
            let lr = LR_FACTOR * tuning.lr * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
            // Each run has a seed of its own: the same batches in every run would be learnt by heart.
            let seed = self.input.seed.wrapping_add(self.bar.position());
            let rounds = u32::try_from(rounds).context("fewer than 2^32 rounds")?;
            let input = self.task_of(model, seed, |task| {
                let train = &mut task.train;
                (train.optimizer, train.lr, train.schedule) = (Optimizer::Adam, lr, Schedule::Constant);
                (train.batch, train.epochs, train.steps_max) = (BATCH, LOCAL_EPOCHS, 0);
                train.weights = weights;
                task.federation.rounds = rounds;
                // What is masked or shared must come back so (see the task's check of `update.codec`).
                if weights == WeightForm::Shared || matches!(task.update.codec, CodecSpec::Eden(_)) {
                    task.update.codec = CodecSpec::F32;
                }
            })?;
            let before = self.bar.position();
            model.parameters = self.fleet.run(&input, std::mem::take(&mut model.parameters))?.parameters;
            self.bar.set_position(before + u64::from(rounds));
        }
        Ok(())
    }
}

/// What a device or a round says, as a search's error.
fn failed(doing: &'static str) -> impl Fn(anyhow::Error) -> SearchError {
    move |error| SearchError::Tuner { doing, source: error.into() }
}

impl Tuner for FederatedTuner<'_> {
    fn evaluate(&mut self, model: &Model) -> Result<Evaluated, SearchError> {
        self.held_out(model).map_err(failed("evaluating on the devices"))
    }

    /// Devices evaluate the release's weights; only the rounding of activations to integers is left out.
    fn evaluate_release(&mut self, release: &Release) -> Result<Evaluated, SearchError> {
        let mut evaluated = || {
            let shape = release.network()?;
            self.held_out(&Model { layers: release.layers.clone(), parameters: release.parameters(&shape) })
        };
        evaluated().map_err(failed("evaluating a release on the devices"))
    }

    fn loss(&mut self, model: &Model) -> Result<f64, SearchError> {
        let mut loss = || self.step_down(model)?.train_loss.context("the round has no loss");
        loss().map_err(failed("measuring the loss on the devices"))
    }

    fn gradient(&mut self, model: &Model) -> Result<Vec<f32>, SearchError> {
        let stepped = self.step_down(model).map_err(failed("measuring the gradient on the devices"))?;
        Ok(model.parameters.iter().zip(&stepped.parameters).map(|(before, after)| before - after).collect())
    }

    fn fine_tune(&mut self, model: &mut Model, tuning: &FineTune<'_>) -> Result<(), SearchError> {
        self.tune(model, tuning).map_err(failed("fine-tuning on the devices"))
    }

    fn calibrate(&mut self, release: &Release) -> Result<Vec<Option<InputRange>>, SearchError> {
        let mut ranges = || {
            let shape = release.network()?;
            self.ranges(&Model { layers: release.layers.clone(), parameters: release.parameters(&shape) })
        };
        ranges().map_err(failed("calibrating on the devices"))
    }

    fn inputs(&mut self, _: usize) -> Vec<f32> {
        Vec::new()
    }

    fn judged_on(&self) -> String {
        format!("the rows that {} hold out", self.fleet.holders())
    }
}
