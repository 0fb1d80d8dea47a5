//! What travels between a device and its aggregator, as types and as bytes: ids, limits, control messages, the
//! frame codec, the blob header and the refusal codes.
//!
//! This crate opens no socket, reads no clock and draws no entropy (invariant 7). It holds invariant 8 for everything
//! that is decoded here: a length that a peer declares is compared with its limit before anything is allocated.
//! `docs/PROTOCOL.md` draws the bytes.

#[macro_use]
mod reasons;

pub mod blob;
pub mod distrust;
pub mod enrol;
pub mod frame;
pub mod ids;
pub mod join_string;
pub mod limits;
pub mod message;
pub mod policy;
pub mod reader;
pub mod refusal;
pub mod release;
pub mod roll;
pub mod secure;

pub use blob::{BLOB_HEADER_BYTES, BlobHeader, BlobKind, CodecId, HeaderError};
pub use distrust::Distrust;
pub use enrol::{Credential, FromAuthority, JoinRequest, LateRenewal, PublicKey, RenewRequest, ToAuthority};
pub use frame::{FrameError, decode, encode};
pub use ids::{Address, DeviceId, Digest, Identity, ParseIdError, Role, RunId, TaskId};
pub use join_string::{JoinString, JoinStringError, Token};
pub use message::{
    Available, Decline, Evaluation, Fetch, Hello, ModelRef, Receipt, RoundKind, RoundStart, RunPlan, Statistics,
    ToAggregator, ToClient, UpdateReport, ValueRange, Verdict, WantReceipt, Welcome,
};
pub use policy::PolicyRule;
pub use reader::{Malformed, Reader};
pub use refusal::Refusal;
pub use release::{OfferedRelease, RELEASE_RUN, ReleaseOffer, ReleaseRefusal, ReleaseReport, Standing};
pub use roll::{Enrolment, Roll};
pub use secure::{Letters, SecureLetter, SecureMail, SecurePart};

/// The version of the protocol that this build speaks; a hello offers a range of them.
pub const PROTOCOL_VERSION: u16 = 1;

/// The ALPN identifier of the protocol's first major version.
pub const ALPN: &[u8] = b"starling/1";

/// The ALPN identifier of an administrator's connection: requests and answers of the aggregator's local socket, each on a stream of its own.
pub const ADMIN_ALPN: &[u8] = b"starling-admin/1";

/// The ALPN identifier of the exchange by which a machine without a certificate gets one. A connection of this kind can
/// do nothing else.
pub const JOIN_ALPN: &[u8] = b"starling-join/1";
