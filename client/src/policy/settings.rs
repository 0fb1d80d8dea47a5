//! `[policy]` of the client's configuration: what the owner allows beyond the tasks that are bound.

use serde::{Deserialize, Serialize};
use starling_audit::{Algorithm, VerifierKey};
use starling_trust::PublicKey;

use super::hours::Hours;
use crate::ledger::Budget;

/// `[policy]`. Each key forbids something; what is not given forbids nothing. Nothing that an aggregator sends changes any of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySettings {
    /// Rounds in which the aggregator would see this device's update by itself are refused. Default false.
    pub secure_aggregation: bool,
    /// The fewest devices that a sum may be over: plans that allow smaller cohorts are refused. Needs `secure_aggregation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cohort_min: Option<u16>,
    /// Witnesses of the aggregator's audit log, by their public keys. Where there are any, a device counts towards the smallest cohort once its enrolment
    /// is under a checkpoint that one of them has co-signed. Needs `secure_aggregation`.
    pub roster_witness: Vec<String>,
    /// The largest L2 norm of an update, in units of the parameters: plans that clip to more, or not at all, are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_max: Option<f64>,
    /// The most that all rounds of one run may spend. Plans without noise that counts are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_per_run: Option<f64>,
    /// The most that all runs of all tasks may spend, for as long as the state folder lives. Plans without noise that counts are
    /// refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_lifetime: Option<f64>,
    /// The most that all rounds of one run may spend of one example, by DP-SGD on this device. Plans without `train.dp_sgd` are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_example_per_run: Option<f64>,
    /// The probability of failure that all of them are stated at; a plan's own is not asked. Default 0.000001.
    pub delta: f64,
    /// Noise that the aggregator adds counts as well: the owner trusts it to do so, and to forget the sums. Default false: what counts is
    /// noise that this device adds, alone or as a share of it in a secure sum.
    pub trust_aggregator_noise: bool,
    /// The public keys of publishers, in hexadecimal: plans that none of them has signed are refused. Any, where none is given.
    pub publishers: Vec<String>,
    /// Whether accuracy, loss and counts of this device may leave it by themselves. With `false`, rounds that ask for nothing else are
    /// refused, and updates say nothing of loss and steps. Default: `false` where secure aggregation is required or the plan has
    /// it, `true` otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<bool>,
    /// The most bytes of models, updates and releases in a day: rounds that would pass it are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_day: Option<u64>,
    /// When rounds may begin, in local time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<Hours>,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            secure_aggregation: false,
            cohort_min: None,
            roster_witness: Vec::new(),
            clip_max: None,
            epsilon_per_run: None,
            epsilon_lifetime: None,
            epsilon_example_per_run: None,
            delta: 1e-6,
            trust_aggregator_noise: false,
            publishers: Vec::new(),
            metrics: None,
            bytes_per_day: None,
            hours: None,
        }
    }
}

/// A rule that forbids everything or nothing by mistake.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PolicyProblem {
    /// A number outside its range.
    #[error("policy.{key} = {value}: expected {expected}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What it says.
        value: f64,
        /// What it may say.
        expected: &'static str,
    },
    /// A smallest cohort where single updates may be seen.
    #[error(
        "policy.cohort_min: a cohort hides nothing where single updates are seen; set policy.secure_aggregation = true"
    )]
    Cohort,
    /// Witnesses where single updates may be seen.
    #[error(
        "policy.roster_witness: witnesses of a cohort protect nothing where single updates are seen; set policy.secure_aggregation = true"
    )]
    Witnesses,
    /// Not a witness's key.
    #[error(
        "policy.roster_witness[{index}]: {problem}; expected a public key as `starling-aggregator audit cosign` prints it"
    )]
    Witness {
        /// Which one.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Not a key.
    #[error(
        "policy.publishers[{0}]: expected a public key of 64 hexadecimal digits, as `starling publish key` prints it"
    )]
    Publisher(usize),
}

impl PolicySettings {
    /// Checks the section.
    ///
    /// # Errors
    /// [`PolicyProblem`] names the key.
    pub(crate) fn check(&self) -> Result<(), PolicyProblem> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let above_zero = "a finite number above 0";
        let epsilons = [
            ("epsilon_per_run", self.epsilon_per_run),
            ("epsilon_lifetime", self.epsilon_lifetime),
            ("epsilon_example_per_run", self.epsilon_example_per_run),
        ];
        for (key, value) in epsilons.into_iter().chain([("clip_max", self.clip_max)]) {
            if let Some(value) = value.filter(|value| !positive(*value)) {
                return Err(PolicyProblem::Value { key, value, expected: above_zero });
            }
        }
        if !(self.delta > 0.0 && self.delta < 1.0) {
            let (key, value) = ("delta", self.delta);
            return Err(PolicyProblem::Value { key, value, expected: "above 0 and below 1" });
        }
        if let Some(least) = self.cohort_min {
            if least < 2 {
                let (key, value) = ("cohort_min", f64::from(least));
                return Err(PolicyProblem::Value { key, value, expected: "at least 2 devices" });
            }
            if !self.secure_aggregation {
                return Err(PolicyProblem::Cohort);
            }
        }
        if !self.roster_witness.is_empty() && !self.secure_aggregation {
            return Err(PolicyProblem::Witnesses);
        }
        self.witness_keys()?;
        self.publisher_keys().map(drop)
    }

    /// The witnesses' keys.
    pub(super) fn witness_keys(&self) -> Result<Vec<VerifierKey>, PolicyProblem> {
        let keys = self.roster_witness.iter().enumerate();
        keys.map(|(index, text)| {
            let wrong = |problem: String| PolicyProblem::Witness { index, problem };
            let key: VerifierKey = text.parse().map_err(|error: starling_audit::KeyError| wrong(error.to_string()))?;
            match key.algorithm() {
                Algorithm::Witness => Ok(key),
                Algorithm::Log => Err(wrong("this is a log's own key, and a log is no witness of itself".into())),
            }
        })
        .collect()
    }

    /// The publishers' keys.
    pub(super) fn publisher_keys(&self) -> Result<Vec<PublicKey>, PolicyProblem> {
        let keys = self.publishers.iter().enumerate();
        keys.map(|(index, text)| text.parse().map_err(|_| PolicyProblem::Publisher(index))).collect()
    }

    /// What the owner lets runs spend.
    pub(crate) fn budget(&self) -> Budget {
        Budget {
            per_run: self.epsilon_per_run,
            lifetime: self.epsilon_lifetime,
            delta: self.delta,
            trust_aggregator_noise: self.trust_aggregator_noise,
            drawn_here: crate::worker::NOISE_DRAWN_HERE,
        }
    }
}
