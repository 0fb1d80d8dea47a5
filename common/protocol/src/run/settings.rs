//! What a run's machine is built from.

use starling_spec::FederationSection;
use starling_wire::{RunId, TaskId};

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
    /// Tensors of the network's manifest: what a device's ranges are counted by.
    pub tensors: usize,
    /// The smallest and the largest cohort of a secure sum, where updates are summed under masks.
    pub secure_cohort: Option<(usize, usize)>,
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
