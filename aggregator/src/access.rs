//! Who may do what: one table, and the one place that decides by it. What the table does not allow is denied.
//!
//! ```text
//!  local user ──┐                      ┌── Permitted ──▶ hub: nothing else makes it act
//!               ├─ Caller ─▶ permit ───┤
//!  certificate ─┘          (the table) └── Denied ─────▶ audit log, and the reason to who asked
//! ```
//!
//! A verb is a row. The row names the requests that it stands for, so that the compiler refuses a request without one. `starling-aggregator access`
//! prints this table.

use std::fmt;

use starling_audit::Who;
use starling_daemon::keeping::KeepRequest;
use starling_wire::{Identity, Refusal, Role, ToAggregator};

use crate::audit::AuditAsk;
use crate::event::AdminRequest;

pub(crate) mod show;

macro_rules! access {
    (
        requests { $($request:ident $request_word:literal $from:ident [$($may:ident)*] $asks:pat => $request_does:literal;)* }
        messages { $($message:ident $message_word:literal [$($sends:ident)*] $says:pat => $message_does:literal;)* }
        streams { $($stream:ident $stream_word:literal [$($opens:ident)*] => $stream_does:literal;)* }
    ) => {
        /// Everything that somebody may be allowed to do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Verb { $($request,)* $($message,)* $($stream,)* }

        /// The table, in the order of [`Verb`].
        pub(crate) const TABLE: &[Row] = &[
            $(Row {
                verb: Verb::$request, word: $request_word, door: Door::Administration, from: Origin::$from,
                may: &[$(Role::$may),*], does: $request_does,
            },)*
            $(Row {
                verb: Verb::$message, word: $message_word, door: Door::Devices, from: Origin::Anywhere,
                may: &[$(Role::$sends),*], does: $message_does,
            },)*
            $(Row {
                verb: Verb::$stream, word: $stream_word, door: Door::Devices, from: Origin::Anywhere,
                may: &[$(Role::$opens),*], does: $stream_does,
            },)*
        ];

        /// The verb of an administrator's request.
        fn of_request(request: &AdminRequest) -> Verb {
            match request { $($asks => Verb::$request,)* }
        }

        /// The verb of a device's message.
        pub(crate) fn of_message(message: &ToAggregator) -> Verb {
            match message { $($says => Verb::$message,)* }
        }
    };
}

access! {
    // `Here`: only at the aggregator's own machine, because the request names files there.
    //
    // verb            word                 from      who may                         request => what it does
    requests {
        RunStart       "run-start"          Anywhere  [Operator]                      AdminRequest::RunStart(_) => "start a run of a task";
        RunList        "run-list"           Anywhere  [Operator Publisher Auditor]    AdminRequest::RunList => "list all runs";
        RunStatus      "run-status"         Anywhere  [Operator Publisher Auditor]    AdminRequest::RunStatus { .. } => "show a run and its rounds";
        RunExport      "run-export"         Anywhere  [Operator Publisher]            AdminRequest::RunExport { .. } => "take a run's model out";
        RunStop        "run-stop"           Anywhere  [Operator]                      AdminRequest::RunStop { .. } => "stop a run";
        RunRemove      "run-remove"         Anywhere  [Operator]                      AdminRequest::RunRemove { .. } => "forget a run that is over";
        ReleasePublish "release-publish"    Anywhere  [Operator Publisher]            AdminRequest::ReleasePublish { path: None, .. } => "offer a release to devices";
        ReleaseFile    "release-publish-file" Here    [Operator Publisher]            AdminRequest::ReleasePublish { path: Some(_), .. } => "the same with a file of the aggregator's machine";
        ReleaseList    "release-list"       Anywhere  [Operator Publisher Auditor]    AdminRequest::ReleaseList => "show releases and who serves them";
        TrustRenew     "trust-renew"        Anywhere  [Operator Publisher]            AdminRequest::TrustRenew { .. } => "forward a newer freshness statement and newer roots";
        Devices        "devices"            Anywhere  [Operator Auditor]              AdminRequest::Devices => "show connected devices and who was turned away";
        DeviceInvite   "device-invite"      Anywhere  [Operator]                      AdminRequest::DeviceInvite { .. } => "make a join string";
        DeviceList     "device-list"        Anywhere  [Operator Auditor]              AdminRequest::DeviceList { .. } => "list every device that is known";
        DeviceApprove  "device-approve"     Anywhere  [Operator]                      AdminRequest::DeviceApprove { .. } => "let a waiting device in";
        DeviceReject   "device-reject"      Anywhere  [Operator]                      AdminRequest::DeviceReject { .. } => "turn a waiting device away";
        DeviceSuspend  "device-suspend"     Anywhere  [Operator]                      AdminRequest::DeviceSuspend { .. } => "throw out until further notice";
        DeviceResume   "device-resume"      Anywhere  [Operator]                      AdminRequest::DeviceResume { .. } => "let in again";
        DeviceRevoke   "device-revoke"      Anywhere  [Operator]                      AdminRequest::DeviceRevoke { .. } => "throw out for good";
        DeviceForget   "device-forget"      Anywhere  [Operator]                      AdminRequest::DeviceForget { .. } => "destroy what is held of it";
        DeviceForgetPlan "device-forget-plan" Anywhere [Operator Auditor]             AdminRequest::DeviceForgetPlan { .. } => "say what forgetting would do";
        DeviceTag      "device-tag"         Anywhere  [Operator]                      AdminRequest::DeviceTag { .. } => "say which tasks and releases it may have";
        DeviceCrl      "device-crl"         Anywhere  [Operator Auditor]              AdminRequest::DeviceCrl => "give out the revocation list";
        OperatorIssue  "operator-issue"     Anywhere  [Operator]                      AdminRequest::OperatorIssue(_) => "issue the certificate of an operator, publisher or auditor";
        OperatorList   "operator-list"      Anywhere  [Operator Auditor]              AdminRequest::OperatorList => "list operators, publishers and auditors";
        AuditRecords   "audit-records"      Anywhere  [Operator Auditor]              AdminRequest::Audit { ask: AuditAsk::Records { .. } | AuditAsk::Checkpoints { .. } } => "read the audit log: verify, export";
        AuditSign      "audit-checkpoint"   Anywhere  [Operator Auditor]              AdminRequest::Audit { ask: AuditAsk::Checkpoint { .. } } => "have the log sign all there is";
        AuditReceipt   "audit-receipt"      Anywhere  [Operator Auditor]              AdminRequest::Audit { ask: AuditAsk::Receipt { .. } } => "prove that an update is in the log";
        AuditPersonal  "audit-personal"     Anywhere  [Operator]                      AdminRequest::Audit { ask: AuditAsk::Personal } => "read the names behind the log's commitments";
        AuditCosign    "audit-cosign"       Anywhere  [Operator Auditor]              AdminRequest::Audit { ask: AuditAsk::Cosign { .. } } => "keep a witness's signature";
        BackupCreate   "backup-create"      Here      [Operator]                      AdminRequest::Keep { request: KeepRequest::Backup { .. } } => "back the state up";
        KeyEscrow      "key-escrow"         Here      [Operator]                      AdminRequest::Keep { request: KeepRequest::Escrow { .. } } => "copy the keys for the recovery key";
    }
    // verb            word                           who may                         message => what it does
    messages {
        TakePart       "round-join"                   [Device]                        ToAggregator::Hello(_) | ToAggregator::Available(_) | ToAggregator::Accept(_) | ToAggregator::Decline(..) | ToAggregator::Evaluation(_) | ToAggregator::Statistics(_) | ToAggregator::Secure(_) | ToAggregator::Bye => "take part in rounds";
        Fetch          "model-fetch"                  [Device]                        ToAggregator::Fetch(_) => "fetch a model or a release";
        Report         "release-report"               [Device]                        ToAggregator::Release(_) => "say where it stands with a release";
        Receipt        "receipt-ask"                  [Device]                        ToAggregator::WantReceipt(_) => "ask for the receipt of its own update";
        Renew          "certificate-renew"            [Device]                        ToAggregator::Renew(_) => "get its next certificate";
    }
    streams {
        Deliver        "update-deliver"               [Device]                        => "deliver an update";
    }
}

/// One verb: who may do it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) verb: Verb,
    /// Its word in the audit log and in messages.
    pub(crate) word: &'static str,
    pub(crate) door: Door,
    pub(crate) from: Origin,
    /// Nobody else may.
    pub(crate) may: &'static [Role],
    pub(crate) does: &'static str,
}

/// Which kind of connection a verb comes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The local socket, or QUIC for administrators.
    Administration,
    /// QUIC for devices.
    Devices,
}

/// Where a request may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Anywhere,
    Here,
}

impl Door {
    /// The roles that may do anything at all here.
    pub(crate) fn roles(self) -> Vec<Role> {
        let may = |role: &Role| TABLE.iter().any(|row| row.door == self && row.may.contains(role));
        Role::ALL.iter().copied().filter(may).collect()
    }
}

impl Verb {
    fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.verb == self).expect("the macro writes a row for each verb")
    }

    /// Its word in the audit log.
    pub(crate) fn word(self) -> &'static str {
        self.row().word
    }
}

/// Who asks, and by whose word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    who: Who,
    role: Option<Role>,
    here: bool,
}

impl Caller {
    /// A user of this machine, by the kernel's word. The user who runs the daemon, and root, could read its files and stop it: they are its
    /// operators. Everybody else is nobody.
    pub(crate) fn local(uid: u32) -> Self {
        Self::local_to(own_uid(), uid)
    }

    fn local_to(own: u32, uid: u32) -> Self {
        let role = (uid == 0 || uid == own).then_some(Role::Operator);
        Self { who: Who::LocalUser(uid), role, here: true }
    }

    /// The holder of a certificate whose chain was checked (invariant 9).
    pub(crate) fn certified(identity: &Identity) -> Self {
        Self { who: Who::Certificate(identity.role, identity.id), role: Some(identity.role), here: false }
    }

    /// For the audit log.
    pub(crate) fn who(&self) -> Who {
        self.who
    }

    /// Whether the holder of a certificate, or a user, may come in by `door` at all.
    ///
    /// # Errors
    /// The refusal's code tells a user, a certificate for devices and one for administrators apart.
    pub(crate) fn enters(&self, door: Door) -> Result<(), Denied> {
        if self.role.is_some_and(|role| door.roles().contains(&role)) {
            return Ok(());
        }
        let reason = if door == Door::Devices { Refusal::WrongRole } else { Refusal::MayNotAdminister };
        Err(Denied { caller: *self, verb: None, reason })
    }
}

/// Whether `caller` may do `verb`. This is the only place that reads the table to decide.
///
/// # Errors
/// The reason, for who asks and for the audit log.
pub(crate) fn decide(caller: &Caller, verb: Verb) -> Result<(), Denied> {
    let row = verb.row();
    caller.enters(row.door)?;
    let denied = |reason| Err(Denied { caller: *caller, verb: Some(verb), reason });
    if !caller.role.is_some_and(|role| row.may.contains(&role)) {
        return denied(Refusal::NotPermitted);
    }
    if row.from == Origin::Here && !caller.here {
        return denied(Refusal::OnlyHere);
    }
    Ok(())
}

/// A request that may be done. Only [`permit`] makes one, and the hub does nothing else.
#[derive(Debug)]
pub(crate) struct Permitted {
    request: AdminRequest,
    who: Who,
    verb: Verb,
}

/// Decides about an administrator's request.
///
/// # Errors
/// As [`decide`].
pub(crate) fn permit(caller: &Caller, request: AdminRequest) -> Result<Permitted, Denied> {
    let verb = of_request(&request);
    decide(caller, verb)?;
    Ok(Permitted { request, who: caller.who, verb })
}

impl Permitted {
    /// What is asked.
    pub(crate) fn request(&self) -> &AdminRequest {
        &self.request
    }

    /// What is asked, by whom, and its verb.
    pub(crate) fn into_parts(self) -> (AdminRequest, Who, Verb) {
        (self.request, self.who, self.verb)
    }
}

/// A no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) caller: Caller,
    /// What was asked, where it came to that.
    pub(crate) verb: Option<Verb>,
    pub(crate) reason: Refusal,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caller, verb, reason } = self;
        let what = verb.map_or("enter here", Verb::word);
        match (caller.who, reason) {
            (Who::LocalUser(uid), Refusal::MayNotAdminister) => write!(
                f,
                "user {uid} may not administer this daemon: only user {}, who runs it, and root may",
                own_uid()
            ),
            (_, Refusal::OnlyHere) => write!(f, "{what}: {}", reason.text()),
            (who, Refusal::NotPermitted) => {
                let role = caller.role.map_or("nobody", Role::word);
                write!(
                    f,
                    "{who} may not {what}: the role {role} does not allow it; `starling-aggregator access` prints what each role may"
                )
            }
            (who, reason) => write!(f, "{who}: {}", reason.text()),
        }
    }
}

#[allow(unsafe_code, reason = "the standard library offers no way to ask for the user id")]
fn own_uid() -> u32 {
    // SAFETY: geteuid takes no argument, touches no memory of ours and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests;
