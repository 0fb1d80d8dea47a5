//! The control messages, in the order in which a connection sees them. Every one that is about a round carries its
//! [`Address`]: one connection serves many runs.

use serde::{Deserialize, Serialize};

use crate::blob::CodecId;
use crate::distrust::Distrust;
use crate::enrol::{Credential, RenewRequest};
use crate::ids::{Address, DeviceId, Digest, RunId, TaskId};
use crate::policy::PolicyRule;
use crate::refusal::Refusal;
use crate::release::{OfferedRelease, ReleaseReport};
use crate::secure::{SecureMail, SecurePart};

/// From a device to its aggregator. Not `non_exhaustive`: the aggregator says of each message who may send it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToAggregator {
    /// The first frame of a connection.
    Hello(Hello),
    /// What the device can take part in; sent after the welcome and whenever it changes.
    Available(Available),
    /// The device takes part in the round.
    Accept(Address),
    /// The device does not take part in the round.
    Decline(Address, Decline),
    /// The device asks for a model's bytes.
    Fetch(Fetch),
    /// The result of an evaluation round.
    Evaluation(Evaluation),
    /// The device goes away on purpose.
    Bye,
    /// Where the device stands with a release that it was offered.
    Release(ReleaseReport),
    /// The device asks for proof that its update is in the aggregator's audit log.
    WantReceipt(WantReceipt),
    /// The device asks for the next certificate, for a new key.
    Renew(RenewRequest),
    /// The result of a statistics round.
    Statistics(Statistics),
    /// What a device sends in a stage of a secure sum.
    Secure(SecureMail),
}

/// From an aggregator to a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ToClient {
    /// The answer to a hello.
    Welcome(Welcome),
    /// The answer to a hello that is not welcome, or to a frame that ends the connection.
    Refused(Refusal),
    /// A run that the device may be selected for. Sent once a run and connection, before its first round.
    Plan(RunPlan),
    /// The device is in the cohort of a round.
    RoundStart(RoundStart),
    /// The round goes on without the device, or is over.
    RoundEnd(Address, Refusal),
    /// What became of the update that the device sent.
    Verdict(Verdict),
    /// The run has no further rounds.
    RunEnd(RunId),
    /// A fetch that cannot be served.
    FetchRefused(Digest, Refusal),
    /// The release of a task that the device offers itself for.
    Release(OfferedRelease),
    /// Proof that an update is in the audit log.
    Receipt(Receipt),
    /// There is no receipt to give for this run and round.
    ReceiptRefused(RunId, u32, Refusal),
    /// The next certificate.
    Renewed(Credential),
    /// There is no next certificate, now or ever.
    RenewRefused(Refusal),
    /// A part of what a stage of a secure sum asks.
    Secure(SecurePart),
}

/// How a connection starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest protocol version that the device speaks.
    pub version_min: u16,
    /// The newest protocol version that the device speaks.
    pub version_max: u16,
    /// The device's name; the certificate has to say the same.
    pub name: String,
    /// Name and version of the software, for the operator's eyes.
    pub software: String,
}

/// The aggregator's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both speak from here on.
    pub version: u16,
    /// The id that the aggregator read from the certificate.
    pub device: DeviceId,
    /// Grows with each start of the aggregator: it tells a restart from a mere reconnection.
    pub epoch: u64,
}

/// What a device has data and its owner's consent for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Available {
    /// The names of the tasks, at most [`crate::limits::TASKS_PER_DEVICE_MAX`].
    pub tasks: Vec<String>,
}

/// A run and how to train in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPlan {
    /// The run.
    pub run: RunId,
    /// Grows each time that another server takes the run over.
    pub owner_epoch: u64,
    /// The id of the task: the first half of the plan's digest.
    pub task: TaskId,
    /// The task's name, by which the device finds its data.
    pub name: String,
    /// Model spec, training and update settings as JSON (`starling_spec::TaskPlan`).
    #[serde(with = "serde_bytes")]
    pub plan: Vec<u8>,
    /// What publishers signed of the plan: a bundle of `starling-trust`, empty where nobody signed. Plan and bundle have at
    /// most [`crate::limits::PLAN_BYTES_MAX`] bytes together.
    #[serde(with = "serde_bytes")]
    pub bundle: Vec<u8>,
}

/// What a round asks of its cohort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RoundKind {
    /// Train and send an update.
    Train,
    /// Evaluate on the device's own hold-out and send the figures.
    Evaluate,
    /// Run the model over the device's own training rows and send the ranges of each layer's inputs.
    Statistics,
}

/// A model version by its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// The version; 0 is the initial model.
    pub version: u64,
    /// The digest of its encoded bytes.
    pub digest: Digest,
    /// How many bytes those are.
    pub length: u64,
    /// Their codec.
    pub codec: CodecId,
}

/// The device is selected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RoundStart {
    /// Which round.
    pub address: Address,
    /// What to do.
    pub kind: RoundKind,
    /// The model that every device of the round starts from.
    pub base: ModelRef,
    /// Milliseconds from now until the aggregator waits no longer.
    pub deadline_ms: u64,
    /// The largest weight that the round's plan allows.
    pub weight_max: u32,
    /// The clipping norm of the round, where the plan lets it adapt: an L2 norm in units of the parameters.
    pub clip: Option<f64>,
}

/// Why a device stays away from a round (invariant 13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Decline {
    /// The device has no data for the task.
    NoData,
    /// The owner's policy forbids it, by this rule.
    Policy(PolicyRule),
    /// The device is busy with another round.
    Busy,
    /// The plan cannot be carried out here.
    PlanNotUnderstood,
    /// The model could not be fetched or decoded.
    ModelUnavailable,
    /// Training failed.
    TrainingFailed,
    /// The device trains signed plans only, and does not believe this one.
    Untrusted(Distrust),
    /// The device leaves the round's secure sum.
    Secure(Refusal),
}

impl Decline {
    /// Why, in words for the operator.
    pub fn text(self) -> &'static str {
        match self {
            Decline::NoData => "the device has no data for the task",
            Decline::Policy(rule) => rule.text(),
            Decline::Busy => "the device is busy with another round",
            Decline::PlanNotUnderstood => "the device's software cannot carry out the plan",
            Decline::ModelUnavailable => "the model could not be fetched or decoded",
            Decline::TrainingFailed => "training failed; the device's log says more",
            Decline::Untrusted(reason) => reason.text(),
            Decline::Secure(reason) => reason.text(),
        }
    }
}

/// A request for the bytes of a model or a release. They come on a unidirectional stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The run; [`crate::release::RELEASE_RUN`] for a release.
    pub run: RunId,
    /// The model or release wanted.
    pub digest: Digest,
    /// A model that the device holds: the answer may then be a difference from it.
    pub held: Option<Digest>,
    /// Resume at this byte, a multiple of [`crate::blob::RESUME_UNIT_BYTES`], of the same transfer.
    pub offset: u64,
}

/// What a device says about its update, in front of the payload of the same blob.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct UpdateReport {
    /// The update's weight: the examples that it was trained on.
    pub weight: u32,
    /// Mean training loss over the local steps.
    pub train_loss: f32,
    /// Local steps taken; 0 where the device's owner lets neither loss nor steps leave.
    pub steps: u32,
    /// Whether it needed no clipping. False also where the plan does not ask, which it does where the clipping norm adapts.
    pub within_clip: bool,
}

impl UpdateReport {
    /// Whether the loss means anything.
    pub fn says_loss(&self) -> bool {
        self.steps > 0
    }
}

/// The figures of a federated evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The round.
    pub address: Address,
    /// Examples in the hold-out.
    pub examples: u64,
    /// Examples classified rightly (0 in regression).
    pub correct: u64,
    /// Sum of the loss over the examples.
    pub loss_sum: f64,
}

/// What a device found out about the model over its own training rows, in a round that makes no version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// The round.
    pub address: Address,
    /// Rows that the model was run over.
    pub examples: u64,
    /// The range of what each tensor of the manifest was multiplied with; none for tensors that multiply nothing.
    pub ranges: Vec<Option<ValueRange>>,
}

/// From where to where values lie; both ends are finite.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ValueRange {
    /// The smallest.
    pub low: f32,
    /// The largest.
    pub high: f32,
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Version `version`, which contains it, is durable. The device may forget it.
    Committed {
        /// The round that the update was sent for.
        address: Address,
        /// The version that contains it.
        version: u64,
    },
    /// It will not be used.
    Refused {
        /// The round that the update was sent for.
        address: Address,
        /// Why.
        reason: Refusal,
    },
}

/// A device asks for a receipt of its own update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantReceipt {
    /// The run.
    pub run: RunId,
    /// The round.
    pub round: u32,
    /// How many records the log had at the last checkpoint that the device accepted; 0 when it has none. The receipt then
    /// proves that the log goes on from there.
    pub held: u64,
}

/// That an update is in the audit log, in a form that needs no trust in who gives it (`starling-audit` checks it).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The run.
    pub run: RunId,
    /// The round.
    pub round: u32,
    /// The log's public key, as text. A device that knows the key already compares it.
    pub key: String,
    /// The record of the update, as it is in the log.
    #[serde(with = "serde_bytes")]
    pub record: Vec<u8>,
    /// The hashes from the record to the checkpoint's root.
    pub inclusion: Vec<Digest>,
    /// The signed checkpoint.
    pub checkpoint: String,
    /// The hashes from the checkpoint that the device holds to this one.
    pub consistency: Vec<Digest>,
}
