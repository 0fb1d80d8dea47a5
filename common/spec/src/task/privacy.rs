//! `[privacy]`: what the aggregator may learn of a device's update.

use serde::{Deserialize, Serialize};

use super::clipping::{AdaptiveClip, CLIP_MAX, CLIP_MIN, budget_part, expected_cohort};
use super::dp::DpSection;
use super::groups::{self, GroupRule};
use super::{FederationSection, Participation, TaskFile};
use crate::codec::CodecSpec;
use crate::error::SpecError;

/// `[privacy]`. The norm that updates are clipped to is `dp.clip`, or `clip` where no noise is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrivacySection {
    /// The aggregator sees sums of a cohort's updates and no single one.
    pub secure_aggregation: bool,
    /// The L2 norm that a device's update is clipped to, in units of the parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// That norm follows the updates' own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive_clip: Option<AdaptiveClip>,
    /// What a device counts for.
    pub weights: Weights,
    /// The share of the parameters that a round's updates hold: the same for all devices of the round, another each round.
    pub subset: f64,
    /// Fewer devices than this are no cohort, and fewer survivors no sum. With groups it is said of each.
    pub cohort_min: u16,
    /// Secure sums that a cohort is split into, each device into one.
    #[serde(skip_serializing_if = "is_one")]
    pub groups: u16,
    /// How the groups' means become one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_rule: Option<GroupRule>,
    /// The share of a cohort that may collude with the aggregator.
    pub corrupt: f64,
    /// The share of a cohort that may drop out over all phases.
    pub dropout: f64,
    /// Noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dp: Option<DpSection>,
}

impl Default for PrivacySection {
    fn default() -> Self {
        Self {
            secure_aggregation: false,
            clip: None,
            adaptive_clip: None,
            weights: Weights::Examples,
            subset: 1.0,
            cohort_min: 3,
            groups: 1,
            group_rule: None,
            corrupt: 0.1,
            dropout: 0.1,
            dp: None,
        }
    }
}

fn is_one(groups: &u16) -> bool {
    *groups == 1
}

/// What a device counts for in a mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// `min(n, W) / W` for n examples and `W = update.weight_max`.
    #[default]
    Examples,
    /// The same for every device: the rule under device-level differential privacy.
    Uniform,
}

/// The largest cohort of a round: what a secure sum's ring has room for.
pub(super) fn cohort_max(federation: &FederationSection) -> Option<f64> {
    let devices = f64::from(federation.devices?);
    Some((devices * federation.fraction).round().max(1.0) * federation.over_selection)
}

/// Of the smallest sum, those that are no colluders, if as many are in it as the largest cohort may have.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a cohort")]
pub(super) fn honest_min(asked: &PrivacySection, cohort_max: u32) -> u32 {
    let corrupt = (asked.corrupt * f64::from(cohort_max)).floor() as u32;
    u32::from(asked.cohort_min).saturating_sub(corrupt)
}

impl PrivacySection {
    /// The norm that updates are clipped to; the first one, where it adapts.
    pub fn clip(&self) -> Option<f64> {
        self.dp.as_ref().map(|dp| dp.clip).or(self.clip)
    }

    /// Checks the section as part of `task`.
    ///
    /// # Errors
    /// [`SpecError`] names the key.
    pub(super) fn check(&self, task: &TaskFile) -> Result<(), SpecError> {
        let wrong = |key: &str, value: &dyn ToString, expected: &str| {
            Err(SpecError::value(format!("privacy.{key}"), value.to_string(), expected))
        };
        let norm = |value: f64| (CLIP_MIN..=CLIP_MAX).contains(&value);
        if let Some(clip) = self.clip.filter(|clip| !norm(*clip)) {
            return wrong("clip", &clip, "expected 1e-9 to 1e9");
        }
        if let (Some(clip), Some(dp)) = (self.clip, &self.dp)
            && clip != dp.clip
        {
            return wrong(
                "clip",
                &clip,
                "privacy.dp.clip is the clipping norm where noise is asked for; leave this one out",
            );
        }
        if !(self.subset > 0.0 && self.subset <= 1.0) {
            return wrong("subset", &self.subset, "expected above 0 and at most 1");
        }
        for (key, value) in [("corrupt", self.corrupt), ("dropout", self.dropout)] {
            if !(0.0..1.0).contains(&value) {
                return wrong(key, &value, "expected at least 0 and below 1");
            }
        }
        if self.subset < 1.0 && !self.secure_aggregation {
            return wrong(
                "subset",
                &self.subset,
                "a shared subset is one of a secure sum: set privacy.secure_aggregation = true",
            );
        }
        groups::check(self, task)?;
        if let Some(dp) = &self.dp {
            dp.check(self, task)?;
        }
        if let Some(adaptive) = &self.adaptive_clip {
            adaptive.check(self, &task.federation)?;
        }
        if self.secure_aggregation {
            self.check_secure(task)?;
        } else if self.dp.is_none() {
            return wrong(
                "secure_aggregation",
                &false,
                "a [privacy] section asks for secure_aggregation, for dp, or for both",
            );
        }
        Ok(())
    }

    fn check_secure(&self, task: &TaskFile) -> Result<(), SpecError> {
        if self.clip().is_none() {
            return Err(SpecError::value(
                "privacy.clip",
                "nothing",
                "secure sums need a clipping norm: it fixes their scale",
            ));
        }
        if !matches!(task.update.codec, CodecSpec::Quantised(_)) {
            return Err(SpecError::value(
                "update.codec",
                task.update.codec,
                "secure sums add integers of one scale: use q2 to q16",
            ));
        }
        if self.weights == Weights::Examples && task.update.weight_max > 1 << 16 {
            return Err(SpecError::value(
                "update.weight_max",
                task.update.weight_max,
                "in a secure sum a device counts min(n, weight_max) / weight_max before its update is clipped and rounded: give the most \
                 examples that a device should count for, at most 65536, or privacy.weights = \"uniform\"",
            ));
        }
        if self.cohort_min < 3 {
            return Err(SpecError::value(
                "privacy.cohort_min",
                self.cohort_min,
                "expected at least 3: of two, each knows the other's",
            ));
        }
        let Some(most) = cohort_max(&task.federation).map(|most| f64::from(groups::group_max(self, most))) else {
            return Err(SpecError::value(
                "federation.devices",
                "nothing",
                "secure sums need the number of devices: it fixes the width of their ring",
            ));
        };
        if most < f64::from(self.cohort_min) || most > 2048.0 {
            return Err(SpecError::value(
                "federation.devices",
                format!("(a sum of up to {most})"),
                "a secure sum is over privacy.cohort_min to 2048 devices",
            ));
        }
        Ok(())
    }
}

/// What devices know of a run's privacy: part of its plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivacyPlan {
    /// What the task file asks for.
    pub asked: PrivacySection,
    /// The most devices of one round.
    pub cohort_max: u32,
    /// Devices of the federation, where the task says how many.
    pub devices: Option<u32>,
    /// How cohorts are drawn.
    pub participation: Participation,
    /// The share of devices that a round draws; under `poisson` each device's own probability.
    pub fraction: f64,
    /// Rounds of the run.
    pub rounds: u32,
    /// Every so many versions, devices say inside the secure sum how the version does on their hold-outs; 0 for never.
    #[serde(default)]
    pub evaluate_every: u32,
}

impl PrivacyPlan {
    /// The most devices of one secure sum: of a group, where the cohort is split into several.
    pub fn sum_max(&self) -> u32 {
        groups::group_max(&self.asked, self.cohort_max.into())
    }

    /// Devices of the smallest sum that are not assumed to work with the aggregator: under distributed noise their shares have to be enough.
    pub fn honest_min(&self) -> u32 {
        honest_min(&self.asked, self.cohort_max)
    }

    /// The plan of a checked section.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked: at most 2048 where it matters"
    )]
    pub(crate) fn new(asked: &PrivacySection, federation: &FederationSection) -> Self {
        let cohort_max = cohort_max(federation).map_or(u32::MAX, |most| most.ceil() as u32);
        let FederationSection { devices, participation, fraction, rounds, evaluate_every, .. } = *federation;
        let evaluate_every = if asked.secure_aggregation { evaluate_every } else { 0 };
        Self { asked: asked.clone(), cohort_max, devices, participation, fraction, rounds, evaluate_every }
    }

    /// Devices that a round is expected to have, where that is known.
    pub fn cohort(&self) -> Option<f64> {
        expected_cohort(self.devices, self.fraction)
    }

    /// The plan of a round whose clipping norm is `clip`: that of the run, with this norm. None where the run has no such round, because
    /// its norm does not adapt (and `clip` is given), or does (and it is not), or never gets there.
    pub fn for_round(&self, clip: Option<f64>) -> Option<Self> {
        let (clip, adaptive) = match (clip, &self.asked.adaptive_clip) {
            (None, None) => return Some(self.clone()),
            (Some(clip), Some(adaptive)) => (clip, adaptive),
            _ => return None,
        };
        if !(CLIP_MIN..=adaptive.clip_max).contains(&clip) {
            return None;
        }
        let mut plan = self.clone();
        match &mut plan.asked.dp {
            Some(dp) => {
                dp.clip = clip;
                // What was given twice stays the same twice.
                plan.asked.clip = plan.asked.clip.map(|_| clip);
            }
            None => plan.asked.clip = Some(clip),
        }
        Some(plan)
    }

    /// The deviation of the noise on the count of updates within the clipping norm, in devices; none where no such count has noise.
    pub fn count_noise(&self) -> Option<f64> {
        let adaptive = self.asked.adaptive_clip?;
        self.asked.dp.as_ref().filter(|dp| dp.noise_multiplier > 0.0)?;
        adaptive.count_noise(self.cohort())
    }

    /// The deviation of the noise on the sum of accuracies over hold-outs, in devices; none where none is summed under noise.
    pub fn evaluation_noise(&self) -> Option<f64> {
        self.asked.dp.as_ref().filter(|dp| dp.noise_multiplier > 0.0)?.evaluation_noise
    }

    /// The same of the sum of losses over hold-outs, each as a share of 16.
    pub fn loss_noise(&self) -> Option<f64> {
        self.asked.dp.as_ref().filter(|dp| dp.noise_multiplier > 0.0)?.loss_noise
    }

    /// The noise multiplier of the sum of updates where all that a round says has `whole` together: more than that where a count or figures
    /// beside it have their part, and not a number where those need more than all of it.
    pub fn update_multiplier(&self, whole: f64) -> f64 {
        let beside = self.count_noise().into_iter().chain(self.evaluation_noise()).chain(self.loss_noise());
        let parts: f64 = beside.map(|deviation| budget_part(whole, deviation)).sum();
        whole / (1.0 - parts).sqrt()
    }

    /// Whether devices that train from this version say inside the sum how it does.
    pub fn evaluates(&self, version: u64) -> bool {
        self.evaluate_every > 0 && version > 0 && version.is_multiple_of(self.evaluate_every.into())
    }
}
