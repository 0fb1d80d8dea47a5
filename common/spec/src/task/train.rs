//! `[train]`: local training.

use serde::{Deserialize, Serialize};

use super::DpSgd;
use crate::error::SpecError;

/// The local optimiser. Its state is fresh in each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// `w ← w − lr·g`.
    #[default]
    Sgd,
    /// Heavy ball: `v ← m·v + g`, `w ← w − lr·v`.
    Momentum,
    /// Kingma and Ba 2015, with bias correction.
    Adam,
}

/// `[train]`: local training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSettings {
    /// The optimiser.
    pub optimizer: Optimizer,
    /// The learning rate.
    pub lr: f64,
    /// The momentum of `optimizer = "momentum"`.
    pub momentum: f64,
    /// Samples a step; 0 is the whole local set.
    pub batch: usize,
    /// Passes over the local data a round.
    pub epochs: usize,
    /// The most optimiser steps a round; 0 is as many as the passes take.
    #[serde(skip_serializing_if = "is_zero")]
    pub steps_max: usize,
    /// How the learning rate moves over the steps of one training.
    #[serde(skip_serializing_if = "Schedule::is_constant")]
    pub schedule: Schedule,
    /// What the weights may be while they are trained.
    #[serde(skip_serializing_if = "WeightForm::is_free")]
    pub weights: WeightForm,
    /// Noise on the device that protects each of its examples; none where it is not given. `starling train` and `starling model`, which train on
    /// pooled data, leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dp_sgd: Option<DpSgd>,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            optimizer: Optimizer::Sgd,
            lr: 0.1,
            momentum: 0.9,
            batch: 10,
            epochs: 1,
            steps_max: 0,
            schedule: Schedule::Constant,
            weights: WeightForm::Free,
            dp_sgd: None,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(steps: &usize) -> bool {
    *steps == 0
}

/// How the learning rate moves over the steps of one training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays.
    #[default]
    Constant,
    /// From `lr` to 0 along half a cosine (Loshchilov and Hutter 2017, eq. 5 without restarts).
    Cosine,
}

impl Schedule {
    /// Whether the rate stays.
    pub fn is_constant(&self) -> bool {
        *self == Self::Constant
    }
}

/// What the weights of linear layers and convolutions may be while they are trained. All other parameters are always free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WeightForm {
    /// Any number.
    #[default]
    Free,
    /// A weight that is 0 when training begins stays 0: the mask of a pruned model holds.
    Pruned,
    /// As `pruned`, and the weights of a tensor that are equal when training begins stay equal: a code book is tuned. Tensors with
    /// more than 256 values that differ are held to their mask alone.
    Shared,
    /// The network computes with symmetric integers of this many bits (2 to 8), a scale an output; training moves real weights
    /// behind them, and gradients pass straight through (Jacob et al. 2018, §3).
    Integer(u8),
}

impl WeightForm {
    /// Whether nothing is asked of the weights.
    pub fn is_free(&self) -> bool {
        *self == Self::Free
    }
}

impl TryFrom<String> for WeightForm {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        let wrong =
            || SpecError::value("train.weights", format!("{text:?}"), "expected free, pruned, shared, or int2 to int8");
        match text.as_str() {
            "free" => Ok(Self::Free),
            "pruned" => Ok(Self::Pruned),
            "shared" => Ok(Self::Shared),
            _ => match text.strip_prefix("int").and_then(|bits| bits.parse().ok()) {
                Some(bits @ 2..=8) => Ok(Self::Integer(bits)),
                _ => Err(wrong()),
            },
        }
    }
}

impl From<WeightForm> for String {
    fn from(form: WeightForm) -> Self {
        match form {
            WeightForm::Free => "free".into(),
            WeightForm::Pruned => "pruned".into(),
            WeightForm::Shared => "shared".into(),
            WeightForm::Integer(bits) => format!("int{bits}"),
        }
    }
}
