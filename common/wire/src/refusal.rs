//! The closed list of reasons for which a peer is refused. Codes are stable: they travel as QUIC error codes, appear in
//! logs and in exit messages, and are never given a second meaning.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a peer, a frame or a blob was refused. The fault is the peer's, and the text says what to do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum Refusal { $($(#[$doc])* $name = $code),* }

        impl Refusal {
            /// Every reason there is, in the order of their positions.
            pub const ALL: &[Refusal] = &[$(Refusal::$name),*];

            /// What is wrong and what to do, in words.
            pub fn text(self) -> &'static str {
                match self { $(Refusal::$name => $text),* }
            }

            /// The stable name in logs.
            pub fn name(self) -> &'static str {
                match self { $(Refusal::$name => stringify!($name)),* }
            }
        }
    };
}

refusals! {
    // The connection.
    /// No common protocol version.
    VersionNotSpoken = 1, "no protocol version is spoken by both sides; update the older one";
    /// The certificate chains to no CA known here.
    ForeignCertificate = 2, "the certificate was issued by another CA; enrol with this aggregator's CA";
    /// The certificate is outside its validity.
    CertificateExpired = 3, "the certificate has expired or is not valid yet; renew it, or check the clock";
    /// The certificate's role may not do this.
    WrongRole = 4, "the certificate's role may not do this; connect with a certificate of the right role";
    /// The hello named somebody else than the certificate.
    NameMismatch = 5, "the name in the hello is not the one in the certificate";
    /// No usable identity in the certificate.
    NoIdentity = 6, "the certificate carries no Starling identity; issue one with `starling certs issue`";
    /// The first frame was no hello, or none came in time.
    NoHello = 7, "no hello arrived first and in time";
    /// As many connections as the configuration allows.
    Busy = 8, "the aggregator holds as many connections as it is configured for; try again later";
    /// The daemon is stopping.
    ShuttingDown = 9, "the peer is shutting down; connect again later";
    /// The same device connected again.
    Superseded = 10, "the same device has opened a newer connection";
    // Frames.
    /// A frame's length is over its limit.
    FrameTooLarge = 20, "a control frame declares more bytes than allowed";
    /// A frame could not be decoded.
    MalformedFrame = 21, "a control frame could not be decoded";
    /// A frame that its sender may not send now.
    UnexpectedFrame = 22, "a control frame came that is not expected in this state";
    /// A peer made no progress.
    Stalled = 23, "a transfer made no progress in time";
    // Blobs.
    /// The header is malformed.
    MalformedHeader = 30, "a blob's header could not be decoded";
    /// The length differs from the one that the plan fixes.
    LengthMismatch = 31, "a blob's length is not the one that the round's plan fixes";
    /// The bytes do not have the digest that the header promised.
    DigestMismatch = 32, "a blob's bytes do not have the digest in its header";
    /// The codec is not the plan's.
    CodecMismatch = 33, "a blob's codec is not the one that the round's plan fixes";
    /// No such run here.
    UnknownRun = 34, "no such run is open for this device";
    /// No such blob here.
    UnknownBlob = 35, "no blob of that digest is offered";
    // Updates.
    /// The round is over.
    RoundClosed = 40, "the round of this update has been closed";
    /// The attempt was given up.
    StaleAttempt = 41, "the attempt of this update has been given up";
    /// The device was not selected.
    NotInCohort = 42, "the device is not in the round's cohort";
    /// The device has contributed already.
    Duplicate = 43, "the device has already contributed to this round";
    /// The weight is zero or over the plan's cap.
    WeightOutOfRange = 44, "the update's weight is zero or over the cap of the round's plan";
    /// A value is not finite.
    NotFinite = 45, "the update holds a value that is not finite";
    /// A value, or the norm of all, is beyond the plan's bound.
    OutOfRange = 46, "the update holds a value, or has a norm, beyond the bound of the round's plan";
    /// The payload does not decode.
    MalformedUpdate = 47, "the update's payload could not be decoded";
    /// Nothing more can be staged.
    StagingFull = 48, "the aggregator can stage no further update now; send it again later";
    /// Our own fault.
    Internal = 99, "the peer failed in a way that is its own fault; its log says more";
    // Enrolment and standing: positions follow those above, because a position is never given a second meaning.
    /// The operator has thrown the device out.
    Revoked = 50, "the operator has revoked this device; it has to be enrolled anew";
    /// The operator has suspended the device.
    Suspended = 51, "the operator has suspended this device; it may come back when it is resumed";
    /// Two holders of one identity were seen.
    ClonedKey = 52, "this device's key is in use in two places, or has been replaced by a newer one; the operator has to look";
    /// No issuing key is configured.
    EnrolmentOff = 53, "this aggregator issues no certificates; ask its operator for one";
    /// No such token.
    TokenUnknown = 54, "the join string's token is not known here; ask the operator for a new join string";
    /// The token is bound to another key.
    TokenUsed = 55, "the join string has been used by another device; tell the operator, and ask for a new one";
    /// The token is too old.
    TokenExpired = 56, "the join string has expired; ask the operator for a new one";
    /// Too many failures from one address, or from everywhere.
    TooManyAttempts = 57, "too many requests that failed; wait a minute";
    /// The operator has not decided yet.
    PendingApproval = 58, "the operator has not approved this device yet";
    /// The operator has said no.
    Rejected = 59, "the operator has rejected this device";
    /// A signature that does not show what it should.
    BadProof = 60, "the request is not signed by the keys that it names";
    /// The certificate expired longer ago than the operator's grace.
    GraceOver = 61, "the certificate expired longer ago than this aggregator renews it for; enrol anew";
    /// Nobody of that identity is enrolled.
    UnknownDevice = 62, "no device of that identity is enrolled here; enrol anew";
    // Administration.
    /// A certificate or a user that may not administer anything.
    MayNotAdminister = 70, "an aggregator is administered with the certificate of an operator, a publisher or an auditor";
    /// The role does not allow it.
    NotPermitted = 71, "the role does not allow this; `starling-aggregator access` prints what each role may do";
    /// The request names files of the aggregator's machine.
    OnlyHere = 72, "this can be asked for only at the aggregator's own machine, over its local socket";
    // Secure aggregation (`starling-secagg`): why a device leaves an attempt, or a message of one is not taken.
    /// Bytes that are no message of secure aggregation.
    SecureMalformed = 100, "a message of secure aggregation could not be decoded";
    /// A message of another phase.
    SecureOutOfTurn = 101, "a message of secure aggregation came out of turn";
    /// A message of another attempt or setup.
    SecureOtherAttempt = 102, "a message of secure aggregation belongs to another attempt, or to one that was set up otherwise";
    /// A setup that contradicts itself.
    SecureSetup = 103, "the secure sum's setup cannot be carried out";
    /// A setup below the owner's policy.
    SecureWeakSetup = 104, "the secure sum's setup protects less than the device's policy asks for";
    /// No safe threshold, or too many devices.
    SecureTopology = 105, "there is no safe graph for a cohort of this size and these assumptions";
    /// Too few devices to hide among.
    SecureTinyCohort = 106, "the cohort is smaller than the device's owner allows";
    /// A device or a key is in the roster twice.
    SecureDuplicateMember = 107, "the roster holds a device or a key twice";
    /// A member without a certificate.
    SecureUncertifiedMember = 108, "the roster names a device without a valid certificate";
    /// Keys that their device did not sign.
    SecureSwappedKeys = 109, "the roster holds keys that are not signed by their device for this round";
    /// Keys of low order.
    SecureWeakKeys = 110, "the roster holds keys with which every mask would be known";
    /// The device's own keys are missing or changed.
    SecureOwnKeysChanged = 111, "the roster does not hold the device's own keys";
    /// A member of another round or attempt.
    SecureStaleMember = 112, "the roster holds keys that were advertised for another round or attempt";
    /// A member with another model.
    SecureOtherModel = 113, "the devices of the round were given different models";
    /// A second roster.
    SecureSecondRoster = 114, "a second roster was sent for the same attempt";
    /// Too few neighbours with shares.
    SecureTooFewHolders = 115, "too few of the device's neighbours have shared their secrets";
    /// An envelope that does not open.
    SecureBadEnvelope = 116, "an envelope does not open";
    /// Other envelopes.
    SecureSecondEnvelopes = 117, "other envelopes were sent for the same attempt";
    /// A vector of another length.
    SecureVectorLength = 118, "a vector is not as long as the round's setup says";
    /// An input beyond the bound.
    SecureInputRange = 119, "the device's input is beyond the bound of the round's setup";
    /// Another weight cap than the plan's.
    SecureInflatedWeight = 120, "the secure sum's setup counts devices by another weight than the plan";
    /// Too few survivors.
    SecureTooFewSurvivors = 121, "fewer devices have survived than this device helps to unmask";
    /// The device was left out.
    SecureNotASurvivor = 122, "the survivor list leaves the device out";
    /// A survivor without shares.
    SecureSurvivorNeverShared = 123, "the survivor list names a device that never shared its secrets";
    /// Survivors in pieces.
    SecureSurvivorsSplit = 124, "the survivors fall into pieces whose sums could be told apart";
    /// A second survivor list.
    SecureSecondSurvivors = 125, "a second survivor list was sent for the same attempt";
    /// Devices were shown different lists.
    SecureSurvivorsDisagree = 126, "another device was shown another survivor list";
    /// Too few confirmations.
    SecureTooFewConfirmations = 127, "too few neighbours have confirmed the survivor list";
    /// Both shares of one device.
    SecureBothShares = 128, "both shares of one device were asked for";
    /// The other share.
    SecureForbiddenShare = 129, "a share was asked for that the survivor list does not allow";
    /// A second request.
    SecureSecondUnmasking = 130, "a second request for shares was sent for the same attempt";
    /// The attempt is not new.
    SecureReplayedRound = 131, "the round and attempt have been begun before";
    /// The entropy is not new.
    SecureReusedSeed = 132, "the device's entropy source has repeated itself; look at the device";
    /// The state is an older copy.
    SecureRolledBack = 133, "the device's state folder is an older copy of itself";
    /// The keys are gone.
    SecureBurned = 134, "the device has burned its keys of this attempt";
    /// Somebody who is not expected.
    SecureUnexpectedMember = 135, "the device is not expected in this phase of the attempt, or has answered otherwise before";
    /// Too few of the cohort are known to the device's witnesses.
    SecureUnwitnessedCohort = 136, "too few devices of the cohort are in the audit log under a checkpoint that the device's witnesses have co-signed; let a witness co-sign";
}

impl Refusal {
    /// The stable number, which is also the QUIC application error code.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The refusal that `code` stands for.
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|refusal| u64::from(refusal.code()) == code)
    }

    /// Whether trying again, unchanged, can ever help.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Refusal::VersionNotSpoken
                | Refusal::ForeignCertificate
                | Refusal::CertificateExpired
                | Refusal::WrongRole
                | Refusal::NameMismatch
                | Refusal::NoIdentity
                | Refusal::Revoked
                | Refusal::ClonedKey
                | Refusal::EnrolmentOff
                | Refusal::TokenUnknown
                | Refusal::TokenUsed
                | Refusal::TokenExpired
                | Refusal::Rejected
                | Refusal::GraceOver
                | Refusal::UnknownDevice
                | Refusal::MayNotAdminister
                | Refusal::NotPermitted
                | Refusal::OnlyHere
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {} {})", self.text(), self.code(), self.name())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_read_back() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from_code(u64::from(refusal.code())), Some(*refusal));
        }
        assert_eq!(Refusal::from_code(0), None);
    }
}
