//! Noise on a sum of clipped vectors.

use super::{DeviationError, DiscreteGaussian, Source};

/// A discrete Gaussian on each coordinate of a sum of integer vectors.
///
/// The vectors were real ones of a norm of at most Δ grid units before each coordinate was rounded to the grid, which moves a vector by at most
/// `√m / 2`: so the integers' norm is at most `Δ + √m / 2`, and the deviation is that many times the noise multiplier z.
///
/// It is accounted as the continuous Gaussian of the same z. Without sampling that is exact (the module of [`DiscreteGaussian`]). With it,
/// compare it to a continuous Gaussian that is rounded to the grid, which is the continuous mechanism and then a computation on its
/// result: at k their masses differ by a share of `(k²/σ² − 1) / 24σ²`, so m coordinates are within a total variation of `m / 48σ²`
/// (times at most 1), which a round adds to δ, times `1 + e^ε`. [`Self::variation`] says how much it is; with σ = 2³⁰ grid units and
/// 200,000 coordinates it is 4·10⁻¹⁵.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SumNoise {
    gaussian: DiscreteGaussian,
    coordinates: usize,
}

impl SumNoise {
    /// For sums of vectors of `coordinates` integers, each rounded from one of an L2 norm of at most `norm_max`.
    ///
    /// # Errors
    /// [`DeviationError`] when the noise would be too fine or too wide for the grid.
    pub fn new(noise_multiplier: f64, norm_max: f64, coordinates: usize) -> Result<Self, DeviationError> {
        let sensitivity = norm_max + (coordinates as f64).sqrt() / 2.0;
        Ok(Self { gaussian: DiscreteGaussian::new(noise_multiplier * sensitivity)?, coordinates })
    }

    /// σ, in grid units.
    pub fn deviation(&self) -> f64 {
        self.gaussian.deviation()
    }

    /// The total variation between a round's noise and the rounded continuous one.
    pub fn variation(&self) -> f64 {
        self.coordinates as f64 / (48.0 * self.deviation() * self.deviation())
    }

    /// Adds noise to every coordinate, once. Sums within ±2⁶² stay within 64 bits but with a probability of e⁻⁵⁰⁰.
    ///
    /// # Panics
    /// If the sum has another number of coordinates.
    pub fn add_to(&self, sum: &mut [i64], source: &mut impl Source) {
        assert_eq!(sum.len(), self.coordinates, "noise of other sums");
        sum.iter_mut().for_each(|value| *value = value.wrapping_add(self.gaussian.sample(source)));
    }
}
