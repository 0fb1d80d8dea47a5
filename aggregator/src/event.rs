//! What reaches the hub, and from whom.

use starling_daemon::keeping::KeepRequest;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use starling_net::{AdminLink, Link};
use starling_protocol::run::Stage;
use starling_update::{Admitted, Numerics};
use starling_wire::{Address, BlobHeader, DeviceId, Refusal, Role, RunId, ToAggregator, ToClient};
use tokio::sync::{mpsc, oneshot};

use crate::access::{Denied, Permitted};
use crate::audit::AuditAsk;
use crate::erasure::{Forgetting, Traced};
use crate::records::ReleaseRecord;
use crate::staging::Reservation;
use crate::worker::{Closed, Committed, Loaded, Renewal};

/// Events that may wait for the hub. Senders wait when it is full, so it bounds memory, not work.
pub(crate) const EVENTS_MAX: usize = 1024;

/// Messages that may wait for one device. A device that reads none of them for so long is cut off.
pub(crate) const OUTBOUND_MAX: usize = 256;

/// One connection of one device: the number tells two connections of the same device apart.
pub(crate) type SessionId = u64;

/// A connected device, as the hub knows it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) device: DeviceId,
    pub(crate) name: String,
    pub(crate) software: String,
    pub(crate) session: SessionId,
    pub(crate) outbound: mpsc::Sender<ToClient>,
    pub(crate) link: Arc<Link>,
}

/// An update that was admitted and waits for the machine's word.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) update: Admitted,
    /// Held until the fold is done; dropping it lets the next body in.
    pub(crate) reservation: Reservation,
}

/// What an update's header is answered with: the numbers to check its body by, and none for a masked one.
pub(crate) type HeaderReply = Result<(Address, Option<Numerics>), Refusal>;

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    Connected(Peer),
    Disconnected(DeviceId, SessionId),
    /// Somebody was turned away before or at the hello.
    TurnedAway {
        /// The device, where its certificate is good.
        device: Option<DeviceId>,
        who: String,
        reason: Refusal,
    },
    /// A machine was not let into the fleet.
    NotEnrolled {
        who: String,
        reason: Refusal,
    },
    /// A device does not get its next certificate.
    NotRenewed(DeviceId, Refusal),
    Message(DeviceId, SessionId, ToAggregator),
    /// May the body of this blob be read?
    Header(DeviceId, BlobHeader, oneshot::Sender<HeaderReply>),
    /// The worker has looked at what a device sent in a stage of a secure sum.
    Mailed(DeviceId, Address, Stage, Result<(), Refusal>),
    /// The worker has closed a stage of a secure sum.
    StageClosed(Box<Closed>),
    /// What the open stage of a secure sum asks of a device that is back.
    Letter(DeviceId, Address, Bytes),
    /// A body was read and checked.
    Body(DeviceId, Address, Result<Box<Staged>, Refusal>),
    /// Bytes of blobs that moved for a run.
    Moved {
        run: RunId,
        up: u64,
        down: u64,
    },
    /// The worker has a run's model in memory and on the shelf.
    Loaded(RunId, Result<Box<Loaded>, String>),
    /// The worker has made a version durable.
    Committed(RunId, Result<Box<Committed>, String>),
    /// The worker has made a release durable and put it on the shelf, or says what is wrong with it.
    Published(Result<(ReleaseRecord, Bytes), String>, AdminReply),
    /// The worker has stored newer bundles of releases and runs.
    Renewed(Result<Renewal, String>, AdminReply),
    /// What an administrator asks and may have, with the bytes that came along.
    Admin(Permitted, Option<Bytes>, AdminReply),
    /// A device's connection was ended for what it did.
    Cut(DeviceId, Refusal),
    /// An administrator is connected over QUIC.
    Administering(AdminLink),
    /// The connection of an administrator is over.
    AdministratorGone(usize),
    /// Somebody asked for what is not theirs to do.
    Denied(Denied),
    /// A backup of the state was made.
    BackedUp,
    /// What a device that is to be forgotten has contributed to.
    Traced(Box<Forgetting>, Result<Box<Traced>, String>),
    /// A crash interrupted the forgetting of a device; and whether it is to be unlearned.
    Unfinished(DeviceId, bool),
    /// What a device that asked for a receipt is told.
    Receipt(DeviceId, ToClient),
}

/// Where an operator's answer goes.
pub(crate) type AdminReply = oneshot::Sender<Result<AdminAnswer, String>>;

/// An answer: JSON, and for some verbs a file after it.
#[derive(Debug)]
pub(crate) struct AdminAnswer {
    pub(crate) value: serde_json::Value,
    pub(crate) file: Option<Bytes>,
}

impl From<serde_json::Value> for AdminAnswer {
    fn from(value: serde_json::Value) -> Self {
        Self { value, file: None }
    }
}

/// Start a run of a task.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartRequest {
    /// The task file's text.
    pub(crate) task: String,
    /// Keys to override.
    #[serde(default)]
    pub(crate) overrides: Vec<(String, String)>,
    /// The seed; 0 when not given.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Bytes of a safetensors file whose weights are version 0, instead of the initialiser's. It is sent when the daemon says so.
    #[serde(default)]
    pub(crate) weights_bytes: Option<u64>,
    /// What publishers signed of the plan.
    #[serde(default)]
    pub(crate) bundle: Option<Vec<u8>>,
}

/// Issue an administrator's certificate. The key is made by its holder and never comes here.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssueRequest {
    /// `operator`, `publisher` or `auditor`.
    pub(crate) role: Role,
    /// The holder's name.
    pub(crate) name: String,
    /// The holder's public key, 64 hexadecimal digits.
    pub(crate) public_key: String,
    /// Seconds for which it is valid; as long as a device's when not given.
    #[serde(default)]
    pub(crate) certificate_s: Option<u64>,
}

/// An administrator's verb.
#[derive(Debug, serde::Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum AdminRequest {
    /// Start a run of a task.
    RunStart(StartRequest),
    /// The model of a run, as a safetensors file after the answer.
    RunExport {
        /// Which.
        run: u32,
        /// Which version; the newest when not given.
        #[serde(default)]
        version: Option<u64>,
    },
    /// Every run, a line each.
    RunList,
    /// One run with its rounds; the newest when not named.
    RunStatus {
        /// Which.
        #[serde(default)]
        run: Option<u32>,
    },
    /// End a run after what is being committed.
    RunStop {
        /// Which.
        run: u32,
    },
    /// Forget a run that is over, with its rounds and its model.
    RunRemove {
        /// Which.
        run: u32,
    },
    /// The devices that are connected, and who was turned away.
    Devices,
    /// Offer a release file to the devices of a task.
    ReleasePublish {
        /// The task's name.
        task: String,
        /// The file, as the daemon finds it on its own machine.
        #[serde(default)]
        path: Option<PathBuf>,
        /// Or how many bytes it has: it is sent when the daemon says so.
        #[serde(default)]
        release_bytes: Option<u64>,
        /// Only devices with all of these tags are offered it; those of the task's newest run when not given.
        #[serde(default)]
        tags: Option<Vec<String>>,
        /// Its version; one more than the task's last when not given.
        #[serde(default)]
        version: Option<u64>,
        /// What publishers signed of it.
        #[serde(default)]
        bundle: Option<Vec<u8>>,
    },
    /// Forward a newer freshness statement and newer roots with every signed release and run.
    TrustRenew {
        /// Both.
        bundle: Vec<u8>,
    },
    /// The release of each task, and where the connected devices stand with it.
    ReleaseList,
    /// Something about the audit log.
    Audit {
        /// What.
        ask: AuditAsk,
    },
    /// A backup or an escrow copy of the state.
    Keep {
        /// Which.
        request: KeepRequest,
    },
    /// Make a join string.
    DeviceInvite {
        /// The device's name.
        #[serde(default)]
        name: Option<String>,
        /// Its tags.
        #[serde(default)]
        tags: Vec<String>,
        /// Seconds until it is good no longer.
        #[serde(default)]
        expires_s: Option<u64>,
        /// Without a token, for devices that are approved one by one.
        #[serde(default)]
        open: bool,
    },
    /// Every device that is known.
    DeviceList {
        /// Only those that wait for approval.
        #[serde(default)]
        pending: bool,
    },
    /// Let a waiting device in.
    DeviceApprove {
        /// Which.
        device: String,
    },
    /// Turn a waiting device away.
    DeviceReject {
        /// Which.
        device: String,
    },
    /// Throw a device out for good.
    DeviceRevoke {
        /// Which.
        device: String,
    },
    /// Throw a device out for now.
    DeviceSuspend {
        /// Which.
        device: String,
    },
    /// Let a device in again.
    DeviceResume {
        /// Which.
        device: String,
        /// Whatever key it comes with: a certificate was issued by hand.
        #[serde(default)]
        any_key: bool,
    },
    /// What forgetting a device would do, and what unlearning it would cost.
    DeviceForgetPlan {
        /// Which.
        device: String,
    },
    /// Destroy what is held of a device, and certify it.
    DeviceForget {
        /// Which.
        device: String,
        /// Begin runs anew that have learnt from it.
        #[serde(default)]
        unlearn: bool,
    },
    /// Give a device other tags.
    DeviceTag {
        /// Which.
        device: String,
        /// All that it has from now on.
        tags: Vec<String>,
    },
    /// The revocation list.
    DeviceCrl,
    /// Issue the certificate of an operator, a publisher or an auditor.
    OperatorIssue(IssueRequest),
    /// Everybody who was issued such a certificate, or has used one.
    OperatorList,
}
