//! The discrete Gaussian, exactly.
//!
//! It protects as the continuous one does: `α Δ² / 2σ²` at Rényi order α (Canonne, Kamath and Steinke 2020, "The discrete Gaussian for
//! differential privacy", theorem 4 and corollary 17). It is drawn by Karney's method (2016, "Sampling exactly from the normal
//! distribution", algorithm D): accept and reject by comparing uniform reals, of which as many bits are drawn as the comparison needs. No
//! probability is ever computed, so no rounding is in it. Theirs needs integers of four times the bits of σ; this one does with 64.

use super::Source;
use super::uniform::Uniform;

/// A deviation that the sampler does not do.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a discrete Gaussian with a deviation of {0}: expected 2^-10 to 2^57")]
pub struct DeviationError(pub f64);

/// Bits below the point of a deviation that is not whole.
const FRACTION_BITS: u32 = 10;

/// `P(k) ∝ e^(−k² / 2σ²)` over all integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiscreteGaussian {
    // σ = numerator / denominator.
    numerator: u64,
    denominator: u64,
}

impl DiscreteGaussian {
    /// The one whose σ is `deviation`, rounded up: to a whole number from 1,024, to 2⁻¹⁰ below.
    ///
    /// For σ above 1 the deviation of the samples is σ to better than 10⁻⁶; below, it is less.
    ///
    /// # Errors
    /// [`DeviationError`] outside 2⁻¹⁰ to 2⁵⁷.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 2^-10 to 2^57, checked")]
    pub fn new(deviation: f64) -> Result<Self, DeviationError> {
        if !(2f64.powi(-10)..=2f64.powi(57)).contains(&deviation) {
            return Err(DeviationError(deviation));
        }
        let denominator = if deviation < 1024.0 { 1 << FRACTION_BITS } else { 1 };
        let numerator = libm::ceil(deviation * denominator as f64) as u64;
        Ok(Self { numerator, denominator })
    }

    /// σ.
    pub fn deviation(&self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// One value.
    #[allow(clippy::cast_possible_truncation, reason = "below the numerator, which is at most 2^57")]
    pub fn sample(&self, source: &mut impl Source) -> i64 {
        let (p, q) = (u128::from(self.numerator), u128::from(self.denominator));
        let width = self.numerator.div_ceil(self.denominator);
        loop {
            // k with probability ∝ e^(−k²/2): k units of σ.
            let Some(k) = whole(source) else { continue };
            let negative = source.next_u64() >> 63 == 1;
            // The first integer at or above kσ, one of the next ⌈σ⌉, and how far above kσ it is, x = offset / p of σ.
            let first = (u128::from(k) * p).div_ceil(q);
            let step = source.below(width);
            let offset = (first + u128::from(step)) * q - u128::from(k) * p;
            if offset >= p || offset == 0 && k == 0 && negative {
                continue;
            }
            let offset = offset as u64;
            if !(0..=k).all(|_| accepts(k, offset, self.numerator, source)) {
                continue;
            }
            let magnitude =
                i64::try_from(first + u128::from(step)).expect("64 deviations of 2^57 have a probability of e^-2048");
            return if negative { -magnitude } else { magnitude };
        }
    }
}

/// k ≥ 0 with probability ∝ e^(−k²/2), or none: e^(−k/2) by k successes in a row, of which e^(−k(k−1)/2) are kept.
fn whole(source: &mut impl Source) -> Option<u64> {
    let mut k = 0u64;
    while half(source) {
        k += 1;
    }
    (0..k * k.saturating_sub(1)).all(|_| half(source)).then_some(k)
}

/// True with probability e^(−1/2): von Neumann's falling runs, from 1/2 (Karney's algorithm H).
fn half(source: &mut impl Source) -> bool {
    let mut last = Uniform::draw(source);
    if !last.is_below_half() {
        return true;
    }
    loop {
        let mut next = Uniform::draw(source);
        if !next.is_below(&mut last, source) {
            return false;
        }
        last = Uniform::draw(source);
        if !last.is_below(&mut next, source) {
            return true;
        }
    }
}

/// True with probability e^(−x(2k + x) / (2k + 2)) for x = `numerator / denominator` below 1: a falling run from x, each step of which goes on
/// with probability (2k + x) / (2k + 2) only (Karney's algorithm B).
fn accepts(k: u64, numerator: u64, denominator: u64, source: &mut impl Source) -> bool {
    let mut last: Option<Uniform> = None;
    let mut even = true;
    loop {
        let mut next = Uniform::draw(source);
        let falls = match &mut last {
            None => next.is_below_fraction(numerator, denominator, source),
            Some(last) => next.is_below(last, source),
        };
        if !falls {
            return even;
        }
        let goes_on = match source.below(2 * k + 2) {
            0 => false,
            1 => Uniform::draw(source).is_below_fraction(numerator, denominator, source),
            _ => true,
        };
        if !goes_on {
            return even;
        }
        last = Some(next);
        even = !even;
    }
}
