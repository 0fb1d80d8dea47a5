//! Training on the device's own data with burn.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use starling_daemon::entropy;
use starling_data::{Dataset, load, partition, split_holdout};
use starling_model::{Network, TrainPath};
use starling_spec::{Scale, Standardisation, TaskKind, TaskPlan};
use starling_wire::{UpdateReport, ValueRange};

use crate::config::TaskBinding;
use crate::learner::{Job, LearnError, Learner, Trained};
use crate::survey;

/// Trains the plan's network on the data that the configuration binds to the task.
///
/// The network is built at the first job of a plan and kept for its next one, the data at the first job of a task; a job of
/// another one, or [`Learner::release`], drops them. The same plan, device, rows and round give the same bytes as `starling simulate`
/// (invariant 11): batch order and masks are keyed by (seed, device, round), and nothing else is random. With `train.dp_sgd` batches and noise are of
/// the system's entropy, and no two trainings give the same.
pub struct BurnLearner {
    bindings: Vec<TaskBinding>,
    prepared: Mutex<Option<Prepared>>,
}

/// What the jobs of one plan share.
struct Prepared {
    plan: [u8; 16],
    /// Once it is needed.
    network: Option<Network>,
    rows: Rows,
}

/// Whether the job has a network to ask about.
fn has_network(job: &Job) -> Result<(), LearnError> {
    let none = || LearnError::Plan(format!("a run for the moments of {} has no network", job.plan.name).into());
    if job.plan.moments.is_some() { Err(none()) } else { Ok(()) }
}

impl Prepared {
    fn network(&mut self, plan: &TaskPlan) -> Result<(&mut Network, &Rows), LearnError> {
        let network = match &mut self.network {
            Some(network) => network,
            none => none.insert(Network::new(plan).map_err(|error| LearnError::Plan(Box::new(error)))?),
        };
        Ok((network, &self.rows))
    }
}

/// The device's data for a task. Runs that follow each other with other layers or settings find them read already.
struct Rows {
    key: RowsKey,
    data: Dataset,
    train: Vec<u32>,
    holdout: Vec<u32>,
}

/// All that a plan says about which rows there are and how they are read.
#[derive(Debug, Clone, PartialEq)]
struct RowsKey {
    task: String,
    kind: TaskKind,
    shape: Vec<usize>,
    scale: Scale,
    standardise: Option<Standardisation>,
    holdout: f64,
    seed: u64,
}

impl RowsKey {
    fn new(plan: &TaskPlan) -> Self {
        Self {
            task: plan.name.clone(),
            kind: plan.kind,
            shape: plan.shape.clone(),
            scale: plan.scale,
            standardise: plan.standardise.clone(),
            holdout: plan.holdout,
            seed: plan.holdout_seed(),
        }
    }
}

impl BurnLearner {
    /// A learner for these tasks. No file is opened before the first job.
    pub fn new(bindings: Vec<TaskBinding>) -> Self {
        Self { bindings, prepared: Mutex::new(None) }
    }

    /// Reads the rows of the job's task, unless `rows` are those already.
    fn rows(&self, job: &Job, rows: Option<Rows>) -> Result<Rows, LearnError> {
        let plan = &job.plan;
        let key = RowsKey::new(plan);
        if let Some(rows) = rows.filter(|rows| rows.key == key) {
            return Ok(rows);
        }
        let binding = self.bindings.iter().find(|binding| binding.name == plan.name);
        let binding = binding.ok_or_else(|| LearnError::NoData("it is not in the configuration".to_owned()))?;
        let mut section = binding.data.clone();
        // What the data mean is the task's to say, so that all devices read alike. The test set is the aggregator's.
        section.scale = plan.scale;
        section.standardise.clone_from(&plan.standardise);
        section.shape.clone_from(&plan.shape);
        section.test = None;
        section.test_labels = None;
        if plan.kind == TaskKind::NextToken {
            section.context = plan.shape.first().copied();
        }
        if let Some(dp_sgd) = &plan.train.dp_sgd {
            dp_sgd.check_data(&section, plan.scale).map_err(|error| LearnError::Plan(Box::new(error)))?;
        }
        let failed = |error: starling_data::DataError| LearnError::NoData(error.to_string());
        let loaded = load(&section, plan.kind, &plan.shape, Path::new(""), key.seed).map_err(failed)?;
        let data = match binding.partition {
            None => loaded.train,
            Some(part) => {
                let parts = partition(&loaded, part.how, Some(part.devices), part.seed).map_err(failed)?;
                let rows = usize::try_from(part.index).ok().and_then(|index| parts.get(index));
                let rows = rows.ok_or_else(|| {
                    LearnError::NoData(format!("partition.index is {} of {} parts", part.index, parts.len()))
                })?;
                // Only this device's rows stay in memory; they are scaled like the whole.
                loaded.keep(rows).train
            }
        };
        let rows = u32::try_from(data.len()).map_err(|_| LearnError::NoData("more than 2^32 rows".to_owned()))?;
        let rows: Vec<u32> = (0..rows).collect();
        let (train, holdout) = split_holdout(&rows, plan.holdout, key.seed, job.device_key());
        if train.is_empty() {
            return Err(LearnError::NoData("this device's part of the data is empty".to_owned()));
        }
        tracing::info!(task = plan.name, rows = train.len(), held_out = holdout.len(), "the data are ready");
        Ok(Rows { key, data, train, holdout })
    }

    fn with<T>(&self, job: &Job, work: impl FnOnce(&mut Prepared) -> Result<T, LearnError>) -> Result<T, LearnError> {
        // A job that panicked has left the network in an unknown state; what is behind the lock is then built anew.
        let poisoned = self.prepared.is_poisoned();
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = job.plan.id();
        if poisoned || prepared.as_ref().is_none_or(|prepared| prepared.plan != plan) {
            self.prepared.clear_poison();
            let rows = prepared.take().filter(|_| !poisoned).map(|prepared| prepared.rows);
            *prepared = Some(Prepared { plan, network: None, rows: self.rows(job, rows)? });
        }
        work(prepared.as_mut().expect("it was filled above"))
    }
}

impl Learner for BurnLearner {
    fn tasks(&self) -> Vec<String> {
        self.bindings.iter().map(|binding| binding.name.clone()).collect()
    }

    fn examples(&self, job: &Job) -> Result<u32, LearnError> {
        self.with(job, |prepared| Ok(u32::try_from(prepared.rows.train.len()).unwrap_or(u32::MAX)))
    }

    fn train(&self, job: &Job, base: Vec<f32>, stop: &AtomicBool) -> Result<Trained, LearnError> {
        self.with(job, |prepared| {
            if let Some(moments) = job.plan.moments() {
                let Rows { data, train, .. } = &prepared.rows;
                let none = || LearnError::NoData("there are no rows".to_owned());
                return survey::moments(&moments, &base, data, train, job.weight_max).ok_or_else(none);
            }
            let mut delta = base.clone();
            let path = TrainPath { device: job.device_key(), round: u64::from(job.address.round) };
            let (network, rows) = prepared.network(&job.plan)?;
            let outcome = match job.plan.train.dp_sgd {
                Some(_) => {
                    network.train_private(&mut delta, &rows.data, &rows.train, path, stop, &mut entropy::words())
                }
                None => network.train(&mut delta, &rows.data, &rows.train, path, stop),
            };
            let outcome = outcome.map_err(|error| LearnError::Failed(Box::new(error)));
            if stop.load(Ordering::Relaxed) {
                return Err(LearnError::Stopped);
            }
            let outcome = outcome?;
            delta.iter_mut().zip(&base).for_each(|(trained, base)| *trained -= base);
            let report = UpdateReport {
                weight: outcome.examples.min(job.weight_max),
                train_loss: outcome.loss_mean,
                steps: outcome.steps,
                within_clip: false,
            };
            Ok(Trained { delta, report })
        })
    }

    fn evaluate(&self, job: &Job, base: Vec<f32>) -> Result<(u64, u64, f64), LearnError> {
        has_network(job)?;
        self.with(job, |prepared| {
            if prepared.rows.holdout.is_empty() {
                return Err(LearnError::NoData("no row is held out".to_owned()));
            }
            let (network, rows) = prepared.network(&job.plan)?;
            let evaluated = network
                .evaluate(&base, &rows.data, &rows.holdout)
                .map_err(|error| LearnError::Failed(Box::new(error)))?;
            Ok((evaluated.examples, evaluated.correct, evaluated.loss_sum))
        })
    }

    fn ranges(&self, job: &Job, base: Vec<f32>) -> Result<(u64, Vec<Option<ValueRange>>), LearnError> {
        has_network(job)?;
        self.with(job, |prepared| {
            survey::ranges(&job.plan, &base, &prepared.rows.data, &prepared.rows.train)
                .map_err(|error| LearnError::Failed(Box::new(error)))
        })
    }

    fn release(&self) {
        *self.prepared.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
