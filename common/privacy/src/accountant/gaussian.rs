//! Gaussian noise without sampling, in closed form: what a ledger asks that keeps no distribution and assumes no coin.
//!
//! Releases of Gaussian mechanisms with sensitivity over deviation μ₁, μ₂, … are together as private as one with
//! μ = √(μ₁² + μ₂² + …), and that one has exactly δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ) (Balle and Wang 2018, "Improving the
//! Gaussian mechanism for differential privacy", theorem 8). So one number, μ², says all of a past
//! ([`super::past`]).

use super::{Accountant, PrivacyError};
use crate::logarithm::{normal_tail, subtract};

/// How often the interval around ε is halved: from the bound of Rényi to the last digits.
const HALVINGS: usize = 200;

/// What is added for the rounding of all that.
const ROUNDING: f64 = 1e-9;

/// The least ε of a past of `loss_squared` at `delta`, rounded up.
///
/// # Errors
/// [`PrivacyError::Value`] for a δ that is no probability between 0 and 1.
pub fn epsilon(loss_squared: f64, delta: f64) -> Result<f64, PrivacyError> {
    if !(delta > 0.0 && delta < 1.0) {
        return Accountant::Rdp.epsilon(&[], delta);
    }
    if loss_squared <= 0.0 {
        return Ok(0.0);
    }
    let mu = loss_squared.sqrt();
    let beyond = |epsilon: f64| {
        let (inside, outside) = (epsilon / mu - mu / 2.0, epsilon / mu + mu / 2.0);
        subtract(normal_tail(inside), epsilon + normal_tail(outside)) > delta.ln()
    };
    // By Rényi divergences, at the order that suits δ: an upper bound to begin with.
    let (mut low, mut high) = (0.0, loss_squared / 2.0 + mu * (-2.0 * delta.ln()).sqrt());
    if !high.is_finite() {
        return Ok(f64::INFINITY);
    }
    for _ in 0..HALVINGS {
        let middle = low + (high - low) / 2.0;
        if beyond(middle) { low = middle } else { high = middle }
    }
    Ok(high * (1.0 + ROUNDING))
}

#[cfg(test)]
mod tests {
    use super::super::{SampledGaussian, pld, rdp};
    use super::*;

    #[test]
    fn one_release_is_what_the_definition_says() {
        // δ by numerical integration of max(0, p − e^ε q) for N(μ, 1) against N(0, 1), in steps of 1e-4.
        for (mu, epsilon_wanted) in [(0.5f64, 1.0f64), (1.0, 3.0), (2.0, 4.0)] {
            let density = |x: f64, mean: f64| (-(x - mean).powi(2) / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let excess = |x: f64| (density(x, mu) - epsilon_wanted.exp() * density(x, 0.0)).max(0.0);
            let delta: f64 = (-100_000..120_000).map(|step| excess(f64::from(step) * 1e-4) * 1e-4).sum();
            let got = epsilon(mu * mu, delta).expect("in range");
            assert!((got - epsilon_wanted).abs() < 1e-4, "mu = {mu}: {got}");
        }
    }

    #[test]
    fn it_is_at_most_what_the_other_accountants_bound_and_close_to_the_tight_one() {
        for (noise, rounds) in [(0.7, 1), (1.0, 10), (4.0, 20), (8.0, 400)] {
            let got = epsilon(f64::from(rounds) / (noise * noise), 1e-5).expect("in range");
            let steps = [SampledGaussian::new(1.0, noise, rounds).expect("in range")];
            let tight = pld::epsilon(&steps, 1e-5).expect("in range");
            assert!(got <= tight * (1.0 + 1e-6) && got > tight * 0.99, "{noise} {rounds}: {got}, pld {tight}");
            assert!(got <= rdp::epsilon(&steps, 1e-5));
        }
        // dp-accounting 0.6.0, PLD: full participation, z = 4, T = 20, δ = 1e-3.
        assert!((epsilon(20.0 / 16.0, 1e-3).expect("in range") / 3.6051 - 1.0).abs() < 2e-3);
    }
}
