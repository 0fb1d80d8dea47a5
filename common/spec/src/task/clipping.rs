//! `privacy.adaptive_clip`: a clipping norm that follows the norms of the updates.

use serde::{Deserialize, Serialize};

use super::FederationSection;
use super::dp::{DpMode, DpSection};
use super::privacy::PrivacySection;
use crate::error::SpecError;

/// The least clipping norm.
pub const CLIP_MIN: f64 = 1e-9;

/// The largest clipping norm.
pub(super) const CLIP_MAX: f64 = 1e9;

/// `privacy.adaptive_clip`: after each round the clipping norm C becomes `C · exp(−rate · (b − quantile))`, where b is the share of devices
/// whose updates were within C (Andrew, Thakkar, McMahan and Ramaswamy 2021, "Differentially Private Learning with Adaptive Clipping",
/// Algorithm 1). It begins with `clip`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveClip {
    /// The share of devices whose updates are meant to be within it: γ.
    #[serde(default = "half")]
    pub quantile: f64,
    /// How fast it moves: η_C.
    #[serde(default = "a_fifth")]
    pub rate: f64,
    /// It never grows beyond this. Devices compare each round's norm with it, and with what their owners allow.
    pub clip_max: f64,
    /// The standard deviation of the noise on the count of those devices, σ_b, in devices. A twentieth of the expected cohort where it is
    /// not given; not used where no noise is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count_noise: Option<f64>,
}

fn half() -> f64 {
    0.5
}

fn a_fifth() -> f64 {
    0.2
}

impl AdaptiveClip {
    /// σ_b for rounds of about `cohort` devices.
    pub fn count_noise(&self, cohort: Option<f64>) -> Option<f64> {
        self.count_noise.or(cohort.map(|cohort| cohort / 20.0))
    }

    /// Checks the section as part of `privacy`.
    pub(super) fn check(&self, privacy: &PrivacySection, federation: &FederationSection) -> Result<(), SpecError> {
        let wrong = |key: &str, value: &dyn ToString, expected: String| {
            Err(SpecError::value(format!("privacy.adaptive_clip.{key}"), value.to_string(), expected))
        };
        if !(self.quantile > 0.0 && self.quantile < 1.0) {
            return wrong("quantile", &self.quantile, "expected above 0 and below 1".into());
        }
        if !(self.rate > 0.0 && self.rate <= 2.0) {
            return wrong("rate", &self.rate, "expected above 0 and at most 2".into());
        }
        let start = privacy.clip().unwrap_or(CLIP_MIN);
        if !(start..=CLIP_MAX).contains(&self.clip_max) {
            return wrong("clip_max", &self.clip_max, format!("expected {start}, where it begins, to {CLIP_MAX:e}"));
        }
        match &privacy.dp {
            Some(dp) => self.check_noise(dp, federation),
            None => Ok(()),
        }
    }

    fn check_noise(&self, dp: &DpSection, federation: &FederationSection) -> Result<(), SpecError> {
        let wrong = |value: &dyn ToString, expected: String| {
            Err(SpecError::value("privacy.adaptive_clip", value.to_string(), expected))
        };
        if dp.mode == DpMode::Local {
            let why = "the bit that says whether an update was within the norm has no noise of its own: use mode = \"central\" or \
                       \"distributed\"";
            return wrong(&"(with dp.mode = \"local\")", why.into());
        }
        if !dp.mechanism.is_independent() {
            return wrong(
                &"(with tree aggregation)",
                "noise that a later round takes back has to be of the same size then: use mechanism = \"independent\""
                    .into(),
            );
        }
        if dp.noise_multiplier == 0.0 {
            return Ok(());
        }
        let Some(count_noise) = self.count_noise(expected_cohort(federation.devices, federation.fraction)) else {
            return wrong(
                &"(without count_noise)",
                "it is a twentieth of the expected cohort: say federation.devices, or count_noise itself".into(),
            );
        };
        if !(count_noise > 0.0 && count_noise.is_finite() && budget_part(dp.noise_multiplier, count_noise) < 1.0) {
            return Err(SpecError::value(
                "privacy.adaptive_clip.count_noise",
                count_noise,
                format!(
                    "expected more than dp.noise_multiplier / 2 = {}: the count may not spend all of the budget",
                    dp.noise_multiplier / 2.0
                ),
            ));
        }
        Ok(())
    }
}

/// The part of a budget of `noise_multiplier` that a sum over devices has, of a share from 0 to 1 each, with noise of this deviation in devices: a
/// device moves it by half a device at most (Andrew et al. 2021, Theorem 1).
pub(super) fn budget_part(noise_multiplier: f64, deviation: f64) -> f64 {
    (noise_multiplier / (2.0 * deviation)).powi(2)
}

/// Devices that a round is expected to have, where the task says how many there are.
pub(super) fn expected_cohort(devices: Option<u32>, fraction: f64) -> Option<f64> {
    devices.map(|devices| (fraction * f64::from(devices)).max(1.0))
}
