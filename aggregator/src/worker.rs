//! The thread that does the aggregator's CPU and disk work, so that no tokio worker ever waits for a fold or an fsync.
//!
//! Jobs come in one queue and are done in order: a commit comes after the folds that it contains. The thread owns each
//! run's float master, its running fold and the store.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use starling_audit::{About, Action, Contribution, Entry, Outcome, Who};
use starling_daemon::schedule::Schedule;
use starling_net::Endpoint;
use starling_protocol::run::Stage;
use starling_store::{Batch, Store};
use starling_update::{Fold, Version, admit};
use starling_wire::{RunId, ToClient};
use tokio::sync::mpsc;

use crate::access;
use crate::audit::{AuditLog, influence};
use crate::bundles;
use crate::config::VersionsSection;
use crate::evaluator::Evaluator;
use crate::event::{Event, Staged};
use crate::export;
use crate::ledger::{self, Ledger};
use crate::noise_tree::{self, NoiseTree};
use crate::publish::{self, Publication, PublishError};
use crate::records::{self, AnswerRecord, ReleaseRecord, RoundRecord, RunRecord, RunState};
use crate::shelf::Shelf;

mod job;
mod models;
mod renewal;
mod summing;
mod versions;

pub(crate) use job::{Budget, Committed, Job, Loaded, NewRun};
pub(crate) use renewal::Renewal;
pub(crate) use summing::Closed;

/// Jobs that may wait. Bodies among them are bounded by the staging budget already.
const JOBS_MAX: usize = 1024;

/// What commits are made with.
pub(crate) struct Making {
    pub(crate) evaluator: Option<Arc<dyn Evaluator>>,
    pub(crate) keep: VersionsSection,
    pub(crate) backups: Option<Schedule>,
    /// Whose credentials the certificates of devices are judged by.
    pub(crate) endpoint: Endpoint,
}

/// The way to the worker.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    jobs: mpsc::Sender<Job>,
}

impl Worker {
    /// Starts the thread. It ends when every handle to it is gone and its queue is empty; joining it then means that all
    /// that was asked for is on disk.
    pub(crate) fn start(
        store: Arc<Store>,
        audit: AuditLog,
        shelf: Arc<Shelf>,
        making: Making,
        events: mpsc::WeakSender<Event>,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (jobs, mut queue) = mpsc::channel(JOBS_MAX);
        let later = events.clone();
        let mut state = State { store, audit, shelf, making, events: later, models: HashMap::new() };
        let thread = std::thread::Builder::new().name("worker".into()).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                // Without a hub nobody wants the answer, but the disk still does.
                if let Some(event) = state.work(job)
                    && let Some(events) = events.upgrade()
                {
                    let _ = events.blocking_send(event);
                }
            }
            state.stop();
        })?;
        Ok((Self { jobs }, thread))
    }

    /// Queues a job; waits while the queue is full.
    pub(crate) async fn queue(&self, job: Job) {
        // The thread outlives its handles, so the queue is never closed while one of them exists.
        let _ = self.jobs.send(job).await;
    }

    /// The way to the worker for those who do not keep it alive.
    pub(crate) fn downgrade(&self) -> mpsc::WeakSender<Job> {
        self.jobs.downgrade()
    }
}

struct State {
    store: Arc<Store>,
    audit: AuditLog,
    shelf: Arc<Shelf>,
    making: Making,
    /// For what threads of their own find out.
    events: mpsc::WeakSender<Event>,
    models: HashMap<RunId, Model>,
}

/// A run in memory: 4 bytes a parameter of master, the encoded version, and 8 of accumulators while a round is under way.
struct Model {
    loaded: Loaded,
    version: Version,
    /// Where its plan promises noise.
    ledger: Option<Ledger>,
    /// Where its noise has a memory.
    tree: Option<NoiseTree>,
    fold: Option<Fold>,
    /// The attempt under way, where updates are summed under masks.
    summing: Option<summing::Summing>,
    loss_sum: f64,
    /// The weights of those who say their loss.
    loss_weight: f64,
}

impl State {
    fn work(&mut self, job: Job) -> Option<Event> {
        match job {
            Job::Load(record, new) => {
                let run = record.run;
                let loaded = self.load(*record, new.map(|new| *new)).map(Box::new).map_err(|error| chain(&*error));
                Some(Event::Loaded(run, loaded))
            }
            Job::Admit { device, address, header, body, digest, numerics, reservation } => {
                let staged = admit(device, &header, body, digest, &numerics)
                    .map(|update| Box::new(Staged { update, reservation }));
                Some(Event::Body(device, address, staged))
            }
            Job::Fold(address, staged) => {
                if let Some(model) = self.models.get_mut(&address.run) {
                    let fold = model.fold.get_or_insert_with(|| Fold::new(&model.loaded.numbers.numerics));
                    let report = staged.update.report();
                    let (weight, loss) = (f64::from(report.weight), f64::from(report.train_loss));
                    fold.add(&staged.update).expect("the machine admits a device once a round (invariant 2)");
                    if report.says_loss() {
                        model.loss_sum += weight * loss;
                        model.loss_weight += weight;
                    }
                    let contribution = Contribution { device: staged.update.device(), digest: staged.update.digest() };
                    if let Err(error) = self.audit.admitted(address, contribution, Some(report.weight)) {
                        tracing::error!(error = chain(&error), "the audit log could not be written");
                    }
                }
                None
            }
            Job::Mail(device, mail, stage) => {
                let taken = self.take_mail(device, &mail, stage);
                Some(Event::Mailed(device, mail.address, stage, taken))
            }
            Job::Masked { device, address, header, body, digest, reservation: _reservation } => {
                let taken = self.take_masked(device, &address, (&header, &body, digest));
                Some(Event::Mailed(device, address, Stage::Mask, taken))
            }
            Job::CloseStage(address, stage) => Some(match self.charge_unmasking(&address, stage) {
                Ok(()) => Event::StageClosed(Box::new(self.close_stage(address, stage))),
                Err(error) => Event::Committed(address.run, Err(chain(&error))),
            }),
            Job::Remind(device, address) => {
                self.remind(&address, device).map(|letter| Event::Letter(device, address, letter))
            }
            Job::DropOut(device, address) => {
                self.drop_out(&address, device);
                None
            }
            Job::TakeOut(address, staged) => {
                let contribution = Contribution { device: staged.update.device(), digest: staged.update.digest() };
                self.audit.taken_out(&address, contribution);
                if let Some(model) = self.models.get_mut(&address.run)
                    && let Some(fold) = &mut model.fold
                {
                    fold.remove(&staged.update).expect("the very update that was folded is taken out, once");
                    let report = staged.update.report();
                    if report.says_loss() {
                        model.loss_sum -= f64::from(report.weight) * f64::from(report.train_loss);
                        model.loss_weight -= f64::from(report.weight);
                    }
                }
                None
            }
            Job::Discard(address) => {
                self.audit.abandoned(&address);
                if let Some(model) = self.models.get_mut(&address.run) {
                    (model.fold, model.summing) = (None, None);
                    (model.loss_sum, model.loss_weight) = (0.0, 0.0);
                }
                None
            }
            Job::Commit { address, round, started } => {
                let committed = self.commit(address, *round, started).map_err(|error| chain(&*error));
                if let (Some(backups), true) = (&self.making.backups, committed.is_ok()) {
                    backups.round();
                }
                Some(Event::Committed(address.run, committed.map(Box::new)))
            }
            Job::Note(record, round) => {
                let mut batch = Batch::new();
                if record.state != RunState::Running {
                    noise_tree::end(&mut batch, record.run);
                }
                if let Err(error) = self.write(batch, &record, round.as_deref(), false) {
                    tracing::error!(run = record.run.0, error = chain(&*error), "a record could not be written");
                }
                None
            }
            Job::Keep(request, reply) => {
                let store = Arc::clone(&self.store);
                // Copying takes seconds, and rounds go on; only the snapshot itself waits for a commit.
                let _ = std::thread::Builder::new().name("keep".into()).spawn(move || {
                    let kept = starling_daemon::keeping::keep(&store, &request);
                    let said =
                        kept.map(|said| serde_json::json!({ "said": said }).into()).map_err(|error| chain(&error));
                    // The operator may have gone away.
                    let _ = reply.send(said);
                });
                None
            }
            Job::Answered(run, answer) => {
                if let Err(error) = self.write_answer(run, &answer) {
                    tracing::error!(run = run.0, error = chain(&*error), "an answer could not be written");
                }
                None
            }
            Job::Remove(record, entry, reply) => {
                let removed = self.remove(&record, *entry).map_err(|error| chain(&*error));
                // The operator may have gone away.
                let _ = reply.send(removed.map(|()| serde_json::json!({ "run": record.run }).into()));
                None
            }
            Job::Close(run) => {
                self.models.remove(&run);
                self.shelf.remove(run);
                None
            }
            Job::Withdraw(record, first) => {
                if let Err(error) = self.withdraw(&record, first) {
                    tracing::error!(run = record.run.0, error = chain(&*error), "a run's models could not be removed");
                }
                None
            }
            Job::Trace(forgetting) => {
                self.trace(*forgetting);
                None
            }
            Job::Erase(erasure) => {
                self.erase(*erasure);
                None
            }
            Job::Export(record, reply) => {
                // A commit may have been done since the hub asked: then the blobs of its record are gone.
                let record = self.models.get(&record.run).map_or(*record, |model| model.loaded.record.clone());
                // The operator may have gone away.
                let _ = reply.send(export::model(&self.store, &record).map_err(|error| chain(&*error)));
                None
            }
            Job::Publish(publication, who, reply) => {
                let published = self.publish(&publication, who);
                if published.is_err() {
                    self.failed(who, access::Verb::ReleasePublish);
                }
                let bundle = Bytes::from(publication.bundle);
                let published = published.map(|release| (release, bundle)).map_err(|error| chain(&error));
                Some(Event::Published(published, reply))
            }
            Job::Renew(bundle, who, reply) => {
                let renewed = self.renew(&bundle, who);
                if renewed.is_err() {
                    self.failed(who, access::Verb::TrustRenew);
                }
                Some(Event::Renewed(renewed.map_err(|error| chain(&*error)), reply))
            }
            Job::Audit(entry, field, waiting) => {
                let decided = is_decision(&entry);
                self.audit.record(*entry, field);
                if let Some((answer, reply)) = waiting {
                    let written = self.audit.flush(false).map(|()| answer.into()).map_err(|error| chain(&error));
                    // The operator may have gone away.
                    let _ = reply.send(written);
                }
                if decided {
                    self.back_decision_up();
                }
                None
            }
            Job::AuditAsk(ask, who, reply) => {
                let _ = reply.send(self.audit.answer(ask, who).map(Into::into));
                None
            }
            Job::AuditDamage(record) => {
                self.audit.note_damage(record);
                None
            }
            Job::AuditFlush => {
                self.flush_audit(false);
                None
            }
            Job::Receipt(device, want) => {
                let answer = match self.audit.receipt(device, &want) {
                    Ok(receipt) => ToClient::Receipt(receipt),
                    Err(reason) => ToClient::ReceiptRefused(want.run, want.round, reason),
                };
                Some(Event::Receipt(device, answer))
            }
        }
    }

    /// The release's record and that of its publication are durable together.
    fn publish(&mut self, publication: &Publication, who: Who) -> Result<ReleaseRecord, PublishError> {
        let Self { store, shelf, audit, .. } = self;
        publish::publish(store, shelf, publication, |release, mut batch| {
            let (version, digest) = (Some(release.version), Some(release.digest));
            let word = Some(influence::task_word(&release.task));
            let about = About { version, digest, word, ..About::default() };
            audit.record(Entry::done(who, Action::ReleasePublished, about), None);
            records::put_release(&mut batch, release)?;
            audit.write_into(&mut batch, true)?;
            store.commit(batch)?;
            Ok(audit.settle()?)
        })
    }

    /// An administrator asked for what could not be done.
    fn failed(&mut self, who: Who, verb: access::Verb) {
        let about = About { word: Some(verb.word().into()), ..About::default() };
        self.audit.record(Entry::failed(who, Action::AdminRequest, about), None);
    }

    /// Who was thrown out must not come back with a restored backup.
    fn back_decision_up(&mut self) {
        if self.making.backups.is_some() {
            self.flush_audit(false);
        }
        if let Some(backups) = &self.making.backups {
            backups.decided();
        }
    }

    fn flush_audit(&mut self, sign: bool) {
        if let Err(error) = self.audit.flush(sign) {
            tracing::error!(error = chain(&error), "the audit log could not be written");
        }
    }

    /// The last act of the thread.
    fn stop(&mut self) {
        self.audit.record(Entry::done(Who::System, Action::DaemonStopped, About::default()), None);
        self.flush_audit(true);
    }

    /// Writes where a run stands, and in the same batch what the audit log has not written yet: no act is durable without its record.
    fn write(
        &mut self,
        mut batch: Batch,
        record: &RunRecord,
        round: Option<&RoundRecord>,
        sign: bool,
    ) -> Result<(), Box<dyn std::error::Error>> {
        records::put(&mut batch, record, round)?;
        self.audit.write_into(&mut batch, sign)?;
        self.store.commit(batch)?;
        Ok(self.audit.settle()?)
    }

    fn write_answer(&mut self, run: RunId, answer: &AnswerRecord) -> Result<(), Box<dyn std::error::Error>> {
        let mut batch = Batch::new();
        records::put_answer(&mut batch, run, answer)?;
        self.audit.write_into(&mut batch, false)?;
        self.store.commit(batch)?;
        Ok(self.audit.settle()?)
    }

    fn remove(&mut self, record: &RunRecord, entry: Entry) -> Result<(), Box<dyn std::error::Error>> {
        self.audit.record(entry, None);
        let mut batch = Batch::new();
        let named = records::remove(&self.store, &mut batch, record)?;
        ledger::remove(&mut batch, record.run);
        noise_tree::remove(&self.store, &mut batch, record.run)?;
        let key = bundles::of_run(record.run);
        let bundle = bundles::load(&self.store, &key)?;
        bundles::put(&self.store, &mut batch, &key, &[])?;
        self.audit.write_into(&mut batch, false)?;
        self.store.commit(batch)?;
        self.audit.settle()?;
        bundles::remove_unnamed(&self.store, &bundle)?;
        Ok(records::remove_unnamed(&self.store, &named)?)
    }
}

/// Whether a record is that of a word on who belongs to the fleet; such a word is durable before its record is handed on.
fn is_decision(entry: &Entry) -> bool {
    entry.outcome == Outcome::Done
        && matches!(entry.action, Action::DeviceRevoked | Action::DeviceSuspended | Action::DeviceResumed)
}

/// An error and what caused it, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
