//! Central differential privacy: the aggregator's noise on the sum of a round, and the mean that comes of it.
//!
//! The sum of clipped updates exists in one place, the fold's accumulators in memory. [`NoisyMean::apply`] consumes the fold, adds the round's
//! noise to the integers once, and only then divides: what reaches the master, and so a disk, has its noise.

use starling_privacy::noise::{DeviationError, Source, SumNoise};
use starling_spec::{DpMechanism, DpMode, Participation, TaskPlan};

use crate::clipping::ClipStep;
use crate::fold::Fold;
use crate::numerics::Numerics;

/// What one device adds to the count of those within the clipping norm, or takes away, in units of the count: noise is drawn on this grid.
const COUNT_UNITS: f64 = (1u64 << 40) as f64;

/// Why a plan's noise cannot be drawn.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error(
    "the noise of privacy.dp does not fit the fold's grid; change privacy.dp.noise_multiplier, privacy.dp.clip or update.value_max"
)]
pub struct NoisyMeanError(#[from] DeviationError);

/// How a round's sum becomes a mean under a plan with central noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoisyMean {
    noise: Option<SumNoise>,
    denominator: Option<f64>,
    is_tree: bool,
    /// Where the clipping norm adapts.
    clipping: Option<ClipStep>,
    /// On the count of updates within it.
    count_noise: Option<SumNoise>,
}

impl NoisyMean {
    /// What the plan of a round asks for; none where the aggregator adds no noise to plain sums.
    ///
    /// # Errors
    /// [`NoisyMeanError`] when the noise is too fine or too wide for the grid.
    pub fn of(plan: &TaskPlan, numerics: &Numerics) -> Result<Option<Self>, NoisyMeanError> {
        let Some(privacy) = &plan.privacy else { return Ok(None) };
        let Some(dp) = privacy.asked.dp.as_ref().filter(|dp| dp.mode == DpMode::Central) else { return Ok(None) };
        if privacy.asked.secure_aggregation {
            return Ok(None);
        }
        let norm_max = libm::ldexp(dp.clip, numerics.fixed().fraction_bits());
        let multiplier = privacy.update_multiplier(dp.noise_multiplier);
        let noise = (dp.noise_multiplier > 0.0)
            .then(|| SumNoise::new(multiplier, norm_max, numerics.parameters()))
            .transpose()?;
        // A device moves the count by one half up or down, which is one unit.
        let count_noise = privacy.count_noise().map(|count| SumNoise::new(2.0 * count, COUNT_UNITS, 1)).transpose()?;
        // A sample's size says who is in it: the mean is over how many are expected.
        // Noise that a later round takes back has to be of the same size then.
        let is_tree = matches!(dp.mechanism, DpMechanism::Tree { .. });
        let fixed = is_tree || privacy.participation == Participation::Poisson;
        let denominator = privacy.cohort().filter(|_| fixed);
        Ok(Some(Self { noise, denominator, is_tree, clipping: ClipStep::of(plan), count_noise }))
    }

    /// Adds `rate` times the mean of what `fold` holds, with the noise of `round` (from 1), to `master`. `words` gives the random words of a
    /// node of the noise: of the round where rounds are independent, of a node of the tree otherwise. The same node has to get the same words
    /// each time. What comes back is the next round's clipping norm, where it adapts.
    ///
    /// # Panics
    /// If `master` has another number of parameters than the fold.
    pub fn apply<S: Source>(
        &self,
        fold: Fold,
        round: u32,
        rate: f64,
        mut words: impl FnMut(Node) -> S,
        master: &mut [f32],
    ) -> Option<f64> {
        let (within, devices) = (fold.within_clip(), fold.contributors().len());
        let (numerics, mut sum, weight_sum) = fold.into_sum();
        let own = Node { level: 0, index: round };
        let mut source = (!self.is_tree).then(|| words(own));
        if let Some(noise) = &self.noise {
            if let Some(source) = &mut source {
                noise.add_to(&mut sum, source);
            } else {
                let (joined, left) = steps(round);
                noise.add_to(&mut sum, &mut words(joined));
                let mut gone = vec![0; sum.len()];
                left.for_each(|node| noise.add_to(&mut gone, &mut words(node)));
                sum.iter_mut().zip(gone).for_each(|(sum, gone)| *sum = sum.wrapping_sub(gone));
            }
        }
        match self.denominator {
            Some(denominator) => numerics.fixed().add_share(&sum, denominator / rate, master),
            None => numerics.fixed().add_mean(&sum, weight_sum, rate, master),
        }
        let clipping = self.clipping?;
        #[allow(clippy::cast_possible_truncation, reason = "a whole number: at most 2^20 devices of 2^40 units")]
        let mut halves = [(2.0 * within as f64 - devices as f64) * COUNT_UNITS].map(|units| units as i64);
        if let (Some(noise), Some(source)) = (&self.count_noise, &mut source) {
            noise.add_to(&mut halves, source);
        }
        let expected = self.denominator.unwrap_or(devices as f64);
        Some(clipping.next((expected > 0.0).then(|| 0.5 + halves[0] as f64 / COUNT_UNITS / (2.0 * expected))))
    }
}

/// A node of the tree over rounds: the `index`-th (from 1) of those over `2^level` rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Node {
    /// Rounds under it, as a power of two.
    pub level: u32,
    /// Which of them.
    pub index: u32,
}

/// What a prefix sum of `round` rounds has that the one before had not, and the other way round. The prefix of t rounds is the sum of one node for
/// each bit of t; from t − 1 to t the nodes of the trailing ones give way to one node above them all.
fn steps(round: u32) -> (Node, impl Iterator<Item = Node>) {
    let level = round.trailing_zeros();
    let joined = Node { level, index: round >> level };
    (joined, (0..level).map(move |level| Node { level, index: (round - 1) >> level }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_nodes_of_a_prefix_are_its_binary_digits() {
        let mut held = BTreeSet::new();
        for round in 1..=200u32 {
            let (joined, left) = steps(round);
            for node in left {
                assert!(held.remove(&(node.level, node.index)), "round {round}: {node:?}");
            }
            assert!(held.insert((joined.level, joined.index)));
            // Together they are the rounds from 1 to this one, each once.
            let mut rounds: Vec<u32> = held
                .iter()
                .flat_map(|(level, index)| (index - 1) << level..index << level)
                .map(|round| round + 1)
                .collect();
            rounds.sort_unstable();
            assert_eq!(rounds, (1..=round).collect::<Vec<_>>());
            assert_eq!(held.len(), round.count_ones() as usize);
        }
    }
}
