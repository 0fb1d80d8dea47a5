//! How much noise a budget asks for.

use super::{Accountant, PrivacyError, SampledGaussian};

/// What is looked through. Below, a sum is hardly protected at all; above, hardly anything is left of it.
const NOISE_MIN: f64 = 0.1;
const NOISE_MAX: f64 = 1e4;

/// The answer is within this share of the least noise that keeps the budget.
const PRECISION: f64 = 1e-4;

/// The least noise multiplier, rounded up by at most 0.01 %, under which `steps` steps at `sampling_rate` are
/// (`epsilon`, `delta`)-private by `accountant`.
///
/// # Errors
/// [`PrivacyError`] when no noise between 0.1 and 10,000 does it, or an argument is out of its range.
pub fn noise_multiplier(
    accountant: Accountant,
    sampling_rate: f64,
    steps: u32,
    epsilon: f64,
    delta: f64,
) -> Result<f64, PrivacyError> {
    if !(epsilon.is_finite() && epsilon > 0.0) {
        return Err(PrivacyError::Value { name: "epsilon", value: epsilon, expected: "a number above 0" });
    }
    // The loss of so little noise may be too wide to hold: that is no budget kept, and no reason to stop.
    let keeps = |noise: f64| match accountant.epsilon(&[SampledGaussian::new(sampling_rate, noise, steps)?], delta) {
        Ok(spent) => Ok(spent <= epsilon),
        Err(PrivacyError::Span(_)) => Ok(false),
        Err(error) => Err(error),
    };
    let (mut low, mut high) = (NOISE_MIN, NOISE_MAX);
    if !keeps(high)? {
        return Err(PrivacyError::Unreachable { low, high, epsilon });
    }
    if keeps(low)? {
        return Ok(low);
    }
    while high / low > 1.0 + PRECISION {
        let middle = (low * high).sqrt();
        if keeps(middle)? { high = middle } else { low = middle }
    }
    Ok(high)
}
