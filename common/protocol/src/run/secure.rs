//! A round whose updates are summed under masks: five stages, each a mailbox with a deadline.
//!
//! ```text
//!  Advertise ──▶ Share ──▶ Mask ──▶ Confirm ──▶ Reveal ──▶ commit
//! ```
//!
//! The machine knows who has answered and when a stage is over; what the messages say is `starling-secagg`'s, which the driver asks
//! whenever a stage closes. Devices train while keys and shares go round: only the masks wait for training. Who is late has dropped
//! out, and after the survivors are announced none may leave: then the attempt is given up whole.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use starling_wire::{Address, DeviceId, Refusal};

use super::{Action, Expelled, GRACE_MS, Phase, RunMachine};
use crate::cohort::{Cohort, Member};

/// What part of a round's deadline each stage but the masks has: four of them take as long as training may.
const STAGE_SHARE: u64 = 4;

/// Where a secure sum stands: what devices are waited for to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Fresh keys.
    Advertise,
    /// Shares of their secrets.
    Share,
    /// Masked updates.
    Mask,
    /// Signatures of the survivor list.
    Confirm,
    /// Shares that take the masks off.
    Reveal,
}

impl Stage {
    fn next(self) -> Option<Self> {
        match self {
            Self::Advertise => Some(Self::Share),
            Self::Share => Some(Self::Mask),
            Self::Mask => Some(Self::Confirm),
            Self::Confirm => Some(Self::Reveal),
            Self::Reveal => None,
        }
    }
}

/// A secure sum under way.
#[derive(Debug)]
pub(super) struct Summing {
    pub(super) stage: Stage,
    /// Who is waited for in this stage.
    pub(super) cohort: Cohort,
    /// Everybody who was asked.
    pub(super) asked: BTreeSet<DeviceId>,
    /// Masked updates that complete the round, and those without which it does not.
    goal: usize,
    quorum: usize,
    /// When masked updates are waited for no longer.
    masks_until_ms: u64,
    /// The driver has been told to close the stage.
    closing: bool,
    pub(super) failures: u32,
}

impl Summing {
    /// The first stage of a round for `cohort`, whose deadline is that of training.
    pub(super) fn new(cohort: Cohort, summed_min: usize, now_ms: u64, failures: u32) -> Self {
        let asked: BTreeSet<DeviceId> = cohort.unfinished().collect();
        let (goal, quorum, masks_until_ms) = (cohort.goal, cohort.quorum.max(summed_min), cohort.deadline_at_ms);
        let stage_ms = masks_until_ms.saturating_sub(now_ms) / STAGE_SHARE;
        let cohort = Cohort::new(asked.clone(), goal, quorum, now_ms.saturating_add(stage_ms.max(1)));
        let stage = Stage::Advertise;
        Self { stage, cohort, asked, goal, quorum, masks_until_ms, closing: false, failures }
    }

    /// When the stage is over without further messages.
    pub(super) fn settles_at_ms(&self, now_ms: u64) -> Option<u64> {
        (!self.closing).then(|| self.cohort.settles_at_ms(now_ms, GRACE_MS))
    }

    fn is_over(&self, now_ms: u64) -> bool {
        let enough = self.stage == Stage::Mask && self.cohort.reported().count() >= self.goal;
        enough || self.settles_at_ms(now_ms).is_some_and(|at_ms| at_ms <= now_ms)
    }
}

impl RunMachine {
    /// The stage of the secure sum under way, if `device` may still answer in it: asked before a message is looked at.
    ///
    /// # Errors
    /// The reason to refuse the message with.
    pub fn admit_mail(&self, device: DeviceId, address: &Address, stage: Stage) -> Result<(), Refusal> {
        let current = self.address();
        if address.run != current.run || address.task != current.task {
            return Err(Refusal::UnknownRun);
        }
        if address.round == current.round && address.attempt != current.attempt {
            return Err(Refusal::StaleAttempt);
        }
        match &self.phase {
            Phase::Summing(summing) if *address == current => match summing.stage.cmp(&stage) {
                _ if summing.closing => Err(Refusal::RoundClosed),
                Ordering::Greater => Err(Refusal::RoundClosed),
                Ordering::Less => Err(Refusal::SecureOutOfTurn),
                Ordering::Equal => summing.cohort.admit(device),
            },
            Phase::Waiting { .. } if address.round == current.round => Err(Refusal::StaleAttempt),
            _ => Err(Refusal::RoundClosed),
        }
    }

    /// What `device` sent in `stage` has been accepted.
    pub fn handle_mail(&mut self, now_ms: u64, device: DeviceId, address: &Address, stage: Stage) {
        if self.admit_mail(device, address, stage).is_err() {
            return;
        }
        if let Phase::Summing(summing) = &mut self.phase {
            summing.cohort.set(device, Member::Reported);
        }
        self.advance(now_ms);
    }

    /// The driver has closed the stage that [`Action::Close`] named. `members` are those who are asked in the next stage, after the masks
    /// and from there on the survivors; an error gives the attempt up.
    pub fn handle_closed(&mut self, now_ms: u64, address: &Address, members: Result<BTreeSet<DeviceId>, Refusal>) {
        if *address != self.address() {
            return;
        }
        let Phase::Summing(summing) = &mut self.phase else { return };
        if !std::mem::take(&mut summing.closing) {
            return;
        }
        let Ok(members) = members else { return self.try_again(now_ms) };
        let stage_ms = self.settings.federation.deadline_ms / STAGE_SHARE;
        match summing.stage.next() {
            Some(stage) => {
                let until_ms = now_ms.saturating_add(stage_ms.max(1));
                let until_ms = if stage == Stage::Mask { until_ms.max(summing.masks_until_ms) } else { until_ms };
                summing.stage = stage;
                summing.cohort = Cohort::new(members, summing.goal, summing.quorum, until_ms);
                let away: Vec<DeviceId> =
                    summing.cohort.unfinished().filter(|device| !self.available.contains(device)).collect();
                away.into_iter().for_each(|device| summing.cohort.set(device, Member::Gone(now_ms)));
            }
            None => return self.commit_sum(members),
        }
        self.advance(now_ms);
    }

    pub(super) fn advance_sum(&mut self, now_ms: u64) {
        let address = self.address();
        let Phase::Summing(summing) = &mut self.phase else { return };
        if summing.closing || !summing.is_over(now_ms) {
            return;
        }
        // Whoever confirms or reveals is one of the survivors, of whom there are enough; how many of them have to answer is for the shares.
        let wanted = match summing.stage {
            Stage::Advertise | Stage::Share | Stage::Mask => summing.quorum,
            Stage::Confirm | Stage::Reveal => 1,
        };
        if summing.cohort.reported().count() < wanted {
            return self.try_again(now_ms);
        }
        summing.closing = true;
        self.actions.push_back(Action::Close { address, stage: summing.stage });
    }

    /// A device that is back is told again what the stage asks of it.
    pub(super) fn remind(&mut self, now_ms: u64, device: DeviceId) {
        let address = self.address();
        let Phase::Summing(summing) = &mut self.phase else { return };
        if matches!(summing.cohort.get(device), Some(Member::Pending | Member::Gone(_))) {
            summing.cohort.set(device, Member::Pending);
            let deadline_ms = summing.masks_until_ms.saturating_sub(now_ms).max(1);
            let (kind, stage) = (starling_wire::RoundKind::Train, summing.stage);
            self.actions.push_back(Action::Start { device, address, kind, deadline_ms });
            if stage > Stage::Advertise {
                self.actions.push_back(Action::Remind { device, address });
            }
        }
    }

    /// A device leaves a secure sum for good.
    pub(super) fn expel_from_sum(&mut self, now_ms: u64, device: DeviceId) -> Expelled {
        let Phase::Summing(summing) = &mut self.phase else { return Expelled::Nothing };
        let is_in = match summing.stage {
            Stage::Advertise | Stage::Share => false,
            Stage::Mask => summing.cohort.get(device) == Some(Member::Reported),
            // Who does not confirm is in the sum all the same.
            Stage::Confirm | Stage::Reveal => summing.cohort.get(device).is_some(),
        };
        if is_in {
            self.try_again(now_ms);
            return Expelled::Abandoned;
        }
        match summing.cohort.get(device) {
            None => Expelled::Nothing,
            Some(_) => {
                summing.cohort.expel(device);
                Expelled::DropOut
            }
        }
    }

    fn commit_sum(&mut self, contributors: BTreeSet<DeviceId>) {
        let address = self.address();
        let phase = std::mem::replace(&mut self.phase, Phase::Finished);
        let Phase::Summing(summing) = phase else { unreachable!("only a secure sum is committed here") };
        let mut cohort = Cohort::new(contributors.clone(), 0, 0, 0);
        contributors.iter().for_each(|device| cohort.set(*device, Member::Reported));
        let left = summing.asked.iter().filter(|device| !contributors.contains(device));
        let end = |device: &DeviceId| Action::End { device: *device, address, reason: Refusal::RoundClosed };
        self.actions.extend(left.map(end));
        self.actions.push_back(Action::Commit { address, contributors, cohort: summing.asked.len() });
        self.phase = Phase::Committing(cohort);
    }
}
