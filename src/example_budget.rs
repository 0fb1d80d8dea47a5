//! What a simulated run with `train.dp_sgd` costs its devices' examples, and which devices have nothing left.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use starling_privacy::{Statement, dp_sgd};
use starling_spec::{DpSgd, TaskPlan, TrainSettings};

/// The trainings of all devices.
pub(crate) struct ExampleBudget {
    train: TrainSettings,
    dp: DpSgd,
    /// Of each device: its examples, and the rounds that it has trained in.
    devices: Vec<(usize, u32)>,
    exhausted: Vec<bool>,
    /// By sampling rate (its bits) and steps.
    known: BTreeMap<(u64, u32), f64>,
}

/// What a run's figures of one example mean.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ExampleSummary {
    /// Spent by the end, on the device on which most is.
    pub(crate) epsilon: Option<f64>,
    /// The probability of the guarantee's failure.
    pub(crate) delta: f64,
    /// What a device lets the run spend.
    pub(crate) epsilon_max: Option<f64>,
    /// The norm that one example's gradient is clipped to.
    pub(crate) clip: f64,
    /// The noise's standard deviation on a step's sum, in clipping norms.
    pub(crate) noise_multiplier: f64,
    /// The most steps that a device took.
    pub(crate) steps_max: u32,
    /// Devices that stopped taking part, since one more round would have passed `epsilon_max`.
    pub(crate) devices_exhausted: usize,
    /// Unit, neighbours, sampling and adversary.
    #[serde(flatten)]
    pub(crate) statement: Statement,
    /// Noise and coins came from the seed: anybody can repeat them, so they protect nobody.
    pub(crate) simulated: bool,
}

impl ExampleBudget {
    /// That of `plan`, where it asks for DP-SGD, on devices with so many examples each.
    pub(crate) fn of(plan: &TaskPlan, examples: impl Iterator<Item = usize>) -> Option<Self> {
        let devices: Vec<(usize, u32)> = examples.map(|count| (count, 0)).collect();
        Some(Self {
            dp: plan.train.dp_sgd?,
            train: plan.train.clone(),
            exhausted: vec![false; devices.len()],
            devices,
            known: BTreeMap::new(),
        })
    }

    /// Charges a device for one more training; `false` where it has no room for it, as a device's own ledger says.
    pub(crate) fn begin(&mut self, device: usize) -> Result<bool> {
        let (examples, rounds) = self.devices[device];
        if let Some(most) = self.dp.epsilon_max
            && self.epsilon(self.price(examples, rounds + 1))? > most
        {
            self.exhausted[device] = true;
            return Ok(false);
        }
        self.devices[device].1 += 1;
        Ok(true)
    }

    /// Devices without room for one more round.
    pub(crate) fn exhausted(&self) -> usize {
        self.exhausted.iter().filter(|exhausted| **exhausted).count()
    }

    /// Whether nobody that has examples has room for one more round.
    pub(crate) fn is_over(&self) -> bool {
        self.devices.iter().zip(&self.exhausted).all(|((examples, _), exhausted)| *exhausted || *examples == 0)
    }

    /// What is spent on the device on which most is.
    pub(crate) fn largest(&mut self) -> Result<f64> {
        let trained = self.devices.iter().filter(|(_, rounds)| *rounds > 0);
        let mut prices: Vec<(f64, u32)> = trained.map(|(examples, rounds)| self.price(*examples, *rounds)).collect();
        prices.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let (mut largest, mut steps_seen) = (0f64, None);
        // From the highest rate down: one with a lower rate can have spent more with more steps only.
        for (rate, steps) in prices.into_iter().rev() {
            if steps_seen.is_none_or(|seen| steps > seen) {
                largest = largest.max(self.epsilon((rate, steps))?);
                steps_seen = Some(steps);
            }
        }
        Ok(largest)
    }

    /// What goes with the figures, once.
    pub(crate) fn summary(&self, epsilon: Option<f64>) -> ExampleSummary {
        let DpSgd { clip, noise_multiplier, delta, epsilon_max } = self.dp;
        let steps = self.devices.iter().map(|(examples, rounds)| self.price(*examples, *rounds).1);
        ExampleSummary {
            epsilon,
            delta,
            epsilon_max,
            clip,
            noise_multiplier,
            steps_max: steps.max().unwrap_or(0),
            devices_exhausted: self.exhausted(),
            statement: dp_sgd::meaning(),
            simulated: true,
        }
    }

    /// Sampling rate and steps of so many rounds.
    fn price(&self, examples: usize, rounds: u32) -> (f64, u32) {
        let steps = u32::try_from(self.train.steps(examples)).unwrap_or(u32::MAX);
        (self.train.sampling_rate(examples), steps.saturating_mul(rounds))
    }

    fn epsilon(&mut self, (rate, steps): (f64, u32)) -> Result<f64> {
        if let Some(known) = self.known.get(&(rate.to_bits(), steps)) {
            return Ok(*known);
        }
        let all = starling_privacy::SampledGaussian::new(rate, self.dp.noise_multiplier, steps)?;
        let epsilon = dp_sgd::epsilon(all, self.dp.delta)?;
        self.known.insert((rate.to_bits(), steps), epsilon);
        Ok(epsilon)
    }
}

impl ExampleSummary {
    /// The same in words.
    pub(crate) fn sentences(&self) -> Vec<String> {
        let Statement { unit, neighbours, sampling, adversary } = &self.statement;
        let spent = self.epsilon.map_or_else(|| "nothing".to_owned(), |epsilon| format!("epsilon {epsilon:.4}"));
        let mut sentences = vec![
            format!(
                "one example, simulated: {spent} at delta {:e} on the device on which it is most; noise and coins came from the seed and protect nobody",
                self.delta
            ),
            format!("unit: one {unit}; neighbours: {neighbours}"),
            format!("sampling: {sampling}"),
            format!("adversary: {adversary}"),
        ];
        if let (Some(most), 1..) = (self.epsilon_max, self.devices_exhausted) {
            sentences.push(format!(
                "{} devices stopped taking part: one more round would pass train.dp_sgd.epsilon_max = {most}",
                self.devices_exhausted
            ));
        }
        sentences
    }
}
