//! One round that the device takes part in.

use std::sync::Arc;

use starling_spec::TaskPlan;
use starling_update::Sealed;
use starling_wire::{Address, Letters, RoundKind, RoundStart};

use super::{DEADLINE_MS_MAX, JobId, SEALED_KEPT_MS_MAX};

/// How far the round has come on this device.
pub(super) enum Stage {
    /// The model is missing, or another job of the run goes first.
    Waiting,
    /// A job is at work.
    Working(JobId),
    /// The update is ready; it stays until its verdict.
    Sealed { sealed: Arc<Sealed>, sent: bool, resend_at_ms: Option<u64>, kept_until_ms: u64 },
}

pub(super) struct Slot {
    pub(super) start: RoundStart,
    /// What its work follows: the run's plan, with the round's clipping norm.
    pub(super) plan: Arc<TaskPlan>,
    /// Whether the aggregator waits for the result under this address, as far as we know.
    pub(super) live: bool,
    pub(super) stage: Stage,
    /// Whether its update goes into a secure sum.
    pub(super) secure: bool,
    /// The parts of a letter that have come.
    pub(super) letters: Letters,
    deadline_at_ms: u64,
    /// A job may take as long again as the deadline allowed: a new attempt at the same base can still use it.
    given_up_at_ms: u64,
}

impl Slot {
    pub(super) fn new(start: &RoundStart, plan: Arc<TaskPlan>, now_ms: u64) -> Self {
        let secure = start.kind == RoundKind::Train && plan.is_secure();
        let mut slot = Self {
            start: *start,
            plan,
            live: true,
            stage: Stage::Waiting,
            secure,
            letters: Letters::default(),
            deadline_at_ms: 0,
            given_up_at_ms: 0,
        };
        slot.set_deadline(now_ms);
        slot
    }

    fn set_deadline(&mut self, now_ms: u64) {
        let deadline_ms = self.start.deadline_ms.min(DEADLINE_MS_MAX);
        self.deadline_at_ms = now_ms.saturating_add(deadline_ms);
        self.given_up_at_ms = self.deadline_at_ms.saturating_add(deadline_ms);
    }

    /// The same round and base again: what is done already counts for the new attempt.
    pub(super) fn readdress(&mut self, start: &RoundStart, plan: Arc<TaskPlan>, now_ms: u64) {
        if self.start.address != start.address {
            self.mark_unsent(None);
            self.letters = Letters::default();
            if self.secure && matches!(self.stage, Stage::Sealed { .. }) {
                // Masked under keys that are burned. Training again gives the same update.
                self.stage = Stage::Waiting;
            }
        }
        (self.start, self.plan) = (*start, plan);
        self.live = true;
        self.set_deadline(now_ms);
    }

    pub(super) fn job(&self) -> Option<JobId> {
        if let Stage::Working(job) = self.stage { Some(job) } else { None }
    }

    pub(super) fn is_working(&self, job: JobId) -> bool {
        self.job() == Some(job)
    }

    pub(super) fn seal(&mut self, sealed: Arc<Sealed>, now_ms: u64) {
        let kept_until_ms = now_ms.saturating_add(SEALED_KEPT_MS_MAX);
        self.stage = Stage::Sealed { sealed, sent: false, resend_at_ms: None, kept_until_ms };
    }

    /// The update has to be sent (again), at once or from a given time.
    pub(super) fn mark_unsent(&mut self, from_ms: Option<u64>) {
        if let Stage::Sealed { sent, resend_at_ms, .. } = &mut self.stage {
            *sent = false;
            *resend_at_ms = from_ms;
        }
    }

    /// The update, if it is to be sent now; from here on it counts as sent.
    pub(super) fn take_upload(&mut self) -> Option<(Address, Arc<Sealed>)> {
        match &mut self.stage {
            Stage::Sealed { sealed, sent: sent @ false, resend_at_ms: None, .. } if self.live => {
                *sent = true;
                Some((self.start.address, Arc::clone(sealed)))
            }
            _ => None,
        }
    }

    /// Clears a resend time that has come.
    pub(super) fn make_due(&mut self, now_ms: u64) {
        if let Stage::Sealed { resend_at_ms, .. } = &mut self.stage {
            resend_at_ms.take_if(|at_ms| *at_ms <= now_ms);
        }
    }

    pub(super) fn timeout_ms(&self) -> u64 {
        match self.stage {
            Stage::Waiting => self.deadline_at_ms,
            Stage::Working(_) => self.given_up_at_ms,
            Stage::Sealed { resend_at_ms, kept_until_ms, .. } => resend_at_ms.unwrap_or(u64::MAX).min(kept_until_ms),
        }
    }

    pub(super) fn is_expired(&self, now_ms: u64) -> bool {
        match self.stage {
            Stage::Waiting => self.deadline_at_ms <= now_ms,
            Stage::Working(_) => self.given_up_at_ms <= now_ms,
            Stage::Sealed { kept_until_ms, .. } => kept_until_ms <= now_ms,
        }
    }
}
