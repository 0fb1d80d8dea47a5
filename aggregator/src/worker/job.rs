//! What the worker is told to do, and what it tells of a run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use starling_audit::{Entry, Who};
use starling_daemon::keeping::KeepRequest;
use starling_protocol::run::{Stage, Turn};
use starling_spec::{TaskFile, TaskPlan};
use starling_update::{Numerics, RoundNumbers};
use starling_wire::{Address, BlobHeader, DeviceId, Digest, ModelRef, RunId, SecureMail, WantReceipt};

use crate::audit::{AuditAsk, Field};
use crate::erasure::{Erasure, Forgetting};
use crate::event::{AdminReply, Staged};
use crate::kept::KeptVersion;
use crate::ledger::{Balance, Ledger};
use crate::publish::Publication;
use crate::records::{AnswerRecord, RoundRecord, RunRecord};
use crate::staging::Reservation;

/// What the hub has to know of a run that the worker has in memory.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) record: RunRecord,
    pub(crate) plan: Arc<TaskPlan>,
    pub(crate) task: Arc<TaskFile>,
    /// The numbers of the next round.
    pub(crate) numbers: RoundNumbers,
    pub(crate) reference: ModelRef,
    /// Tensors of the network's manifest.
    pub(crate) tensors: usize,
    /// What devices had had of their turns when it was loaded, where those are limited.
    pub(crate) turns: Arc<BTreeMap<DeviceId, Turn>>,
    /// The first attempt of each round: see [`attempt_first`].
    pub(crate) attempt_first: u16,
    /// What publishers signed of the plan; empty where nobody did.
    pub(crate) bundle: Bytes,
    /// What is left of the run's privacy budget, where it has noise.
    pub(crate) budget: Option<Box<Budget>>,
}

/// What a run has spent and may still spend.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    pub(crate) balance: Balance,
    pub(crate) rounds_left: u32,
}

impl Budget {
    pub(super) fn of(ledger: &Ledger) -> Box<Self> {
        Box::new(Self { balance: ledger.balance(), rounds_left: ledger.rounds_left() })
    }
}

/// What a commit leads to.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) loaded: Loaded,
    pub(crate) round: RoundRecord,
    /// The round before, where this one's devices said how its version does.
    pub(crate) judged: Option<RoundRecord>,
}

/// What there is to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Bring a run into memory: from its record, or, where it has no version yet, from what the request says.
    Load(Box<RunRecord>, Option<Box<NewRun>>),
    /// Check a body.
    Admit {
        device: DeviceId,
        address: Address,
        header: BlobHeader,
        body: Bytes,
        digest: Digest,
        numerics: Numerics,
        reservation: Reservation,
    },
    /// Add an update to the run's fold.
    Fold(Address, Arc<Staged>),
    /// Take what a device sent in a stage of a secure sum.
    Mail(DeviceId, SecureMail, Stage),
    /// Take a device's masked update into a secure sum.
    Masked {
        device: DeviceId,
        address: Address,
        header: BlobHeader,
        body: Bytes,
        digest: Digest,
        reservation: Reservation,
    },
    /// Close a stage of a secure sum.
    CloseStage(Address, Stage),
    /// Find what the open stage of a secure sum asks of a device.
    Remind(DeviceId, Address),
    /// A device leaves a secure sum before its update is in.
    DropOut(DeviceId, Address),
    /// Take an update out of the run's fold again.
    TakeOut(Address, Arc<Staged>),
    /// Forget what was folded since the last commit.
    Discard(Address),
    /// Make the next version, durably. The record says what is known already.
    Commit { address: Address, round: Box<RoundRecord>, started: Instant },
    /// Write where a run stands.
    Note(Box<RunRecord>, Option<Box<RoundRecord>>),
    /// Write what a run found out.
    Answered(RunId, Box<AnswerRecord>),
    /// The run needs no memory any more.
    Close(RunId),
    /// Another run has taken this one's place: its versions from this one on go.
    Withdraw(Box<RunRecord>, u64),
    /// Look for what has learnt from a device, on a thread of its own.
    Trace(Box<Forgetting>),
    /// Destroy what belongs to a device, and certify it.
    Erase(Box<Erasure>),
    /// Nothing of the run stays, and its files go unless another run names them.
    Remove(Box<RunRecord>, Box<Entry>, AdminReply),
    /// Give the operator the run's model.
    Export(Box<RunRecord>, AdminReply),
    /// Check a release file, make it durable, and offer it.
    Publish(Publication, Who, AdminReply),
    /// Store a newer freshness statement and newer roots with every signed release and run under way.
    Renew(Vec<u8>, Who, AdminReply),
    /// Record something. Who waits for it hears when it is durable; otherwise it is within a second.
    Audit(Box<Entry>, Option<Field>, Option<(serde_json::Value, AdminReply)>),
    /// Answer an operator's question about the audit log.
    AuditAsk(AuditAsk, Who, AdminReply),
    /// The audit log is not what was signed, from this record on.
    AuditDamage(u64),
    /// Make durable what the audit log has not written yet.
    AuditFlush,
    /// Prove to a device that its update is in the audit log.
    Receipt(DeviceId, WantReceipt),
    /// Keep the state: a backup or an escrow copy, on a thread of its own.
    Keep(KeepRequest, AdminReply),
}

/// What a run begins with.
#[derive(Debug)]
pub(crate) struct NewRun {
    pub(crate) task: TaskFile,
    /// A safetensors file that takes the place of the initialiser.
    pub(crate) weights: Option<Bytes>,
    /// A version of an earlier run that takes its place: the run goes on after that round.
    pub(crate) kept: Option<KeptVersion>,
    /// What publishers signed of its plan; empty where nobody did.
    pub(crate) bundle: Vec<u8>,
    /// Who starts it.
    pub(crate) who: Who,
}
