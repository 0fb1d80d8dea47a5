//! A bit that each device writes so large that its sum is legible under the noise of the sum.
//!
//! Noise on each coordinate of a sum is as large as a whole update. So the bit is written as ±v on k coordinates: the mean of the bits is read
//! from all of them, with an error of `zN / (2v√k)` devices, N being the norm of the whole vector. With `v²k = n² r / (1 − r)`,
//! `r = (z / 2σ_b)²` and n the norm of the rest, that error is σ_b, and N² is n² / (1 − r): what the bit costs is that the noise is a
//! little larger everywhere. It is the split of Andrew et al. 2021, Theorem 1, in the geometry of one vector.

use super::RingError;

/// Where the bit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Estimate {
    coordinates: usize,
    level: u64,
}

impl Estimate {
    /// For vectors whose other coordinates have a squared norm of at most `norm_squared`, levels of at most `level_max`, noise of
    /// `noise_multiplier` norms, and a count that is to be `count_noise` devices off (one standard deviation).
    ///
    /// # Errors
    /// [`RingError::Setting`] when the count would need all of the noise's budget.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number, below 2^53")]
    pub(super) fn new(
        norm_squared: u64,
        level_max: u64,
        noise_multiplier: f64,
        count_noise: f64,
    ) -> Result<Self, RingError> {
        let share = noise_multiplier / (2.0 * count_noise);
        let wanted = norm_squared as f64 * share * share / (1.0 - share * share);
        if !(0.0..1.0).contains(&share) || wanted >= (1u64 << 52) as f64 {
            return Err(RingError::Setting {
                name: "count_noise",
                got: count_noise.to_string(),
                expected: "clearly more than half of dp.noise_multiplier, in devices",
            });
        }
        let level_max_squared = (level_max * level_max) as f64;
        let coordinates = libm::ceil(wanted / level_max_squared).max(1.0);
        let level = (libm::ceil(libm::sqrt(wanted / coordinates)) as u64).clamp(1, level_max);
        Ok(Self { coordinates: coordinates as usize, level })
    }

    pub(super) fn coordinates(&self) -> usize {
        self.coordinates
    }

    /// The squared norm of the bit, whatever it is.
    pub(super) fn norm_squared(&self) -> u64 {
        self.level * self.level * self.coordinates as u64
    }

    pub(super) fn write(&self, bit: bool, out: &mut Vec<i64>) {
        let level = i64::try_from(self.level).expect("a level has at most 15 bits");
        out.extend(std::iter::repeat_n(if bit { level } else { -level }, self.coordinates));
    }

    /// The mean of the bits of `devices` devices, from the sums of these coordinates.
    pub(super) fn read(&self, sums: &[i64], devices: usize) -> f64 {
        let sum = sums.iter().map(|sum| i128::from(*sum)).sum::<i128>() as f64;
        0.5 + sum / (2.0 * self.level as f64 * self.coordinates as f64 * devices.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_is_as_large_as_its_noise_asks_and_no_larger_than_a_level() {
        for level_max in [1, 7, 127, 32_767] {
            for (noise_multiplier, count_noise) in [(0.5, 5.0), (4.0, 5.0), (4.0, 2.1), (1.0, 50.0)] {
                let rest = 90_000 * level_max * level_max / 9;
                let bit = Estimate::new(rest, level_max, noise_multiplier, count_noise).expect("it fits");
                assert!(bit.level <= level_max);
                let whole = ((rest + bit.norm_squared()) as f64).sqrt();
                let root = (bit.coordinates as f64).sqrt();
                let error = noise_multiplier * whole / (2.0 * bit.level as f64 * root);
                assert!(error <= count_noise, "{error} devices instead of {count_noise}");
                // Within one coordinate or one level of what is needed.
                assert!(error > 0.9 * count_noise || bit.coordinates == 1 || bit.level == 1, "{bit:?}: {error}");
            }
        }
        for count_noise in [2.0, 1.0, 0.0, f64::NAN] {
            assert!(Estimate::new(1000, 7, 4.0, count_noise).is_err(), "the count would take all: {count_noise}");
        }
    }

    #[test]
    fn the_mean_of_bits_is_read_from_sums() {
        let bit = Estimate::new(1_000_000, 7, 1.0, 5.0).expect("it fits");
        let mut sums = vec![0; bit.coordinates()];
        for device in 0..10 {
            let mut written = Vec::new();
            bit.write(device < 3, &mut written);
            assert_eq!(written.iter().map(|level| level.unsigned_abs().pow(2)).sum::<u64>(), bit.norm_squared());
            sums.iter_mut().zip(written).for_each(|(sum, level)| *sum += level);
        }
        assert!((bit.read(&sums, 10) - 0.3).abs() < 1e-12);
    }
}
