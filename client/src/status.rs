//! What the running client says of itself, in a file: `starling-client status` reads it without disturbing anything.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use starling_daemon::now_unix_s;

/// The file's name in the state folder.
const FILE: &str = "status.json";

/// How the client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Connection {
    /// Trying to reach the aggregator.
    Connecting,
    /// Welcome.
    Connected,
    /// Refused for a reason that does not pass by itself.
    Refused,
    /// The client has ended.
    Stopped,
}

/// The client's status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The process.
    pub pid: u32,
    /// The device's name.
    pub name: String,
    /// The device's id.
    pub device: String,
    /// The aggregator's address.
    pub aggregator: String,
    /// How it is connected.
    pub connection: Connection,
    /// Why it is not connected, in words.
    pub problem: Option<String>,
    /// The last round that it worked in, for each run.
    pub runs: BTreeMap<u32, RunStatus>,
    /// The release of each task.
    #[serde(default)]
    pub releases: BTreeMap<String, ReleaseStatus>,
    /// What the device believes of publishers; nothing when no root of trust is pinned.
    #[serde(default)]
    pub trust: Option<TrustStatus>,
    /// What has been spent of the owner's privacy.
    #[serde(default)]
    pub privacy: Option<PrivacyStatus>,
    /// Updates that became part of a version since the start.
    pub updates_committed: u64,
    /// Updates that were refused since the start.
    pub updates_refused: u64,
    /// Resident memory when this was written, in MB.
    pub rss_mb: f64,
    /// When this was written, in seconds since 1970.
    pub written_unix_s: u64,
}

/// What the client does in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatus {
    /// The task.
    pub task: String,
    /// The last round that it took part in; 0 is none yet.
    pub round: u32,
}

/// The release of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseStatus {
    /// The version that predictions come from, if there is one.
    pub version: Option<u64>,
    /// SHA-256 of its file.
    pub digest: Option<String>,
    /// Bytes of its file.
    pub bytes: Option<u64>,
    /// Whether the local socket answers.
    pub serving: bool,
    /// Whether publishers' signatures vouch for it. Without a pinned root of trust nobody's are asked for.
    #[serde(default)]
    pub signed: bool,
    /// Why a newer one was refused, in words.
    pub problem: Option<String>,
}

/// What the device believes of publishers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustStatus {
    /// The digest of the fleet's first root.
    pub origin: String,
    /// The root in force.
    pub root_version: u64,
    /// When that runs out, in seconds since 1970.
    pub root_expires_unix_s: u64,
    /// The newest freshness statement, if one has come.
    pub freshness_version: Option<u64>,
    /// When that runs out, in seconds since 1970.
    pub freshness_expires_unix_s: Option<u64>,
    /// Whether one of both has run out: the device cannot know whether something newer is held back from it.
    pub expired: bool,
    /// Whether predictions and rounds have stopped because of it (`on_expiry = "stop"`).
    pub stopped: bool,
    /// Why the newest plan of a task is not believed, in words.
    pub plans: BTreeMap<String, String>,
}

/// What the device's ledger says. The unit is the device: all its updates, replaced by zeros.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrivacyStatus {
    /// The probability of failure that each epsilon is stated at.
    pub delta: f64,
    /// What all runs together have spent; nothing when no number bounds it, since one had no noise that counts.
    pub epsilon_spent: Option<f64>,
    /// What the owner lets them spend in all.
    pub epsilon_lifetime: Option<f64>,
    /// What the owner lets one run spend.
    pub epsilon_per_run: Option<f64>,
    /// What of `epsilon_spent` is not known but assumed, since the state folder was restored from a backup.
    pub epsilon_lost: f64,
    /// How often it was restored while no lifetime budget bounded what may have been spent since the backup.
    pub restores_unbounded: u32,
    /// The latest runs.
    pub runs: Vec<SpentStatus>,
    /// What the latest runs with DP-SGD have spent of single examples: another unit, which adds to none of the figures above.
    #[serde(default)]
    pub examples: Vec<ExampleStatus>,
}

/// What one run has spent of one example of this device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExampleStatus {
    /// The task.
    pub task: String,
    /// The run.
    pub run: u32,
    /// Rounds that the device trained in, or may have.
    pub rounds: u32,
    /// How many of those are assumed, after a restore.
    pub rounds_assumed: u32,
    /// The steps of all of them.
    pub steps: u32,
    /// The largest probability with which a step drew an example.
    pub sampling_rate: f64,
    /// The deviation of the noise on a step's sum, in clipping norms of one example's gradient.
    pub noise_multiplier: f64,
    /// What they have spent, at the owner's delta; nothing when no number bounds it.
    pub epsilon: Option<f64>,
    /// What the plan lets them spend, at its own delta.
    pub epsilon_max: Option<f64>,
    /// When this was last written, in seconds since 1970.
    pub written_unix_s: u64,
}

/// What one run has spent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpentStatus {
    /// The task.
    pub task: String,
    /// The run.
    pub run: u32,
    /// Rounds that have an update of this device in them, or may have.
    pub rounds: u32,
    /// How many of those are assumed, after a restore.
    pub rounds_assumed: u32,
    /// Who adds the noise, and how much.
    pub noise: String,
    /// What they have spent; nothing when the run has no noise that counts.
    pub epsilon: Option<f64>,
    /// When this was last written, in seconds since 1970.
    pub written_unix_s: u64,
}

impl Status {
    /// Writes it in one step: a reader sees the old one or the new one.
    ///
    /// # Errors
    /// What the system said.
    pub fn write(&mut self, state_dir: &Path) -> io::Result<()> {
        self.rss_mb = starling_daemon::usage::rss_mb();
        self.written_unix_s = now_unix_s();
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        let unfinished = state_dir.join(".status.tmp");
        fs::File::create(&unfinished)?.write_all(&text)?;
        fs::rename(&unfinished, file(state_dir))
    }

    /// Reads it. A client that was killed has left it as it was: its process is looked for.
    ///
    /// # Errors
    /// What the system said; nothing is there when no client ever ran with this folder.
    pub fn read(state_dir: &Path) -> io::Result<Self> {
        let mut status: Self = serde_json::from_slice(&fs::read(file(state_dir))?).map_err(io::Error::other)?;
        if starling_daemon::usage::of_pid(status.pid).is_none() {
            status.connection = Connection::Stopped;
        }
        Ok(status)
    }
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}
