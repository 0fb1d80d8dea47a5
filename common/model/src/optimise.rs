//! Optimisers on plain slices: one pass over a tensor's values a step.

use std::f64::consts::PI;

use starling_spec::{Optimizer, Schedule, TrainSettings};

/// An optimiser and its state for the tensors of one network.
#[derive(Debug)]
pub(crate) struct Optimiser {
    rule: Rule,
    lr: f64,
    /// The rate of this step.
    lr_now: f64,
    /// Two vectors a tensor; empty until the first step, and for rules without state.
    state: Vec<[Vec<f32>; 2]>,
    steps: i32,
}

#[derive(Debug, Clone, Copy)]
enum Rule {
    Sgd,
    Momentum { momentum: f32 },
    Adam,
}

/// Adam's constants (Kingma and Ba 2015, algorithm 1).
const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f32 = 1e-8;

/// The share of the learning rate that step `step`, from 0, of a training of `steps` has: for [`Schedule::Cosine`]
/// `½ (1 + cos(π step / steps))`, so the first step has all of it and the step after the last would have none.
pub(crate) fn rate_factor(schedule: Schedule, step: usize, steps: usize) -> f64 {
    match schedule {
        Schedule::Constant => 1.0,
        Schedule::Cosine => 0.5 * (1.0 + (PI * step as f64 / steps.max(1) as f64).cos()),
    }
}

impl Optimiser {
    /// An optimiser without a past, for `tensors` tensors.
    #[allow(clippy::cast_possible_truncation, reason = "rates at the precision of the parameters")]
    pub(crate) fn new(settings: &TrainSettings, tensors: usize) -> Self {
        let rule = match settings.optimizer {
            Optimizer::Sgd => Rule::Sgd,
            Optimizer::Momentum => Rule::Momentum { momentum: settings.momentum as f32 },
            Optimizer::Adam => Rule::Adam,
        };
        Self { rule, lr: settings.lr, lr_now: settings.lr, state: vec![[Vec::new(), Vec::new()]; tensors], steps: 0 }
    }

    /// A new step begins, with `factor` times the learning rate; [`Optimiser::update`] follows for each tensor.
    pub(crate) fn begin_step(&mut self, factor: f64) {
        self.lr_now = self.lr * factor;
        self.steps = self.steps.saturating_add(1);
    }

    /// Moves tensor `index` against its gradient:
    ///
    /// - SGD: `w ← w − lr·g`
    /// - momentum: `v ← m·v + g`, `w ← w − lr·v`
    /// - Adam: `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`, `w ← w − lr·m̂/(√v̂ + ε)` with `m̂ = m/(1−β₁ᵗ)`,
    ///   `v̂ = v/(1−β₂ᵗ)`; the corrections are computed in f64 and applied in f32.
    #[allow(clippy::cast_possible_truncation, reason = "rates at the precision of the parameters")]
    pub(crate) fn update(&mut self, index: usize, weights: &mut [f32], gradient: &[f32]) {
        let [first, second] = &mut self.state[index];
        let lr = self.lr_now as f32;
        match self.rule {
            Rule::Sgd => {
                for (weight, slope) in weights.iter_mut().zip(gradient) {
                    *weight -= lr * slope;
                }
            }
            Rule::Momentum { momentum } => {
                first.resize(weights.len(), 0.0);
                for ((weight, slope), velocity) in weights.iter_mut().zip(gradient).zip(first) {
                    *velocity = momentum * *velocity + slope;
                    *weight -= lr * *velocity;
                }
            }
            Rule::Adam => {
                first.resize(weights.len(), 0.0);
                second.resize(weights.len(), 0.0);
                let rate = (self.lr_now / (1.0 - BETA1.powi(self.steps))) as f32;
                let root = (1.0 / (1.0 - BETA2.powi(self.steps)).sqrt()) as f32;
                let (keep1, keep2) = (BETA1 as f32, BETA2 as f32);
                let (take1, take2) = ((1.0 - BETA1) as f32, (1.0 - BETA2) as f32);
                for (((weight, slope), mean), square) in weights.iter_mut().zip(gradient).zip(first).zip(second) {
                    *mean = keep1 * *mean + take1 * slope;
                    *square = keep2 * *square + take2 * slope * slope;
                    *weight -= rate * *mean / (square.sqrt() * root + EPSILON);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(optimizer: Optimizer) -> TrainSettings {
        TrainSettings { optimizer, lr: 0.1, momentum: 0.5, ..TrainSettings::default() }
    }

    fn walk(optimizer: Optimizer, gradients: &[f32]) -> f32 {
        let mut optimiser = Optimiser::new(&settings(optimizer), 1);
        let mut weight = [1.0f32];
        for gradient in gradients {
            optimiser.begin_step(1.0);
            optimiser.update(0, &mut weight, &[*gradient]);
        }
        weight[0]
    }

    #[test]
    fn sgd_and_momentum_by_hand() {
        assert_eq!(walk(Optimizer::Sgd, &[1.0, 2.0]), 1.0 - 0.1 - 0.2);
        // v = 1, then 0.5 + 2.
        assert!((walk(Optimizer::Momentum, &[1.0, 2.0]) - (1.0 - 0.1 - 0.25)).abs() < 1e-6);
    }

    #[test]
    fn adam_by_hand() {
        // The first step is lr·g/(|g| + ε) whatever g is.
        assert!((walk(Optimizer::Adam, &[7.0]) - 0.9).abs() < 1e-6);
        // Second step: m̂ = (0.9·0.1·1 + 0.1·3)/(1−0.81), v̂ = (0.999·0.001·1 + 0.001·9)/(1−0.998001).
        let mean = (0.9 * 0.1 + 0.1 * 3.0) / (1.0 - 0.81);
        let square: f64 = (0.999 * 0.001 + 0.001 * 9.0) / (1.0 - 0.998_001);
        let expected = 0.9 - 0.1 * mean / square.sqrt();
        assert!((f64::from(walk(Optimizer::Adam, &[1.0, 3.0])) - expected).abs() < 1e-6);
    }

    #[test]
    fn half_a_cosine() {
        let factors: Vec<f64> = (0..4).map(|step| rate_factor(Schedule::Cosine, step, 4)).collect();
        let root = 0.5f64.sqrt();
        for (factor, expected) in factors.iter().zip([1.0, 0.5 * (1.0 + root), 0.5, 0.5 * (1.0 - root)]) {
            assert!((factor - expected).abs() < 1e-12, "{factors:?}");
        }
        assert_eq!(rate_factor(Schedule::Constant, 3, 4), 1.0);
    }
}
