//! What a run's machine is built from.

use starling_spec::task::GROUPS_MIN;
use starling_spec::{DpMechanism, FederationSection, TaskPlan};
use starling_wire::{RunId, TaskId};

use crate::cohort::Coins;

/// What a run is, fixed at its start.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// The task.
    pub task: TaskId,
    /// The run.
    pub run: RunId,
    /// The seed of cohorts.
    pub seed: u64,
    /// What the coins of `participation = "poisson"` are tossed by.
    pub coins: Coins,
    /// How often and how close together a device may take part; none where that does not matter.
    pub turns: Option<Turns>,
    /// Fractions, quorum, deadline, rounds.
    pub federation: FederationSection,
    /// Tensors of the network's manifest: what a device's ranges are counted by.
    pub tensors: usize,
    /// How many devices a round takes, where updates are summed under masks.
    pub secure_cohort: Option<SecureCohort>,
}

/// How many devices a round of secure sums takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecureCohort {
    /// Fewer are not asked: enough to fill the smallest group of each.
    pub asked_min: usize,
    /// With fewer updates it comes to nothing: the smallest groups that still have a middle.
    pub summed_min: usize,
    /// More are not asked.
    pub max: usize,
}

impl SecureCohort {
    /// What `plan` asks for.
    pub fn of(plan: &TaskPlan) -> Option<Self> {
        let privacy = plan.privacy.as_ref().filter(|_| plan.is_secure())?;
        let (groups, least) = (privacy.asked.groups.max(1), usize::from(privacy.asked.cohort_min));
        Some(Self {
            asked_min: usize::from(groups) * least,
            summed_min: usize::from(groups.min(GROUPS_MIN)) * least,
            max: privacy.cohort_max as usize,
        })
    }
}

/// How often and how close together a device may take part: what the price of noise with a memory rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turns {
    /// The most rounds that one device's updates are in.
    pub participations_max: u32,
    /// The least distance between the numbers of two of them.
    pub separation_min: u32,
}

impl Turns {
    /// What `plan` asks for: tree aggregation limits them.
    pub fn of(plan: &TaskPlan) -> Option<Self> {
        match plan.privacy.as_ref()?.asked.dp.as_ref()?.mechanism {
            DpMechanism::Tree { participations_max, separation_min } => {
                Some(Self { participations_max, separation_min })
            }
            _ => None,
        }
    }

    /// Whether a device that has had `turn` may be in `round`.
    pub fn allow(&self, turn: Turn, round: u32) -> bool {
        let first = turn.count == 0;
        first || turn.count < self.participations_max && round.saturating_sub(turn.last) >= self.separation_min
    }
}

/// What one device has had of its turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turn {
    /// Committed rounds that it is in.
    pub count: u32,
    /// The last of them.
    pub last: u32,
}

impl Turn {
    /// With one more, in `round`.
    #[must_use]
    pub fn then(self, round: u32) -> Self {
        Self { count: self.count.saturating_add(1), last: round }
    }
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
