//! Gaussian noise without sampling, in closed form: what a ledger asks that keeps no distribution and assumes no coin.
//!
//! Releases of Gaussian mechanisms with sensitivity over deviation μ₁, μ₂, … are together as private as one with
//! μ = √(μ₁² + μ₂² + …), and that one has exactly δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ) (Balle and Wang 2018, "Improving the
//! Gaussian mechanism for differential privacy", theorem 8). So one number, μ², says all of a past, and a sum of such numbers is a ledger.

use super::charge::{Charge, Mechanism};
use super::tree::Tree;
use super::{Accountant, PrivacyError};
use crate::logarithm::{normal_tail, subtract};

/// How often the interval around ε is halved: from the bound of Rényi to the last digits.
const HALVINGS: usize = 200;

/// What is added for the rounding of all that.
const ROUNDING: f64 = 1e-9;

/// μ² of the first `rounds` rounds of a run for a device that may be in each, whatever its `sampling` says: nothing is claimed for
/// rounds that it is not in. Infinite where there is no noise.
pub fn loss_squared(charge: &Charge, rounds: u32) -> f64 {
    let sensitivity_squared = match charge.mechanism {
        Mechanism::Independent => f64::from(rounds),
        Mechanism::Tree { .. } if rounds == 0 => 0.0,
        Mechanism::Tree { participations_max, separation_min } => {
            Tree { steps: rounds, participations_max, separation_min }.sensitivity().powi(2)
        }
    };
    if sensitivity_squared == 0.0 { 0.0 } else { sensitivity_squared / charge.noise_multiplier.powi(2) }
}

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
    use starling_spec::DpMode;

    use super::super::charge::Sampling;
    use super::super::{SampledGaussian, pld, rdp};
    use super::*;

    fn charge(noise_multiplier: f64) -> Charge {
        let (sampling, mechanism) = (Sampling::Any, Mechanism::Independent);
        Charge { noise_multiplier, delta: 1e-5, sampling, mechanism, mode: DpMode::Local }
    }

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
            let got = epsilon(loss_squared(&charge(noise), rounds), 1e-5).expect("in range");
            let steps = [SampledGaussian::new(1.0, noise, rounds).expect("in range")];
            let tight = pld::epsilon(&steps, 1e-5).expect("in range");
            assert!(got <= tight * (1.0 + 1e-6) && got > tight * 0.99, "{noise} {rounds}: {got}, pld {tight}");
            assert!(got <= rdp::epsilon(&steps, 1e-5));
        }
        // dp-accounting 0.6.0, PLD: full participation, z = 4, T = 20, δ = 1e-3.
        assert!((epsilon(loss_squared(&charge(4.0), 20), 1e-3).expect("in range") / 3.6051 - 1.0).abs() < 2e-3);
    }

    #[test]
    fn a_past_adds_up_in_any_order_and_only_grows() {
        let (one, other) = (loss_squared(&charge(2.0), 8), loss_squared(&charge(1.0), 2));
        assert_eq!(one + other, loss_squared(&charge(1.0), 4), "eight rounds of double noise are two");
        let epsilons: Vec<f64> = (0..50).map(|rounds| epsilon(f64::from(rounds), 1e-6).expect("in range")).collect();
        assert!(epsilons[0] == 0.0 && epsilons.is_sorted());
    }

    #[test]
    fn without_noise_all_is_spent_and_a_tree_costs_its_sensitivity() {
        assert_eq!(epsilon(loss_squared(&charge(0.0), 1), 1e-6), Ok(f64::INFINITY));
        assert_eq!(epsilon(loss_squared(&charge(0.0), 0), 1e-6), Ok(0.0));
        let mechanism = Mechanism::Tree { participations_max: 1, separation_min: 1 };
        let tree = Charge { mechanism, ..charge(2.0) };
        assert!((loss_squared(&tree, 1600) - 11.0 / 4.0).abs() < 1e-12);
        assert!(epsilon(1.0, 0.0).is_err() && epsilon(1.0, 1.0).is_err());
    }
}
