//! The closed list of reasons for which a device does not believe a signed release or plan. `starling-trust` finds them; they
//! travel in a refusal of a release and in a declined round. Codes are stable and lie apart from those of [`crate::Refusal`].

use std::fmt;

use serde::{Deserialize, Serialize};

reasons! {
    /// Why a release or a plan is not believed.
    Distrust:
    /// Nothing signed came along.
    Unsigned = 200, "it is not signed, and the device has pinned a root of trust; publish it with --bundle";
    /// More bytes than any such thing may have.
    TooLarge = 201, "what came along to vouch for it is larger than allowed";
    /// Not the one encoding of anything.
    Malformed = 202, "what came along to vouch for it cannot be read; make the bundle again";
    /// Another kind of document than asked for.
    WrongKind = 203, "the bundle holds another kind of statement than is needed here";
    /// A document of another fleet.
    OtherOrigin = 204, "it is signed for another fleet: the device has pinned another root";
    /// Too few keys that count have signed.
    TooFewSignatures = 205, "too few of the keys that count have signed it; more key holders have to sign";
    /// A signature that is not that of its key.
    WrongSignature = 206, "a signature is wrong: the statement was changed, or another key made it";
    /// An older version than one seen.
    Rollback = 207, "the device has seen a later version; sign it again with a higher one";
    /// Two documents of one version.
    Equivocation = 208, "the device has seen another statement of the same version; sign it again with a higher one";
    /// Past its date.
    Expired = 209, "its statement or the freshness statement has run out; sign a new one, or check the device's clock";
    /// Not what is named as the newest.
    NotCurrent = 210, "the freshness statement names another one as the newest; publish the two that belong together";
    /// Nothing says what is the newest.
    NoCurrent = 211, "no freshness statement came along; add one with `starling publish freshness`";
    /// Nobody may publish for the task.
    NoPublisher = 212, "the root lets nobody publish for this task";
    /// About another task.
    WrongTask = 213, "the statement is about another task";
    /// A root is missing between two.
    RootGap = 214, "roots between the device's and the newest one are missing in the bundle";
    /// A newer root exists.
    StaleRoot = 215, "a newer root exists and was not sent along";
    /// More bytes than were signed.
    TooLong = 216, "more bytes came than were signed; the transfer was stopped";
    /// Fewer bytes than were signed.
    TooShort = 217, "fewer bytes came than were signed";
    /// Other bytes than were signed.
    DigestMismatch = 218, "the bytes that came are not those that were signed";
    /// Not what the device once verified.
    NotHeld = 219, "the device has not verified it, or has verified a newer one since";
    /// What was offered is not what the statement says.
    NotAsSigned = 220, "version, length or digest are announced otherwise than they were signed";
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {} {})", self.text(), self.code(), self.name())
    }
}

impl std::error::Error for Distrust {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Refusal;

    #[test]
    fn codes_are_distinct_among_themselves_and_from_refusals() {
        let mut codes: Vec<u16> = Distrust::ALL.iter().map(|reason| reason.code()).collect();
        assert!(codes.is_sorted());
        codes.extend(Refusal::ALL.iter().map(|refusal| refusal.code()));
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }
}
