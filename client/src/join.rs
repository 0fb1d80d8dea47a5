//! `starling-client join`: how a machine becomes a device of a fleet.
//!
//! The key is made here, is on the disk before anything is asked, and never leaves. A second try with the same folder asks
//! with the same key and gets the same answer, so that a reply that was lost strands nobody.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use starling_certs::{CertsError, Key, Pair, request};
use starling_net::join::{AskError, Authority, ask};
use starling_net::{Clock, Transport};
use starling_wire::limits::CHAIN_BYTES_MAX;
use starling_wire::{Credential, FromAuthority, Identity, JoinString, Refusal, ToAuthority};

/// Name and version, for the operator's eyes.
const SOFTWARE: &str = concat!("starling-client/", env!("CARGO_PKG_VERSION"));

/// A clock that differs from the aggregator's by more is worth a warning.
const CLOCK_DIFFERENCE_S: u64 = 120;

/// The longest pause between two questions whether the operator has approved.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Where the three files go.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The trust anchors.
    pub ca: PathBuf,
    /// The certificate and the key.
    pub pair: Pair,
}

/// Why a machine did not become a device.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It is one already.
    #[error("{0} is there already: this machine has joined; choose another folder to join again")]
    Joined(PathBuf),
    /// A file.
    #[error(transparent)]
    Files(#[from] CertsError),
    /// The folder.
    #[error("cannot create the folder {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The aggregator was not reached, or is another one.
    #[error("{}", unreached(.0))]
    Ask(#[from] AskError),
    /// No.
    #[error("{0}")]
    Refused(Refusal),
    /// An answer that is no certificate of this machine.
    #[error("the aggregator's answer cannot be used: {0}")]
    Answer(&'static str),
}

fn unreached(error: &AskError) -> String {
    match error.refusal() {
        Some(Refusal::ForeignCertificate) => {
            "the machine at that address is not the aggregator of the join string (its CA is another one); nothing was sent to it".to_owned()
        }
        Some(Refusal::CertificateExpired) => format!("{error}; is this machine's clock right?"),
        _ => error.to_string(),
    }
}

impl JoinError {
    /// The refusal, if it was one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            JoinError::Refused(refusal) => Some(*refusal),
            JoinError::Ask(error) => error.refusal(),
            _ => None,
        }
    }
}

/// Joins, and writes the three files. Waits where the operator has to approve; `waiting` is called once then, with the
/// key's fingerprint.
///
/// # Errors
/// [`JoinError`] says what to do.
pub async fn join(
    string: &JoinString,
    destination: &Destination,
    name: String,
    transport: &Transport,
    waiting: impl Fn(&str),
) -> Result<Identity, JoinError> {
    if fs::exists(&destination.pair.certificate).unwrap_or(true) {
        return Err(JoinError::Joined(destination.pair.certificate.clone()));
    }
    let key = own_key(&destination.pair)?;
    let authority = Authority::Fingerprint(string.ca_fingerprint);
    let clock = Clock::system(0);
    let mut told = false;
    let credential = loop {
        let question = |channel: &[u8; 32]| {
            ToAuthority::Join(request::join(channel, &key, string.token, name.clone(), SOFTWARE.to_owned()))
        };
        match ask(string.address, &authority, &clock, transport, question).await? {
            FromAuthority::Issued(credential) => break credential,
            FromAuthority::Refused(refusal) => return Err(JoinError::Refused(refusal)),
            FromAuthority::Pending { again_ms, .. } => {
                if !told {
                    waiting(&key.public().fingerprint().to_string());
                    told = true;
                }
                tokio::time::sleep(Duration::from_millis(again_ms.into()).min(AGAIN_MAX)).await;
            }
            _ => return Err(JoinError::Answer("it is of a later version")),
        }
    };
    let identity = check(&credential, &key)?;
    // What the fleet trusts has to be what the join string said.
    let root = starling_certs::inspect::fingerprint(&credential.ca_pem)?;
    if root.0[..16] != string.ca_fingerprint {
        return Err(JoinError::Answer("its CA is not the one of the join string"));
    }
    warn_about_clock(&clock, &credential);
    // An earlier try may have been cut off here.
    if !fs::read_to_string(&destination.ca).is_ok_and(|there| there == credential.ca_pem) {
        starling_certs::write_new(&destination.ca, &credential.ca_pem)?;
    }
    starling_certs::write_new(&destination.pair.certificate, &credential.certificate_pem)?;
    Ok(identity)
}

/// The identity that a credential gives the holder of `key`.
///
/// # Errors
/// When it is for another key, or none.
pub fn check(credential: &Credential, key: &Key) -> Result<Identity, JoinError> {
    if credential.certificate_pem.len().max(credential.ca_pem.len()) > CHAIN_BYTES_MAX {
        return Err(JoinError::Answer("a chain is too long"));
    }
    let chain = starling_certs::inspect::parse(&credential.certificate_pem)?;
    if !chain[0].is_for(&key.public()) {
        return Err(JoinError::Answer("its certificate is for another key"));
    }
    chain[0].identity().ok_or(JoinError::Answer("its certificate carries no identity"))
}

fn warn_about_clock(clock: &Clock, credential: &Credential) {
    let own_s = clock.now_unix_s();
    if own_s.abs_diff(credential.now_unix_s) > CLOCK_DIFFERENCE_S {
        eprintln!(
            "warning: this machine's clock differs from the aggregator's by {} seconds: set it",
            own_s.abs_diff(credential.now_unix_s)
        );
    }
}

/// The key of an earlier try that got no answer, or a new one, on the disk.
fn own_key(pair: &Pair) -> Result<Key, JoinError> {
    if fs::exists(&pair.key).unwrap_or(true) {
        return Ok(pair.read_key()?);
    }
    if let Some(folder) = pair.key.parent() {
        create(folder)?;
    }
    let key = Key::generate()?;
    starling_certs::write_new_secret(&pair.key, &key.to_pem())?;
    Ok(key)
}

fn create(folder: &Path) -> Result<(), JoinError> {
    use std::os::unix::fs::DirBuilderExt;
    let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    created.map_err(|source| JoinError::Folder { path: folder.to_owned(), source })
}

/// A configuration for a device that has just joined, for its owner to name the data in.
pub fn configuration(aggregator: SocketAddr, path: starling_net::Path) -> String {
    let path = match path {
        starling_net::Path::Internet => "internet",
        starling_net::Path::Loopback => "loopback",
    };
    format!(
        "# Written by `starling-client join`. Paths are relative to this file.\n\
         aggregator = \"{aggregator}\"\nstate_dir = \"state\"\npath = \"{path}\"\n\n\
         [tls]\nca = \"ca.pem\"\ncertificate = \"certificate.pem\"\nkey = \"key.pem\"\n\n\
         # Name the tasks that this device may work on, and where its data lie: naming one is your consent.\n\
         # [[task]]\n# name = \"digits\"\n# [task.data]\n# format = \"csv\"\n# train = \"digits.csv\"\n# label = \"class\"\n"
    )
}
