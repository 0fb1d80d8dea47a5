//! A CA in memory, and the certificates that tests need: good ones and bad ones.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use starling_certs::{Authority, Issued, Validity};
use starling_wire::{DeviceId, Identity, Role};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A fleet's CA. Two of them are foreign to each other.
pub struct Pki {
    authority: Authority,
    seed: u64,
}

/// Where a certificate, its key and its CA lie.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// The trust anchors.
    pub ca: PathBuf,
    /// The certificate and its chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Deployed {
    /// The `[tls]` table of a daemon's configuration.
    pub fn toml(&self) -> String {
        format!(
            "[tls]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n",
            self.ca.display().to_string(),
            self.certificate.display().to_string(),
            self.key.display().to_string()
        )
    }
}

impl Pki {
    /// A new CA. The ids of its devices come from `seed`; its keys do not.
    ///
    /// # Panics
    /// If the system has no entropy.
    pub fn new(seed: u64) -> Self {
        Self { authority: Authority::in_memory().expect("the system gives entropy"), seed }
    }

    /// What the fleet trusts, in PEM.
    pub fn ca_pem(&self) -> &str {
        self.authority.ca_pem()
    }

    /// The identity of the `index`-th member of the fleet.
    pub fn identity(&self, role: Role, index: u32) -> Identity {
        Identity { id: DeviceId::seeded(self.seed, index), role, name: format!("{role}-{index}") }
    }

    /// A certificate that is valid now.
    pub fn issue(&self, role: Role, index: u32) -> Issued {
        self.issue_as(&self.identity(role, index), Validity::days(1))
    }

    /// A certificate that was valid until yesterday.
    pub fn issue_expired(&self, role: Role, index: u32) -> Issued {
        let now = SystemTime::now();
        self.issue_as(&self.identity(role, index), Validity { not_before: now - DAY * 3, not_after: now - DAY })
    }

    /// A certificate that is valid from tomorrow.
    pub fn issue_early(&self, role: Role, index: u32) -> Issued {
        let now = SystemTime::now();
        self.issue_as(&self.identity(role, index), Validity { not_before: now + DAY, not_after: now + DAY * 3 })
    }

    /// A certificate for anybody and any time.
    ///
    /// # Panics
    /// If the name or the validity fits in no certificate.
    pub fn issue_as(&self, identity: &Identity, validity: Validity) -> Issued {
        self.authority.issue(identity, validity).expect("the test asks for a certificate that can exist")
    }
}

/// Writes `issued` into `folder`. Its own CA is what the holder trusts, unless `trusting` names another.
///
/// # Panics
/// If the folder has such files already or cannot be written.
pub fn deploy(issued: &Issued, folder: &Path, trusting: Option<&Pki>) -> Deployed {
    issued.write(folder).expect("an empty folder that can be written");
    let ca = folder.join("ca.pem");
    if let Some(trusted) = trusting {
        std::fs::write(&ca, trusted.ca_pem()).expect("the folder can be written");
    }
    Deployed { ca, certificate: folder.join("certificate.pem"), key: folder.join("key.pem") }
}
