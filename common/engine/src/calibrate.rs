//! Calibration: the ranges that integer layers spread their levels over.
//!
//! The release is run in floats over the features, twice. The first time the smallest and the largest input of each linear
//! layer and convolution are found; the second time a histogram of [`BINS`] bins between them is filled. A range then leaves
//! out up to [`CLIPPED`] of the inputs at each end: a few outliers would otherwise stretch the levels of all others (Krishnamoorthi
//! 2018, arXiv 1806.08342, §3.1, gives the reasons; the percentile is that of common practice). Few inputs are not
//! clipped at all, since each end then has less than one to leave out.

use starling_compress::{InputRange, Release};
use starling_spec::shape::{Node, Op};

use crate::check::check;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::inference::Inference;

/// Bins of a histogram.
const BINS: usize = 4096;

/// The share of inputs that a range leaves out at each end: 99.99 % stay.
const CLIPPED: f64 = 0.000_05;

/// What a tensor was multiplied with, so far.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    low: f32,
    high: f32,
    count: u64,
    /// Empty until the range is known.
    bins: Vec<u64>,
}

impl Seen {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { low: 0.0, high: 0.0, count: 0, bins: Vec::new() }
    }

    /// Adds inputs: to the range, or once that is known to the histogram.
    pub(crate) fn add(&mut self, inputs: &[f32]) {
        if self.bins.is_empty() {
            for input in inputs.iter().filter(|input| input.is_finite()) {
                self.low = self.low.min(*input);
                self.high = self.high.max(*input);
            }
            return;
        }
        let width = self.width();
        for input in inputs.iter().filter(|input| input.is_finite()) {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of floats saturates")]
            let bin = ((f64::from(*input) - f64::from(self.low)) / width) as usize;
            self.bins[bin.min(BINS - 1)] += 1;
            self.count += 1;
        }
    }

    /// Begins the histogram.
    fn settle(&mut self) {
        self.bins = vec![0; BINS];
    }

    fn width(&self) -> f64 {
        ((f64::from(self.high) - f64::from(self.low)) / BINS as f64).max(f64::MIN_POSITIVE)
    }

    /// The range, clipped at the edges of bins.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a bound is rounded to f32; shares are small"
    )]
    fn range(&self) -> InputRange {
        let left_out = (self.count as f64 * CLIPPED) as u64;
        let skipped = |bins: &mut dyn Iterator<Item = &u64>| {
            let mut sum = 0;
            bins.take_while(|count| {
                sum += **count;
                sum <= left_out
            })
            .count()
        };
        let (below, above) = (skipped(&mut self.bins.iter()), skipped(&mut self.bins.iter().rev()));
        let low = (f64::from(self.low) + below as f64 * self.width()).min(0.0) as f32;
        let high = (f64::from(self.high) - above as f64 * self.width()).max(0.0) as f32;
        let step = (high - low) / 255.0;
        // Inputs that are all 0, or next to it: any range will do.
        if step.is_normal() && step.recip().is_normal() {
            InputRange { low, high }
        } else {
            InputRange { low: 0.0, high: 1.0 }
        }
    }
}

/// The range of the inputs of each linear layer and convolution of `release` over `features`, at the place of its weight in
/// the manifest; `None` for all other tensors. Depthwise convolutions have no integer form and get none either.
///
/// Ranges include 0 and leave out 0.005 % of the inputs at each end, of whole samples at hand: a few hundred are enough.
///
/// # Errors
/// [`EngineError`] as [`Engine::new`], and [`EngineError::Features`] when the features are no whole samples.
pub fn calibrate(release: &Release, features: &[f32]) -> Result<Vec<Option<InputRange>>, EngineError> {
    let network = check(release)?;
    let mut seen = vec![None; network.manifest.tensors.len()];
    observed(&network.nodes, &mut seen);
    let mut engine = Engine::observing(release, &network, seen)?;
    let mut outputs = Vec::new();
    let sample = engine.input_len();
    for pass in 0..2 {
        // Outputs are not wanted, and do not pile up.
        for features in features.chunks(sample * 256) {
            outputs.clear();
            engine.run_into(features, &mut outputs)?;
        }
        if pass == 0 {
            engine.seen().iter_mut().flatten().for_each(Seen::settle);
        }
    }
    Ok(engine.seen().iter().map(|seen| seen.as_ref().map(Seen::range)).collect())
}

/// Marks the weights whose inputs are asked for.
fn observed(nodes: &[Node], seen: &mut [Option<Seen>]) {
    for node in nodes {
        match &node.op {
            Op::Linear { weight, .. } | Op::Conv1d { weight, .. } | Op::Conv2d { weight, groups: 1, .. } => {
                seen[*weight] = Some(Seen::new());
            }
            Op::Residual(nodes) => observed(nodes, seen),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_are_left_out_and_zero_stays_in() {
        let mut seen = Seen::new();
        let inputs: Vec<f32> =
            (0..100_000).map(|index| 1.0 + (index % 1000) as f32 / 1000.0).chain([50.0, 60.0]).collect();
        seen.add(&inputs);
        seen.settle();
        seen.add(&inputs);
        let range = seen.range();
        assert_eq!(range.low, 0.0);
        assert!((2.0 - 0.02..2.05).contains(&range.high), "{range:?}");
    }

    #[test]
    fn few_inputs_are_not_clipped_and_none_give_a_range_too() {
        let mut seen = Seen::new();
        seen.add(&[-3.0, 0.5, 9.0]);
        seen.settle();
        seen.add(&[-3.0, 0.5, 9.0]);
        assert_eq!(seen.range(), InputRange { low: -3.0, high: 9.0 });
        let mut seen = Seen::new();
        seen.add(&[0.0, 1e-44]);
        seen.settle();
        seen.add(&[0.0, 1e-44]);
        assert_eq!(seen.range(), InputRange { low: 0.0, high: 1.0 });
    }
}
