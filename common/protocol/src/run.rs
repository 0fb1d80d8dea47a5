//! The aggregator's half of a run: cohorts, deadlines, quorums, attempts.
//!
//! ```text
//!             devices_min available            goal reached, or settled with a quorum
//!  Waiting ─────────────────────────▶ Training ─────────────────────────────────────▶ Committing
//!     ▲ ▲                                │ settled below the quorum: next attempt         │ handle_committed
//!     │ └────────────────────────────────┘                                                ▼
//!     └───────────────────────────────────────── Asking ◀──────────────────── (every `evaluate_every` rounds)
//!                       all in, or settled                         Finished ◀─ (last round, target, stop)
//! ```
//!
//! Where updates are summed under masks, the stages of [`Stage`] take the place of training.
//!
//! Under `participation = "poisson"` a round is committed with whatever has come, nothing included: a round that was skipped because few were
//! in it would say how many they were.
//!
//! A run whose goal is an answer and no version goes from waiting to asking, and is finished with it; below the quorum it tries again.
//!
//! Sans-IO: time is an argument (milliseconds of any monotonic clock), entropy is the run's seed, and the driver does
//! what [`RunMachine::poll_action`] says. Call a `handle_*`, then poll actions until there are none, then sleep until
//! [`RunMachine::poll_timeout_ms`] and call [`RunMachine::handle_timeout`].
//!
//! It holds invariants 1 (cohorts are a function of sets), 2 (one contribution a device and round) and 6 (every wait has a
//! bound).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use starling_spec::FederationSection;
use starling_wire::{Address, DeviceId, Evaluation, Refusal, Statistics};

use crate::cohort::{Cohort, Member};

mod action;
mod answers;
mod rounds;
mod secure;
mod settings;

pub use crate::cohort::Coins;
pub use action::{Action, Expelled, Finish};
pub use answers::{Answer, HeldOut, Ranges};
pub use secure::Stage;
pub use settings::{Progress, RunSettings, SecureCohort, Turn, Turns};

use answers::Answers;
use secure::Summing;

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

/// See [`RunMachine::cohort_max`].
pub fn cohort_max(federation: &FederationSection) -> u32 {
    federation.devices.unwrap_or(COHORT_MAX_DEFAULT).clamp(1, COHORT_MAX)
}

#[derive(Debug)]
enum Phase {
    Waiting { not_before_ms: u64, failures: u32 },
    Training(Cohort, u32),
    Summing(Box<Summing>),
    Committing(Cohort),
    Asking(Cohort, Answers, u32),
    Finished,
}

impl Phase {
    /// Who is waited for.
    fn cohort(&self) -> Option<&Cohort> {
        match self {
            Self::Training(cohort, _) | Self::Asking(cohort, ..) => Some(cohort),
            Self::Summing(summing) => Some(&summing.cohort),
            Self::Waiting { .. } | Self::Committing(_) | Self::Finished => None,
        }
    }

    /// The same, to note what becomes of them.
    fn cohort_mut(&mut self) -> Option<&mut Cohort> {
        match self {
            Self::Training(cohort, _) | Self::Asking(cohort, ..) => Some(cohort),
            Self::Summing(summing) => Some(&mut summing.cohort),
            Self::Waiting { .. } | Self::Committing(_) | Self::Finished => None,
        }
    }
}

/// The machine of one run.
#[derive(Debug)]
pub struct RunMachine {
    settings: RunSettings,
    available: BTreeSet<DeviceId>,
    rounds_committed: u32,
    attempt: u16,
    attempt_first: u16,
    /// Rounds after which its privacy budget is gone.
    budget_rounds: Option<u32>,
    phase: Phase,
    actions: VecDeque<Action>,
    /// What devices have had of their turns, where those are limited.
    turns: BTreeMap<DeviceId, Turn>,
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
            budget_rounds: None,
            phase,
            actions: VecDeque::new(),
            turns: BTreeMap::new(),
        }
    }

    /// The same, for a run in whose committed rounds devices have had these turns.
    #[must_use]
    pub fn with_turns(self, turns: BTreeMap<DeviceId, Turn>) -> Self {
        Self { turns, ..self }
    }

    // Getters.

    /// The round and attempt that are under way or come next.
    pub fn address(&self) -> Address {
        // What is asked between rounds of training is about the version that the last one made.
        let over = matches!(self.phase, Phase::Asking(..)) && self.settings.federation.goal.makes_versions();
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
                cohort.admit(device)
            }
            Phase::Waiting { .. } if address.round == current.round => Err(Refusal::StaleAttempt),
            _ => Err(Refusal::RoundClosed),
        }
    }

    // Inputs.

    /// `device` can take part from now on. A member that vanished is asked again for the same attempt.
    pub fn handle_available(&mut self, now_ms: u64, device: DeviceId) {
        self.handle_all_available(now_ms, [device]);
    }

    /// All of `devices` can take part from now on: the next round is drawn from all of them, not from the first.
    pub fn handle_all_available(&mut self, now_ms: u64, devices: impl IntoIterator<Item = DeviceId>) {
        devices.into_iter().for_each(|device| self.ask_again(now_ms, device));
        self.advance(now_ms);
    }

    fn ask_again(&mut self, now_ms: u64, device: DeviceId) {
        self.available.insert(device);
        self.remind(now_ms, device);
        let (address, kind) = (self.address(), self.kind());
        if let Phase::Training(cohort, _) | Phase::Asking(cohort, ..) = &mut self.phase
            && matches!(cohort.get(device), Some(Member::Pending | Member::Gone(_)))
        {
            cohort.set(device, Member::Pending);
            let deadline_ms = cohort.deadline_at_ms.saturating_sub(now_ms);
            self.actions.push_back(Action::Start { device, address, kind, deadline_ms });
        }
    }

    /// The connection of `device` is gone, or it takes part no longer.
    pub fn handle_gone(&mut self, now_ms: u64, device: DeviceId) {
        self.available.remove(&device);
        if let Some(cohort) = self.phase.cohort_mut()
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
        if let Some(cohort) = self.phase.cohort_mut() {
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
        if matches!(self.phase, Phase::Summing(_)) {
            let outcome = self.expel_from_sum(now_ms, device);
            self.advance(now_ms);
            return outcome;
        }
        let was_in = match &mut self.phase {
            Phase::Training(cohort, _) => cohort.expel(device),
            Phase::Asking(cohort, ..) => {
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
        self.take_answer(device, |answers| answers.add_figures(evaluation));
        self.advance(now_ms);
    }

    /// The statistics of `device` are in; a second answer, or one that nobody asked for, changes nothing.
    pub fn handle_statistics(&mut self, now_ms: u64, device: DeviceId, statistics: &Statistics) {
        if statistics.address != self.address() {
            return;
        }
        self.take_answer(device, |answers| answers.add_ranges(statistics));
        self.advance(now_ms);
    }

    fn take_answer(&mut self, device: DeviceId, add: impl FnOnce(&mut Answers) -> bool) {
        if let Phase::Asking(cohort, answers, _) = &mut self.phase
            && matches!(cohort.get(device), Some(Member::Pending | Member::Gone(_)))
        {
            cohort.set(device, if add(answers) { Member::Reported } else { Member::Out });
        }
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
        // In secure sums devices speak of the version that they train from, with their update: nobody is asked apart.
        let every = if self.settings.secure_cohort.is_some() { 0 } else { federation.evaluate_every };
        let last = self.rounds_committed >= federation.rounds || target_reached || self.is_budget_gone();
        let evaluate = every > 0 && (self.rounds_committed.is_multiple_of(every) || last);
        if evaluate && !self.available.is_empty() {
            // Nothing hangs on it: who answers in time is counted.
            self.ask(now_ms, 0.0, 0);
        } else {
            self.phase = Phase::Waiting { not_before_ms: now_ms, failures: 0 };
        }
        self.attempt = if evaluate { self.attempt } else { self.attempt_first };
        if last && !matches!(self.phase, Phase::Asking(..)) {
            self.finish(if target_reached { Finish::Target } else { self.finish_of_rounds() });
        } else if target_reached {
            // The evaluation under way is the run's last act.
            self.settings.federation.rounds = self.rounds_committed;
        }
        self.advance(now_ms);
    }

    /// The run's privacy budget lasts for `rounds_left` commits more, the one under way included: with the last of them the run is over,
    /// and no round begins that there is none left for. Each call replaces what was said before.
    pub fn limit_rounds(&mut self, rounds_left: u32) {
        self.budget_rounds = Some(self.rounds_committed.saturating_add(rounds_left));
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        self.advance(now_ms);
    }

    /// The operator ends the run. A commit that is under way is completed first.
    pub fn handle_stop(&mut self) {
        match self.phase {
            Phase::Finished => {}
            Phase::Committing(_) => self.settings.federation.rounds = self.rounds_committed + 1,
            _ => {
                self.abandon(Refusal::RoundClosed);
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
            Phase::Training(cohort, _) | Phase::Asking(cohort, ..) => Some(cohort.settles_at_ms(now_ms, GRACE_MS)),
            Phase::Summing(summing) => summing.settles_at_ms(now_ms),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
