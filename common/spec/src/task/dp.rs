//! `privacy.dp`: differential privacy of a run.

use serde::{Deserialize, Serialize};

use super::clipping::{CLIP_MAX, CLIP_MIN, budget_part, expected_cohort};
use super::privacy::{PrivacySection, Weights, cohort_max, honest_min};
use super::{Participation, TaskFile, TaskKind};
use crate::error::SpecError;

/// `privacy.dp`: differential privacy of a run. The unit is a device: neighbouring federations differ in one device's presence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DpSection {
    /// Who adds the noise.
    pub mode: DpMode,
    /// The L2 norm that a device's update is clipped to.
    pub clip: f64,
    /// The standard deviation of the noise on a round's sum, in units of `clip`; under `distributed` at least that, on the smallest sum.
    pub noise_multiplier: f64,
    /// The probability of the guarantee's failure.
    pub delta: f64,
    /// The run stops before it spends more than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon_max: Option<f64>,
    /// How the noise of one round relates to that of others.
    #[serde(default, skip_serializing_if = "DpMechanism::is_independent")]
    pub mechanism: DpMechanism,
    /// The standard deviation of the noise on the sum of the devices' accuracies over their hold-outs, in devices, on the smallest sum: what
    /// `federation.evaluate_every` needs under noise. It has a part of the noise's budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation_noise: Option<f64>,
    /// The same on the sum of their losses over the hold-outs, each as a share of 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_noise: Option<f64>,
}

/// Who adds the noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DpMode {
    /// The aggregator, on the sum: it sees single updates, or with secure aggregation the sum, without noise.
    Central,
    /// Each device a share of it, inside a secure sum: the aggregator sees the sum with its noise only.
    Distributed,
    /// Each device all of it, on its own update.
    Local,
}

/// How the noise of one round relates to that of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DpMechanism {
    /// Drawn anew each round (DP-FedAvg, McMahan et al. 2018).
    #[default]
    Independent,
    /// Tree aggregation over the rounds (DP-FTRL, Kairouz et al. 2021): no assumption about who takes part when.
    Tree {
        /// The most rounds that one device takes part in.
        participations_max: u32,
        /// The least distance between the numbers of two of them.
        separation_min: u32,
    },
}

impl DpMechanism {
    /// Whether rounds have noise of their own.
    pub fn is_independent(&self) -> bool {
        *self == Self::Independent
    }
}

impl DpSection {
    /// Checks the section as part of `task`.
    pub(super) fn check(&self, section: &PrivacySection, task: &TaskFile) -> Result<(), SpecError> {
        self.check_numbers()?;
        let wrong = |key: &str, value: &dyn ToString, expected: &str| {
            Err(SpecError::value(format!("privacy.dp.{key}"), value.to_string(), expected))
        };
        let secure = section.secure_aggregation;
        if secure != (self.mode == DpMode::Distributed) {
            return wrong(
                "mode",
                &format!("{:?}", self.mode).to_lowercase(),
                "noise that devices add in shares is one of secure sums and the only one there: use \"distributed\" with \
                 privacy.secure_aggregation = true, and \"central\" or \"local\" without",
            );
        }
        if secure {
            self.check_shares(section, task)?;
        }
        if !self.mechanism.is_independent() && (self.mode != DpMode::Central || secure) {
            return wrong(
                "mechanism",
                &"\"tree\"",
                "tree aggregation is noise of the aggregator's on a plain sum: use mode = \"central\" and no secure_aggregation",
            );
        }
        // What a clipped update is worth must not depend on anything that the device alone knows.
        if section.weights != Weights::Uniform {
            return Err(SpecError::value(
                "privacy.weights",
                "\"examples\"",
                "the unit is a device, and none may count for more than another: set privacy.weights = \"uniform\"",
            ));
        }
        let federation = &task.federation;
        if !federation.goal.makes_versions() {
            return Err(SpecError::value(
                "federation.goal",
                format!("{:?}", federation.goal).to_lowercase(),
                "figures of devices' own rows carry no noise: a run for nothing else has no privacy.dp",
            ));
        }
        self.check_evaluation(section, task)?;
        if task.update.codec.keeps_residual() {
            return Err(SpecError::value(
                "update.codec",
                task.update.codec,
                "it owes what it leaves out, and what is clipped off would be owed without end; use f32, f16, qB or eden:B",
            ));
        }
        let clip = section.adaptive_clip.map_or(self.clip, |adaptive| adaptive.clip_max);
        let reach = if self.mode == DpMode::Local { clip * (1.0 + self.noise_multiplier) } else { clip };
        if !secure && reach > task.update.value_max {
            return Err(SpecError::value(
                "update.value_max",
                task.update.value_max,
                format!("an update's values may reach {reach}: expected at least that"),
            ));
        }
        let fixed = federation.participation == Participation::Poisson || !self.mechanism.is_independent();
        if fixed && federation.devices.is_none() {
            return Err(SpecError::value(
                "federation.devices",
                "nothing",
                "under participation = \"poisson\" and tree aggregation sums are divided by fraction × devices: say how many there are",
            ));
        }
        Ok(())
    }

    /// Whether figures over hold-outs have noise.
    fn check_evaluation(&self, section: &PrivacySection, task: &TaskFile) -> Result<(), SpecError> {
        let federation = &task.federation;
        let every = federation.evaluate_every;
        let asked = [("evaluation_noise", self.evaluation_noise), ("loss_noise", self.loss_noise)];
        let asked: Vec<(&str, f64)> = asked.into_iter().filter_map(|(key, noise)| Some((key, noise?))).collect();
        let Some((key, noise)) = asked.first().copied() else {
            return match every {
                0 => Ok(()),
                _ => Err(SpecError::value(
                    "federation.evaluate_every",
                    every,
                    "figures of devices' own rows need noise: leave it out, or say privacy.dp.evaluation_noise or loss_noise where devices add noise \
                     in shares",
                )),
            };
        };
        let wrong = |expected: String| Err(SpecError::value(format!("privacy.dp.{key}"), noise, expected));
        if self.mode != DpMode::Distributed || every == 0 {
            return wrong(
                "it is on figures inside a sum with noise: use mode = \"distributed\", and federation.evaluate_every"
                    .into(),
            );
        }
        if task.kind == TaskKind::Regression && self.evaluation_noise.is_some() {
            return wrong("it is on accuracies, of which a regression has none: use loss_noise".into());
        }
        let part = |deviation| budget_part(self.noise_multiplier, deviation);
        let cohort = expected_cohort(federation.devices, federation.fraction);
        let count = section.adaptive_clip.and_then(|adaptive| adaptive.count_noise(cohort));
        let parts = asked.iter().map(|(_, noise)| part(*noise)).sum::<f64>() + count.map_or(0.0, part);
        let finite = asked.iter().all(|(_, noise)| *noise > 0.0 && noise.is_finite());
        if !(finite && parts < 1.0) {
            return wrong(format!(
                "the sum of (noise_multiplier / 2σ)² over the figures and the count of an adapting norm is {parts:.3}: expected below 1, to leave some of \
                 the budget for the updates"
            ));
        }
        Ok(())
    }

    /// Whether the smallest sum has devices enough to share the noise.
    fn check_shares(&self, section: &PrivacySection, task: &TaskFile) -> Result<(), SpecError> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of devices")]
        let most = cohort_max(&task.federation).map_or(0, |most| most.ceil() as u32);
        if honest_min(section, most) == 0 {
            return Err(SpecError::value(
                "privacy.cohort_min",
                section.cohort_min,
                format!(
                    "of a cohort of up to {most}, privacy.corrupt = {} lets as many work with the aggregator, whose noise hides nothing from it: \
                     expected more than that",
                    section.corrupt
                ),
            ));
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), SpecError> {
        let wrong = |key: &str, value: &dyn ToString, expected: &str| {
            Err(SpecError::value(format!("privacy.dp.{key}"), value.to_string(), expected))
        };
        if !(CLIP_MIN..=CLIP_MAX).contains(&self.clip) {
            return wrong("clip", &self.clip, "expected 1e-9 to 1e9");
        }
        if !(self.noise_multiplier == 0.0 || (0.01..=64.0).contains(&self.noise_multiplier)) {
            return wrong("noise_multiplier", &self.noise_multiplier, "expected 0.01 to 64, or 0 for clipping alone");
        }
        if !(self.delta > 0.0 && self.delta < 1.0) {
            return wrong("delta", &self.delta, "expected above 0 and below 1");
        }
        if let Some(most) = self.epsilon_max.filter(|most| !(*most > 0.0 && most.is_finite())) {
            return wrong("epsilon_max", &most, "expected a finite number above 0");
        }
        if let DpMechanism::Tree { participations_max, separation_min } = self.mechanism {
            if participations_max == 0 {
                return wrong("mechanism.tree.participations_max", &0, "expected at least 1");
            }
            if separation_min == 0 {
                return wrong("mechanism.tree.separation_min", &0, "expected at least 1");
            }
        }
        Ok(())
    }
}
