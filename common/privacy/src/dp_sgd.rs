//! DP-SGD: the part of a step that a device's examples are protected by, and what steps cost.
//!
//! ```text
//! a coin of q for each example → its gradient → clip to C → round to the grid → sum → discrete Gaussian of z·C → / (q·n)
//! ```
//!
//! This is Abadi et al. 2016, algorithm 1, on integers: a gradient of the norm C is 2³⁰ grid units long, so that rounding costs nothing that a
//! float would have kept, and no floating-point noise is added anywhere (the module of [`crate::noise`] says why). The noise is of [`SumNoise`], which
//! pays for the rounding.
//!
//! *What an ε here means* is in [`meaning`]. The number of a device's examples is taken as known: it is in the sampling rate, in the number of
//! steps and, in plain sums, in the update's weight. How long a step takes depends on how many examples it drew; whoever can time steps on
//! the device is not guarded against.

use starling_spec::{DpSgd, TrainSettings};

use crate::accountant::{Accountant, PrivacyError, SampledGaussian, Statement};
use crate::noise::{DeviationError, Source, SumNoise};

/// The clipping norm, in grid units, is two to this: the sum of 2³² such gradients stays within 2⁶².
const GRID_BITS: i32 = 30;

/// Draws each of `rows` by a coin of its own of probability `rate`, rounded down to 2⁻⁶⁴, into `drawn`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate below 1 is below 2^64 in units of 2^-64"
)]
pub fn sample(rows: &[u32], rate: f64, source: &mut impl Source, drawn: &mut Vec<u32>) {
    drawn.clear();
    if rate >= 1.0 {
        drawn.extend_from_slice(rows);
        return;
    }
    let below = (rate * 2f64.powi(64)) as u64;
    drawn.extend(rows.iter().copied().filter(|_| source.next_u64() < below));
}

/// The sum of one step's clipped gradients.
#[derive(Debug, Clone)]
pub struct GradientSum {
    clip: f64,
    noise: SumNoise,
    sum: Vec<i64>,
}

impl GradientSum {
    /// An empty sum of gradients of `coordinates` values.
    ///
    /// # Errors
    /// [`DeviationError`] when the noise does not fit the grid.
    pub fn new(dp: &DpSgd, coordinates: usize) -> Result<Self, DeviationError> {
        let noise = SumNoise::new(dp.noise_multiplier, 2f64.powi(GRID_BITS), coordinates)?;
        Ok(Self { clip: dp.clip, noise, sum: vec![0; coordinates] })
    }

    /// Adds an example's gradient, scaled down to the clipping norm where it is longer. One that is not finite adds nothing: whether a training
    /// fails must not depend on one example.
    ///
    /// # Panics
    /// If it has another number of coordinates.
    #[allow(clippy::cast_possible_truncation, reason = "a clipped coordinate is at most 2^30 grid units")]
    pub fn add(&mut self, gradient: &[f32]) {
        assert_eq!(gradient.len(), self.sum.len(), "a gradient of another network");
        let norm = gradient.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if !norm.is_finite() {
            return;
        }
        let grid = 2f64.powi(GRID_BITS) / norm.max(self.clip);
        for (sum, value) in self.sum.iter_mut().zip(gradient) {
            *sum += (f64::from(*value) * grid).round_ties_even() as i64;
        }
    }

    /// Adds the noise, once, and writes the sum over the number of examples that a step is expected to draw; the next step's sum is empty.
    #[allow(clippy::cast_possible_truncation, reason = "a gradient at the precision of the parameters")]
    pub fn finish(&mut self, expected: f64, source: &mut impl Source, mean: &mut [f32]) {
        self.noise.add_to(&mut self.sum, source);
        let unit = self.clip / 2f64.powi(GRID_BITS) / expected;
        for (mean, sum) in mean.iter_mut().zip(&mut self.sum) {
            *mean = (std::mem::take(sum) as f64 * unit) as f32;
        }
    }
}

/// So many steps on a device with so many examples.
///
/// # Errors
/// [`PrivacyError::Value`] for a noise multiplier that is none.
pub fn steps(train: &TrainSettings, dp: &DpSgd, examples: usize, steps: u32) -> Result<SampledGaussian, PrivacyError> {
    SampledGaussian::new(train.sampling_rate(examples), dp.noise_multiplier, steps)
}

/// What steps have spent of one example's privacy, an upper bound: by the tight accountant where it can answer, else by Rényi divergences.
///
/// # Errors
/// [`PrivacyError`] when δ is not between 0 and 1.
pub fn epsilon(steps: SampledGaussian, delta: f64) -> Result<f64, PrivacyError> {
    match Accountant::Pld.epsilon(&[steps], delta) {
        Err(PrivacyError::Span(_)) => Accountant::Rdp.epsilon(&[steps], delta),
        answer => answer,
    }
}

/// What an ε of examples means.
pub fn meaning() -> Statement {
    Statement {
        unit: "example of one device",
        neighbours: "one example added or removed; how many a device has is taken as known",
        sampling: "each step draws each of the device's examples by a coin of its own (Poisson) that nobody else sees, of probability batch / examples"
            .into(),
        adversary: "whoever sees all of the device's updates and all model versions, the aggregator among them",
    }
}

/// A task's DP-SGD in words, over so many rounds: what the noise is, and what it is worth.
pub fn words(train: &TrainSettings, rounds: u32) -> Option<(String, Vec<String>)> {
    let dp = train.dp_sgd.as_ref()?;
    let noise = format!(
        "Each device adds noise to every step of its training: its standard deviation is {} times the norm of {} that one example's gradient is clipped \
         to. It protects single examples, from the aggregator as well; that a device took part it does not hide.",
        dp.noise_multiplier, dp.clip
    );
    let cost = |examples: usize| {
        let count = u32::try_from(train.steps(examples)).unwrap_or(u32::MAX).saturating_mul(rounds);
        let spent =
            steps(train, dp, examples, count).and_then(|steps| epsilon(steps, dp.delta)).unwrap_or(f64::INFINITY);
        format!("{spent:.4} of {examples} examples ({count} steps)")
    };
    let costs: Vec<String> = [100, 1_000, 10_000].into_iter().map(cost).collect();
    let Statement { unit, neighbours, sampling, adversary } = meaning();
    Some((
        noise,
        vec![
            format!(
                "For one example, on a device that is in all {rounds} rounds: epsilon {}, at delta {:e}. A device's own ledger counts the rounds that it was in.",
                costs.join(", "),
                dp.delta
            ),
            match dp.epsilon_max {
                Some(most) => format!(
                    "A device takes no part in rounds with which an example would have spent more than {most} in the run."
                ),
                None => "No budget of the plan's stops a device (train.dp_sgd.epsilon_max is not set).".to_owned(),
            },
            format!("Unit: {unit}. Neighbours: {neighbours}. Sampling: {sampling}. Adversary: {adversary}."),
        ],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Simulated;

    const DP: DpSgd = DpSgd { clip: 0.5, noise_multiplier: 2.0, delta: 1e-5, epsilon_max: None };

    #[test]
    fn one_example_moves_a_sum_by_the_clipping_norm_at_most() {
        let mut sum = GradientSum::new(&DP, 1000).expect("a grid");
        let gradients = [vec![3.0; 1000], vec![-1e-5; 1000], vec![f32::MAX; 1000], vec![f32::NAN; 1000]];
        for (gradient, clipped) in gradients.iter().zip([true, false, true, false]) {
            let before = sum.sum.clone();
            sum.add(gradient);
            let moved = sum.sum.iter().zip(&before).map(|(now, then)| (now - then) as f64);
            let norm = moved.map(|units| units * units).sum::<f64>().sqrt() / 2f64.powi(GRID_BITS) * DP.clip;
            // √1000 / 2 grid units of 2⁻³⁰ clips are what rounding adds at most.
            assert!(norm <= DP.clip * (1.0 + 1.5e-8), "{norm}");
            assert_eq!(clipped, norm > DP.clip * 0.999, "{norm}");
        }
        // The short gradient came through whole: 1e-5 · √1000.
        let mut short = GradientSum::new(&DP, 1000).expect("a grid");
        short.add(&gradients[1]);
        let unit = DP.clip / 2f64.powi(GRID_BITS);
        assert!(short.sum.iter().all(|units| (*units as f64 * unit + 1e-5).abs() < unit));
    }

    #[test]
    fn the_noise_is_the_multiplier_times_the_norm_over_the_expected_batch() {
        let coordinates = 200_000;
        let mut sum = GradientSum::new(&DP, coordinates).expect("a grid");
        let mut mean = vec![0.0; coordinates];
        for step in 0..2 {
            sum.finish(8.0, &mut Simulated::new(step, &[1]), &mut mean);
            let square = mean.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / coordinates as f64;
            // Of 200,000 draws the deviation is known to 0.16 %.
            assert!((square.sqrt() / (2.0 * 0.5 / 8.0) - 1.0).abs() < 0.01, "{}", square.sqrt());
        }
    }

    #[test]
    fn coins_draw_each_example_by_itself() {
        let rows: Vec<u32> = (0..100_000).collect();
        let mut drawn = Vec::new();
        let mut source = Simulated::new(3, &[]);
        sample(&rows, 0.05, &mut source, &mut drawn);
        // 5,000 ± 4 · 69.
        assert!(drawn.len().abs_diff(5_000) < 276 && drawn.is_sorted(), "{}", drawn.len());
        let before = drawn.clone();
        sample(&rows, 0.05, &mut source, &mut drawn);
        assert_ne!(drawn, before);
        sample(&rows, 1.0, &mut source, &mut drawn);
        assert_eq!(drawn, rows);
        sample(&rows, 0.0, &mut source, &mut drawn);
        assert!(drawn.is_empty());
    }

    #[test]
    fn words_follow_from_the_settings() {
        let dp_sgd = Some(DpSgd { clip: 1.0, noise_multiplier: 1.1, delta: 1e-5, epsilon_max: Some(8.0) });
        let train = TrainSettings { batch: 10, epochs: 1, dp_sgd, ..TrainSettings::default() };
        let (noise, lines) = words(&train, 60).expect("words");
        assert!(noise.contains("1.1 times the norm of 1"), "{noise}");
        let expected = Accountant::Pld
            .epsilon(&[SampledGaussian::new(0.01, 1.1, 6_000).expect("steps")], 1e-5)
            .expect("an epsilon");
        assert!(lines[0].contains(&format!("{expected:.4} of 1000 examples (6000 steps)")), "{lines:?}");
        assert!(lines[1].contains("more than 8 "), "{lines:?}");
        assert!(lines[2].starts_with("Unit: example of one device. Neighbours: one example"), "{lines:?}");
        assert!(words(&TrainSettings::default(), 60).is_none());
    }
}
