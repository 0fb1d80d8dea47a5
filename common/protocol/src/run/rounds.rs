//! From one round to the next: when a round begins, is complete, is tried again, and when the run is over.

use std::collections::BTreeSet;

use starling_spec::Participation;
use starling_wire::{DeviceId, Refusal, RoundKind};

use super::answers::{Answer, Answers};
use super::secure::Summing;
use super::{Action, Finish, GRACE_MS, Phase, RETRY_MS, RETRY_MS_MAX, RunMachine, SecureCohort};
use crate::cohort::{Cohort, draw, toss};

impl RunMachine {
    pub(super) fn enough_devices(&self) -> bool {
        let least = self.settings.secure_cohort.map_or(1, |cohort| cohort.asked_min);
        let least = least.max(self.settings.federation.devices_min as usize);
        self.available.len() >= least && (self.is_everybody_there() || self.ready().next().is_some())
    }

    /// The devices that are there and may be in the next round.
    fn ready(&self) -> impl Iterator<Item = DeviceId> {
        let round = self.rounds_committed + 1;
        self.available.iter().copied().filter(move |device| self.may_take_a_turn(*device, round))
    }

    /// Whether no further device could come, as far as the task says how many there are.
    fn is_everybody_there(&self) -> bool {
        self.settings.federation.devices.is_some_and(|devices| self.available.len() >= devices as usize)
    }

    pub(super) fn kind(&self) -> RoundKind {
        match &self.phase {
            Phase::Asking(_, answers, _) => answers.kind(),
            _ => RoundKind::Train,
        }
    }

    pub(super) fn start_all(&mut self, deadline_ms: u64) {
        let (address, kind) = (self.address(), self.kind());
        if let Some(cohort) = self.phase.cohort() {
            let start = |device| Action::Start { device, address, kind, deadline_ms };
            self.actions.extend(cohort.unfinished().map(start));
        }
    }

    pub(super) fn advance(&mut self, now_ms: u64) {
        if matches!(self.phase, Phase::Waiting { .. }) && self.is_budget_gone() {
            return self.finish(self.finish_of_rounds());
        }
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
            Phase::Asking(cohort, answers, _) => {
                let reported = cohort.reported().count();
                let settled = reported >= cohort.goal || cohort.settles_at_ms(now_ms, GRACE_MS) <= now_ms;
                if settled && reported < cohort.quorum {
                    self.try_again(now_ms);
                } else if settled {
                    let answer = answers.total();
                    self.answered(now_ms, answer);
                }
            }
            Phase::Summing(_) => self.advance_sum(now_ms),
            Phase::Committing(_) | Phase::Finished => {}
        }
    }

    /// Whether another round would spend more privacy than there is.
    pub(super) fn is_budget_gone(&self) -> bool {
        self.budget_rounds.is_some_and(|most| self.rounds_committed >= most)
    }

    /// Why there are no more rounds.
    pub(super) fn finish_of_rounds(&self) -> Finish {
        let planned = self.rounds_committed >= self.settings.federation.rounds;
        if self.is_budget_gone() && !planned { Finish::Budget } else { Finish::Rounds }
    }

    fn begin(&mut self, now_ms: u64, failures: u32) {
        let federation = &self.settings.federation;
        if self.rounds_committed >= federation.rounds {
            return self.finish(Finish::Rounds);
        }
        if !federation.goal.makes_versions() {
            return self.ask(now_ms, federation.quorum, failures);
        }
        let secure = self.settings.secure_cohort;
        let room = secure.map_or(usize::MAX, |cohort| cohort.max);
        let cohort_max = room.min(self.cohort_max() as usize);
        let round = self.rounds_committed + 1;
        let ready: BTreeSet<DeviceId> = self.ready().collect();
        if ready.is_empty() && self.settings.turns.is_some() {
            // Everybody is there, nobody has a turn left, and none comes back without another round.
            return self.finish(Finish::Rounds);
        }
        let (devices, goal, quorum) = if federation.participation == Participation::Poisson {
            let mut devices = toss(&ready, federation.fraction, &self.settings.coins, round);
            while devices.len() > cohort_max {
                devices.pop_last();
            }
            let goal = devices.len();
            (devices, goal, 0)
        } else {
            let least = secure.map_or(1, |cohort| cohort.asked_min);
            let goal =
                share(self.available.len(), federation.fraction).max(least).min(ready.len()).clamp(1, cohort_max);
            let asked = share(goal, federation.over_selection).max(goal).min(ready.len()).min(cohort_max);
            let quorum = share(goal, federation.quorum).clamp(1, goal);
            (draw(&ready, asked, self.settings.seed, round), goal, quorum)
        };
        let deadline_ms = federation.deadline_ms;
        let cohort = Cohort::new(devices, goal, quorum, now_ms.saturating_add(deadline_ms));
        self.phase = match secure {
            None => Phase::Training(cohort, failures),
            Some(SecureCohort { summed_min, .. }) => {
                Phase::Summing(Box::new(Summing::new(cohort, summed_min, now_ms, failures)))
            }
        };
        self.start_all(deadline_ms);
        if goal == 0 {
            self.advance(now_ms);
        }
    }

    /// Whether `device` may be in `round`, as far as its turns are limited.
    fn may_take_a_turn(&self, device: DeviceId, round: u32) -> bool {
        let turn = self.turns.get(&device).copied().unwrap_or_default();
        self.settings.turns.is_none_or(|limit| limit.allow(turn, round))
    }

    /// Notes who has had a turn in the round that is committed.
    fn take_turns(&mut self, contributors: &BTreeSet<DeviceId>) {
        if self.settings.turns.is_some() {
            let round = self.rounds_committed + 1;
            for device in contributors {
                let turn = self.turns.entry(*device).or_default();
                *turn = turn.then(round);
            }
        }
    }

    /// Asks every device that is there for what the run's goal says, or to evaluate. With a quorum of 0 no answer is one too.
    pub(super) fn ask(&mut self, now_ms: u64, quorum: f64, failures: u32) {
        let deadline_ms = self.settings.federation.deadline_ms;
        let devices = self.available.clone();
        let goal = devices.len();
        let quorum = if quorum > 0.0 { share(goal, quorum).clamp(1, goal) } else { 0 };
        let cohort = Cohort::new(devices, goal, quorum, now_ms.saturating_add(deadline_ms));
        let answers = Answers::new(self.settings.federation.goal, self.settings.tensors);
        self.phase = Phase::Asking(cohort, answers, failures);
        self.start_all(deadline_ms);
    }

    fn answered(&mut self, now_ms: u64, answer: Answer) {
        let address = self.address();
        self.actions.push_back(Action::Answered { address, answer });
        self.attempt = self.attempt_first;
        self.phase = Phase::Waiting { not_before_ms: now_ms, failures: 0 };
        let federation = &self.settings.federation;
        if !federation.goal.makes_versions() || self.rounds_committed >= federation.rounds {
            self.finish(Finish::Rounds);
        } else {
            self.advance(now_ms);
        }
    }

    fn commit(&mut self) {
        let address = self.address();
        let phase = std::mem::replace(&mut self.phase, Phase::Finished);
        let Phase::Training(cohort, _) = phase else { unreachable!("only a training round commits") };
        let contributors = cohort.reported().collect();
        self.take_turns(&contributors);
        self.actions.push_back(Action::Commit { address, contributors, cohort: cohort.asked() });
        self.phase = Phase::Committing(cohort);
    }

    /// Gives the attempt up and plans the next one.
    pub(super) fn try_again(&mut self, now_ms: u64) {
        let failures = match &self.phase {
            Phase::Training(_, failures) | Phase::Asking(.., failures) => *failures,
            Phase::Summing(summing) => summing.failures,
            _ => return,
        };
        self.abandon(Refusal::StaleAttempt);
        let pause_ms = RETRY_MS.saturating_mul(1 << failures.min(16)).min(RETRY_MS_MAX);
        let not_before_ms = now_ms.saturating_add(pause_ms);
        self.attempt = self.attempt.saturating_add(1);
        self.phase = Phase::Waiting { not_before_ms, failures: failures.saturating_add(1) };
    }

    pub(super) fn abandon(&mut self, reason: Refusal) {
        let address = self.address();
        if let Phase::Summing(summing) = &self.phase {
            // Everybody's keys of this attempt are worth nothing any more.
            let end = |device: &DeviceId| Action::End { device: *device, address, reason };
            self.actions.extend(summing.asked.iter().map(end));
            self.actions.push_back(Action::Abandon { address });
        }
        if let Phase::Training(cohort, _) | Phase::Asking(cohort, ..) = &self.phase {
            let end = |device| Action::End { device, address, reason };
            self.actions.extend(cohort.unfinished().map(end));
            if matches!(self.phase, Phase::Training(..)) || !self.settings.federation.goal.makes_versions() {
                self.actions.push_back(Action::Abandon { address });
            }
        }
    }

    pub(super) fn finish(&mut self, why: Finish) {
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
