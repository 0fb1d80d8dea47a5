//! A task's devices inside this process: which rows each of them holds, and the worker threads that train and evaluate.
//!
//! Every thread keeps one network and takes jobs from a common queue. A result depends on its job alone, and callers get
//! results in the order of the jobs, so the number of threads changes nothing but the time (invariant 11).

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::Scope;

use anyhow::{Context, Result};
use starling_client::survey;
use starling_data::{Dataset, Loaded};
use starling_model::{Evaluated, Network, TrainPath};
use starling_privacy::noise::Simulated;
use starling_spec::TaskPlan;
use starling_spec::random::device_key;
use starling_update::{Residual, Sealed, seal_private, seal_with_feedback};
use starling_wire::{Address, DeviceId, UpdateReport, ValueRange};

use crate::task_input::TaskInput;

/// Rows that one evaluation job takes. The sums of a test set are added up in pieces of this size whatever the number of
/// threads, so that floating point rounds alike.
const EVALUATE_ROWS: usize = 2048;

/// The devices and data of a simulated run.
pub(crate) struct World {
    /// What devices are told.
    pub(crate) plan: TaskPlan,
    /// The pooled data.
    pub(crate) loaded: Arc<Loaded>,
    /// The devices, in the order of the partition.
    pub(crate) devices: Arc<[Device]>,
}

/// One simulated device.
pub(crate) struct Device {
    /// Its id: the demo's processes get the same ones.
    pub(crate) id: DeviceId,
    train: Vec<u32>,
    holdout: Vec<u32>,
}

impl World {
    /// The devices that `input` asks for, and their data.
    pub(crate) fn new(input: &TaskInput) -> Result<Self> {
        let loaded = input.load()?;
        let federation = &input.task.federation;
        let parts = starling_data::partition(&loaded, federation.partition, federation.devices, input.seed)?;
        let devices = parts.into_iter().zip(0u32..).map(|(rows, index)| {
            let id = DeviceId::seeded(input.seed, index);
            let (train, holdout) =
                starling_data::split_holdout(&rows, federation.holdout, input.plan.holdout_seed(), device_key(id.0));
            Device { id, train, holdout }
        });
        let world = Self { plan: input.plan.clone(), devices: devices.collect(), loaded: Arc::new(loaded) };
        // Moments classify nothing.
        Ok(if world.plan.moments.is_some() { world.without_test() } else { world })
    }

    /// The same devices, for commands that must not see test data.
    pub(crate) fn without_test(self) -> Self {
        let loaded = Arc::into_inner(self.loaded).expect("a new world shares nothing yet");
        Self { loaded: Arc::new(Loaded { test: None, ..loaded }), ..self }
    }

    /// The same devices and data under another plan, whose samples are of the same kind and shape: a network that was
    /// compressed, other settings of local training.
    pub(crate) fn with_plan(&self, plan: TaskPlan) -> Result<Self> {
        let samples = |plan: &TaskPlan| (plan.kind, plan.shape.clone(), plan.scale, plan.standardise.clone());
        let fits = samples(&plan) == samples(&self.plan);
        anyhow::ensure!(fits, "the plan is about other samples than the devices have");
        Ok(Self { plan, loaded: Arc::clone(&self.loaded), devices: Arc::clone(&self.devices) })
    }
}

impl Device {
    /// Whether there is anything to train on.
    pub(crate) fn has_training_rows(&self) -> bool {
        !self.train.is_empty()
    }

    /// Examples that it trains on.
    pub(crate) fn examples(&self) -> usize {
        self.train.len()
    }

    /// Whether there is anything to evaluate on.
    pub(crate) fn holds_out(&self) -> bool {
        !self.holdout.is_empty()
    }
}

/// Something to compute.
pub(crate) enum Job {
    /// Local training of a device, from the version it was sent to the sealed update.
    Train {
        /// The device's position in the world.
        device: usize,
        /// The round.
        address: Address,
        /// The round's plan: the run's, with the clipping norm of the round.
        plan: Arc<TaskPlan>,
        /// The version's values.
        base: Arc<Vec<f32>>,
        /// What the device owes from earlier rounds, where the codec keeps a residual.
        residual: Option<Arc<Residual>>,
    },
    /// Evaluation on a device's own hold-out.
    HeldOut {
        /// The device's position in the world.
        device: usize,
        /// The version's values.
        base: Arc<Vec<f32>>,
    },
    /// The ranges of each layer's inputs over a device's training rows.
    Ranges {
        /// The device's position in the world.
        device: usize,
        /// The version's values.
        base: Arc<Vec<f32>>,
    },
    /// Evaluation on some rows of the test set.
    Test {
        /// The rows.
        rows: Vec<u32>,
        /// The version's values.
        base: Arc<Vec<f32>>,
    },
}

/// What came of a [`Job`].
pub(crate) enum Done {
    /// What training gave, where the update goes into a secure sum.
    Trained(Vec<f32>, UpdateReport),
    /// An update, and what the device owes once it is committed.
    Sealed(Sealed, Option<Residual>),
    /// Figures.
    Evaluated(Evaluated),
    /// Rows that the model was run over, and the ranges of its layers' inputs.
    Ranges(u64, Vec<Option<ValueRange>>),
}

/// The worker threads.
pub(crate) struct Pool {
    jobs: mpsc::Sender<(usize, Job)>,
    done: mpsc::Receiver<(usize, Result<Done>)>,
}

impl Pool {
    /// Starts `threads` workers; they end when the pool is dropped.
    pub(crate) fn start<'scope>(scope: &'scope Scope<'scope, '_>, world: &'scope World, threads: usize) -> Self {
        let (jobs, queue) = mpsc::channel::<(usize, Job)>();
        let queue = Arc::new(Mutex::new(queue));
        let (report, done) = mpsc::channel();
        for _ in 0..threads.max(1) {
            let (queue, report) = (Arc::clone(&queue), report.clone());
            scope.spawn(move || {
                let mut network = None;
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((slot, job)) = job else { return };
                    if report.send((slot, work(world, &mut network, job))).is_err() {
                        return;
                    }
                }
            });
        }
        Self { jobs, done }
    }

    /// Does all of `jobs` and returns what came of each, in their order; `on_done` is called as each is done.
    pub(crate) fn run(&self, jobs: Vec<Job>, mut on_done: impl FnMut()) -> Result<Vec<Done>> {
        let count = jobs.len();
        for job in jobs.into_iter().enumerate() {
            self.jobs.send(job).ok().context("the worker threads have ended")?;
        }
        let mut results: Vec<Option<Done>> = (0..count).map(|_| None).collect();
        let mut failed = None;
        for _ in 0..count {
            let (slot, result) = self.done.recv().context("a worker thread has ended before its work was done")?;
            match result {
                Ok(done) => results[slot] = Some(done),
                // The one of the lowest position is told, whichever failed first.
                Err(error) if failed.as_ref().is_none_or(|(first, _)| slot < *first) => failed = Some((slot, error)),
                Err(_) => {}
            }
            on_done();
        }
        match failed {
            Some((_, error)) => Err(error),
            None => Ok(results.into_iter().map(|done| done.expect("every job has reported")).collect()),
        }
    }

    /// The figures of `base` on the test set, if there is one.
    pub(crate) fn test(&self, world: &World, base: &Arc<Vec<f32>>) -> Result<Option<Evaluated>> {
        let Some(test) = &world.loaded.test else { return Ok(None) };
        let rows = all_rows(test)?;
        let job = |rows: &[u32]| Job::Test { rows: rows.to_vec(), base: Arc::clone(base) };
        let parts = self.run(rows.chunks(EVALUATE_ROWS).map(job).collect(), || ())?;
        let mut total = Evaluated { examples: 0, correct: 0, loss_sum: 0.0 };
        for part in parts {
            if let Done::Evaluated(part) = part {
                total.examples += part.examples;
                total.correct += part.correct;
                total.loss_sum += part.loss_sum;
            }
        }
        Ok(Some(total))
    }
}

/// Every row of `data`.
pub(crate) fn all_rows(data: &Dataset) -> Result<Vec<u32>> {
    Ok((0..u32::try_from(data.len()).context("a set has fewer than 2^32 rows")?).collect())
}

fn work(world: &World, network: &mut Option<Network>, job: Job) -> Result<Done> {
    if let Job::Train { device, address, plan, base, .. } = &job
        && let Some(moments) = plan.moments()
    {
        let device = &world.devices[*device];
        let said = survey::moments(&moments, base, &world.loaded.train, &device.train, plan.update.weight_max);
        let said = said.context("the device has no rows")?;
        return finished(plan, device, *address, said.delta, &said.report, None);
    }
    let network = match network {
        Some(network) => network,
        none => none.insert(Network::new(&world.plan)?),
    };
    match job {
        Job::Train { device, address, plan, base, residual } => {
            train((world, &plan), network, &world.devices[device], address, &base, residual.as_deref())
        }
        Job::HeldOut { device, base } => {
            let rows = &world.devices[device].holdout;
            Ok(Done::Evaluated(network.evaluate(&base, &world.loaded.train, rows)?))
        }
        Job::Ranges { device, base } => {
            let rows = &world.devices[device].train;
            let (rows, ranges) = survey::ranges(&world.plan, &base, &world.loaded.train, rows)?;
            Ok(Done::Ranges(rows, ranges))
        }
        Job::Test { rows, base } => {
            let test = world.loaded.test.as_ref().context("the task has no test set")?;
            Ok(Done::Evaluated(network.evaluate(&base, test, &rows)?))
        }
    }
}

/// What a device does in a round by `plan`: local training, the delta, the seal.
fn train(
    (world, plan): (&World, &TaskPlan),
    network: &mut Network,
    device: &Device,
    address: Address,
    base: &[f32],
    residual: Option<&Residual>,
) -> Result<Done> {
    let key = device_key(device.id.0);
    let never = AtomicBool::new(false);
    let mut delta = base.to_vec();
    let path = TrainPath { device: key, round: u64::from(address.round) };
    let private = plan.train.dp_sgd.is_some();
    let outcome = if private {
        // Not the words of the noise on updates.
        let mut words = Simulated::new(plan.seed, &[path.round, key, 1]);
        network.train_private(&mut delta, &world.loaded.train, &device.train, path, &never, &mut words)
    } else {
        network.train(&mut delta, &world.loaded.train, &device.train, path, &never)
    };
    let outcome = outcome.with_context(|| format!("device {} failed to train in {address}", device.id))?;
    delta.iter_mut().zip(base).for_each(|(value, base)| *value -= base);
    let report = UpdateReport {
        weight: outcome.examples.min(plan.update.weight_max),
        // Of examples, without noise: it stays where it is.
        train_loss: if private { 0.0 } else { outcome.loss_mean },
        steps: if private { 0 } else { outcome.steps },
        within_clip: false,
    };
    finished(plan, device, address, delta, &report, residual)
}

/// What goes into a secure sum as it is, and is sealed everywhere else.
fn finished(
    plan: &TaskPlan,
    device: &Device,
    address: Address,
    delta: Vec<f32>,
    report: &UpdateReport,
    residual: Option<&Residual>,
) -> Result<Done> {
    if plan.is_secure() {
        return Ok(Done::Trained(delta, *report));
    }
    let rounding = starling_update::rounding_key(plan.seed, device.id, address.round);
    let codec = plan.update.codec;
    let sealed = match residual {
        None => {
            let round = u64::from(address.round);
            let mut words = Simulated::new(plan.seed, &[round, device_key(device.id.0)]);
            seal_private(plan, report, &delta, rounding, &mut words).map(|sealed| Done::Sealed(sealed, None))
        }
        Some(residual) => seal_with_feedback(report, &delta, codec, rounding, residual)
            .map(|(sealed, owed)| Done::Sealed(sealed, Some(owed))),
    };
    sealed.with_context(|| format!("the update of device {} in {address} cannot be sent", device.id))
}
