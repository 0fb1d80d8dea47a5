//! What a past of unsampled rounds costs, as numbers that add up: what a ledger keeps.

use std::iter::Sum;
use std::ops::Add;

use starling_spec::DpMode;

use super::charge::{Charge, Mechanism};
use super::tree::Tree;
use super::{Accountant, PrivacyError, concentrated, gaussian};

/// What releases without sampling have cost together. Pasts add up, in any order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Past {
    loss_squared: f64,
    /// All noise in it was one Gaussian a release, so that its ε is known exactly; else what concentrated privacy bounds.
    is_gaussian: bool,
}

impl Past {
    /// Nothing was released.
    pub const NOTHING: Self = Self { loss_squared: 0.0, is_gaussian: true };

    /// Something was released that no noise covers.
    pub const UNBOUNDED: Self = Self { loss_squared: f64::INFINITY, is_gaussian: true };

    /// A past of which only the sum of (sensitivity over deviation)² is known, and not the kind of noise.
    pub fn of_unknown_noise(loss_squared: f64) -> Self {
        Self { loss_squared, is_gaussian: loss_squared == 0.0 }
    }

    /// The first `rounds` rounds of a run for a device that may be in each, whatever its `sampling` says: nothing is claimed for
    /// rounds that it is not in. Infinite where there is no noise.
    pub fn of(charge: &Charge, rounds: u32) -> Self {
        let is_gaussian = charge.mode != DpMode::Distributed;
        let sensitivity_squared = match charge.mechanism {
            Mechanism::Independent => f64::from(rounds),
            Mechanism::Tree { .. } if rounds == 0 => 0.0,
            Mechanism::Tree { participations_max, separation_min } => {
                Tree { steps: rounds, participations_max, separation_min }.sensitivity().powi(2)
            }
        };
        if sensitivity_squared == 0.0 {
            return Self::NOTHING;
        }
        let excess = if is_gaussian { 0.0 } else { concentrated::SHARES_EXCESS };
        let loss = 1.0 / charge.noise_multiplier + excess;
        Self { loss_squared: sensitivity_squared * loss * loss, is_gaussian }
    }

    /// The sum of (sensitivity over deviation)² over all releases: μ² of Gaussian noise, and twice the ρ of concentrated privacy.
    pub fn loss_squared(&self) -> f64 {
        self.loss_squared
    }

    /// The least ε at `delta`, rounded up.
    ///
    /// # Errors
    /// [`PrivacyError::Value`] for a δ that is no probability between 0 and 1.
    pub fn epsilon(&self, delta: f64) -> Result<f64, PrivacyError> {
        if !(delta > 0.0 && delta < 1.0) {
            return Accountant::Rdp.epsilon(&[], delta);
        }
        if self.is_gaussian {
            gaussian::epsilon(self.loss_squared, delta)
        } else {
            Ok(concentrated::epsilon(self.loss_squared / 2.0, delta))
        }
    }
}

impl Add for Past {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            loss_squared: self.loss_squared + other.loss_squared,
            is_gaussian: self.is_gaussian && other.is_gaussian,
        }
    }
}

impl Sum for Past {
    fn sum<I: Iterator<Item = Self>>(pasts: I) -> Self {
        pasts.fold(Self::NOTHING, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::super::charge::Sampling;
    use super::*;

    fn charge(noise_multiplier: f64) -> Charge {
        let (sampling, mechanism) = (Sampling::Any, Mechanism::Independent);
        Charge { noise_multiplier, delta: 1e-5, sampling, mechanism, mode: DpMode::Local }
    }

    #[test]
    fn a_past_adds_up_in_any_order_and_only_grows() {
        let (one, other) = (Past::of(&charge(2.0), 8), Past::of(&charge(1.0), 2));
        assert_eq!(one + other, Past::of(&charge(1.0), 4), "eight rounds of double noise are two");
        let epsilons: Vec<f64> =
            (0..50).map(|rounds| Past::of(&charge(1.0), rounds).epsilon(1e-6).expect("in range")).collect();
        assert!(epsilons[0] == 0.0 && epsilons.is_sorted());
    }

    #[test]
    fn shares_cost_what_concentration_bounds_and_so_does_all_that_they_are_mixed_with() {
        let shares = Past::of(&Charge { mode: DpMode::Distributed, ..charge(4.0) }, 20);
        let gaussian = Past::of(&charge(4.0), 20);
        let figures =
            [gaussian + gaussian, gaussian + shares, shares + shares].map(|past| past.epsilon(1e-3).expect("in range"));
        assert!(figures[0] < figures[1] && (figures[1] / figures[2] - 1.0).abs() < 1e-6, "{figures:?}");
        assert_eq!(Past::of_unknown_noise(0.0), Past::NOTHING);
    }

    #[test]
    fn without_noise_all_is_spent_and_a_tree_costs_its_sensitivity() {
        for mode in [DpMode::Local, DpMode::Distributed] {
            let bare = Charge { mode, ..charge(0.0) };
            assert_eq!(Past::of(&bare, 1).epsilon(1e-6), Ok(f64::INFINITY));
            assert_eq!(Past::of(&bare, 0).epsilon(1e-6), Ok(0.0));
        }
        let mechanism = Mechanism::Tree { participations_max: 1, separation_min: 1 };
        let tree = Charge { mechanism, ..charge(2.0) };
        assert!((Past::of(&tree, 1600).loss_squared() - 11.0 / 4.0).abs() < 1e-12);
        assert!(Past::NOTHING.epsilon(0.0).is_err() && Past::NOTHING.epsilon(1.0).is_err());
    }
}
