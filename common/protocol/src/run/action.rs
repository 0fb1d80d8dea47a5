//! What a run's driver is told to do.

use std::collections::BTreeSet;

use starling_wire::{Address, DeviceId, Refusal, RoundKind};

use super::answers::Answer;
use super::secure::Stage;

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
    /// Close a stage of a secure sum and report [`handle_closed`](super::RunMachine::handle_closed).
    Close {
        /// Which round.
        address: Address,
        /// Which stage.
        stage: Stage,
    },
    /// Tell `device` again what the open stage of a secure sum asks of it.
    Remind {
        /// Whom.
        device: DeviceId,
        /// Which round.
        address: Address,
    },
    /// Make a version of the contributions, durably, and call [`handle_committed`](super::RunMachine::handle_committed).
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
    /// A round that makes no version is complete.
    Answered {
        /// That round; of an evaluation between rounds of training, the one that it followed.
        address: Address,
        /// What the devices found out together.
        answer: Answer,
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
    /// It leaves a secure sum before anything of it is in: the driver tells the sum.
    DropOut,
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
    /// Another round would spend more of its devices' privacy than the task allows.
    Budget,
}
