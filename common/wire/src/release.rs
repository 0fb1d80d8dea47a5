//! Releases on their way to devices: what the aggregator offers, and where a device stands with it.
//!
//! A release is fetched as any blob is, under [`RELEASE_RUN`]: it belongs to a task, not to a run of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::distrust::Distrust;
use crate::ids::{Digest, RunId};

/// The run in a fetch, and in the blob's header, of a release. Runs are numbered from 1.
pub const RELEASE_RUN: RunId = RunId(0);

/// The release of a task that devices are to serve. Sent when a device offers itself for the task, and when a release is
/// published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseOffer {
    /// The task's name.
    pub task: String,
    /// Grows by at least one with each release of the task, from 1.
    pub version: u64,
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Bytes of the file, at most [`crate::limits::RELEASE_BYTES_MAX`].
    pub length: u64,
}

/// A release that is offered, with what publishers signed of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedRelease {
    /// The release.
    pub offer: ReleaseOffer,
    /// A bundle of `starling-trust`, at most [`crate::limits::PLAN_BYTES_MAX`] bytes; empty where nobody signed.
    #[serde(with = "serde_bytes")]
    pub bundle: Vec<u8>,
}

/// Where a device stands with the release that it was offered. The answer to a [`ReleaseOffer`], and sent again when it
/// changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseReport {
    /// The task's name.
    pub task: String,
    /// The version that was offered.
    pub version: u64,
    /// The digest that was offered.
    pub digest: Digest,
    /// What became of it.
    pub standing: Standing,
    /// The version that the device's predictions come from, whichever it is.
    pub serves: Option<u64>,
}

/// What became of a release on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Standing {
    /// It is on the device's disk, but its local socket answers nobody.
    Held,
    /// It is on the disk and predictions come from it.
    Served,
    /// The device does not take it.
    Refused(ReleaseRefusal),
}

/// Why a device does not take a release: a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReleaseRefusal {
    /// The owner's policy.
    Policy,
    /// More bytes than the owner gives releases.
    TooLarge,
    /// The device holds a later one, or another file under the same number.
    Older,
    /// It could not be fetched.
    Unavailable,
    /// What came is not the file that was offered.
    DigestMismatch,
    /// The file cannot be read as a release.
    Damaged,
    /// A release of another task.
    WrongTask,
    /// The engine cannot run it.
    NotRunnable,
    /// The data that its scaling is fitted to cannot be read.
    NoScaling,
    /// It could not be written to the disk.
    NotStored,
    /// The device takes signed releases only, and does not believe this one.
    Untrusted(Distrust),
}

impl ReleaseRefusal {
    /// What is wrong and what to do, in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Policy => "the device's owner has bound no task of this name",
            Self::TooLarge => "it has more bytes than the device gives releases (releases_bytes_max)",
            Self::Older => "the device holds a later release; publish with a higher --version",
            Self::Unavailable => "it could not be fetched; it is tried again at the next connection",
            Self::DigestMismatch => "what came is not the file that was offered; publish it again",
            Self::Damaged => "the file cannot be read as a release by the device's software",
            Self::WrongTask => "the file is a release of another task",
            Self::NotRunnable => "the device's engine cannot run it; its log says more",
            Self::NoScaling => "the device cannot read the data that its features are scaled by; its log says more",
            Self::NotStored => "the device could not write it to its disk; its log says more",
            Self::Untrusted(reason) => reason.text(),
        }
    }
}

impl fmt::Display for ReleaseRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for ReleaseRefusal {}
