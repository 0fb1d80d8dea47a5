//! Real coordinates to integers of one scale.

use starling_spec::random::{Purpose, Random};

/// How often a rounding is drawn again before every coordinate is rounded towards zero. Each draw is within the norm's bound with a
/// probability of at least 1 − e^(−1/2), so all fail with one of 2⁻⁴⁶ at most.
const DRAWS: u64 = 64;

/// Rounds to multiples of a scale, with a bound on the norm of the result.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantiser {
    scale: f64,
    level_max: u64,
    norm_squared_max: u64,
}

impl Quantiser {
    /// For vectors of `count` coordinates with a norm of at most `clip`.
    pub(super) fn new(clip: f64, scale: f64, level_max: u64, count: usize) -> Self {
        // Kairouz, Liu, Steinke 2021, Algorithm 1 and Proposition 26, with γ the scale and β = e^(−1/2).
        let (c, d) = (clip / scale, count as f64);
        let always = (c + libm::sqrt(d)) * (c + libm::sqrt(d));
        let mostly = c * c + d / 4.0 + (c + libm::sqrt(d) / 2.0);
        // One more for the rounding of floats on the way: the rotation may raise the norm by some millionths.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "finite, positive, and far below 2^63"
        )]
        let norm_squared_max = (always.min(mostly) * (1.0 + 1e-5)) as u64 + 1;
        Self { scale, level_max, norm_squared_max }
    }

    pub(super) fn scale(&self) -> f64 {
        self.scale
    }

    pub(super) fn level_max(&self) -> u64 {
        self.level_max
    }

    pub(super) fn norm_squared_max(&self) -> u64 {
        self.norm_squared_max
    }

    /// The integers of `values`. Coordinates beyond the range are cut to it first, which only lowers the norm.
    pub(super) fn round(&self, values: &[f32], key: u64) -> Vec<i64> {
        let mut levels = vec![0; values.len()];
        for draw in 0..DRAWS {
            let mut random = Random::new(key, Purpose::Round, &[draw]);
            if self.round_with(values, &mut levels, || random.unit_f64()) <= self.norm_squared_max {
                return levels;
            }
        }
        // Towards zero: no coordinate grows, so the norm is within the bound for sure.
        self.round_towards_zero(values, &mut levels);
        levels
    }

    #[allow(clippy::cast_possible_truncation, reason = "cut to the range of levels, of at most 15 bits, before")]
    fn round_with(&self, values: &[f32], levels: &mut [i64], mut unit: impl FnMut() -> f64) -> u64 {
        let bound = self.level_max as f64;
        let mut norm_squared = 0;
        for (level, value) in levels.iter_mut().zip(values) {
            let exact = (f64::from(*value) / self.scale).clamp(-bound, bound);
            let below = libm::floor(exact);
            *level = below as i64 + i64::from(unit() < exact - below);
            norm_squared += level.unsigned_abs() * level.unsigned_abs();
        }
        norm_squared
    }

    #[allow(clippy::cast_possible_truncation, reason = "cut to the range of levels, of at most 15 bits, before")]
    fn round_towards_zero(&self, values: &[f32], levels: &mut [i64]) {
        let bound = self.level_max as f64;
        for (level, value) in levels.iter_mut().zip(values) {
            *level = libm::trunc((f64::from(*value) / self.scale).clamp(-bound, bound)) as i64;
        }
    }
}

/// The range, in standard deviations, over which `level_max` levels on either side leave the least error in the mean of a normal coordinate
/// over `devices`: rounding's (range / levels)² / 6, which averages out over devices, against what is cut off,
/// 2·∫ (x − range)² φ(x) dx, which does not where devices agree.
pub(super) fn best_range(level_max: u64, devices: u32) -> f64 {
    let candidates = (8..=128).map(|sixteenths| f64::from(sixteenths) / 16.0);
    let error = |range: f64| {
        let step = range / level_max as f64;
        let tail = libm::erfc(range * std::f64::consts::FRAC_1_SQRT_2) / 2.0;
        let density = libm::exp(-range * range / 2.0) / libm::sqrt(std::f64::consts::TAU);
        step * step / (6.0 * f64::from(devices)) + 2.0 * ((1.0 + range * range) * tail - range * density)
    };
    candidates.min_by(|a, b| error(*a).total_cmp(&error(*b))).expect("there are candidates")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_grows_with_the_levels() {
        let ranges: Vec<f64> = [1, 3, 7, 127, 32_767].map(|levels| best_range(levels, 20)).to_vec();
        assert!(ranges.windows(2).all(|pair| pair[0] < pair[1]), "{ranges:?}");
        // 7 levels, 20 devices. At 3 deviations rounding costs 9/5880 and the cut 0.0004 (integrated by hand); at 2.5 and 4 it is more.
        assert!((2.75..3.5).contains(&ranges[2]), "{ranges:?}");
        assert!(best_range(7, 500) > ranges[2]);
    }

    #[test]
    fn a_norm_beyond_its_bound_is_drawn_again_and_in_the_end_rounded_towards_zero() {
        // A bound that no draw can keep: all ones would be the only way up.
        let quantiser = Quantiser { scale: 1.0, level_max: 7, norm_squared_max: 0 };
        assert_eq!(quantiser.round(&[0.999; 64], 1), [0; 64]);
        assert_eq!(quantiser.round(&[-0.999; 64], 1), [0; 64]);
        // One that about half of the draws keep.
        let quantiser = Quantiser { norm_squared_max: 32, ..quantiser };
        for key in 0..50 {
            let levels = quantiser.round(&[0.5; 64], key);
            let norm_squared: i64 = levels.iter().map(|level| level * level).sum();
            assert!((20..=32).contains(&norm_squared), "{norm_squared}");
        }
    }

    #[test]
    fn rounding_is_unbiased_within_the_range_and_cut_beyond_it() {
        let quantiser = Quantiser::new(100.0, 0.5, 7, 5);
        let values = [0.1, -0.3, 1.24, 3.5, -9.0];
        let mut sums = [0i64; 5];
        for key in 0..20_000 {
            quantiser.round(&values, key).iter().zip(&mut sums).for_each(|(level, sum)| *sum += level);
        }
        for (sum, expected) in sums.iter().zip([0.2, -0.6, 2.48, 7.0, -7.0]) {
            // Four standard errors of a coin.
            assert!(
                (*sum as f64 / 20_000.0 - expected).abs() < 4.0 * 0.5 / 20_000f64.sqrt() + 1e-6,
                "{sum} {expected}"
            );
        }
    }
}
