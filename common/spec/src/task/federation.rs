//! `[federation]`: rounds, cohorts and simulated devices.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::SpecError;

/// The largest factor on a round's mean: far beyond any that learns, and too small for parameters to overflow.
const SERVER_LR_MAX: f64 = 1000.0;

/// How training data are spread over simulated devices.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Partition {
    /// Shuffled, in equal parts.
    Iid,
    /// Sorted by label, cut into shards, this many shards a device (McMahan et al. 2017, §3).
    Shards(u32),
    /// Each class spread by a Dirichlet draw of this concentration (Hsu et al. 2019, §3).
    Dirichlet(f64),
    /// One device a distinct value of `data.client`.
    Column,
}

impl FromStr for Partition {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let wrong = || {
            SpecError::value(
                "federation.partition",
                format!("{text:?}"),
                "expected iid, shards:K (K from 1), dirichlet:A (A above 0) or column",
            )
        };
        match text.split_once(':') {
            None if text == "iid" => Ok(Self::Iid),
            None if text == "column" => Ok(Self::Column),
            Some(("shards", count)) => match count.parse() {
                Ok(count) if count > 0 => Ok(Self::Shards(count)),
                _ => Err(wrong()),
            },
            Some(("dirichlet", alpha)) => match alpha.parse::<f64>() {
                Ok(alpha) if alpha > 0.0 && alpha.is_finite() => Ok(Self::Dirichlet(alpha)),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Partition {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl From<Partition> for String {
    fn from(partition: Partition) -> Self {
        match partition {
            Partition::Iid => "iid".into(),
            Partition::Shards(count) => format!("shards:{count}"),
            Partition::Dirichlet(alpha) => format!("dirichlet:{alpha}"),
            Partition::Column => "column".into(),
        }
    }
}

/// `[federation]`: rounds and cohorts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FederationSection {
    /// Simulated devices; not given with `partition = "column"`.
    pub devices: Option<u32>,
    /// How the data are spread over simulated devices.
    pub partition: Partition,
    /// How cohorts are drawn: `fixed` is `max(1, fraction × devices)`.
    pub participation: Participation,
    /// The share of available devices that a round selects.
    pub fraction: f64,
    /// How many more than the fraction asks are selected, as a factor; the round commits when the fraction has reported
    /// (Bonawitz et al. 2019 use 1.3).
    pub over_selection: f64,
    /// A round starts when at least this many devices are available.
    pub devices_min: u32,
    /// The share of the cohort that has to report for the round to commit at its deadline.
    pub quorum: f64,
    /// How long a round waits for its cohort, in milliseconds.
    pub deadline_ms: u64,
    /// Rounds of a run.
    pub rounds: u32,
    /// How updates become a new model.
    pub strategy: Strategy,
    /// What a round's mean is multiplied by before it moves the model. Above 1 it makes up for small local steps and a tight clip; noise
    /// is multiplied too.
    pub server_lr: f64,
    /// Over this share of the rounds, the last ones, that factor falls in a straight line to almost 0, so that the last versions are close to
    /// a mean of those before; 0 is never. It costs no privacy.
    pub server_decay: f64,
    /// The run stops when the aggregator-side test accuracy reaches this.
    pub target: Option<f64>,
    /// The share of each device's data that is held out for federated evaluation.
    pub holdout: f64,
    /// Devices evaluate on their hold-outs after every so many rounds; 0 is never.
    pub evaluate_every: u32,
    /// What the run is for.
    #[serde(skip_serializing_if = "Goal::is_train")]
    pub goal: Goal,
    /// The seed of the devices' hold-outs, where it is not the run's: runs that follow each other then hold the same rows out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holdout_seed: Option<u64>,
    /// Only devices that have all of these tags take part; the others do not hear of the run. None: every device that offers itself.
    /// Simulated devices have every tag.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl Default for FederationSection {
    fn default() -> Self {
        Self {
            devices: None,
            partition: Partition::Iid,
            participation: Participation::Fixed,
            fraction: 1.0,
            over_selection: 1.0,
            devices_min: 1,
            quorum: 0.5,
            deadline_ms: 60_000,
            rounds: 10,
            strategy: Strategy::Fedavg,
            server_lr: 1.0,
            server_decay: 0.0,
            target: None,
            holdout: 0.0,
            evaluate_every: 0,
            goal: Goal::Train,
            holdout_seed: None,
            tags: Vec::new(),
        }
    }
}

impl FederationSection {
    /// What the mean of `round` (from 1) is multiplied by before it moves the model.
    pub fn server_rate(&self, round: u32) -> f64 {
        let left = f64::from(self.rounds.saturating_sub(round).saturating_add(1));
        let falling = self.server_decay * f64::from(self.rounds);
        if left < falling { self.server_lr * left / falling } else { self.server_lr }
    }

    /// Checks the factor and its fall.
    pub(super) fn check_server(&self) -> Result<(), SpecError> {
        if !(self.server_lr > 0.0 && self.server_lr <= SERVER_LR_MAX) {
            return Err(SpecError::value("federation.server_lr", self.server_lr, "expected above 0 and at most 1000"));
        }
        if !(0.0..=1.0).contains(&self.server_decay) {
            return Err(SpecError::value("federation.server_decay", self.server_decay, "expected a share from 0 to 1"));
        }
        Ok(())
    }
}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Goal {
    /// Versions: rounds of training, and evaluations between them.
    #[default]
    Train,
    /// The figures of the weights that it begins with, over the devices' hold-outs: one round, no version.
    Evaluate,
    /// The ranges of each layer's inputs under the weights that it begins with, over the devices' training rows: one round, no version.
    Ranges,
    /// The means and deviations of the features of the devices' training rows: one round like one of training, whose version they are
    /// ([`crate::moments`]).
    Moments,
}

impl Goal {
    /// Whether a model is trained.
    pub fn is_train(&self) -> bool {
        *self == Self::Train
    }

    /// Whether versions are made, of updates.
    pub fn makes_versions(&self) -> bool {
        matches!(self, Self::Train | Self::Moments)
    }
}

/// How cohorts are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Participation {
    /// A cohort of fixed size, drawn by the aggregator.
    #[default]
    Fixed,
    /// Each device by a coin of its own: in a round with probability `fraction`. The cohort's size varies, nobody is asked beyond it,
    /// and a mean's denominator is the expected size, `fraction × devices`.
    Poisson,
    /// As `fixed`, and nothing may be assumed of who is available when: no draw makes privacy cheaper.
    Any,
}

/// How updates become a new model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Strategy {
    /// The mean of the updates, weighted by examples (McMahan et al. 2017, Algorithm 1).
    #[default]
    Fedavg,
}
