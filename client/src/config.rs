//! The client's configuration file.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use starling_daemon::config::ConfigError;
use starling_daemon::schedule::BackupSection;
use starling_net::TlsFiles;
use starling_spec::{DataSection, Partition};
use starling_store::KeySource;
use starling_wire::limits::{NAME_BYTES_MAX, TASKS_PER_DEVICE_MAX};

use crate::policy::{PolicyProblem, PolicySettings};
use crate::trust::TrustSettings;

/// The client's configuration. Paths are relative to the file that they stand in; unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// Where the aggregator listens, address and port.
    pub aggregator: SocketAddr,
    /// The folder of everything that the client remembers; created with mode 0700. One client a folder.
    pub state_dir: PathBuf,
    /// Where the master key of the state folder comes from; a file beside the folder when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeySource>,
    /// Backups that the client makes itself while it runs; none when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupSection>,
    /// The network that leads there: `internet` (the default) or `loopback` for larger packets on one machine.
    #[serde(default)]
    pub path: starling_net::Path,
    /// Bytes of the releases that this device keeps, all tasks together; one that would exceed them is refused before it is
    /// fetched. While a release is replaced, the old file is there as well. Default 64 MiB.
    #[serde(default = "releases_bytes_max")]
    pub releases_bytes_max: u64,
    /// The socket that answers local programs; `serve.sock` in the state folder when not given. Unix paths are at most 107
    /// bytes long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving_socket: Option<PathBuf>,
    /// The certificate, its key, and the CA.
    pub tls: TlsFiles,
    /// Whose signatures releases and plans need. Without it, whatever the aggregator offers is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustSettings>,
    /// Proof that this device's updates are in the aggregator's audit log.
    #[serde(default)]
    pub audit: AuditSettings,
    /// What the owner allows beyond that; no key of it given, no rule of it holds.
    #[serde(default)]
    pub policy: PolicySettings,
    /// The tasks that the owner of this device consents to, with the data for each. No other task is ever worked on.
    #[serde(default)]
    pub task: Vec<TaskBinding>,
}

/// Receipts of the aggregator's audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSettings {
    /// Ask for a receipt after each update that is in a version, check it and keep it: 2 KiB on the disk each. Default true.
    #[serde(default = "yes")]
    pub receipts: bool,
    /// The log's public key, the last line of the aggregator's `audit.pub`. Without it, the first that the aggregator shows counts.
    #[serde(default)]
    pub key: Option<String>,
}

fn yes() -> bool {
    true
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { receipts: true, key: None }
    }
}

/// Data for one task, and by being there the owner's consent to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskBinding {
    /// The task's name, as the aggregator announces it.
    pub name: String,
    /// Where the data are. What they mean (kind, shape, scale) comes with the plan and replaces what is said here.
    pub data: DataSection,
    /// Use one part of a data set that several devices share; for experiments. Without it all rows are this device's.
    #[serde(default)]
    pub partition: Option<PartitionBinding>,
}

/// Which part of a shared data set belongs to this device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionBinding {
    /// How the set is spread: `iid`, `shards:K`, `dirichlet:A` or `column`.
    pub how: Partition,
    /// Over how many devices. With `column` the data decide, and this has to say the same number.
    pub devices: u32,
    /// Which of them this one is, from 0.
    pub index: u32,
    /// The seed of the spread, the same on all devices.
    pub seed: u64,
}

/// What is wrong with a configuration that could be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigProblem {
    /// The file itself.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// Too many tasks.
    #[error("task: {0} tasks, expected at most {TASKS_PER_DEVICE_MAX}")]
    TooManyTasks(usize),
    /// Not a public key.
    #[error("audit.key: {0}")]
    AuditKey(#[from] starling_audit::KeyError),
    /// A rule of the owner's that cannot be meant.
    #[error(transparent)]
    Policy(#[from] PolicyProblem),
    /// Backups that would protect from nothing.
    #[error("{0}")]
    Backup(&'static str),
    /// A name that no task has.
    #[error("task[{0}].name: expected 1 to {NAME_BYTES_MAX} printable bytes")]
    Name(usize),
    /// The same task twice.
    #[error("task {0:?} is bound twice; keep one")]
    Twice(String),
    /// An index beyond the devices.
    #[error("task {name:?}: partition.index = {index}, expected less than partition.devices = {devices}")]
    Index {
        /// The task.
        name: String,
        /// Its index.
        index: u32,
        /// Its number of devices.
        devices: u32,
    },
}

fn releases_bytes_max() -> u64 {
    64 << 20
}

impl ClientConfig {
    /// The socket that answers local programs.
    pub fn serving_socket(&self) -> PathBuf {
        self.serving_socket.clone().unwrap_or_else(|| self.state_dir.join("serve.sock"))
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// Names the file, line and key.
    pub fn load(path: &Path) -> Result<Self, ConfigProblem> {
        let config: Self = starling_daemon::config::load(path)?;
        config.checked(path)
    }

    /// The same for a text that is in memory; `path` says where relative paths start.
    ///
    /// # Errors
    /// Names the line and key.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigProblem> {
        let config: Self = starling_daemon::config::parse(path, text)?;
        config.checked(path)
    }

    /// Where the master key of the state folder comes from.
    pub fn key_source(&self) -> KeySource {
        self.key.clone().unwrap_or_else(|| KeySource::beside(&self.state_dir))
    }

    fn checked(mut self, path: &Path) -> Result<Self, ConfigProblem> {
        if self.task.len() > TASKS_PER_DEVICE_MAX {
            return Err(ConfigProblem::TooManyTasks(self.task.len()));
        }
        if let Some(key) = &self.audit.key {
            key.parse::<starling_audit::VerifierKey>()?;
        }
        self.policy.check()?;
        let mut names = BTreeSet::new();
        for (index, task) in self.task.iter().enumerate() {
            if task.name.is_empty() || task.name.len() > NAME_BYTES_MAX || task.name.contains(char::is_control) {
                return Err(ConfigProblem::Name(index));
            }
            if !names.insert(task.name.as_str()) {
                return Err(ConfigProblem::Twice(task.name.clone()));
            }
            if let Some(PartitionBinding { index, devices, .. }) = task.partition
                && index >= devices
            {
                return Err(ConfigProblem::Index { name: task.name.clone(), index, devices });
            }
        }
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let files = [&mut self.state_dir, &mut self.tls.ca, &mut self.tls.certificate, &mut self.tls.key];
        let optional = self.serving_socket.as_mut().into_iter().chain(self.trust.as_mut().map(|trust| &mut trust.root));
        for file in files.into_iter().chain(optional) {
            *file = folder.join(&file);
        }
        self.key = self.key.map(|source| source.from_folder(&folder));
        self.backup = self.backup.map(|section| section.from_folder(&folder));
        if let Some(backup) = &self.backup {
            let rounds = (backup.every_rounds > 0).then_some("backup.every_rounds: a client commits no rounds");
            if let Some(problem) = backup.problem().or(rounds) {
                return Err(ConfigProblem::Backup(problem));
            }
        }
        for task in &mut self.task {
            let root = folder.join(task.data.root.as_deref().unwrap_or(""));
            // An empty root means the working folder, which is what an empty folder of the file means as well.
            task.data.root = root.to_str().filter(|root| !root.is_empty()).map(str::to_owned);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of a log whose seed is 32 zeros.
    const LOG_KEY: &str = "secure_aggregation = true\nroster_witness = [\"starling-audit/7+63243f96+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop\"]";

    const SAMPLE: &str = include_str!("../starling-client.sample.toml");

    #[test]
    fn the_sample_is_a_configuration() {
        let config = ClientConfig::parse(Path::new("/etc/starling/client.toml"), SAMPLE).expect("the sample is valid");
        assert_eq!(config.tls.key, Path::new("/etc/starling/tls/key.pem"));
        assert_eq!(config.task.len(), 2);
        let trust = config.trust.as_ref().expect("the sample pins a root");
        assert_eq!(trust.root, Path::new("/etc/starling/root.bundle"));
        assert_eq!(config.task[0].data.root.as_deref(), Some("/etc/starling/data"));
        let again = toml::to_string(&config).expect("it can be written");
        assert_eq!(ClientConfig::parse(Path::new("/etc/starling/client.toml"), &again).expect("and read"), config);
    }

    #[test]
    fn an_unknown_key_is_refused_and_named() {
        let text = SAMPLE.replacen("state_dir", "statedir", 1);
        let error = ClientConfig::parse(Path::new("client.toml"), &text).expect_err("unknown");
        assert!(error.to_string().contains("statedir"), "{error}");
    }

    #[test]
    fn a_rule_that_cannot_be_meant_is_refused_and_named() {
        let problem = |rules: &str| {
            let text = SAMPLE.replacen("[policy]", &format!("[policy]\n{rules}"), 1);
            ClientConfig::parse(Path::new("client.toml"), &text).expect_err(rules).to_string()
        };
        for (rules, named) in [
            ("cohort_min = 50", "policy.cohort_min: a cohort hides nothing"),
            ("secure_aggregation = true\ncohort_min = 1", "policy.cohort_min = 1"),
            ("roster_witness = [\"w+0+0\"]", "policy.roster_witness: witnesses of a cohort protect nothing"),
            (
                "secure_aggregation = true\nroster_witness = [\"mine\"]",
                "policy.roster_witness[0]: the key is not written as",
            ),
            (LOG_KEY, "policy.roster_witness[0]: this is a log's own key"),
            ("epsilon_lifetime = 0.0", "policy.epsilon_lifetime = 0"),
            ("epsilon_per_run = inf", "policy.epsilon_per_run = inf"),
            ("delta = 1.0", "policy.delta = 1"),
            ("clip_max = -1.0", "policy.clip_max = -1"),
            ("publishers = [\"mine\"]", "policy.publishers[0]"),
            ("hours = \"22-6\"", "22:00-06:00"),
            ("epsilon = 3.0", "epsilon"),
        ] {
            let problem = problem(rules);
            assert!(problem.contains(named), "{rules}: {problem}");
        }
    }

    #[test]
    fn an_index_beyond_the_devices_is_refused() {
        let text = SAMPLE.replacen("index = 3", "index = 8", 1);
        let error = ClientConfig::parse(Path::new("client.toml"), &text).expect_err("beyond");
        assert!(error.to_string().contains("partition.index = 8, expected less than partition.devices = 8"), "{error}");
    }
}
