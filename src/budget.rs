//! What a simulated run's rounds cost in privacy, and how many of them its budget allows.

use anyhow::{Context, Result};
use serde::Serialize;
use starling_privacy::{Charge, Statement, rounds_within, spent};
use starling_spec::TaskPlan;

/// The price of a run's rounds.
pub(crate) struct Budget {
    charge: Charge,
    epsilon_max: Option<f64>,
    rounds_asked: u32,
    rounds: u32,
}

/// What a run's figures of `epsilon` mean.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    /// Spent by the end.
    pub(crate) epsilon: Option<f64>,
    /// The probability of the guarantee's failure.
    pub(crate) delta: f64,
    /// What the run may spend.
    pub(crate) epsilon_max: Option<f64>,
    /// The noise's standard deviation on a round's sum, in clipping norms.
    pub(crate) noise_multiplier: f64,
    /// Rounds that the budget allows, if fewer than the task asks for.
    pub(crate) stopped_after: Option<u32>,
    /// Unit, neighbours, sampling and adversary.
    #[serde(flatten)]
    pub(crate) statement: Statement,
    /// Noise and coins came from the seed: anybody can repeat them, so they protect nobody.
    pub(crate) simulated: bool,
}

impl Budget {
    /// That of `plan`, where it asks for differential privacy.
    pub(crate) fn of(plan: &TaskPlan) -> Result<Option<Self>> {
        let Some((privacy, charge)) = plan.privacy.as_ref().zip(plan.privacy.as_ref().and_then(Charge::of)) else {
            return Ok(None);
        };
        let epsilon_max = privacy.asked.dp.as_ref().and_then(|dp| dp.epsilon_max);
        let rounds = match epsilon_max {
            Some(most) => rounds_within(&charge, most, privacy.rounds)?,
            None => privacy.rounds,
        };
        if rounds == 0 {
            let first = spent(&charge, 1).context("the price of a round")?;
            anyhow::bail!(
                "privacy.dp.epsilon_max = {}: the first round alone spends {first:.4}; raise it, or privacy.dp.noise_multiplier",
                epsilon_max.unwrap_or(f64::INFINITY)
            );
        }
        Ok(Some(Self { charge, epsilon_max, rounds_asked: privacy.rounds, rounds }))
    }

    /// Rounds that it allows.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// What the first `rounds` have spent.
    pub(crate) fn spent(&self, rounds: u32) -> Result<f64> {
        Ok(spent(&self.charge, rounds)?)
    }

    /// What goes with the figures, once.
    pub(crate) fn summary(&self, epsilon: Option<f64>) -> Summary {
        Summary {
            epsilon,
            delta: self.charge.delta,
            epsilon_max: self.epsilon_max,
            noise_multiplier: self.charge.noise_multiplier,
            stopped_after: (self.rounds < self.rounds_asked).then_some(self.rounds),
            statement: self.charge.statement(),
            simulated: true,
        }
    }
}

impl Summary {
    /// The same in words.
    pub(crate) fn sentences(&self) -> Vec<String> {
        let Statement { unit, neighbours, sampling, adversary } = &self.statement;
        let spent = match self.epsilon.filter(|epsilon| epsilon.is_finite()) {
            Some(epsilon) => format!("epsilon {epsilon:.4} at delta {:e}", self.delta),
            None => "clipped, without noise: no epsilon holds".to_owned(),
        };
        let mut sentences = vec![
            format!("simulated: {spent}; noise and coins came from the seed and protect nobody"),
            format!("unit: one {unit}; neighbours: {neighbours}"),
            format!("sampling: {sampling}"),
            format!("adversary: {adversary}"),
        ];
        if let (Some(rounds), Some(most)) = (self.stopped_after, self.epsilon_max) {
            sentences.push(format!("stopped after {rounds} rounds: one more would pass epsilon_max = {most}"));
        }
        sentences
    }
}
