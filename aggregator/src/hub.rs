//! The one task that decides: it owns every run's machine and knows every device. It computes nothing and touches no disk;
//! both are the worker's.

mod forget;
mod messages;
mod operator;
mod releases;
mod standing;
mod summing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use starling_audit::{Action, Who};
use starling_net::AdminLink;
use starling_protocol::run::{Finish, RunMachine};
use starling_wire::{DeviceId, Refusal, RunId, ToClient};
use tokio::sync::mpsc;

use crate::audit::Recorder;
use crate::enrolment::Registrar;
use crate::enrolment::clone::Sightings;
use crate::event::{AdminReply, Event};
use crate::fleet::Fleet;
use crate::records::{ReleaseRecord, RunState};
use crate::run::Run;
use crate::staging::Staging;
use crate::worker::{Committed, Job, Loaded, Worker};

/// Refusals that are kept for the operator to read; older ones are in the log.
const REFUSALS_MAX: usize = 256;

/// How often repeated refusals are looked at for the audit log.
const COUNT_INTERVAL: Duration = Duration::from_secs(60);

/// Who was turned away, and why.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct TurnedAway {
    /// The device, where its certificate is good.
    #[serde(skip)]
    pub(crate) device: Option<DeviceId>,
    pub(crate) who: String,
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
}

pub(crate) struct Hub {
    worker: Worker,
    recorder: Recorder,
    staging: Staging,
    registrar: Registrar,
    sightings: Sightings,
    fleet: Fleet,
    /// Connections of administrators, by their numbers; `admin::remote` bounds how many there are.
    administrators: BTreeMap<usize, AdminLink>,
    runs: BTreeMap<RunId, Run>,
    /// The highest number that a run has or had.
    run_last: RunId,
    /// The release of each task, with what publishers signed of it.
    releases: BTreeMap<String, (ReleaseRecord, Bytes)>,
    turned_away: VecDeque<TurnedAway>,
    started: Instant,
}

impl Hub {
    pub(crate) fn new(
        worker: Worker,
        staging: Staging,
        registrar: Registrar,
        (runs, run_last): (Vec<Run>, RunId),
        releases: Vec<(ReleaseRecord, Bytes)>,
    ) -> Self {
        Self {
            recorder: Recorder::new(worker.clone()),
            worker,
            staging,
            registrar,
            sightings: Sightings::default(),
            fleet: Fleet::default(),
            administrators: BTreeMap::new(),
            runs: runs.into_iter().map(|run| (run.record.run, run)).collect(),
            run_last,
            releases: releases.into_iter().map(|release| (release.0.task.clone(), release)).collect(),
            turned_away: VecDeque::new(),
            started: Instant::now(),
        }
    }

    /// Runs until `events` ends or `shutdown` is done.
    pub(crate) async fn serve(mut self, mut events: mpsc::Receiver<Event>, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        self.resume().await;
        let mut counting = tokio::time::interval(COUNT_INTERVAL);
        loop {
            let wake_at = self.wake_at();
            let sleep = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.handle(event).await,
                    None => break,
                },
                () = sleep => self.tick().await,
                _ = counting.tick() => self.recorder.count(false).await,
                () = &mut shutdown => break,
            }
        }
        self.recorder.count(true).await;
        self.fleet.close_all(Refusal::ShuttingDown);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Runs that were under way when the daemon stopped go on from their last committed version.
    async fn resume(&mut self) {
        let running = self.runs.values_mut().filter(|run| run.record.state == RunState::Running);
        for run in running {
            // An attempt number is never used twice, and a crash does not say whether the last one was.
            run.record.attempt = run.record.attempt.saturating_add(1);
            tracing::info!(
                run = run.record.run.0,
                rounds_committed = run.record.rounds_committed,
                "going on with a run"
            );
            self.worker.queue(Job::Note(Box::new(run.record.clone()), None)).await;
            self.worker.queue(Job::Load(Box::new(run.record.clone()), None)).await;
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let now_ms = self.now_ms();
        let machines = self.runs.values().filter_map(|run| run.open.as_ref());
        let wake_ms = machines.filter_map(|open| open.machine.poll_timeout_ms(now_ms)).min()?;
        Some(self.started + Duration::from_millis(wake_ms))
    }

    async fn tick(&mut self) {
        let now_ms = self.now_ms();
        for id in self.runs.keys().copied().collect::<Vec<_>>() {
            self.with_machine(id, |machine| machine.handle_timeout(now_ms)).await;
        }
    }

    async fn handle(&mut self, event: Event) {
        let now_ms = self.now_ms();
        match event {
            Event::Connected(peer) => self.connected(peer).await,
            Event::Disconnected(device, session) => {
                if self.fleet.remove(device, session) {
                    tracing::info!(device = %device, "a device is gone");
                    self.gone(device).await;
                }
            }
            Event::TurnedAway { device, who, reason } => {
                self.recorder.turned_away(device, &who, reason).await;
                self.turn_away(device, who, reason);
            }
            Event::NotEnrolled { who, reason } => {
                self.recorder.not_enrolled(&who, reason).await;
                self.turn_away(None, who, reason);
            }
            Event::NotRenewed(device, reason) => {
                self.recorder.refused(device, Action::CertificateRenewed, reason).await;
            }
            Event::Message(device, session, message) => {
                if self.fleet.is_current(device, session) {
                    self.message(device, message).await;
                }
            }
            Event::Header(device, header, reply) => {
                let answer = self.admit_header(device, &header).await;
                if let Err(reason) = answer {
                    self.recorder.refused(device, Action::UpdateRefused, reason).await;
                }
                // The stream's task may be gone; then nobody needs the answer.
                let _ = reply.send(answer);
            }
            Event::Body(device, address, Ok(staged)) => {
                let answer =
                    self.with_machine_now(address.run, |machine| machine.handle_update(now_ms, device, &address));
                match answer.unwrap_or(Err(Refusal::UnknownRun)) {
                    Ok(()) => {
                        let staged = Arc::from(staged);
                        self.staging.keep(address.run, device, &staged);
                        self.worker.queue(Job::Fold(address, staged)).await;
                    }
                    Err(reason) => self.refuse_update(device, address, reason).await,
                }
                self.pump(address.run).await;
            }
            Event::Body(device, address, Err(reason)) => {
                self.refuse_update(device, address, reason).await;
                self.with_machine(address.run, |machine| machine.handle_out(now_ms, device, &address)).await;
            }
            Event::Mailed(device, address, stage, taken) => self.mailed(device, address, stage, taken).await,
            Event::StageClosed(closed) => self.stage_closed(*closed).await,
            Event::Letter(device, address, letter) => self.send_letter(device, address, letter),
            Event::Moved { run, up, down } => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.bytes_up += up;
                    run.bytes_down += down;
                }
            }
            Event::Loaded(id, loaded) => self.loaded(id, loaded.map(|loaded| *loaded)).await,
            Event::Committed(id, committed) => match committed {
                Ok(committed) => self.committed(id, *committed).await,
                Err(error) => self.fail(id, &error).await,
            },
            Event::Published(published, reply) => self.published(published, reply),
            Event::BackedUp => self.recorder.backed_up().await,
            Event::Traced(forgetting, traced) => self.traced(*forgetting, traced.map(|traced| *traced)).await,
            Event::Unfinished(device, unlearn) => {
                self.forget_device(device, (false, unlearn), Who::System, None).await;
            }
            Event::Renewed(renewed, reply) => self.renewed(renewed, reply),
            Event::Admin(permitted, upload, reply) => self.admin(permitted, upload, reply).await,
            Event::Cut(device, reason) => self.recorder.refused(device, Action::PeerTurnedAway, reason).await,
            Event::Administering(link) => self.administering(link),
            Event::AdministratorGone(number) => _ = self.administrators.remove(&number),
            Event::Denied(denied) => self.recorder.denied(&denied).await,
            Event::Receipt(device, answer) => {
                self.recorder.end_receipt(device);
                self.fleet.send(device, answer);
            }
        }
    }

    async fn loaded(&mut self, id: RunId, loaded: Result<Loaded, String>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let starter = run.starter.take();
        let loaded = match loaded {
            Ok(loaded) if self.staging.fits(*loaded.numbers.numerics.update_body_length_bounds().end()) => loaded,
            Ok(loaded) => {
                let problem = format!(
                    "one update takes up to {} bytes and staging_bytes_max holds less; raise it in the aggregator's configuration",
                    loaded.numbers.numerics.update_body_length_bounds().end()
                );
                return self.reject(id, &problem, starter).await;
            }
            Err(error) => return self.reject(id, &error, starter).await,
        };
        run.open(loaded);
        if let Some((_, reply)) = starter {
            let _ = reply.send(Ok(serde_json::json!({ "run": id }).into()));
        }
        let devices: Vec<DeviceId> = self.fleet.devices().into_iter().collect();
        self.introduce(id, &devices).await;
    }

    async fn reject(&mut self, id: RunId, problem: &str, starter: Option<(Who, AdminReply)>) {
        tracing::error!(run = id.0, problem, "a run could not be opened");
        match starter {
            // It never began: nothing of it stays.
            Some((who, reply)) => {
                self.runs.remove(&id);
                self.recorder.never_began(who, id).await;
                self.worker.queue(Job::Close(id)).await;
                let _ = reply.send(Err(problem.to_owned()));
            }
            None => self.fail(id, problem).await,
        }
    }

    /// A run that cannot go on stays where its last version is; the operator sees why.
    async fn fail(&mut self, id: RunId, problem: &str) {
        tracing::error!(run = id.0, problem, "a run was stopped by an error");
        if let Some(run) = self.runs.get_mut(&id) {
            run.problem = Some(problem.to_owned());
            run.open = None;
            self.recorder.run(Action::RunFailed, id).await;
            self.staging.forget_kept(id);
            self.tell_end(id);
            self.worker.queue(Job::Close(id)).await;
        }
    }

    async fn committed(&mut self, id: RunId, Committed { loaded, round, judged }: Committed) {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Some(open) = run.open.as_mut() else { return };
        let address = open.machine.address();
        let target = loaded.task.federation.target;
        let reached = matches!((target, round.test_accuracy), (Some(target), Some(accuracy)) if accuracy >= target);
        tracing::info!(
            run = id.0,
            round = round.round,
            contributors = round.contributors,
            cohort = round.cohort,
            test_accuracy = round.test_accuracy,
            wall_s = round.wall_s,
            "a round is committed"
        );
        let version = round.version;
        run.record = loaded.record.clone();
        if let Some(budget) = &loaded.budget {
            // The round that has just been charged is not left any more, and the machine has yet to hear of its commit.
            open.machine.limit_rounds(budget.rounds_left.saturating_add(1));
            run.balance = Some(budget.balance.clone());
        }
        open.loaded = loaded;
        for device in std::mem::take(&mut open.contributors) {
            self.fleet.send(device, ToClient::Verdict(starling_wire::Verdict::Committed { address, version }));
        }
        if let Some(judged) = judged
            && let Some(before) = run.rounds.iter_mut().find(|before| before.round == judged.round)
        {
            *before = judged;
        }
        run.rounds.push(round);
        self.with_machine(id, |machine| machine.handle_committed(now_ms, reached)).await;
    }

    /// Applies an input to a run's machine and does what the machine then says.
    async fn with_machine<T>(&mut self, id: RunId, input: impl FnOnce(&mut RunMachine) -> T) {
        if self.with_machine_now(id, input).is_some() {
            self.pump(id).await;
        }
    }

    fn with_machine_now<T>(&mut self, id: RunId, input: impl FnOnce(&mut RunMachine) -> T) -> Option<T> {
        self.runs.get_mut(&id)?.open.as_mut().map(|open| input(&mut open.machine))
    }

    async fn pump(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        for job in run.pump(&mut self.fleet) {
            if matches!(job, Job::Commit { .. } | Job::Discard(_)) {
                self.staging.forget_kept(id);
            }
            self.worker.queue(job).await;
        }
        if let Some(finish) = run.finish.take() {
            tracing::info!(run = id.0, ?finish, "a run is over");
            run.record.state = match finish {
                Finish::Stopped => RunState::Stopped,
                Finish::Budget => RunState::Exhausted,
                Finish::Rounds | Finish::Target => RunState::Finished,
            };
            if finish != Finish::Stopped {
                self.recorder.run(Action::RunFinished, id).await;
            }
            self.worker.queue(Job::Note(Box::new(run.record.clone()), None)).await;
            self.worker.queue(Job::Close(id)).await;
            let withdrawn = run.withdrawal.is_some();
            run.open = None;
            self.tell_end(id);
            if withdrawn {
                self.withdraw(id).await;
            }
        }
    }
}
