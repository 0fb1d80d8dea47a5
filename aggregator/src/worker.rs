//! The thread that does the aggregator's CPU and disk work, so that no tokio worker ever waits for a fold or an fsync.
//!
//! Jobs come in one queue and are done in order: a commit comes after the folds that it contains. The thread owns each
//! run's float master, its running fold and the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use starling_audit::{About, Action, Contribution, Entry, Who};
use starling_daemon::keeping::KeepRequest;
use starling_protocol::run::cohort_max;
use starling_spec::{CodecSpec, TaskFile, TaskPlan};
use starling_store::{Batch, Store};
use starling_update::{Fold, Numerics, Version, admit, difference};
use starling_wire::{Address, BlobHeader, DeviceId, Digest, ModelRef, RunId, ToClient, WantReceipt};
use tokio::sync::mpsc;

use crate::access;
use crate::audit::{AuditAsk, AuditLog, Field, influence};
use crate::config::VersionsSection;
use crate::erasure::{Erasure, Forgetting};
use crate::evaluator::Evaluator;
use crate::event::{AdminReply, Event, Staged};
use crate::export;
use crate::kept::{self, KeptVersion};
use crate::publish::{self, Publication, PublishError};
use crate::records::{self, ReleaseRecord, RoundRecord, RunRecord};
use crate::shelf::Shelf;
use crate::staging::Reservation;

mod versions;

/// Jobs that may wait. Bodies among them are bounded by the staging budget already.
const JOBS_MAX: usize = 1024;

/// What the hub has to know of a run that the worker has in memory.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) record: RunRecord,
    pub(crate) plan: Arc<TaskPlan>,
    pub(crate) task: Arc<TaskFile>,
    pub(crate) numerics: Numerics,
    pub(crate) reference: ModelRef,
    /// The first attempt of each round: see [`attempt_first`].
    pub(crate) attempt_first: u16,
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
    /// Take an update out of the run's fold again.
    TakeOut(Address, Arc<Staged>),
    /// Forget what was folded since the last commit.
    Discard(Address),
    /// Make the next version, durably. The record says what is known already.
    Commit { address: Address, round: Box<RoundRecord>, started: Instant },
    /// Write where a run stands.
    Note(Box<RunRecord>, Option<Box<RoundRecord>>),
    /// The run needs no memory any more.
    Close(RunId),
    /// Another run has taken this one's place: its versions from this one on go.
    Withdraw(Box<RunRecord>, u64),
    /// Look for what has learnt from a device, on a thread of its own.
    Trace(Box<Forgetting>),
    /// Destroy what belongs to a device, and certify it.
    Erase(Box<Erasure>),
    /// Give the operator the run's model.
    Export(Box<RunRecord>, AdminReply),
    /// Check a release file, make it durable, and offer it.
    Publish(Publication, Who, AdminReply),
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
    /// Who starts it.
    pub(crate) who: Who,
}

/// What commits are made with.
pub(crate) struct Making {
    pub(crate) evaluator: Option<Arc<dyn Evaluator>>,
    pub(crate) keep: VersionsSection,
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
    fold: Option<Fold>,
    loss_sum: f64,
}

impl State {
    fn work(&mut self, job: Job) -> Option<Event> {
        match job {
            Job::Load(record, new) => {
                let run = record.run;
                let loaded = self.load(*record, new.map(|new| *new)).map_err(|error| chain(&*error));
                Some(Event::Loaded(run, loaded))
            }
            Job::Admit { device, address, header, body, digest, numerics, reservation } => {
                let staged = admit(device, &header, body, digest, &numerics)
                    .map(|update| Box::new(Staged { update, reservation }));
                Some(Event::Body(device, address, staged))
            }
            Job::Fold(address, staged) => {
                if let Some(model) = self.models.get_mut(&address.run) {
                    let fold = model.fold.get_or_insert_with(|| Fold::new(&model.loaded.numerics));
                    let report = staged.update.report();
                    let (weight, loss) = (f64::from(report.weight), f64::from(report.train_loss));
                    fold.add(&staged.update).expect("the machine admits a device once a round (invariant 2)");
                    model.loss_sum += weight * loss;
                    let contribution = Contribution { device: staged.update.device(), digest: staged.update.digest() };
                    if let Err(error) = self.audit.admitted(address, contribution, report.weight) {
                        tracing::error!(error = chain(&error), "the audit log could not be written");
                    }
                }
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
                    model.loss_sum -= f64::from(report.weight) * f64::from(report.train_loss);
                }
                None
            }
            Job::Discard(address) => {
                self.audit.abandoned(&address);
                if let Some(model) = self.models.get_mut(&address.run) {
                    model.fold = None;
                    model.loss_sum = 0.0;
                }
                None
            }
            Job::Commit { address, round, started } => {
                let committed = self.commit(address, *round, started).map_err(|error| chain(&*error));
                Some(Event::Committed(address.run, committed.map(Box::new)))
            }
            Job::Note(record, round) => {
                if let Err(error) = self.write(Batch::new(), &record, round.as_deref(), false) {
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
                    let about = About { word: Some(access::Verb::ReleasePublish.word().into()), ..About::default() };
                    self.audit.record(Entry::failed(who, Action::AdminRequest, about), None);
                }
                Some(Event::Published(published.map_err(|error| chain(&error)), reply))
            }
            Job::Audit(entry, field, waiting) => {
                self.audit.record(*entry, field);
                if let Some((answer, reply)) = waiting {
                    let written = self.audit.flush(false).map(|()| answer.into()).map_err(|error| chain(&error));
                    // The operator may have gone away.
                    let _ = reply.send(written);
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
        publish::publish(store, shelf, publication, |release| {
            let (version, digest) = (Some(release.version), Some(release.digest));
            let word = Some(influence::task_word(&release.task));
            let about = About { version, digest, word, ..About::default() };
            audit.record(Entry::done(who, Action::ReleasePublished, about), None);
            let mut batch = Batch::new();
            records::put_release(&mut batch, release)?;
            audit.write_into(&mut batch, true)?;
            store.commit(batch)?;
            Ok(audit.settle()?)
        })
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

    fn load(&mut self, mut record: RunRecord, new: Option<NewRun>) -> Result<Loaded, Box<dyn std::error::Error>> {
        let starter = new.as_ref().map(|new| new.who);
        let mut weights = None;
        let mut begin = None;
        let task = match new {
            Some(NewRun { task, weights: given, kept, who: _ }) => {
                weights = given;
                begin = kept;
                let json = serde_json::to_vec(&task)?;
                record.task_blob = Digest::of(&json).to_string();
                self.store.put_blob(&record.task_blob, &json)?;
                task
            }
            None => serde_json::from_slice(&export::blob(&self.store, &record.task_blob)?)?,
        };
        let plan = Arc::new(TaskPlan::new(&task, record.seed)?);
        let manifest = plan.manifest()?;
        let count = manifest.len();
        let numerics = Numerics::new(&plan.update, count, cohort_max(&task.federation))?;
        let master = match (&weights, record.master_blob.is_empty()) {
            (_, false) => export::master(&self.store, &record.master_blob, count)?,
            (None, true) if let Some(kept) = &begin => export::master(&self.store, &kept.master_blob, count)?,
            (None, true) => starling_spec::init::initial_parameters(&manifest, plan.seed),
            (Some(file), true) => export::start_weights(file, &manifest, &task.name)?,
        };
        let given = weights.is_some();
        drop(weights);
        let version = Version::publish(record.version, master, plan.update.down)?;
        if record.master_blob.is_empty() {
            self.store_version(&mut record, &version)?;
            if let Some(who) = starter {
                let digest = record.task_blob.parse().ok();
                let about = About { run: Some(record.run.0), digest, ..About::default() };
                self.audit.record(Entry::done(who, Action::RunStarted, about), None);
            }
            let mut batch = Batch::new();
            if given {
                // No seed brings them back.
                let master_blob = record.master_blob.clone();
                kept::put(&mut batch, &KeptVersion { run: record.run, round: 0, version: 0, master_blob })?;
            }
            self.write(batch, &record, None, false)?;
        } else if record.version_blob != version.digest().to_string() {
            return Err("the stored model does not encode to the version that was published".into());
        }
        let reference = version.reference();
        let attempt_first = attempt_first(self.store.era()?);
        let loaded = Loaded { record, plan, task: Arc::new(task), numerics, reference, attempt_first };
        self.shelf.put(loaded.record.run, (reference.codec, reference.digest, version.encoded().clone()), None);
        let model = Model { loaded: loaded.clone(), version, fold: None, loss_sum: 0.0 };
        self.models.insert(loaded.record.run, model);
        Ok(loaded)
    }

    /// Writes the version's blobs and names them in the record; the record itself is written by the caller, after.
    fn store_version(&self, record: &mut RunRecord, version: &Version) -> Result<(), Box<dyn std::error::Error>> {
        let digest = version.digest().to_string();
        self.store.put_blob(&digest, version.encoded())?;
        record.version = version.number();
        record.version_blob = digest;
        // In f32 the published bytes are the master's: one file serves both.
        record.master_blob = if version.codec() == CodecSpec::F32 {
            record.version_blob.clone()
        } else {
            let master: Vec<u8> = version.master().iter().flat_map(|value| value.to_le_bytes()).collect();
            let digest = Digest::of(&master).to_string();
            self.store.put_blob(&digest, &master)?;
            digest
        };
        Ok(())
    }

    /// Blobs first, then the record that names them (invariant 4), then the shelf; the old blobs go last.
    fn commit(
        &mut self,
        address: Address,
        mut round: RoundRecord,
        started: Instant,
    ) -> Result<(Loaded, RoundRecord), Box<dyn std::error::Error>> {
        let run = address.run;
        let mut model = self.models.remove(&run).ok_or("the run is not in memory")?;
        let fold = model.fold.take().ok_or("nothing was folded")?;
        round.weight = fold.weight_sum();
        round.contributors = u32::try_from(fold.contributors().len()).unwrap_or(u32::MAX);
        round.train_loss = model.loss_sum / (round.weight as f64).max(1.0);
        model.loss_sum = 0.0;

        let plan = Arc::clone(&model.loaded.plan);
        let old = (model.version.digest(), model.version.encoded().clone());
        let number = model.version.number() + 1;
        let mut master = model.version.into_master();
        fold.apply_mean(&mut master);
        drop(fold);
        let version = Version::publish(number, master, plan.update.down)?;
        round.version = number;
        if let Some(evaluator) = &self.making.evaluator {
            match evaluator.evaluate(&plan, &version.decoded()) {
                Ok(figures) => {
                    round.test_accuracy = figures.and_then(|figures| figures.accuracy);
                    round.test_loss = figures.map(|figures| figures.loss);
                }
                Err(problem) => tracing::warn!(run = run.0, problem, "a version could not be tested"),
            }
        }

        let before = model.loaded.record.clone();
        let record = &mut model.loaded.record;
        self.store_version(record, &version)?;
        record.rounds_committed = round.round;
        record.attempt = model.loaded.attempt_first;
        round.wall_s = started.elapsed().as_secs_f64();
        self.audit.committed(&address, number, version.digest(), round.weight);
        let record = model.loaded.record.clone();
        let mut batch = Batch::new();
        let dropped = self.keep_version(&record, round.round, &mut batch)?;
        self.write(batch, &record, Some(&round), true)?;
        round.wall_s = started.elapsed().as_secs_f64();
        // A run that began with another one's model, or with the same weights, names the same file.
        let old_blobs = [&before.version_blob, &before.master_blob].into_iter().chain(&dropped);
        records::remove_unnamed(&self.store, old_blobs)?;

        let reference = version.reference();
        let wanted = model.loaded.task.update.difference && plan.update.down != CodecSpec::F32;
        let difference = wanted.then(|| difference::encode(&old.1, version.encoded())).flatten();
        let whole = (reference.codec, reference.digest, version.encoded().clone());
        self.shelf.put(run, whole, difference.map(|bytes| (old.0, Bytes::from(bytes))));
        model.loaded.reference = reference;
        model.version = version;
        let loaded = model.loaded.clone();
        self.models.insert(run, model);
        Ok((loaded, round))
    }
}

/// Where attempts begin in a state that was restored `era` times: no address of a round that was lost comes again. A round gets by with
/// a thousand attempts, and a folder with 64 restores.
fn attempt_first(era: u64) -> u16 {
    1 + 1000 * u16::try_from(era.min(64)).unwrap_or(64)
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
