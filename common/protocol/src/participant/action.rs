//! What a participant's driver is told to do, and what it answers with.

use std::sync::Arc;

use starling_spec::TaskPlan;
use starling_update::Sealed;
use starling_wire::{Address, Decline, Fetch, ModelRef, RoundStart, RunId, SecureLetter, ToAggregator, ValueRange};

#[cfg(doc)]
use super::Participant;

/// What the device's owner allows (invariant 13). It is asked before any work is done.
pub trait Consent: Send {
    /// Whether the device takes part in this round. A later attempt at it asks again.
    ///
    /// # Errors
    /// The reason that the aggregator is told.
    fn consent(&self, plan: &TaskPlan, start: &RoundStart) -> Result<(), Decline>;
}

/// Names a job of this participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub(super) u64);

/// Work to do on a model that is held. The attempt may change while it runs: what is sent is addressed at the end.
#[derive(Debug, Clone)]
pub struct JobOrder {
    /// Its name.
    pub job: JobId,
    /// How to train.
    pub plan: Arc<TaskPlan>,
    /// The round, with the model that it starts from.
    pub start: RoundStart,
}

/// The figures of an evaluation on the device's own hold-out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Examples in the hold-out.
    pub examples: u64,
    /// Examples classified rightly.
    pub correct: u64,
    /// Sum of the loss over the examples.
    pub loss_sum: f64,
}

/// What a device answers in a round that makes no version.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To an evaluation round.
    Figures(Figures),
    /// To a statistics round: rows that the model was run over, and the range of each tensor's inputs.
    Ranges(u64, Vec<Option<ValueRange>>),
}

/// What the driver has to do.
#[derive(Debug)]
pub enum Action {
    /// Send a control message.
    Send(ToAggregator),
    /// Get a model: send the fetch (with a resume offset, if there is one), receive the blob and report
    /// [`Participant::handle_model_ready`] or [`Participant::handle_model_failed`].
    Fetch(Fetch, ModelRef),
    /// Train, seal, and report [`Participant::handle_trained`]. In a round whose updates are summed under masks, sealing waits for the
    /// other devices' shares, and the round's attempt is the one that is current then.
    Train(JobOrder),
    /// Evaluate or find ranges, as the round's kind says, and report [`Participant::handle_answered`].
    Answer(JobOrder),
    /// The job's result is not wanted any more.
    Stop(JobId),
    /// Send the update; report only a failure.
    Upload(Address, Arc<Sealed>),
    /// Something for the device's part in a secure sum.
    Secure(SecureOrder),
    /// The run is over: what is held of it can go.
    Forget(RunId),
}

/// What the device's part in a secure sum has to do. The first two are answered by [`Participant::handle_secure`].
#[derive(Debug, Clone)]
pub enum SecureOrder {
    /// Enter an attempt with fresh keys; one that was entered already says again what it said.
    Enter {
        /// The plan.
        plan: Arc<TaskPlan>,
        /// The attempt, and the model that every device trains from.
        start: RoundStart,
    },
    /// Answer a message of the aggregator.
    Answer {
        /// The attempt.
        address: Address,
        /// What came.
        letter: SecureLetter,
    },
    /// Burn the keys of the attempt. What training gave stays for the next one.
    Burn(Address),
    /// Leave the round.
    Leave(Address),
}
