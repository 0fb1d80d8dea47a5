//! The thread that computes: no CPU work ever runs on the thread that keeps the connection.
//!
//! It starts with the first order. Orders are taken one after the other, so one network and one set of buffers exist at a
//! time, however many runs there are.

use std::collections::BTreeMap;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;
use starling_daemon::entropy;
use starling_protocol::participant::{Answer, Figures, JobId, JobOrder, RUNS_MAX};
use starling_spec::{DpMode, TaskPlan};
use starling_store::Store;
use starling_update::{LocalFigures, Sealed, Version, rounding_key, seal_private, seal_with_feedback};
use starling_wire::{
    Address, Decline, DeviceId, Digest, ModelRef, Refusal, ReleaseRefusal, RoundKind, RunId, SecureMail, UpdateReport,
};
use tokio::sync::mpsc;

use crate::ending::{Ending, halves};
use crate::learner::{Job, LearnError, Learner, Trained, with_causes};
use crate::owed::Owed;
use crate::policy::Owner;
use crate::receipts::Arrived;
use crate::state::{Source, Unsaved};

/// Orders that may wait: for each run a job, one that was stopped and not yet taken off, and a model to rebuild; and a receipt.
const ORDERS_MAX: usize = 3 * RUNS_MAX + 1;

/// The stack of the thread. Only touched pages cost memory.
const STACK_BYTES: usize = 8 << 20;

/// Whose noise is drawn here before an update is sealed. A plan that promises another one has it from somebody else, or not at all: it does
/// not count as protection on this device.
pub(crate) const NOISE_DRAWN_HERE: &[DpMode] = &[DpMode::Local, DpMode::Distributed];

/// Something to compute.
pub(crate) enum Order {
    /// Turn a difference into a version.
    Rebuild { run: RunId, base: ModelRef, held: Source, difference: Bytes },
    /// Train, evaluate or find ranges.
    Work { order: JobOrder, device: DeviceId, model: Source, owed: Owed, stop: Arc<AtomicBool> },
    /// Check a receipt and keep it.
    Keep(Box<Arrived>),
    /// Put versions on the disk and give memory back.
    Release { store: Arc<Store>, unsaved: Vec<Unsaved> },
}

/// What a device has for a secure sum.
pub(crate) struct ToMask {
    pub(crate) trained: Trained,
    /// How the model that it trained from does on its hold-out, where the plan asks for that.
    pub(crate) figures: Option<LocalFigures>,
}

/// What came of it.
pub(crate) enum Report {
    Rebuilt {
        run: RunId,
        base: ModelRef,
        result: Result<Bytes, String>,
    },
    Trained {
        job: JobId,
        result: Result<Arc<Sealed>, Decline>,
    },
    /// What training gave, where the update goes into a secure sum: `summing` masks it.
    ToMask {
        job: JobId,
        run: RunId,
        round: u32,
        trained: Box<ToMask>,
    },
    /// Of the thread of secure sums.
    Secure {
        address: Address,
        result: Result<Option<SecureMail>, Refusal>,
    },
    Answered {
        job: JobId,
        result: Result<Answer, Decline>,
    },
    Released {
        saved: Vec<(RunId, Digest)>,
    },
    /// Of the thread that installs a release.
    Installed {
        result: Result<(), ReleaseRefusal>,
    },
    Kept {
        run: RunId,
        round: u32,
        result: Result<u64, String>,
    },
}

/// The agent's end of the thread.
pub(crate) struct Worker {
    learner: Arc<dyn Learner>,
    owner: Arc<Owner>,
    orders: Option<SyncSender<Order>>,
    /// After the orders: without them the thread ends.
    ending: Option<Ending>,
    reports: mpsc::Sender<Report>,
    stops: BTreeMap<JobId, Arc<AtomicBool>>,
}

impl Worker {
    /// No thread yet. Reports come on the receiver.
    pub(crate) fn new(learner: Arc<dyn Learner>, owner: Arc<Owner>) -> (Self, mpsc::Receiver<Report>) {
        let (reports, receiver) = mpsc::channel(ORDERS_MAX);
        (Self { learner, owner, orders: None, ending: None, reports, stops: BTreeMap::new() }, receiver)
    }

    /// Whether the thread has ever been needed.
    pub(crate) fn is_started(&self) -> bool {
        self.orders.is_some()
    }

    /// The way to the agent, for another thread than this one.
    pub(crate) fn reports(&self) -> mpsc::Sender<Report> {
        self.reports.clone()
    }

    /// Hands a job to the thread. `false` when it cannot take any more.
    pub(crate) fn work(&mut self, order: JobOrder, device: DeviceId, model: Source, owed: Owed) -> bool {
        let stop = Arc::new(AtomicBool::new(false));
        self.stops.insert(order.job, Arc::clone(&stop));
        let job = order.job;
        let taken = self.submit(Order::Work { order, device, model, owed, stop });
        if !taken {
            self.stops.remove(&job);
        }
        taken
    }

    /// Hands an order to the thread. `false` when it cannot take any more.
    pub(crate) fn submit(&mut self, order: Order) -> bool {
        if self.orders.is_none() {
            let (sender, receiver) = sync_channel(ORDERS_MAX);
            let (alive, ending) = halves();
            let (learner, owner, reports) = (Arc::clone(&self.learner), Arc::clone(&self.owner), self.reports.clone());
            let spawned =
                thread::Builder::new().name("starling-worker".to_owned()).stack_size(STACK_BYTES).spawn(move || {
                    serve(&receiver, &*learner, &owner, &reports);
                    drop((receiver, learner, owner, reports));
                    drop(alive);
                });
            match spawned {
                Ok(_) => (self.orders, self.ending) = (Some(sender), Some(ending)),
                Err(error) => {
                    tracing::error!(%error, "the worker thread could not be started");
                    return false;
                }
            }
        }
        self.orders.as_ref().is_some_and(|orders| orders.try_send(order).is_ok())
    }

    /// The job's result is not wanted any more.
    pub(crate) fn stop(&mut self, job: JobId) {
        if let Some(stop) = self.stops.remove(&job) {
            stop.store(true, Ordering::Relaxed);
        }
    }

    /// The job has reported.
    pub(crate) fn forget(&mut self, job: JobId) {
        self.stops.remove(&job);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stops.values().for_each(|stop| stop.store(true, Ordering::Relaxed));
    }
}

fn serve(orders: &Receiver<Order>, learner: &dyn Learner, owner: &Owner, reports: &mpsc::Sender<Report>) {
    while let Ok(order) = orders.recv() {
        // Fails when the agent has gone, and then nobody wants the rest either.
        if let Some(report) = carry_out(order, learner, owner)
            && reports.blocking_send(report).is_err()
        {
            return;
        }
    }
}

fn carry_out(order: Order, learner: &dyn Learner, owner: &Owner) -> Option<Report> {
    match order {
        Order::Rebuild { run, base, held, difference } => {
            let rebuilt = held.read().map_err(|error| error.to_string()).and_then(|held| {
                Version::rebuild(&base, &held, &difference).map(Bytes::from).map_err(|error| error.to_string())
            });
            Some(Report::Rebuilt { run, base, result: rebuilt })
        }
        Order::Work { stop, .. } if stop.load(Ordering::Relaxed) => None,
        Order::Work { order, device, model, owed, stop } => {
            let job = order.job;
            let training = order.start.kind == RoundKind::Train;
            let worker = Work { order, device, model, owed, stop, learner, owner };
            // A plan that makes the learner panic must not end the daemon: other runs go on.
            if training {
                let trained = catch_unwind(AssertUnwindSafe(|| worker.train())).unwrap_or(Err(Decline::TrainingFailed));
                Some(trained.unwrap_or_else(|reason| Report::Trained { job, result: Err(reason) }))
            } else {
                let result = catch_unwind(AssertUnwindSafe(|| worker.answer())).unwrap_or(Err(Decline::TrainingFailed));
                Some(Report::Answered { job, result })
            }
        }
        Order::Keep(arrived) => {
            let (run, round) = (arrived.receipt.run, arrived.receipt.round);
            Some(Report::Kept { run, round, result: arrived.keep().map_err(|error| with_causes(&error)) })
        }
        Order::Release { store, unsaved } => {
            learner.release();
            let mut saved = Vec::new();
            for version in &unsaved {
                match version.save(&store) {
                    Ok(()) => saved.push((version.run, version.digest())),
                    Err(error) => tracing::warn!(run = %version.run, %error, "the held model could not be saved"),
                }
            }
            drop(unsaved);
            give_memory_back();
            Some(Report::Released { saved })
        }
    }
}

struct Work<'a> {
    order: JobOrder,
    device: DeviceId,
    model: Source,
    owed: Owed,
    stop: Arc<AtomicBool>,
    learner: &'a dyn Learner,
    owner: &'a Owner,
}

impl Work<'_> {
    fn train(&self) -> Result<Report, Decline> {
        let (job, base) = self.prepare()?;
        let figures = self.figures(&job, &base)?;
        let private = job.plan.train.dp_sgd.is_some();
        if private {
            // Durable before a step is taken: its noise is new each time.
            let examples = self.learner.examples(&job).map_err(|error| self.declined(&error))?;
            self.owner.spend_examples(&job.plan, &job.address, examples)?;
        }
        let mut trained = self.learner.train(&job, base, &self.stop).map_err(|error| self.declined(&error))?;
        if private {
            // The loss is of examples, without noise.
            trained.report = UpdateReport { train_loss: 0.0, steps: 0, ..trained.report };
        }
        let id = self.order.job;
        if job.plan.is_secure() {
            // Each attempt at masking it is charged there.
            let Address { run, round, .. } = job.address;
            return Ok(Report::ToMask { job: id, run, round, trained: Box::new(ToMask { trained, figures }) });
        }
        self.owner.spend(&job.plan, &job.address, self.order.start.base.digest)?;
        if !self.owner.lets_metrics_out(&job.plan) {
            // No steps: nothing is said of the loss either.
            trained.report = UpdateReport { train_loss: 0.0, steps: 0, ..trained.report };
        }
        Ok(Report::Trained { job: id, result: Ok(self.seal(&job, &trained)?) })
    }

    /// How the model does on this device's hold-out, for the secure sum alone.
    fn figures(&self, job: &Job, base: &[f32]) -> Result<Option<LocalFigures>, Decline> {
        let asked = job.plan.privacy.as_ref().is_some_and(|privacy| privacy.evaluates(self.order.start.base.version));
        if !asked {
            return Ok(None);
        }
        match self.learner.evaluate(job, base.to_vec()) {
            Ok((examples, correct, loss_sum)) => Ok(Some(LocalFigures { examples, correct, loss_sum })),
            Err(LearnError::Stopped) => Err(self.declined(&LearnError::Stopped)),
            Err(error) => {
                // Without a hold-out a device still trains.
                tracing::debug!(address = %job.address, error = with_causes(&error), "nothing is said of the hold-out");
                Ok(None)
            }
        }
    }

    fn seal(&self, job: &Job, trained: &Trained) -> Result<Arc<Sealed>, Decline> {
        let key = rounding_key(job.plan.seed, self.device, job.address.round);
        let failed = |error: Box<dyn Error + Send + Sync>| self.declined(&LearnError::Failed(error));
        let codec = job.plan.update.codec;
        if !codec.keeps_residual() {
            let sealed = seal_private(&job.plan, &trained.report, &trained.delta, key, &mut entropy::words());
            return Ok(Arc::new(sealed.map_err(|error| failed(error.into()))?));
        }
        // Durable before a byte leaves: what is sent must not be owed again after a crash.
        let task = job.address.task;
        let before = self.owed.before(task, &job.address, trained.delta.len()).map_err(|error| failed(error.into()))?;
        let (sealed, then) = seal_with_feedback(&trained.report, &trained.delta, codec, key, &before)
            .map_err(|error| failed(error.into()))?;
        self.owed.pend(task, &job.address, &then).map_err(|error| failed(error.into()))?;
        Ok(Arc::new(sealed))
    }

    fn answer(&self) -> Result<Answer, Decline> {
        let (job, base) = self.prepare()?;
        let answer = match self.order.start.kind {
            RoundKind::Statistics => self.learner.ranges(&job, base).map(|(rows, ranges)| Answer::Ranges(rows, ranges)),
            _ => self
                .learner
                .evaluate(&job, base)
                .map(|(examples, correct, loss_sum)| Answer::Figures(Figures { examples, correct, loss_sum })),
        };
        answer.map_err(|error| self.declined(&error))
    }

    /// The job and the parameters that it starts from.
    fn prepare(&self) -> Result<(Job, Vec<f32>), Decline> {
        let JobOrder { plan, start, .. } = &self.order;
        let unavailable = |error: &dyn std::error::Error| {
            let error = with_causes(error);
            tracing::warn!(address = %start.address, error, "the model that the round starts from cannot be read");
            Decline::ModelUnavailable
        };
        let bytes = self.model.read().map_err(|error| unavailable(&error))?;
        let count = parameters(plan).ok_or(Decline::PlanNotUnderstood)?;
        let base = Version::decode(&start.base, &bytes, count).map_err(|error| unavailable(&error))?;
        let weight_max = start.weight_max.min(plan.update.weight_max);
        Ok((Job { plan: Arc::clone(plan), address: start.address, device: self.device, weight_max }, base))
    }

    fn declined(&self, error: &LearnError) -> Decline {
        let address = self.order.start.address;
        if matches!(error, LearnError::Stopped) {
            tracing::debug!(%address, "stopped");
        } else {
            let text = with_causes(error);
            tracing::warn!(%address, error = text, "the round is declined");
        }
        error.decline()
    }
}

/// The parameters of a plan's network; the plan was checked when it came.
pub(crate) fn parameters(plan: &TaskPlan) -> Option<usize> {
    plan.manifest().ok().map(|manifest| manifest.len())
}

/// Returns the heap's free pages to the system, which glibc does not do by itself for what lies between live blocks.
fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code, reason = "the standard library has no malloc_trim")]
    // SAFETY: the call takes no pointer and may be made from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
