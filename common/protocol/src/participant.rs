//! The device's half of the protocol, without sockets, clock or threads (invariant 7).
//!
//! ```text
//!              round start, consent                     model ready                trained
//!   (no slot) ──────────────────────▶ Waiting (fetch) ───────────────▶ Working ─────────────▶ Sealed ──▶ upload
//!       ▲                                │ deadline                      │ 2 × deadline          │ verdict
//!       └────────────────────────────────┴───────────────────────────────┴───────────────────────┘
//! ```
//!
//! A run has two slots, one for its training round and one for what it is asked without training, and one job at a time. A sealed
//! update is kept until a verdict (invariant 5): it is sent again after a mere reconnection, and under its new address
//! when the same round comes back with another attempt and the same base. It is never trained twice for one base, and a
//! round whose commit was confirmed is not entered again (invariant 2).
//!
//! Calling order: feed any `handle_*`, then drain [`Participant::poll_action`], then sleep until
//! [`Participant::poll_timeout`] at the latest and call [`Participant::handle_timeout`]. Times are milliseconds of any
//! clock that does not run backwards.

mod action;
mod secure;
mod slot;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use starling_spec::TaskPlan;
use starling_update::Sealed;
use starling_wire::{
    Address, Decline, Digest, Evaluation, ModelRef, Refusal, RoundKind, RoundStart, RunId, RunPlan, Statistics, TaskId,
    ToAggregator, Verdict,
};

pub use action::{Action, Answer, Consent, Figures, JobId, JobOrder, SecureOrder};

use slot::{Slot, Stage};

/// Runs that one device takes part in at once: as many as tasks it may offer itself for.
pub const RUNS_MAX: usize = starling_wire::limits::TASKS_PER_DEVICE_MAX;

/// The longest deadline that a device believes: a day. Beyond it a job would be kept for a round nobody remembers.
pub const DEADLINE_MS_MAX: u64 = 24 * 3600 * 1000;

/// How long a sealed update is kept without a verdict: an hour, longer than any restart of an aggregator takes.
pub const SEALED_KEPT_MS_MAX: u64 = 3600 * 1000;

/// How long to wait before an update that could not be taken is sent again.
pub const RESEND_MS: u64 = 2_000;

/// The device's half of all runs on one connection.
pub struct Participant {
    consent: Box<dyn Consent>,
    connected: bool,
    epoch: Option<u64>,
    /// Whether the present connection reaches the same process as the one before.
    same_epoch: bool,
    runs: BTreeMap<RunId, Run>,
    actions: VecDeque<Action>,
    jobs: u64,
}

struct Run {
    task: TaskId,
    plan: Result<Arc<TaskPlan>, Decline>,
    held: Option<Digest>,
    fetching: Option<Fetching>,
    train: Option<Slot>,
    ask: Option<Slot>,
    /// The last round whose commit with this device's update was confirmed; 0 is none.
    committed_round: u32,
}

struct Fetching {
    base: ModelRef,
    held: Option<Digest>,
}

impl Participant {
    /// A device that takes part in nothing yet.
    pub fn new(consent: Box<dyn Consent>) -> Self {
        Self {
            consent,
            connected: false,
            epoch: None,
            same_epoch: false,
            runs: BTreeMap::new(),
            actions: VecDeque::new(),
            jobs: 0,
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Participant::handle_timeout`] is due at the latest.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.runs.values().flat_map(Run::slots).map(Slot::timeout_ms).min()
    }

    /// Whether anything is fetched, computed or waiting to be confirmed.
    pub fn is_idle(&self) -> bool {
        self.runs.values().all(|run| run.fetching.is_none() && run.slots().next().is_none())
    }

    /// The plan of a run, if it was announced and understood.
    pub fn plan(&self, run: RunId) -> Option<&Arc<TaskPlan>> {
        self.runs.get(&run)?.plan.as_ref().ok()
    }

    /// The task of a run that was announced.
    pub fn task(&self, run: RunId) -> Option<TaskId> {
        self.runs.get(&run).map(|run| run.task)
    }

    /// A connection is open and welcome. `epoch` tells a restarted aggregator from the same one.
    pub fn handle_connected(&mut self, epoch: u64) {
        self.connected = true;
        self.same_epoch = self.epoch == Some(epoch);
        self.epoch = Some(epoch);
        if !self.same_epoch {
            // A round that a restarted aggregator starts is one that it did not commit.
            self.runs.values_mut().for_each(|run| run.committed_round = 0);
        }
    }

    /// The connection is gone. Jobs go on, sealed updates are kept.
    pub fn handle_disconnected(&mut self) {
        self.connected = false;
        self.actions.retain(|action| {
            matches!(
                action,
                Action::Stop(_) | Action::Forget(_) | Action::Secure(SecureOrder::Burn(_) | SecureOrder::Leave(_))
            )
        });
        for run in self.runs.values_mut() {
            run.fetching = None;
            for slot in [&mut run.train, &mut run.ask] {
                // What has not begun does not count as work: the round start comes again, or the round goes on without us.
                if slot.as_ref().is_some_and(|slot| matches!(slot.stage, Stage::Waiting)) {
                    *slot = None;
                }
                if let Some(slot) = slot {
                    slot.live = false;
                    slot.mark_unsent(None);
                }
            }
        }
    }

    /// A run is announced on this connection. `held` is the version of it that the driver has, if any.
    pub fn handle_plan(&mut self, announced: &RunPlan, held: Option<Digest>) {
        let id = announced.run;
        if self.runs.get(&id).is_some_and(|run| run.task != announced.task) {
            self.handle_run_end(id);
        }
        if !self.runs.contains_key(&id) {
            self.make_room();
            if self.runs.len() >= RUNS_MAX {
                return; // Its rounds are declined as not understood: no plan is known.
            }
            let run = Run {
                task: announced.task,
                plan: understand(announced),
                held,
                fetching: None,
                train: None,
                ask: None,
                committed_round: 0,
            };
            self.runs.insert(id, run);
        }
        if self.same_epoch {
            // A mere reconnection: whoever waits for the result still does, under the same address.
            if let Some(run) = self.runs.get_mut(&id) {
                [&mut run.train, &mut run.ask].into_iter().flatten().for_each(|slot| slot.live = true);
            }
        }
        self.advance(id);
    }

    /// The device is selected for a round.
    pub fn handle_round_start(&mut self, start: &RoundStart, now_ms: u64) {
        let address = start.address;
        match self.enter(start, now_ms) {
            Ok(()) => {
                self.send(ToAggregator::Accept(address));
                self.enter_sum(start);
                self.advance(address.run);
            }
            Err(reason) => self.send(ToAggregator::Decline(address, reason)),
        }
    }

    /// Puts the round into its slot, or says why not. Nothing is changed when it is declined.
    fn enter(&mut self, start: &RoundStart, now_ms: u64) -> Result<(), Decline> {
        let address = start.address;
        let run = self.runs.get_mut(&address.run).ok_or(Decline::PlanNotUnderstood)?;
        let plan = run.plan.clone()?;
        let known = matches!(start.kind, RoundKind::Train | RoundKind::Evaluate | RoundKind::Statistics);
        if run.task != address.task || !known {
            return Err(Decline::PlanNotUnderstood);
        }
        let own = Arc::new(plan.for_round(start.clip).ok_or(Decline::PlanNotUnderstood)?);
        self.consent.consent(&plan, start)?;
        let training = start.kind == RoundKind::Train;
        if training && address.round <= run.committed_round {
            return Err(Decline::Busy);
        }
        let place = if training { &mut run.train } else { &mut run.ask };
        if let Some(slot) = place {
            let before = slot.start.address;
            if slot.live && (before.round, before.attempt) > (address.round, address.attempt) {
                return Err(Decline::Busy);
            }
            if before.round == address.round && slot.start.base.digest == start.base.digest {
                slot.readdress(start, own, now_ms);
                return Ok(());
            }
            if let Stage::Working(job) = slot.stage {
                self.actions.push_back(Action::Stop(job));
            }
        }
        let left = place.replace(Slot::new(start, own, now_ms));
        if let Some(left) = left.filter(|slot| slot.secure) {
            self.actions.push_back(Action::Secure(SecureOrder::Leave(left.start.address)));
        }
        Ok(())
    }

    /// The model of a fetch has arrived whole and has its digest; the driver holds it from now on.
    pub fn handle_model_ready(&mut self, run: RunId, digest: Digest) {
        if let Some(state) = self.runs.get_mut(&run) {
            if state.fetching.as_ref().is_some_and(|fetching| fetching.base.digest == digest) {
                state.fetching = None;
                state.held = Some(digest);
            }
            self.advance(run);
        }
    }

    /// The model could not be had: refused, or not what its digest says. After a difference the whole model is tried.
    pub fn handle_model_failed(&mut self, id: RunId, digest: Digest) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Some(fetching) = run.fetching.take_if(|fetching| fetching.base.digest == digest) else { return };
        if fetching.held.is_some() {
            run.held = None;
        } else {
            let mut declined = Vec::new();
            for place in [&mut run.train, &mut run.ask] {
                let hopeless =
                    |slot: &mut Slot| matches!(slot.stage, Stage::Waiting) && slot.start.base.digest == digest;
                declined.extend(place.take_if(hopeless).map(|slot| slot.start.address));
            }
            for address in declined {
                self.send(ToAggregator::Decline(address, Decline::ModelUnavailable));
            }
        }
        self.advance(id);
    }

    /// The aggregator cannot serve a fetch.
    pub fn handle_fetch_refused(&mut self, digest: Digest) {
        let fetches = |run: &Run| run.fetching.as_ref().is_some_and(|fetching| fetching.base.digest == digest);
        let runs: Vec<RunId> = self.runs.iter().filter(|(_, run)| fetches(run)).map(|(id, _)| *id).collect();
        runs.into_iter().for_each(|id| self.handle_model_failed(id, digest));
    }

    /// A training job has ended. A result that nobody waits for any more is dropped here.
    pub fn handle_trained(&mut self, job: JobId, result: Result<Arc<Sealed>, Decline>, now_ms: u64) {
        let Some((id, run)) = self.working(job) else { return };
        let Some(slot) = run.train.as_mut().filter(|slot| slot.is_working(job)) else { return };
        let declined = match result {
            Ok(sealed) => {
                slot.seal(sealed, now_ms);
                None
            }
            Err(reason) => {
                let told = slot.live.then_some((slot.start.address, reason));
                run.train = None;
                if reason == Decline::ModelUnavailable {
                    run.held = None;
                }
                told
            }
        };
        if let Some((address, reason)) = declined {
            self.send(ToAggregator::Decline(address, reason));
        }
        self.advance(id);
    }

    /// A job that makes no update has ended.
    pub fn handle_answered(&mut self, job: JobId, result: Result<Answer, Decline>) {
        let Some((id, run)) = self.working(job) else { return };
        let Some(slot) = run.ask.take_if(|slot| slot.is_working(job)) else { return };
        let address = slot.start.address;
        if slot.live {
            self.send(match result {
                Ok(Answer::Figures(Figures { examples, correct, loss_sum })) => {
                    ToAggregator::Evaluation(Evaluation { address, examples, correct, loss_sum })
                }
                Ok(Answer::Ranges(examples, ranges)) => {
                    ToAggregator::Statistics(Statistics { address, examples, ranges })
                }
                Err(reason) => ToAggregator::Decline(address, reason),
            });
        }
        self.advance(id);
    }

    /// An upload was broken off without a verdict, on a connection that still stands: it is tried again a little later.
    pub fn handle_upload_failed(&mut self, address: Address, now_ms: u64) {
        let slot = self.runs.get_mut(&address.run).and_then(|run| run.train.as_mut());
        if let Some(slot) = slot.filter(|slot| slot.start.address == address) {
            slot.mark_unsent(Some(now_ms.saturating_add(RESEND_MS)));
        }
    }

    /// What became of an update.
    pub fn handle_verdict(&mut self, verdict: &Verdict, now_ms: u64) {
        match *verdict {
            Verdict::Committed { address, .. } => {
                let Some(run) = self.runs.get_mut(&address.run) else { return };
                run.committed_round = run.committed_round.max(address.round);
                self.leave_training(address.run, |slot| slot.start.address.round == address.round);
            }
            Verdict::Refused { address, reason } => match reason {
                // It is in already: the commit is what is waited for.
                Refusal::Duplicate => {}
                Refusal::StagingFull => self.handle_upload_failed(address, now_ms),
                _ => self.handle_round_end(address, reason),
            },
        }
    }

    /// The round goes on without the device, or is over. After [`Refusal::StaleAttempt`] the work is kept for the next
    /// attempt at the same base.
    pub fn handle_round_end(&mut self, address: Address, reason: Refusal) {
        let Some(run) = self.runs.get_mut(&address.run) else { return };
        if reason == Refusal::StaleAttempt {
            for slot in [&mut run.train, &mut run.ask].into_iter().flatten() {
                if slot.start.address == address {
                    slot.live = false;
                    slot.mark_unsent(None);
                    if slot.secure {
                        self.actions.push_back(Action::Secure(SecureOrder::Burn(address)));
                    }
                }
            }
            return;
        }
        self.leave_training(address.run, |slot| slot.start.address == address);
        self.leave(address.run, |run| &mut run.ask, |slot| slot.start.address == address);
    }

    /// The run has no further rounds.
    pub fn handle_run_end(&mut self, id: RunId) {
        if let Some(run) = self.runs.remove(&id) {
            let jobs = run.slots().filter_map(Slot::job).collect::<Vec<_>>();
            self.actions.extend(jobs.into_iter().map(Action::Stop));
            let sums = run.slots().filter(|slot| slot.secure).map(|slot| SecureOrder::Leave(slot.start.address));
            self.actions.extend(sums.map(Action::Secure));
            self.actions.push_back(Action::Forget(id));
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        let ids: Vec<RunId> = self.runs.keys().copied().collect();
        for id in ids {
            self.leave_training(id, |slot| slot.is_expired(now_ms));
            self.leave(id, |run| &mut run.ask, |slot| slot.is_expired(now_ms));
            if let Some(slot) = self.runs.get_mut(&id).and_then(|run| run.train.as_mut()) {
                slot.make_due(now_ms);
            }
            self.advance(id);
        }
    }
}

impl Run {
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        [&self.train, &self.ask].into_iter().flatten()
    }
}

/// The plan, if it is one, has the id that it is announced under, and can be computed here.
fn understand(announced: &RunPlan) -> Result<Arc<TaskPlan>, Decline> {
    let plan = TaskPlan::from_json(&announced.plan).map_err(|_| Decline::PlanNotUnderstood)?;
    if plan.name == announced.name && plan.id() == announced.task.0 {
        Ok(Arc::new(plan))
    } else {
        Err(Decline::PlanNotUnderstood)
    }
}
