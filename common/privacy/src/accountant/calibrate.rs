//! How much noise a budget asks for.

use super::{Accountant, Charge, PrivacyError, SampledGaussian, spent};

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
    least(epsilon, |noise| accountant.epsilon(&[SampledGaussian::new(sampling_rate, noise, steps)?], delta))
}

impl Charge {
    /// The least noise multiplier, rounded up by at most 0.01 %, under which `rounds` rounds, otherwise charged as these are, spend no more than
    /// `epsilon`.
    ///
    /// # Errors
    /// As [`noise_multiplier`].
    pub fn noise_for(&self, rounds: u32, epsilon: f64) -> Result<f64, PrivacyError> {
        least(epsilon, |noise_multiplier| spent(&Self { noise_multiplier, ..*self }, rounds))
    }
}

/// The least noise with which no more than `epsilon` is `spent`.
fn least(epsilon: f64, spent: impl Fn(f64) -> Result<f64, PrivacyError>) -> Result<f64, PrivacyError> {
    if !(epsilon.is_finite() && epsilon > 0.0) {
        return Err(PrivacyError::Value { name: "epsilon", value: epsilon, expected: "a number above 0" });
    }
    // The loss of so little noise may be too wide to hold: that is no budget kept, and no reason to stop.
    let keeps = |noise: f64| match spent(noise) {
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

#[cfg(test)]
mod tests {
    use starling_spec::DpMode;

    use super::super::{Mechanism, Sampling};
    use super::*;

    #[test]
    fn a_runs_noise_keeps_its_budget_and_hardly_more() {
        let tree = Mechanism::Tree { participations_max: 4, separation_min: 20 };
        for (sampling, mechanism) in [
            (Sampling::Poisson(0.1), Mechanism::Independent),
            (Sampling::Any, Mechanism::Independent),
            (Sampling::Any, tree),
        ] {
            let mode = DpMode::Central;
            let charge = Charge { noise_multiplier: 1.0, delta: 1e-4, sampling, mechanism, mode };
            let found = charge.noise_for(100, 2.0).expect("reachable");
            let spent = |noise_multiplier| spent(&Charge { noise_multiplier, ..charge }, 100).expect("in range");
            assert!(spent(found) <= 2.0 && spent(found * 0.999) > 2.0, "{charge:?}: {found}");
        }
        // dp-accounting 0.6.0, PLD: q = 0.1, z = 2, T = 100, δ = 1e-4.
        let (sampling, mechanism) = (Sampling::Poisson(0.1), Mechanism::Independent);
        let charge = Charge { noise_multiplier: 0.0, delta: 1e-4, sampling, mechanism, mode: DpMode::Central };
        assert!((charge.noise_for(100, 1.9659).expect("reachable") / 2.0 - 1.0).abs() < 1e-3);
        assert!(charge.noise_for(100, 0.0).is_err());
    }
}
