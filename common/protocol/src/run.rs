//! The aggregator's half of a run: cohorts, deadlines, quorums, attempts.
//!
//! ```text
//!             devices_min available            goal reached, or settled with a quorum
//!  Waiting ─────────────────────────▶ Training ─────────────────────────────────────▶ Committing
//!     ▲ ▲                                │ settled below the quorum: next attempt         │ handle_committed
//!     │ └────────────────────────────────┘                                                ▼
//!     └───────────────────────────────────────── Evaluating ◀──────────────── (every `evaluate_every` rounds)
//!                       all in, or settled                         Finished ◀─ (last round, target, stop)
//! ```
//!
//! Sans-IO: time is an argument (milliseconds of any monotonic clock), entropy is the run's seed, and the driver does
//! what [`RunMachine::poll_action`] says. Call a `handle_*`, then poll actions until there are none, then sleep until
//! [`RunMachine::poll_timeout_ms`] and call [`RunMachine::handle_timeout`].
//!
//! It holds invariants 1 (cohorts are a function of sets), 2 (one contribution a device and round) and 6 (every wait has a
//! bound).

use std::collections::{BTreeSet, VecDeque};

use starling_spec::FederationSection;
use starling_wire::{Address, DeviceId, Evaluation, Refusal, RoundKind, RunId, TaskId};

use crate::cohort::{Cohort, Member, draw};

/// How long a vanished device is waited for when only vanished ones are missing: a daemon restarts and reconnects within
/// a second, a radio within a few.
pub const GRACE_MS: u64 = 3_000;

/// The pause before an attempt that follows a failed one; it doubles with each failure up to [`RETRY_MS_MAX`].
pub const RETRY_MS: u64 = 500;

/// The longest pause between attempts.
pub const RETRY_MS_MAX: u64 = 60_000;

/// The largest cohort of a task that does not say how many devices it is for.
pub const COHORT_MAX_DEFAULT: u32 = 1 << 10;

/// The largest cohort of any task: each doubling costs the fold one bit of fixed point.
pub const COHORT_MAX: u32 = 1 << 16;

/// What a run is, fixed at its start.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSettings {
    /// The task.
    pub task: TaskId,
    /// The run.
    pub run: RunId,
    /// The seed of cohorts.
    pub seed: u64,
    /// Fractions, quorum, deadline, rounds.
    pub federation: FederationSection,
}

/// Where a run stands when its machine is built: after a restart, from durable records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Rounds committed so far.
    pub rounds_committed: u32,
    /// The first attempt number that was never used in the round after those.
    pub attempt: u16,
    /// The first attempt of every later round: more than 1 where the state was restored from a backup, since rounds of the time that
    /// was lost may have had lower ones.
    pub attempt_first: u16,
}

impl Default for Progress {
    fn default() -> Self {
        Self { rounds_committed: 0, attempt: 1, attempt_first: 1 }
    }
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Ask `device` to take part.
    Start {
        /// Whom.
        device: DeviceId,
        /// In which round.
        address: Address,
        /// To do what.
        kind: RoundKind,
        /// Milliseconds from now until the round waits no longer.
        deadline_ms: u64,
    },
    /// Tell `device` that the round goes on without it.
    End {
        /// Whom.
        device: DeviceId,
        /// Which round.
        address: Address,
        /// Why.
        reason: Refusal,
    },
    /// Make a version of the contributions, durably, and call [`RunMachine::handle_committed`].
    Commit {
        /// Which round.
        address: Address,
        /// Whose contributions the version contains.
        contributors: BTreeSet<DeviceId>,
        /// How many devices were asked.
        cohort: usize,
    },
    /// Drop the contributions of a failed attempt; their devices keep them for the next one.
    Abandon {
        /// Which attempt.
        address: Address,
    },
    /// A federated evaluation is complete.
    Evaluated {
        /// The round that it followed.
        address: Address,
        /// Sums over the devices that answered.
        figures: HeldOut,
    },
    /// The run is over.
    Finished(Finish),
}

/// What an expulsion means for the round under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expelled {
    /// Nothing of the device is in the aggregate, or the round has begun to commit.
    Nothing,
    /// Its contribution is in, and has to be taken out before anything else is done.
    TakeOut,
    /// Its contribution is in and could not be taken out: the attempt is given up.
    Abandoned,
}

/// Why a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Every round is committed.
    Rounds,
    /// The target accuracy is reached.
    Target,
    /// The operator stopped it.
    Stopped,
}

/// Figures of a federated evaluation, summed over hold-outs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct HeldOut {
    /// Devices that answered.
    pub devices: u32,
    /// Examples evaluated.
    pub examples: u64,
    /// Examples classified rightly.
    pub correct: u64,
    /// Sum of the losses.
    pub loss_sum: f64,
}

/// See [`RunMachine::cohort_max`].
pub fn cohort_max(federation: &FederationSection) -> u32 {
    federation.devices.unwrap_or(COHORT_MAX_DEFAULT).clamp(1, COHORT_MAX)
}

#[derive(Debug)]
enum Phase {
    Waiting { not_before_ms: u64, failures: u32 },
    Training(Cohort, u32),
    Committing(Cohort),
    Evaluating(Cohort, Vec<Evaluation>),
    Finished,
}

/// The machine of one run.
#[derive(Debug)]
pub struct RunMachine {
    settings: RunSettings,
    available: BTreeSet<DeviceId>,
    rounds_committed: u32,
    attempt: u16,
    attempt_first: u16,
    phase: Phase,
    actions: VecDeque<Action>,
}

impl RunMachine {
    /// A machine that goes on from `progress`.
    pub fn new(settings: RunSettings, progress: Progress) -> Self {
        let phase = Phase::Waiting { not_before_ms: 0, failures: 0 };
        Self {
            settings,
            available: BTreeSet::new(),
            rounds_committed: progress.rounds_committed,
            attempt: progress.attempt.max(progress.attempt_first).max(1),
            attempt_first: progress.attempt_first.max(1),
            phase,
            actions: VecDeque::new(),
        }
    }

    // Getters.

    /// The round and attempt that are under way or come next.
    pub fn address(&self) -> Address {
        let over = matches!(self.phase, Phase::Evaluating(..));
        Address {
            task: self.settings.task,
            run: self.settings.run,
            round: self.rounds_committed + u32::from(!over),
            attempt: self.attempt,
        }
    }

    /// Rounds committed so far.
    pub fn rounds_committed(&self) -> u32 {
        self.rounds_committed
    }

    /// Whether the run is over.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished)
    }

    /// Devices that could be selected now.
    pub fn devices_available(&self) -> usize {
        self.available.len()
    }

    /// The most devices that one round may count: bounds the weights of the round's fixed point. It is what the task
    /// says in `federation.devices`, or [`COHORT_MAX_DEFAULT`].
    pub fn cohort_max(&self) -> u32 {
        cohort_max(&self.settings.federation)
    }

    /// Whether an update of `device` for `address` would be taken now: asked before its body is read.
    ///
    /// # Errors
    /// The reason to refuse it with.
    pub fn admit_update(&self, device: DeviceId, address: &Address) -> Result<(), Refusal> {
        let current = self.address();
        if address.run != current.run || address.task != current.task {
            return Err(Refusal::UnknownRun);
        }
        match &self.phase {
            Phase::Training(cohort, _) if address.round == current.round => {
                if address.attempt != current.attempt {
                    return Err(Refusal::StaleAttempt);
                }
                match cohort.get(device) {
                    None => Err(Refusal::NotInCohort),
                    Some(Member::Reported) => Err(Refusal::Duplicate),
                    Some(Member::Out) => Err(Refusal::RoundClosed),
                    Some(Member::Pending | Member::Gone(_)) => Ok(()),
                }
            }
            Phase::Waiting { .. } if address.round == current.round => Err(Refusal::StaleAttempt),
            _ => Err(Refusal::RoundClosed),
        }
    }

    // Inputs.

    /// `device` can take part from now on. A member that vanished is asked again for the same attempt.
    pub fn handle_available(&mut self, now_ms: u64, device: DeviceId) {
        self.available.insert(device);
        let (address, kind) = (self.address(), self.kind());
        if let Phase::Training(cohort, _) | Phase::Evaluating(cohort, _) = &mut self.phase
            && matches!(cohort.get(device), Some(Member::Pending | Member::Gone(_)))
        {
            cohort.set(device, Member::Pending);
            let deadline_ms = cohort.deadline_at_ms.saturating_sub(now_ms);
            self.actions.push_back(Action::Start { device, address, kind, deadline_ms });
        }
        self.advance(now_ms);
    }

    /// The connection of `device` is gone, or it takes part no longer.
    pub fn handle_gone(&mut self, now_ms: u64, device: DeviceId) {
        self.available.remove(&device);
        if let Phase::Training(cohort, _) | Phase::Evaluating(cohort, _) = &mut self.phase
            && cohort.get(device) == Some(Member::Pending)
        {
            cohort.set(device, Member::Gone(now_ms));
        }
        self.advance(now_ms);
    }

    /// `device` takes no part in the round of `address`, or what it sent for it was refused.
    pub fn handle_out(&mut self, now_ms: u64, device: DeviceId, address: &Address) {
        if *address != self.address() {
            return;
        }
        if let Phase::Training(cohort, _) | Phase::Evaluating(cohort, _) = &mut self.phase {
            cohort.set(device, Member::Out);
        }
        self.advance(now_ms);
    }

    /// `device` takes no part any more, by the operator's word: it is not waited for, and what it contributed to a round that
    /// has not begun to commit counts no longer. `separable` says whether the driver can take its contribution out of the
    /// aggregate; where it cannot, the attempt is given up whole and the others send theirs again for the next one, so
    /// that two sets of contributors are never committed from one attempt.
    ///
    /// On [`Expelled::TakeOut`] the driver takes the contribution out before it does what [`RunMachine::poll_action`] says.
    pub fn handle_expelled(&mut self, now_ms: u64, device: DeviceId, separable: bool) -> Expelled {
        self.available.remove(&device);
        let was_in = match &mut self.phase {
            Phase::Training(cohort, _) => cohort.expel(device),
            Phase::Evaluating(cohort, _) => {
                cohort.set(device, Member::Out);
                false
            }
            _ => false,
        };
        let outcome = match (was_in, separable) {
            (false, _) => Expelled::Nothing,
            (true, true) => Expelled::TakeOut,
            (true, false) => {
                self.try_again(now_ms);
                Expelled::Abandoned
            }
        };
        self.advance(now_ms);
        outcome
    }

    /// The update of `device` has been staged and admitted. The driver folds it if and only if this returns `Ok`.
    ///
    /// # Errors
    /// The reason to refuse it with; the round may have closed while the body arrived.
    pub fn handle_update(&mut self, now_ms: u64, device: DeviceId, address: &Address) -> Result<(), Refusal> {
        self.admit_update(device, address)?;
        if let Phase::Training(cohort, _) = &mut self.phase {
            cohort.set(device, Member::Reported);
        }
        self.advance(now_ms);
        Ok(())
    }

    /// The evaluation of `device` is in; a second one, or one that nobody asked for, changes nothing.
    pub fn handle_evaluation(&mut self, now_ms: u64, device: DeviceId, evaluation: Evaluation) {
        if evaluation.address != self.address() {
            return;
        }
        if let Phase::Evaluating(cohort, answers) = &mut self.phase
            && matches!(cohort.get(device), Some(Member::Pending | Member::Gone(_)))
        {
            // A count that cannot be, or a loss that is no number, says nothing.
            if evaluation.loss_sum.is_finite() && evaluation.correct <= evaluation.examples {
                cohort.set(device, Member::Reported);
                answers.push(evaluation);
            } else {
                cohort.set(device, Member::Out);
            }
        }
        self.advance(now_ms);
    }

    /// The version of the round under way is durable; `target_reached` ends the run.
    ///
    /// # Panics
    /// If no commit was asked for: the driver's broken invariant.
    pub fn handle_committed(&mut self, now_ms: u64, target_reached: bool) {
        let address = self.address();
        let Phase::Committing(cohort) = &self.phase else { panic!("a commit was reported that nobody asked for") };
        for device in cohort.unfinished() {
            self.actions.push_back(Action::End { device, address, reason: Refusal::RoundClosed });
        }
        self.rounds_committed += 1;
        let federation = &self.settings.federation;
        let every = federation.evaluate_every;
        let last = self.rounds_committed >= federation.rounds || target_reached;
        let evaluate = every > 0 && (self.rounds_committed.is_multiple_of(every) || last);
        if evaluate && !self.available.is_empty() {
            let deadline_ms = federation.deadline_ms;
            let devices = self.available.clone();
            let goal = devices.len();
            let cohort = Cohort::new(devices, goal, 0, now_ms.saturating_add(deadline_ms));
            self.phase = Phase::Evaluating(cohort, Vec::new());
            self.start_all(deadline_ms);
        } else {
            self.phase = Phase::Waiting { not_before_ms: now_ms, failures: 0 };
        }
        self.attempt = if evaluate { self.attempt } else { self.attempt_first };
        if last && !matches!(self.phase, Phase::Evaluating(..)) {
            self.finish(if target_reached { Finish::Target } else { Finish::Rounds });
        } else if target_reached {
            // The evaluation under way is the run's last act.
            self.settings.federation.rounds = self.rounds_committed;
        }
        self.advance(now_ms);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        self.advance(now_ms);
    }

    /// The operator ends the run. A commit that is under way is completed first.
    pub fn handle_stop(&mut self, now_ms: u64) {
        match self.phase {
            Phase::Finished => {}
            Phase::Committing(_) => self.settings.federation.rounds = self.rounds_committed + 1,
            _ => {
                self.abandon(now_ms, Refusal::RoundClosed);
                self.finish(Finish::Stopped);
            }
        }
    }

    // Outputs.

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`RunMachine::handle_timeout`], in milliseconds of the same clock.
    pub fn poll_timeout_ms(&self, now_ms: u64) -> Option<u64> {
        match &self.phase {
            Phase::Waiting { not_before_ms, .. } if self.enough_devices() => Some(*not_before_ms),
            Phase::Training(cohort, _) | Phase::Evaluating(cohort, _) => Some(cohort.settles_at_ms(now_ms, GRACE_MS)),
            _ => None,
        }
    }

    // The inside.

    fn enough_devices(&self) -> bool {
        self.available.len() >= self.settings.federation.devices_min.max(1) as usize
    }

    fn kind(&self) -> RoundKind {
        if matches!(self.phase, Phase::Evaluating(..)) { RoundKind::Evaluate } else { RoundKind::Train }
    }

    fn start_all(&mut self, deadline_ms: u64) {
        let (address, kind) = (self.address(), self.kind());
        if let Phase::Training(cohort, _) | Phase::Evaluating(cohort, _) = &self.phase {
            let start = |device| Action::Start { device, address, kind, deadline_ms };
            self.actions.extend(cohort.unfinished().map(start));
        }
    }

    fn advance(&mut self, now_ms: u64) {
        match &mut self.phase {
            Phase::Waiting { not_before_ms, failures } => {
                let (ready, failures) = (*not_before_ms <= now_ms, *failures);
                if ready && self.enough_devices() {
                    self.begin(now_ms, failures);
                }
            }
            Phase::Training(cohort, _) => {
                let reported = cohort.reported().count();
                let settled = cohort.settles_at_ms(now_ms, GRACE_MS) <= now_ms;
                if reported >= cohort.goal || settled && reported >= cohort.quorum {
                    self.commit();
                } else if settled {
                    self.try_again(now_ms);
                }
            }
            Phase::Evaluating(cohort, answers) => {
                if cohort.reported().count() >= cohort.goal || cohort.settles_at_ms(now_ms, GRACE_MS) <= now_ms {
                    let figures = sum(answers);
                    let address = self.address();
                    self.actions.push_back(Action::Evaluated { address, figures });
                    self.attempt = self.attempt_first;
                    self.phase = Phase::Waiting { not_before_ms: now_ms, failures: 0 };
                    if self.rounds_committed >= self.settings.federation.rounds {
                        self.finish(Finish::Rounds);
                    } else {
                        self.advance(now_ms);
                    }
                }
            }
            Phase::Committing(_) | Phase::Finished => {}
        }
    }

    fn begin(&mut self, now_ms: u64, failures: u32) {
        let federation = &self.settings.federation;
        if self.rounds_committed >= federation.rounds {
            return self.finish(Finish::Rounds);
        }
        let cohort_max = self.cohort_max() as usize;
        let goal = share(self.available.len(), federation.fraction).clamp(1, cohort_max);
        let asked = share(goal, federation.over_selection).clamp(goal, self.available.len().min(cohort_max));
        let quorum = share(goal, federation.quorum).clamp(1, goal);
        let devices = draw(&self.available, asked, self.settings.seed, self.rounds_committed + 1);
        let deadline_ms = federation.deadline_ms;
        let cohort = Cohort::new(devices, goal, quorum, now_ms.saturating_add(deadline_ms));
        self.phase = Phase::Training(cohort, failures);
        self.start_all(deadline_ms);
    }

    fn commit(&mut self) {
        let address = self.address();
        let phase = std::mem::replace(&mut self.phase, Phase::Finished);
        let Phase::Training(cohort, _) = phase else { unreachable!("only a training round commits") };
        let contributors = cohort.reported().collect();
        self.actions.push_back(Action::Commit { address, contributors, cohort: cohort.asked() });
        self.phase = Phase::Committing(cohort);
    }

    /// Gives the attempt up and plans the next one.
    fn try_again(&mut self, now_ms: u64) {
        let Phase::Training(_, failures) = self.phase else { return };
        self.abandon(now_ms, Refusal::StaleAttempt);
        let pause_ms = RETRY_MS.saturating_mul(1 << failures.min(16)).min(RETRY_MS_MAX);
        let not_before_ms = now_ms.saturating_add(pause_ms);
        self.attempt = self.attempt.saturating_add(1);
        self.phase = Phase::Waiting { not_before_ms, failures: failures.saturating_add(1) };
    }

    fn abandon(&mut self, _now_ms: u64, reason: Refusal) {
        let address = self.address();
        if let Phase::Training(cohort, _) | Phase::Evaluating(cohort, _) = &self.phase {
            let end = |device| Action::End { device, address, reason };
            self.actions.extend(cohort.unfinished().map(end));
            if matches!(self.phase, Phase::Training(..)) {
                self.actions.push_back(Action::Abandon { address });
            }
        }
    }

    fn finish(&mut self, why: Finish) {
        self.phase = Phase::Finished;
        self.actions.push_back(Action::Finished(why));
    }
}

/// `count × factor`, rounded to nearest and at most 2³².
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the product is clamped to the range of u32 before it becomes an integer"
)]
fn share(count: usize, factor: f64) -> usize {
    (count as f64 * factor).round().clamp(0.0, f64::from(u32::MAX)) as usize
}

/// The sum of `answers`, in an order that does not depend on when they came.
fn sum(answers: &mut [Evaluation]) -> HeldOut {
    answers
        .sort_by(|a, b| (a.examples, a.correct).cmp(&(b.examples, b.correct)).then(a.loss_sum.total_cmp(&b.loss_sum)));
    answers.iter().fold(HeldOut::default(), |total, answer| HeldOut {
        devices: total.devices + 1,
        examples: total.examples.saturating_add(answer.examples),
        correct: total.correct.saturating_add(answer.correct),
        loss_sum: total.loss_sum + answer.loss_sum,
    })
}

#[cfg(test)]
mod tests;
