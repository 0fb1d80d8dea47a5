//! What can go wrong with keys and certificates.

use std::io;
use std::path::PathBuf;

/// Why a certificate could not be issued, stored or read.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file of that name is there already.
    #[error("{path} exists, and keys and certificates are never overwritten: choose another folder, or move it away")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file or folder could not be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A private key that others can read.
    #[error(
        "{path} has mode {mode:03o}, so others than its owner can read this key: run `chmod 600` on it, and consider it leaked"
    )]
    KeyReadable {
        /// The key's file.
        path: PathBuf,
        /// The permission bits.
        mode: u32,
    },
    /// A file with something else inside than expected.
    #[error("{path} holds no {expected}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected there.
        expected: &'static str,
    },
    /// A text that is no certificate.
    #[error("expected certificates in PEM: {problem}")]
    NotACertificate {
        /// What is wrong with it.
        problem: String,
    },
    /// A key of an authority that does not belong to its certificate.
    #[error("{path} is not the key of the issuing certificate beside it: restore the pair from the same backup")]
    KeyMismatch {
        /// The key's file.
        path: PathBuf,
    },
    /// A name that no certificate can carry.
    #[error("the name {name:?} {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A validity that ends before it starts, or lies beyond what X.509 can say.
    #[error("the validity must start before it ends, and lie between 1970 and 9999")]
    Validity,
    /// The leaf would outlive the certificate that signs it.
    #[error(
        "the certificate would be valid until {wanted}, after its issuer's end on {issuer}: ask for fewer days, or make a new authority"
    )]
    OutlivesIssuer {
        /// The end that was asked for.
        wanted: String,
        /// The end of the issuing certificate.
        issuer: String,
    },
    /// Two files of which only one was replaced, and what would complete them is missing.
    #[error(
        "{key} is not the key of {certificate}, and no half-finished exchange explains it: restore the pair from the same backup"
    )]
    Torn {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The system gave no entropy.
    #[error("the system's random number generator failed")]
    Entropy,
    /// The X.509 encoder refused.
    #[error("the certificate could not be built")]
    Build(#[source] rcgen::Error),
    /// The report could not be printed.
    #[error("cannot write the report to standard output")]
    Output(#[source] io::Error),
}
