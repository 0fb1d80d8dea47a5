//! The aggregator's configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use starling_daemon::schedule::BackupSection;
use starling_net::{Path as NetPath, TlsFiles};
use starling_store::KeySource;

/// The configuration: TOML, unknown keys refused. Relative paths start at the file's own folder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AggregatorConfig {
    /// Where devices connect: `0.0.0.0:4433` for every interface, port 0 for any free port (it is printed).
    pub listen: SocketAddr,
    /// The folder of runs, model versions and the local socket. One daemon at a time.
    pub state_dir: PathBuf,
    /// Where the master key of the state folder comes from; a file beside the folder when not given.
    #[serde(default)]
    pub key: Option<KeySource>,
    /// The CA, the aggregator's certificate and its key.
    pub tls: TlsFiles,
    /// `internet` (packets of at most 1,452 bytes; the default) or `loopback` (6,500).
    #[serde(default = "internet")]
    pub path: NetPath,
    /// The socket of the operator's verbs; `admin.sock` in the state folder when not given. Unix paths are at most 107
    /// bytes long.
    #[serde(default)]
    pub admin_socket: Option<PathBuf>,
    /// Bytes of updates that may be in memory at once, from arrival until they are folded. Further devices wait, so more
    /// costs memory and less costs time. At least one update of each run has to fit. Default 256 MiB.
    #[serde(default = "staging_bytes_max")]
    pub staging_bytes_max: u64,
    /// Connections that are held at once, each costing about 40 KB. Default 10,000.
    #[serde(default = "connections_max")]
    pub connections_max: usize,
    /// The issuing key, with which this aggregator lets devices in and renews certificates. Without it enrolment is off:
    /// certificates come from `starling certs issue`.
    #[serde(default)]
    pub enrolment: Option<EnrolmentSection>,
    /// Versions that are kept beyond the next one.
    #[serde(default)]
    pub versions: VersionsSection,
    /// Backups that the daemon makes itself; none when not given.
    #[serde(default)]
    pub backup: Option<BackupSection>,
}

/// `[versions]`: what `device forget --unlearn` can go back to. Without it a run begins anew from its first version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionsSection {
    /// The version of every so many rounds is kept; 0, the default, keeps none.
    #[serde(default)]
    pub every_rounds: u32,
    /// How many of them a run has at most, at 4 bytes a parameter each; then the rounds between them double.
    #[serde(default)]
    pub keep: u32,
}

/// `[enrolment]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentSection {
    /// The folder that `starling certs init` made, `root.key` left out: that one stays offline.
    pub authority: PathBuf,
    /// The address in join strings, for an aggregator that listens on every interface or behind a NAT. Default: `listen`.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// Seconds for which certificates are valid, 2 at least. Shorter ones make a lost key worthless sooner and cost a signature and an
    /// fsync a device and third of it. Default 30 days.
    #[serde(default = "certificate_s")]
    pub certificate_s: u64,
    /// Seconds after its certificate's end within which a device may still renew it with its old key. Default 0: never.
    #[serde(default)]
    pub grace_s: u64,
    /// Whether machines may ask without a token, for the operator to approve. Default false.
    #[serde(default)]
    pub approval: bool,
}

fn certificate_s() -> u64 {
    30 * 24 * 3600
}

fn internet() -> NetPath {
    NetPath::Internet
}

fn staging_bytes_max() -> u64 {
    256 << 20
}

fn connections_max() -> usize {
    10_000
}

impl AggregatorConfig {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// The message names the file and the key.
    pub fn load(path: &Path) -> Result<Self, starling_daemon::config::ConfigError> {
        let mut config: Self = starling_daemon::config::load(path)?;
        let base = path.parent().unwrap_or(Path::new("."));
        let files = [&mut config.state_dir, &mut config.tls.ca, &mut config.tls.certificate, &mut config.tls.key];
        for file in files
            .into_iter()
            .chain(config.admin_socket.as_mut())
            .chain(config.enrolment.as_mut().map(|section| &mut section.authority))
        {
            *file = base.join(&*file);
        }
        config.key = config.key.map(|source| source.from_folder(base));
        config.backup = config.backup.map(|section| section.from_folder(base));
        Ok(config)
    }

    /// Where the master key of the state folder comes from.
    pub fn key_source(&self) -> KeySource {
        self.key.clone().unwrap_or_else(|| KeySource::beside(&self.state_dir))
    }

    /// The socket of the operator's verbs.
    pub fn admin_socket(&self) -> PathBuf {
        self.admin_socket.clone().unwrap_or_else(|| self.state_dir.join("admin.sock"))
    }
}
