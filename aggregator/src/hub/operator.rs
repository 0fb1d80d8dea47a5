//! What the hub does for the operator: each verb of the admin socket.

use bytes::Bytes;
use starling_audit::{About, Action, Entry, Who};
use starling_protocol::run::RunMachine;
use starling_spec::TaskFile;
use starling_wire::RunId;

use super::Hub;
use crate::access::Permitted;
use crate::audit::AuditAsk;
use crate::enrolment::Verb;
use crate::enrolment::devices::DeviceState;
use crate::event::{AdminReply, AdminRequest, StartRequest};
use crate::publish::{Publication, ReleaseFile};
use crate::records::RunState;
use crate::run::Run;
use crate::worker::{Job, NewRun};

/// Runs that may be open at once: each holds a model and its accumulators.
pub(super) const RUNS_OPEN_MAX: usize = 32;

impl Hub {
    pub(super) async fn admin(&mut self, permitted: Permitted, upload: Option<Bytes>, reply: AdminReply) {
        let (request, who, verb) = permitted.into_parts();
        let verb = verb.word();
        // A request may have waited while an operator threw out who asks.
        if let Who::Certificate(_, id) = who
            && let Some(refusal) = self.registrar.standings.refusal(id)
        {
            self.recorder.could_not(who, verb).await;
            let _ = reply.send(Err(refusal.text().to_owned()));
            return;
        }
        let answer = match request {
            AdminRequest::RunStart(request) => return self.start(request, who, upload, reply).await,
            AdminRequest::RunExport { run, version } => return self.export(RunId(run), version, who, reply).await,
            AdminRequest::Audit { ask } => {
                // The log itself records, each time, that somebody asked for names or co-signed.
                if !matches!(ask, AuditAsk::Personal | AuditAsk::Cosign { .. }) {
                    self.recorder.looked(who, verb).await;
                }
                return self.worker.queue(Job::AuditAsk(ask, who, reply)).await;
            }
            AdminRequest::RunList => Ok(self.runs.values().map(Run::summary).collect()),
            AdminRequest::RunStatus { run } => {
                let id = run.map(RunId).or_else(|| self.runs.keys().next_back().copied());
                let connected = self.fleet.len();
                id.and_then(|id| self.runs.get(&id)).map(|run| run.status(connected)).ok_or_else(|| match run {
                    Some(run) => no_such(RunId(run)),
                    None => "there is no run yet; start one with `run start TASK`".into(),
                })
            }
            AdminRequest::RunStop { run } => {
                let id = RunId(run);
                if self.runs.get(&id).is_some_and(|run| run.open.is_some()) {
                    let entry = Entry::done(who, Action::RunStopped, About { run: Some(run), ..About::default() });
                    self.recorder.act(entry, serde_json::json!({ "run": run }), reply).await;
                    return self.with_machine(id, RunMachine::handle_stop).await;
                } else {
                    self.recorder.could_not(who, verb).await;
                    Err(format!("run {run} is not under way"))
                }
            }
            AdminRequest::RunRemove { run } => return self.remove(RunId(run), who, reply).await,
            AdminRequest::ReleasePublish { task, path, version, release_bytes: _, tags, bundle } => {
                let Some(file) = path.map(ReleaseFile::Path).or(upload.map(ReleaseFile::Bytes)) else {
                    self.recorder.could_not(who, verb).await;
                    let _ = reply.send(Err("the release is missing".into()));
                    return;
                };
                // Whoever may not take part in learning a model is not offered what it becomes, unless somebody says so.
                let newest =
                    || self.runs.values().rfind(|run| run.record.name == task).map(|run| run.record.tags.clone());
                let tags = tags.or_else(newest).unwrap_or_default();
                let publication = Publication { task, file, version, tags, bundle: bundle.unwrap_or_default() };
                return self.worker.queue(Job::Publish(publication, who, reply)).await;
            }
            AdminRequest::TrustRenew { bundle } => return self.worker.queue(Job::Renew(bundle, who, reply)).await,
            AdminRequest::Keep { request } => {
                self.recorder.looked(who, verb).await;
                return self.worker.queue(Job::Keep(request, reply)).await;
            }
            AdminRequest::ReleaseList => Ok(self.release_list()),
            AdminRequest::DeviceInvite { name, tags, expires_s, open } => {
                return self.registrar.verb(Verb::Invite { name, tags, expires_s, open }, who, reply);
            }
            AdminRequest::DeviceList { pending } => {
                self.recorder.looked(who, verb).await;
                let connected = self.fleet.devices();
                return self.registrar.verb(Verb::List { pending, connected }, who, reply);
            }
            AdminRequest::DeviceCrl => {
                self.recorder.looked(who, verb).await;
                return self.registrar.verb(Verb::Crl, who, reply);
            }
            AdminRequest::OperatorIssue(request) => return self.registrar.verb(Verb::Issue(request), who, reply),
            AdminRequest::OperatorList => {
                self.recorder.looked(who, verb).await;
                let connected = self.administrators.values().map(|link| link.peer().id).collect();
                return self.registrar.verb(Verb::ListOperators { connected }, who, reply);
            }
            AdminRequest::DeviceTag { device, tags } => return self.tag(device, tags, who, reply).await,
            AdminRequest::DeviceApprove { device } => {
                return self.decide((verb, device), DeviceState::Active, false, who, reply).await;
            }
            AdminRequest::DeviceReject { device } => {
                return self.decide((verb, device), DeviceState::Rejected, false, who, reply).await;
            }
            AdminRequest::DeviceRevoke { device } => {
                return self.decide((verb, device), DeviceState::Revoked, false, who, reply).await;
            }
            AdminRequest::DeviceSuspend { device } => {
                return self.decide((verb, device), DeviceState::Suspended, false, who, reply).await;
            }
            AdminRequest::DeviceResume { device, any_key } => {
                return self.decide((verb, device), DeviceState::Active, any_key, who, reply).await;
            }
            AdminRequest::DeviceForgetPlan { device } => {
                self.recorder.looked(who, verb).await;
                return self.forget((verb, device), (true, false), who, reply).await;
            }
            AdminRequest::DeviceForget { device, unlearn } => {
                return self.forget((verb, device), (false, unlearn), who, reply).await;
            }
            AdminRequest::Devices => Ok(serde_json::json!({
                "devices": self.fleet.summaries(),
                "turned_away": self.turned_away,
            })),
        };
        if verb != "run-stop" {
            self.recorder.looked(who, verb).await;
        }
        // The operator may have gone away.
        let _ = reply.send(answer.map(Into::into));
    }

    async fn start(&mut self, request: StartRequest, who: Who, weights: Option<Bytes>, reply: AdminReply) {
        let task = match self.startable(&request) {
            Ok(task) => task,
            Err(error) => {
                self.recorder.could_not(who, "run-start").await;
                let _ = reply.send(Err(error));
                return;
            }
        };
        let id = self.next_run();
        let record = Run::new_record(id, &task, request.seed);
        let mut run = Run::stored(record.clone(), Vec::new(), None);
        run.starter = Some((who, reply));
        self.runs.insert(id, run);
        let bundle = request.bundle.unwrap_or_default();
        let new = NewRun { task, weights, kept: None, bundle, who };
        self.worker.queue(Job::Load(Box::new(record), Some(Box::new(new)))).await;
    }

    fn startable(&self, request: &StartRequest) -> Result<TaskFile, String> {
        let task = TaskFile::parse(&request.task, &request.overrides).map_err(|error| error.to_string())?;
        if self.runs_open() >= RUNS_OPEN_MAX {
            return Err(format!("{RUNS_OPEN_MAX} runs are open already; stop one first"));
        }
        Ok(task)
    }

    /// The number of a run that was removed is not given again: devices and the audit log know it.
    pub(super) fn next_run(&mut self) -> RunId {
        self.run_last = RunId(self.run_last.0 + 1);
        self.run_last
    }

    pub(super) fn runs_open(&self) -> usize {
        self.runs.values().filter(|run| run.record.state == RunState::Running).count()
    }

    /// The worker answers: it owns the records.
    async fn remove(&mut self, id: RunId, who: Who, reply: AdminReply) {
        let refusal = match self.runs.get(&id) {
            None => no_such(id),
            Some(run) if run.record.state == RunState::Running && run.problem.is_none() => {
                format!("run {} is under way; `run stop {}` first", id.0, id.0)
            }
            Some(run) => {
                let record = Box::new(run.record.clone());
                let about = About { run: Some(id.0), word: Some("run-remove".into()), ..About::default() };
                let entry = Box::new(Entry::done(who, Action::AdminRequest, about));
                self.runs.remove(&id);
                return self.worker.queue(Job::Remove(record, entry, reply)).await;
            }
        };
        self.recorder.could_not(who, "run-remove").await;
        let _ = reply.send(Err(refusal));
    }

    /// The worker answers: it owns the models.
    async fn export(&mut self, id: RunId, version: Option<u64>, who: Who, reply: AdminReply) {
        let refusal = match self.runs.get(&id).map(|run| &run.record) {
            None => no_such(id),
            Some(record) if let Some(new) = record.replaced_by => {
                format!("run {} was withdrawn when a device was unlearned; run {} has taken its place", id.0, new.0)
            }
            Some(record) if record.master_blob.is_empty() => format!("run {} has no model yet", id.0),
            Some(record) if version.is_some_and(|version| version != record.version) => format!(
                "version {} of run {} is not kept; the newest is version {}",
                version.unwrap_or_default(),
                id.0,
                record.version
            ),
            Some(record) => {
                let record = Box::new(record.clone());
                // A model that leaves the aggregator is an act, not a look.
                self.recorder.exported(who, id, record.version).await;
                return self.worker.queue(Job::Export(record, reply)).await;
            }
        };
        self.recorder.could_not(who, "run-export").await;
        let _ = reply.send(Err(refusal));
    }
}

fn no_such(run: RunId) -> String {
    format!("there is no run {}; `run list` names those there are", run.0)
}
