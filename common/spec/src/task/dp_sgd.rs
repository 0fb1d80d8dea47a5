//! `train.dp_sgd`: differential privacy of single examples, which a device sees to while it trains.

use serde::{Deserialize, Serialize};

use super::train::TrainSettings;
use super::{DataFormat, DataSection, Goal, Scale, TaskFile, TaskKind};
use crate::error::SpecError;
use crate::manifest::ParamRole;
use crate::plan::TaskPlan;

/// `train.dp_sgd`: DP-SGD (Abadi et al. 2016, algorithm 1) on the device. Each step draws each of the device's examples by a coin of its own, clips
/// each drawn example's gradient, and adds Gaussian noise to their sum. The unit is one example of one device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DpSgd {
    /// The L2 norm that the gradient of one example is clipped to.
    pub clip: f64,
    /// The standard deviation of the noise on a step's sum, in units of `clip`.
    pub noise_multiplier: f64,
    /// The probability of the guarantee's failure.
    pub delta: f64,
    /// A device takes no part in rounds with which one of its examples would have spent more than this in the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon_max: Option<f64>,
}

impl TrainSettings {
    /// Optimiser steps of one training on so many examples.
    pub fn steps(&self, examples: usize) -> usize {
        let batch = if self.batch == 0 { examples.max(1) } else { self.batch };
        let most = if self.steps_max == 0 { usize::MAX } else { self.steps_max };
        self.epochs.saturating_mul(examples.div_ceil(batch)).min(most)
    }

    /// The probability with which a step of DP-SGD draws an example of so many, so that `batch` of them are expected.
    pub fn sampling_rate(&self, examples: usize) -> f64 {
        if self.batch == 0 || self.batch >= examples { 1.0 } else { self.batch as f64 / examples as f64 }
    }
}

impl DpSgd {
    /// Checks the section as part of `task`.
    pub(super) fn check(&self, task: &TaskFile) -> Result<(), SpecError> {
        self.check_data(&task.data, task.data.scale)?;
        let federation = &task.federation;
        if federation.goal == Goal::Moments {
            return Err(moments());
        }
        if !federation.goal.is_train() || federation.evaluate_every > 0 {
            let key = if federation.goal.is_train() { "federation.evaluate_every" } else { "federation.goal" };
            return Err(figures(key, federation.evaluate_every));
        }
        Ok(())
    }

    /// Whether data that are read so have inputs that depend on one example each: the fit of a scale to the data at hand is noticed in all of them.
    ///
    /// # Errors
    /// [`SpecError`] names `data.scale`.
    pub fn check_data(&self, data: &DataSection, scale: Scale) -> Result<(), SpecError> {
        let of_type = data.format != DataFormat::Csv || data.train.starts_with("embedded:");
        match scale {
            Scale::Unit if !of_type => Err(fitted("\"unit\"")),
            Scale::Standardise if data.standardise.is_none() => Err(fitted("\"standardise\"")),
            _ => Ok(()),
        }
    }

    /// Checks it as part of a plan, which may be a peer's.
    pub(crate) fn check_plan(&self, plan: &TaskPlan) -> Result<(), SpecError> {
        let wrong = |key: &str, value: f64, expected: &str| {
            Err(SpecError::value(format!("train.dp_sgd.{key}"), value, expected))
        };
        if !(1e-9..=1e9).contains(&self.clip) {
            return wrong("clip", self.clip, "expected 1e-9 to 1e9");
        }
        if !(0.01..=64.0).contains(&self.noise_multiplier) {
            return wrong("noise_multiplier", self.noise_multiplier, "expected 0.01 to 64");
        }
        if !(self.delta > 0.0 && self.delta < 1.0) {
            return wrong("delta", self.delta, "expected above 0 and below 1");
        }
        if let Some(most) = self.epsilon_max.filter(|most| !(*most > 0.0 && most.is_finite())) {
            return wrong("epsilon_max", most, "expected a finite number above 0");
        }
        if plan.moments.is_some() {
            return Err(moments());
        }
        if plan.kind == TaskKind::NextToken {
            return Err(SpecError::value(
                "kind",
                "\"next-token\"",
                "train.dp_sgd protects one example, and the windows of a text are none: they share what one person wrote",
            ));
        }
        if plan.scale == Scale::Standardise && plan.standardise.is_none() {
            return Err(fitted("\"standardise\""));
        }
        if let Some(every) = plan.privacy.as_ref().map(|privacy| privacy.evaluate_every).filter(|every| *every > 0) {
            return Err(figures("federation.evaluate_every", every));
        }
        if plan.manifest()?.tensors.iter().any(|tensor| tensor.role == ParamRole::Statistic) {
            return Err(SpecError::value(
                "model.layers",
                "\"batch_norm\"",
                "it mixes the examples of a batch, so that none has a gradient of its own: use group_norm or layer_norm under train.dp_sgd",
            ));
        }
        Ok(())
    }
}

fn moments() -> SpecError {
    SpecError::value(
        "federation.goal",
        "\"moments\"",
        "train.dp_sgd protects single examples, and moments carry no noise for one of them: leave it out of this run, or scale by known values",
    )
}

fn figures(key: &str, every: u32) -> SpecError {
    SpecError::value(
        key,
        every,
        "figures of devices' own examples are not protected one by one: leave it out where train.dp_sgd is asked for",
    )
}

fn fitted(scale: &str) -> SpecError {
    SpecError::value(
        "data.scale",
        scale,
        "it is fitted to the device's own examples, so that each of them shows in all inputs: under train.dp_sgd scale the data beforehand and use \
         \"none\", or state what to scale by in data.standardise",
    )
}
