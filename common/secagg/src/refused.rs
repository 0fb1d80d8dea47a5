//! Why a message, a setup or a request was refused. Each way of cheating has a reason of its own.

use starling_wire::{DeviceId, Malformed, Refusal};

use crate::graph::TopologyError;
use crate::vector::PackedError;

/// Why a machine refuses. After one of the reasons that [`Refused::burns`] names, a device takes no further part in the attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Bytes that are no message.
    #[error("a message of secure aggregation is malformed: {0}")]
    Malformed(&'static str),
    /// A message that belongs to a later or earlier phase.
    #[error("a message of secure aggregation came out of turn: {0}")]
    OutOfTurn(&'static str),
    /// A message of another attempt, or of one that was set up otherwise.
    #[error("a message belongs to another attempt, or to one that was set up otherwise")]
    OtherAttempt,
    /// The setup contradicts itself.
    #[error("the round's setup is unusable: {0}")]
    Setup(&'static str),
    /// The setup asks for less than the owner's policy does.
    #[error("the round's setup protects less than this device's policy asks for: {0}")]
    WeakSetup(&'static str),
    /// The cohort has no safe threshold.
    #[error("the cohort has no safe graph")]
    Topology(#[from] TopologyError),
    /// Too few devices to hide among.
    #[error("a cohort of {got} devices; this device takes part with at least {wanted}")]
    TinyCohort {
        /// Devices there are.
        got: usize,
        /// Devices there have to be.
        wanted: usize,
    },
    /// Too few devices that the owner's witnesses know, or too many that they do not.
    #[error(
        "{witnessed} devices that this device's witnesses know, of at least {wanted}, and {others} that they do not, of at most {others_max}"
    )]
    Unwitnessed {
        /// Devices that count.
        witnessed: usize,
        /// How many of those there have to be.
        wanted: usize,
        /// Devices that do not.
        others: usize,
        /// How many of those the setup's colluders allow.
        others_max: usize,
    },
    /// More devices than the setup allows.
    #[error("a cohort of {got} devices, where the setup allows {allowed}")]
    CohortTooLarge {
        /// Devices there are.
        got: usize,
        /// Devices that are allowed.
        allowed: usize,
    },
    /// One device, or one key, is in the roster twice.
    #[error("device {0} is in the roster twice, or shares a key with another")]
    DuplicateMember(DeviceId),
    /// Nobody of that identity is certified.
    #[error("the roster names {0}, for which there is no valid certificate")]
    UncertifiedMember(DeviceId),
    /// The keys are not those that the device signed.
    #[error("the keys of {0} in the roster are not signed by that device for this round")]
    SwappedKeys(DeviceId),
    /// The keys are of low order.
    #[error("the keys of {0} in the roster would make every mask known to everybody")]
    WeakKeys(DeviceId),
    /// This device is not in the roster as it advertised itself.
    #[error("the roster does not hold this device's own keys as it advertised them")]
    OwnKeysChanged,
    /// A member advertised itself for another round or attempt.
    #[error("{0} advertised its keys for another round or attempt")]
    StaleMember(DeviceId),
    /// A member trains from another model.
    #[error("{0} was given another model to train from")]
    OtherModel(DeviceId),
    /// A second roster for the same attempt.
    #[error("a second roster was sent for the same attempt")]
    SecondRoster,
    /// Too few neighbours have shared their secrets.
    #[error("{got} holders of shares around this device; {wanted} are needed")]
    TooFewHolders {
        /// Holders there are.
        got: usize,
        /// Holders there have to be.
        wanted: usize,
    },
    /// An envelope does not open.
    #[error("the envelope from {0} does not open, or holds no shares")]
    BadEnvelope(DeviceId),
    /// A second, different set of envelopes.
    #[error("other envelopes were sent for the same attempt")]
    SecondEnvelopes,
    /// The input does not have the setup's number of coordinates.
    #[error("an input of {got} coordinates; the setup has {wanted}")]
    InputLength {
        /// Coordinates there are.
        got: usize,
        /// Coordinates there have to be.
        wanted: usize,
    },
    /// The input is beyond the setup's bound.
    #[error("coordinate {index} of the input is beyond the bound of {bound}")]
    InputRange {
        /// Where.
        index: usize,
        /// The setup's bound on magnitudes.
        bound: u64,
    },
    /// The weight is beyond the owner's or the plan's cap.
    #[error("a device is to count as {got} examples at most, where the plan says {wanted}")]
    InflatedWeight {
        /// The setup's, or the round's.
        got: u32,
        /// The plan's.
        wanted: u32,
    },
    /// A masked vector that does not have the ring's length.
    #[error("a masked vector is none of the round's ring")]
    Packed(#[from] PackedError),
    /// The survivors are too few to hide among.
    #[error("{got} survivors; this device helps to unmask {wanted} or more")]
    TooFewSurvivors {
        /// Survivors there are.
        got: usize,
        /// Survivors there have to be.
        wanted: usize,
    },
    /// The survivors do not include this device.
    #[error("the survivor list leaves this device out; it takes no further part")]
    NotASurvivor,
    /// A survivor never shared its secrets.
    #[error("the survivor list names {0}, which shared no secrets with this device")]
    SurvivorNeverShared(DeviceId),
    /// The survivors fall into pieces.
    #[error("the survivors fall into pieces whose sums could be told apart")]
    SurvivorsSplit,
    /// A second survivor list.
    #[error("a second, different survivor list was sent for the same attempt")]
    SecondSurvivors,
    /// Another device confirmed another list.
    #[error("{0} did not confirm the survivor list that this device was shown")]
    SurvivorsDisagree(DeviceId),
    /// Too few confirmations.
    #[error("{got} confirmations of the survivor list; {wanted} are needed")]
    TooFewConfirmations {
        /// Confirmations there are.
        got: usize,
        /// Confirmations there have to be.
        wanted: usize,
    },
    /// Both shares of one device were asked for.
    #[error("both shares of {0} were asked for; together they reveal its input")]
    BothShares(DeviceId),
    /// The share that the survivor list does not allow.
    #[error("the share of {0} that was asked for is not the one that the survivor list allows")]
    ForbiddenShare(DeviceId),
    /// A second, different request for shares.
    #[error("a second, different request for shares was sent for the same attempt")]
    SecondUnmasking,
    /// The round and attempt have been begun before.
    #[error("run {run} round {round} attempt {attempt} is not later than one that this device has begun already")]
    ReplayedRound {
        /// The run.
        run: u32,
        /// The round.
        round: u32,
        /// The attempt.
        attempt: u16,
    },
    /// The entropy was used before.
    #[error("the entropy source gave a seed that was used before; it cannot be trusted")]
    ReusedSeed,
    /// The guard is older than the trusted counter.
    #[error("the state folder is older than the trusted counter says: {begun} attempts begun here, {counted} counted")]
    RolledBack {
        /// What the guard says.
        begun: u64,
        /// What the counter says.
        counted: u64,
    },
    /// The keys of this attempt are gone.
    #[error("the keys of this attempt have been burned; only what was sent before can be sent again")]
    Burned,
    /// Not a member.
    #[error("{0} is not expected in this phase of the attempt")]
    Unexpected(DeviceId),
}

impl Refused {
    /// The code under which the peer is told.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Malformed(_) => Refusal::SecureMalformed,
            Self::OutOfTurn(_) => Refusal::SecureOutOfTurn,
            Self::OtherAttempt => Refusal::SecureOtherAttempt,
            Self::Setup(_) => Refusal::SecureSetup,
            Self::WeakSetup(_) => Refusal::SecureWeakSetup,
            Self::Topology(_) | Self::CohortTooLarge { .. } => Refusal::SecureTopology,
            Self::TinyCohort { .. } => Refusal::SecureTinyCohort,
            Self::Unwitnessed { .. } => Refusal::SecureUnwitnessedCohort,
            Self::DuplicateMember(_) => Refusal::SecureDuplicateMember,
            Self::UncertifiedMember(_) => Refusal::SecureUncertifiedMember,
            Self::SwappedKeys(_) => Refusal::SecureSwappedKeys,
            Self::WeakKeys(_) => Refusal::SecureWeakKeys,
            Self::OwnKeysChanged => Refusal::SecureOwnKeysChanged,
            Self::StaleMember(_) => Refusal::SecureStaleMember,
            Self::OtherModel(_) => Refusal::SecureOtherModel,
            Self::SecondRoster => Refusal::SecureSecondRoster,
            Self::TooFewHolders { .. } => Refusal::SecureTooFewHolders,
            Self::BadEnvelope(_) => Refusal::SecureBadEnvelope,
            Self::SecondEnvelopes => Refusal::SecureSecondEnvelopes,
            Self::InputLength { .. } | Self::Packed(_) => Refusal::SecureVectorLength,
            Self::InputRange { .. } => Refusal::SecureInputRange,
            Self::InflatedWeight { .. } => Refusal::SecureInflatedWeight,
            Self::TooFewSurvivors { .. } => Refusal::SecureTooFewSurvivors,
            Self::NotASurvivor => Refusal::SecureNotASurvivor,
            Self::SurvivorNeverShared(_) => Refusal::SecureSurvivorNeverShared,
            Self::SurvivorsSplit => Refusal::SecureSurvivorsSplit,
            Self::SecondSurvivors => Refusal::SecureSecondSurvivors,
            Self::SurvivorsDisagree(_) => Refusal::SecureSurvivorsDisagree,
            Self::TooFewConfirmations { .. } => Refusal::SecureTooFewConfirmations,
            Self::BothShares(_) => Refusal::SecureBothShares,
            Self::ForbiddenShare(_) => Refusal::SecureForbiddenShare,
            Self::SecondUnmasking => Refusal::SecureSecondUnmasking,
            Self::ReplayedRound { .. } => Refusal::SecureReplayedRound,
            Self::ReusedSeed => Refusal::SecureReusedSeed,
            Self::RolledBack { .. } => Refusal::SecureRolledBack,
            Self::Burned => Refusal::SecureBurned,
            Self::Unexpected(_) => Refusal::SecureUnexpectedMember,
        }
    }

    /// Whether a device that has refused for this reason drops the attempt and wipes its keys. It goes on after a message that
    /// may merely have been late, and after one that did not get as far as being about this attempt.
    pub fn burns(&self) -> bool {
        !matches!(
            self,
            Self::Malformed(_)
                | Self::OutOfTurn(_)
                | Self::OtherAttempt
                | Self::InputLength { .. }
                | Self::InputRange { .. }
        )
    }
}

impl From<Malformed> for Refused {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}
