//! A device's share of a sum's noise.

use super::{DeviationError, DiscreteGaussian, Source};

/// The least deviation of a share: below it, sums of shares are not concentrated enough (see `accountant::concentrated`).
const DEVIATION_MIN: f64 = 2.0;

/// What a device's bound leaves out counts as no loss of privacy: 2⁻¹²⁸ a round.
const SHARE_TAIL_BITS: f64 = 128.0;

/// A sum beyond its bound wraps around, which spoils a round and reveals nothing: 2⁻⁴⁰.
const SUM_TAIL_BITS: f64 = 40.0;

/// Why shares cannot be drawn.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ShareError {
    /// The whole is too fine for so many shares.
    #[error("a share of the noise has a deviation of {0:.3} grid units: expected at least 2")]
    Fine(f64),
    /// The sampler does not do it.
    #[error(transparent)]
    Deviation(#[from] DeviationError),
}

/// A discrete Gaussian on each coordinate of one device's vector, such that the sum over `honest` devices has a deviation of at least
/// `noise_multiplier × norm_max` (distributed discrete Gaussian: Kairouz, Liu and Steinke 2021).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShareNoise {
    gaussian: DiscreteGaussian,
    coordinates: usize,
}

impl ShareNoise {
    /// For vectors of `coordinates` integers with an L2 norm of at most `norm_max`, in sums with the noise of at least `honest`
    /// devices that keep theirs to themselves.
    ///
    /// # Errors
    /// [`ShareError`] when the share is too fine or too wide.
    pub fn new(noise_multiplier: f64, norm_max: f64, honest: u32, coordinates: usize) -> Result<Self, ShareError> {
        let gaussian = DiscreteGaussian::new(noise_multiplier * norm_max / f64::from(honest.max(1)).sqrt())?;
        if gaussian.deviation() < DEVIATION_MIN {
            return Err(ShareError::Fine(gaussian.deviation()));
        }
        Ok(Self { gaussian, coordinates })
    }

    /// σ of a share.
    pub fn deviation(&self) -> f64 {
        self.gaussian.deviation()
    }

    /// A magnitude that all coordinates of a share stay within, but for a probability of 2⁻¹²⁸.
    pub fn share_max(&self) -> u64 {
        self.bound(1, SHARE_TAIL_BITS)
    }

    /// A magnitude that all coordinates of a sum of `devices` shares stay within, but for a probability of 2⁻⁴⁰.
    pub fn sum_max(&self, devices: u32) -> u64 {
        self.bound(devices, SUM_TAIL_BITS)
    }

    /// Discrete Gaussians are sub-Gaussian with their σ (Canonne, Kamath and Steinke 2020, corollary on tails), and so are their sums.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "below 2^57 times 2^11 · 16, cut at 64 bits"
    )]
    fn bound(&self, devices: u32, tail_bits: f64) -> u64 {
        let nats = tail_bits * std::f64::consts::LN_2 + (2.0 * self.coordinates.max(1) as f64).ln();
        ((2.0 * nats * f64::from(devices)).sqrt() * self.deviation()).ceil() as u64
    }

    /// Adds a share to each coordinate; a sample beyond [`Self::share_max`] is drawn again.
    ///
    /// # Panics
    /// If the vector has another number of coordinates.
    pub fn add_to(&self, vector: &mut [i64], source: &mut impl Source) {
        assert_eq!(vector.len(), self.coordinates, "noise of other vectors");
        let bound = self.share_max();
        for value in vector {
            let sample = loop {
                let sample = self.gaussian.sample(source);
                if sample.unsigned_abs() <= bound {
                    break sample;
                }
            };
            *value += sample;
        }
    }
}
