//! Proof values: what signatures permit to be fetched, and what has been verified to the last byte.

use starling_wire::Digest;

use crate::refused::Refused;
use crate::statement::{Artefact, Subject};

/// Leave to fetch exactly these bytes: a threshold of publishers signed for them, and they are current. Only
/// [`crate::Trusted::take`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    artefact: Artefact,
}

/// Bytes that were stated, permitted and compared. Only [`Permit::verify`] and [`crate::Trusted::held`] make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    subject: Subject,
    task: String,
    version: u64,
    length: u64,
    digest: Digest,
}

impl Permit {
    pub(crate) fn new(artefact: Artefact) -> Self {
        Self { artefact }
    }

    /// What is stated of the bytes.
    pub fn artefact(&self) -> &Artefact {
        &self.artefact
    }

    /// How many bytes there are; whoever fetches stops at the first one more.
    pub fn length(&self) -> u64 {
        self.artefact.length
    }

    /// Their SHA-256.
    pub fn digest(&self) -> Digest {
        self.artefact.digest
    }

    /// Compares the bytes.
    ///
    /// # Errors
    /// [`Refused::LengthMismatch`] before anything is hashed, [`Refused::DigestMismatch`].
    pub fn verify(&self, bytes: &[u8]) -> Result<Verified, Refused> {
        self.check_length(bytes.len() as u64)?;
        self.verify_digest(bytes.len() as u64, Digest::of(bytes))
    }

    /// The same for bytes that were counted and hashed as they came in, by the caller itself.
    ///
    /// # Errors
    /// [`Refused::LengthMismatch`], [`Refused::DigestMismatch`].
    pub fn verify_digest(&self, length: u64, digest: Digest) -> Result<Verified, Refused> {
        self.check_length(length)?;
        if digest != self.artefact.digest {
            return Err(Refused::DigestMismatch);
        }
        let Artefact { subject, ref task, .. } = self.artefact;
        Ok(Verified::new(subject, task.clone(), self.artefact.head.version, length, digest))
    }

    fn check_length(&self, got: u64) -> Result<(), Refused> {
        let expected = self.artefact.length;
        if got == expected { Ok(()) } else { Err(Refused::LengthMismatch { expected, got }) }
    }
}

impl Verified {
    pub(crate) fn new(subject: Subject, task: String, version: u64, length: u64, digest: Digest) -> Self {
        Self { subject, task, version, length, digest }
    }

    /// Release or plan.
    pub fn subject(&self) -> Subject {
        self.subject
    }

    /// The task that it may be used for.
    pub fn task(&self) -> &str {
        &self.task
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Bytes of it.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// SHA-256 of it.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}
