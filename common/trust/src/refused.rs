//! The closed list of reasons for which a device does not believe a document or an artefact.

use starling_wire::{Distrust, Malformed};

use crate::key::KeyId;

/// Why something is not believed, with the figures. [`Refused::reason`] is what travels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// More bytes than any such thing may have.
    #[error("{what}: {got} bytes, expected at most {max}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its size, bytes or items.
        got: u64,
        /// The limit.
        max: u64,
    },
    /// Bytes that are not the one encoding of anything.
    #[error("the document is malformed: {0}")]
    Malformed(&'static str),
    /// Another kind of document than the place asks for.
    #[error("expected a {expected} statement, got a {got} statement")]
    WrongKind {
        /// What the place asks for.
        expected: &'static str,
        /// What it is.
        got: &'static str,
    },
    /// A document of another fleet.
    #[error("the document belongs to another root of trust; it was made for a different fleet")]
    OtherOrigin,
    /// Too few keys that count have signed.
    #[error("{have} of the {need} signatures needed are there; more key holders have to sign")]
    TooFewSignatures {
        /// Keys that count.
        have: usize,
        /// The threshold.
        need: usize,
    },
    /// A key that counts, with a signature that is not its own.
    #[error("the signature of key {0} is wrong; the document was changed or another one was signed")]
    WrongSignature(KeyId),
    /// An older version than one already seen.
    #[error("version {got} of the {what} is older than {seen}, which this device has seen")]
    Rollback {
        /// What it is.
        what: &'static str,
        /// The version offered.
        got: u64,
        /// The version seen.
        seen: u64,
    },
    /// Two different documents of one version.
    #[error("version {version} of the {what} is not the one that this device has seen under that number")]
    Equivocation {
        /// What it is.
        what: &'static str,
        /// The version that both claim.
        version: u64,
    },
    /// Past its date.
    #[error(
        "the {what} expired at {expires_unix_s} (seconds since 1970), and it is {now_unix_s}; ask the publisher for a newer \
         one, or check the clock"
    )]
    Expired {
        /// What it is.
        what: &'static str,
        /// Its date.
        expires_unix_s: u64,
        /// The time it was compared with: the clock, or a later time that a signature vouches for.
        now_unix_s: u64,
    },
    /// Not what the freshness statement names.
    #[error("the {what} is not the one that the freshness statement names for task {task:?}")]
    NotCurrent {
        /// Release or plan.
        what: &'static str,
        /// The task.
        task: String,
    },
    /// No freshness statement is known.
    #[error("no freshness statement has come yet, so nothing says what is newest")]
    NoCurrent,
    /// Nobody may publish for the task.
    #[error("the root lets nobody publish for task {0:?}")]
    NoPublisher(String),
    /// A document about another task.
    #[error("the document is about task {got:?}, expected {expected:?}")]
    WrongTask {
        /// The task asked for.
        expected: String,
        /// The task in the document.
        got: String,
    },
    /// A root that does not follow the trusted one.
    #[error("root version {got} does not follow version {trusted}; the roots between them are missing")]
    RootGap {
        /// The version trusted.
        trusted: u64,
        /// The version offered.
        got: u64,
    },
    /// The freshness statement knows a newer root.
    #[error("root version {trusted} is stale: version {newest} exists and was held back")]
    StaleRoot {
        /// The version trusted.
        trusted: u64,
        /// The version that exists.
        newest: u64,
    },
    /// Another number of bytes than was stated.
    #[error("{got} bytes, expected exactly {expected}")]
    LengthMismatch {
        /// The length stated.
        expected: u64,
        /// The length found.
        got: u64,
    },
    /// Other bytes than were stated.
    #[error("the bytes do not have the digest that was signed")]
    DigestMismatch,
    /// Not what this device once verified.
    #[error("the {what} of task {task:?} on this device is not the one that it verified")]
    NotHeld {
        /// Release or plan.
        what: &'static str,
        /// The task.
        task: String,
    },
}

impl Refused {
    /// The reason without its figures, with a stable code.
    pub fn reason(&self) -> Distrust {
        match self {
            Refused::TooLarge { .. } => Distrust::TooLarge,
            Refused::Malformed(_) => Distrust::Malformed,
            Refused::WrongKind { .. } => Distrust::WrongKind,
            Refused::OtherOrigin => Distrust::OtherOrigin,
            Refused::TooFewSignatures { .. } => Distrust::TooFewSignatures,
            Refused::WrongSignature(_) => Distrust::WrongSignature,
            Refused::Rollback { .. } => Distrust::Rollback,
            Refused::Equivocation { .. } => Distrust::Equivocation,
            Refused::Expired { .. } => Distrust::Expired,
            Refused::NotCurrent { .. } => Distrust::NotCurrent,
            Refused::NoCurrent => Distrust::NoCurrent,
            Refused::NoPublisher(_) => Distrust::NoPublisher,
            Refused::WrongTask { .. } => Distrust::WrongTask,
            Refused::RootGap { .. } => Distrust::RootGap,
            Refused::StaleRoot { .. } => Distrust::StaleRoot,
            Refused::LengthMismatch { expected, got } if got > expected => Distrust::TooLong,
            Refused::LengthMismatch { .. } => Distrust::TooShort,
            Refused::DigestMismatch => Distrust::DigestMismatch,
            Refused::NotHeld { .. } => Distrust::NotHeld,
        }
    }
}

/// Refuses a size above its limit, before anything of that size is allocated (invariant 8).
pub(crate) fn within(what: &'static str, got: usize, max: usize) -> Result<(), Refused> {
    if got <= max { Ok(()) } else { Err(Refused::TooLarge { what, got: got as u64, max: max as u64 }) }
}

impl From<Malformed> for Refused {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}
