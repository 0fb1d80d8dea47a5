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
    /// A value is beyond the plan's bound.
    OutOfRange = 46, "the update holds a value beyond the bound of the round's plan";
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
