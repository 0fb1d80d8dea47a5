//! The aggregator's `run status`, as this command reads it.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// A run.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RunStatus {
    /// `running`, `finished` or `stopped`.
    pub(crate) state: String,
    /// Bytes of all updates so far.
    pub(crate) bytes_up: u64,
    /// Bytes of all models sent so far.
    pub(crate) bytes_down: u64,
    /// SHA-256 of the newest version as it is sent.
    pub(crate) version_digest: String,
    /// Why the run cannot go on, where it cannot.
    #[serde(default)]
    pub(crate) problem: Option<String>,
    /// The committed rounds.
    pub(crate) rounds: Vec<RoundStatus>,
}

/// A committed round.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RoundStatus {
    /// Devices that were asked.
    pub(crate) cohort: u64,
    /// Devices whose updates the version contains.
    pub(crate) contributors: u64,
    /// From the first device asked to the version being durable.
    pub(crate) wall_s: f64,
    /// Accuracy on the aggregator's test set.
    #[serde(default)]
    pub(crate) test_accuracy: Option<f64>,
    /// Accuracy on the devices' hold-outs.
    #[serde(default)]
    pub(crate) heldout_accuracy: Option<f64>,
}

#[allow(clippy::cast_precision_loss, reason = "bytes of a run stay below 2^53")]
impl RunStatus {
    /// The status in the aggregator's answer.
    pub(crate) fn read(answer: Value) -> Result<Self> {
        let status: Self = serde_json::from_value(answer).context("the aggregator's run status is not understood")?;
        match &status.problem {
            Some(problem) => anyhow::bail!("the run cannot go on: {problem}"),
            None => Ok(status),
        }
    }

    /// Whether no further round comes.
    pub(crate) fn is_over(&self) -> bool {
        self.state != "running"
    }

    /// Bytes of one update.
    pub(crate) fn bytes_up_per_device_round(&self) -> f64 {
        let updates: u64 = self.rounds.iter().map(|round| round.contributors).sum();
        self.bytes_up as f64 / updates.max(1) as f64
    }

    /// Bytes that a device receives in a round.
    pub(crate) fn bytes_down_per_device_round(&self) -> f64 {
        let asked: u64 = self.rounds.iter().map(|round| round.cohort).sum();
        self.bytes_down as f64 / asked.max(1) as f64
    }
}
