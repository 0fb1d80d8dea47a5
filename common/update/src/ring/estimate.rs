//! Shares, from 0 to 1, that each device writes so large that their mean is legible under the noise of the sum: whether its update was within the
//! clipping norm, and how much of its hold-out it has classified rightly.
//!
//! Noise on each coordinate of a sum is as large as a whole update. So a share x is written as (2x − 1)v on k coordinates: the mean is read
//! from all of them, with an error of `zN / (2v√k)` devices, N being the norm of the whole vector. With `v²k = n² r / (1 − Σr)`,
//! `r = (z / 2σ)²` and n the norm of the rest, that error is σ, and N² is n² / (1 − Σr): what they cost is that the noise is a
//! little larger everywhere. It is the split of Andrew et al. 2021, Theorem 1, in the geometry of one vector.

use starling_spec::random::{Purpose, Random};

use super::RingError;

/// Where a share goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Estimate {
    coordinates: usize,
    level: u64,
}

impl Estimate {
    /// One for each of `deviations` (σ, in devices), for vectors whose other coordinates have a squared norm of at most `norm_squared`, levels of
    /// at most `level_max`, and noise of `noise_multiplier` norms.
    ///
    /// # Errors
    /// [`RingError::Setting`] when they would need all of the noise's budget.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number, below 2^53")]
    pub(super) fn all(
        norm_squared: u64,
        level_max: u64,
        noise_multiplier: f64,
        deviations: &[f64],
    ) -> Result<Vec<Self>, RingError> {
        let parts: Vec<f64> = deviations.iter().map(|sigma| (noise_multiplier / (2.0 * sigma)).powi(2)).collect();
        let whole: f64 = parts.iter().sum();
        let wanted = |part: &f64| norm_squared as f64 * part / (1.0 - whole);
        if !(0.0..1.0).contains(&whole) || parts.iter().any(|part| wanted(part) >= (1u64 << 52) as f64) {
            return Err(RingError::Setting {
                name: "noise on counts",
                got: format!("{deviations:?} devices"),
                expected: "clearly more than half of dp.noise_multiplier, together (the root of the sum of (z / 2σ)² below 1)",
            });
        }
        let placed = parts.iter().map(|part| {
            let wanted = wanted(part);
            let coordinates = libm::ceil(wanted / (level_max * level_max) as f64).max(1.0);
            let level = (libm::ceil(libm::sqrt(wanted / coordinates)) as u64).clamp(1, level_max);
            Self { coordinates: coordinates as usize, level }
        });
        Ok(placed.collect())
    }

    pub(super) fn coordinates(&self) -> usize {
        self.coordinates
    }

    /// The largest squared norm of a share's coordinates.
    pub(super) fn norm_squared(&self) -> u64 {
        self.level * self.level * self.coordinates as u64
    }

    /// Writes a share; what is between two levels is rounded at random, by `key`.
    #[allow(clippy::cast_possible_truncation, reason = "a level has at most 15 bits")]
    pub(super) fn write(&self, share: f64, key: u64, out: &mut Vec<i64>) {
        let exact = (2.0 * share.clamp(0.0, 1.0) - 1.0) * self.level as f64;
        let below = libm::floor(exact);
        let mut random = Random::new(key, Purpose::Round, &[u64::MAX, out.len() as u64]);
        out.extend((0..self.coordinates).map(|_| below as i64 + i64::from(random.unit_f64() < exact - below)));
    }

    /// The mean of the shares of `devices` devices, from the sums of these coordinates.
    pub(super) fn read(&self, sums: &[i64], devices: usize) -> f64 {
        let sum = sums.iter().map(|sum| i128::from(*sum)).sum::<i128>() as f64;
        0.5 + sum / (2.0 * self.level as f64 * self.coordinates as f64 * devices.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_as_large_as_their_noise_asks_and_no_larger_than_a_level() {
        for level_max in [1, 7, 127, 32_767] {
            for (noise_multiplier, deviations) in
                [(0.5, vec![5.0]), (4.0, vec![5.0, 4.0]), (4.0, vec![2.1]), (1.0, vec![50.0, 1.0])]
            {
                let rest = 90_000 * level_max * level_max / 9;
                let all = Estimate::all(rest, level_max, noise_multiplier, &deviations).expect("they fit");
                let beside: u64 = all.iter().map(Estimate::norm_squared).sum();
                let whole = ((rest + beside) as f64).sqrt();
                for (one, deviation) in all.iter().zip(&deviations) {
                    assert!(one.level <= level_max);
                    let error = noise_multiplier * whole / (2.0 * one.level as f64 * (one.coordinates as f64).sqrt());
                    // Within one coordinate or one level of what is needed, whoever else is rounded up.
                    assert!(error <= 1.01 * deviation, "{error} devices instead of {deviation}");
                    assert!(error > 0.9 * deviation || one.coordinates == 1 || one.level == 1, "{one:?}: {error}");
                }
            }
        }
        for deviations in [vec![2.0], vec![1.0], vec![0.0], vec![f64::NAN], vec![2.5, 3.0]] {
            assert!(Estimate::all(1000, 7, 4.0, &deviations).is_err(), "they would take all: {deviations:?}");
        }
    }

    #[test]
    fn the_mean_of_shares_is_read_from_sums() {
        let one = Estimate::all(1_000_000, 7, 1.0, &[5.0]).expect("it fits")[0];
        let mean = |shares: &[f64]| {
            let mut sums = vec![0; one.coordinates()];
            for (key, share) in (0u64..).zip(shares) {
                let mut written = Vec::new();
                one.write(*share, key, &mut written);
                assert!(written.iter().map(|level| level.unsigned_abs().pow(2)).sum::<u64>() <= one.norm_squared());
                sums.iter_mut().zip(written).for_each(|(sum, level)| *sum += level);
            }
            one.read(&sums, shares.len())
        };
        assert!((mean(&[1.0, 0.0, 0.0, 1.0, 0.0]) - 0.4).abs() < 1e-12, "bits are exact");
        // Rounding: at most half a level, over 7 levels, 207 coordinates or more and 1,000 devices.
        assert!(one.coordinates() > 200, "{one:?}");
        let shares: Vec<f64> = (0..1000).map(|index| f64::from(index) / 999.0 * 0.6).collect();
        assert!((mean(&shares) - 0.3).abs() < 0.001, "{}", mean(&shares));
    }
}
