//! What a client does in a round, behind a trait: burn on real data, or a bench's stand-in.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use starling_spec::TaskPlan;
use starling_spec::random::device_key;
use starling_wire::{Address, Decline, DeviceId, UpdateReport, ValueRange};

/// What a job is about.
#[derive(Debug, Clone)]
pub struct Job {
    /// How to train, and on what kind of data.
    pub plan: Arc<TaskPlan>,
    /// The round, with the attempt that was current when the job began.
    pub address: Address,
    /// The device, from its certificate.
    pub device: DeviceId,
    /// The largest weight that the round allows.
    pub weight_max: u32,
}

impl Job {
    /// The device as a key of the deterministic generator.
    pub fn device_key(&self) -> u64 {
        device_key(self.device.0)
    }
}

/// What training gives.
#[derive(Debug, Clone)]
pub struct Trained {
    /// Trained parameters less the base's, one by one in `f32`.
    pub delta: Vec<f32>,
    /// Weight, loss and steps.
    pub report: UpdateReport,
}

/// Why a job came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// There is nothing to work on.
    #[error("no data for the task: {0}")]
    NoData(String),
    /// The plan cannot be carried out here.
    #[error("the plan cannot be carried out here")]
    Plan(#[source] Box<dyn Error + Send + Sync>),
    /// The job was stopped.
    #[error("stopped")]
    Stopped,
    /// It failed.
    #[error("training or evaluation failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl LearnError {
    /// What the aggregator is told.
    pub fn decline(&self) -> Decline {
        match self {
            Self::NoData(_) => Decline::NoData,
            Self::Plan(_) => Decline::PlanNotUnderstood,
            Self::Stopped | Self::Failed(_) => Decline::TrainingFailed,
        }
    }
}

/// Does the jobs. All calls come from one thread, which is no tokio worker; they may take as long as they need.
pub trait Learner: Send + Sync + 'static {
    /// The names of the tasks that it has data for: what the device offers itself for, and all that it accepts.
    fn tasks(&self) -> Vec<String>;

    /// How many examples it would train on: what `train.dp_sgd` draws from.
    ///
    /// # Errors
    /// [`LearnError`]; a learner that knows no examples takes part in no such plan.
    fn examples(&self, job: &Job) -> Result<u32, LearnError> {
        Err(LearnError::NoData(format!(
            "{} asks for train.dp_sgd, and nothing here is trained example by example",
            job.plan.name
        )))
    }

    /// Trains from `base`. It looks at `stop` between steps and returns [`LearnError::Stopped`] once it is set.
    ///
    /// # Errors
    /// [`LearnError`].
    fn train(&self, job: &Job, base: Vec<f32>, stop: &AtomicBool) -> Result<Trained, LearnError>;

    /// Evaluates `base` on the device's hold-out: examples, those classified rightly, and the sum of the losses.
    ///
    /// # Errors
    /// [`LearnError`].
    fn evaluate(&self, job: &Job, base: Vec<f32>) -> Result<(u64, u64, f64), LearnError>;

    /// Runs `base` over rows that the device trains on: how many, and the range of each tensor's inputs (see
    /// [`starling_wire::Statistics`]).
    ///
    /// # Errors
    /// [`LearnError`].
    fn ranges(&self, job: &Job, base: Vec<f32>) -> Result<(u64, Vec<Option<ValueRange>>), LearnError>;

    /// Nothing has been asked for in a while: what can be built again may go.
    fn release(&self) {}
}

/// The message of an error and of everything that caused it.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
