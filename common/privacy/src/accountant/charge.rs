//! What a run's rounds cost: the one function that ledgers, policies, simulations and statements ask.

use starling_spec::{DpMechanism, DpMode, Participation, PrivacyPlan};

use super::past::Past;
use super::{Accountant, PrivacyError, SampledGaussian, pld, rdp};

/// How the noise of a run's rounds is drawn and who is in them, as far as their price depends on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Charge {
    /// The noise's standard deviation on a round's sum, in clipping norms.
    pub noise_multiplier: f64,
    /// The probability of the guarantee's failure.
    pub delta: f64,
    /// Who takes part.
    pub sampling: Sampling,
    /// How the noise of one round relates to that of others.
    pub mechanism: Mechanism,
    /// Who adds it, and so against whom it protects.
    pub mode: DpMode,
}

/// Who takes part in a round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// Each device by a coin of its own of this probability; who took part stays unknown to the adversary. Rounds have noise of their own.
    Poisson(f64),
    /// Whoever: nothing is assumed, and nothing is gained by not being in every round.
    Any,
}

/// How the noise of one round relates to that of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Each round has its own.
    Independent,
    /// Tree aggregation over the rounds.
    Tree {
        /// The most rounds that one device takes part in.
        participations_max: u32,
        /// The least distance between the numbers of two of them.
        separation_min: u32,
    },
}

/// What an ε means. Every figure is shown with all four.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Statement {
    /// What is protected.
    pub unit: &'static str,
    /// In what two neighbouring federations differ.
    pub neighbours: &'static str,
    /// What is assumed of who takes part.
    pub sampling: String,
    /// Against whom.
    pub adversary: &'static str,
}

impl Charge {
    /// What a round of a checked `plan` costs; none where it asks for no noise.
    pub fn of(plan: &PrivacyPlan) -> Option<Self> {
        let dp = plan.asked.dp.as_ref()?;
        // Who sees single updates, or helps to unmask them, sees who sent one: only the aggregator's own noise hides the draw.
        let hidden = dp.mode == DpMode::Central && dp.mechanism.is_independent();
        let sampling = match plan.participation {
            Participation::Poisson if hidden => Sampling::Poisson(plan.fraction),
            _ => Sampling::Any,
        };
        let mechanism = match dp.mechanism {
            DpMechanism::Tree { participations_max, separation_min } => {
                Mechanism::Tree { participations_max, separation_min }
            }
            _ => Mechanism::Independent,
        };
        let (noise_multiplier, delta) = (dp.noise_multiplier, dp.delta);
        Some(Self { noise_multiplier, delta, sampling, mechanism, mode: dp.mode })
    }

    /// What its figures mean.
    pub fn statement(&self) -> Statement {
        let poisson = matches!(self.sampling, Sampling::Poisson(_));
        Statement {
            unit: "device",
            neighbours: if poisson {
                "one device added or removed, with all that it ever sends"
            } else {
                "one device's updates replaced by zeros, all of them; who takes part is taken as known"
            },
            sampling: match (self.sampling, self.mechanism) {
                (Sampling::Poisson(rate), _) => {
                    format!("each device takes part in a round by a coin of its own of probability {rate} (Poisson)")
                }
                (_, Mechanism::Tree { participations_max, separation_min }) => format!(
                    "none; a device takes part in at most {participations_max} rounds, {separation_min} or more apart"
                ),
                (Sampling::Any, Mechanism::Independent) => {
                    "none: a device may take part in every round, and nothing is claimed for those that it is not in"
                        .into()
                }
            },
            adversary: match self.mode {
                DpMode::Distributed => {
                    "whoever sees every decoded sum, the aggregator among them, with no more colluding devices than assumed"
                }
                DpMode::Local => "whoever sees a device's updates, the aggregator among them",
                _ => {
                    "whoever sees every model version; the aggregator itself is trusted to add the noise and to forget the sums"
                }
            },
        }
    }
}

/// The ε that the first `rounds` rounds have spent together, an upper bound; infinite where there is no noise.
///
/// A round is charged when its noise is drawn, however many devices were in it, and once only however often its version is sent. Without
/// sampling exact, or by concentrated privacy where devices add shares; with it, by the tight accountant where that can answer and by Rényi divergences otherwise.
///
/// # Errors
/// [`PrivacyError`] for a noise multiplier, a rate or a δ outside its range.
pub fn spent(charge: &Charge, rounds: u32) -> Result<f64, PrivacyError> {
    if !(charge.delta > 0.0 && charge.delta < 1.0) {
        return Accountant::Rdp.epsilon(&[], charge.delta);
    }
    if rounds == 0 {
        return Ok(0.0);
    }
    if charge.noise_multiplier == 0.0 {
        return Ok(f64::INFINITY);
    }
    let Sampling::Poisson(rate) = charge.sampling else {
        return Past::of(charge, rounds).epsilon(charge.delta);
    };
    let steps = SampledGaussian::new(rate, charge.noise_multiplier, rounds)?;
    let tight = charge.delta >= pld::DELTA_MIN;
    match tight.then(|| Accountant::Pld.epsilon(&[steps], charge.delta)) {
        Some(Ok(epsilon)) => Ok(epsilon),
        Some(Err(PrivacyError::Span(_))) | None => Ok(rdp::epsilon(&[steps], charge.delta)),
        Some(Err(error)) => Err(error),
    }
}

/// The most rounds, up to `rounds_max`, that together spend no more than `epsilon_max`.
///
/// # Errors
/// As [`spent`].
pub fn rounds_within(charge: &Charge, epsilon_max: f64, rounds_max: u32) -> Result<u32, PrivacyError> {
    // What is spent only grows, so the last round that fits is found by halving.
    let (mut fits, mut beyond) = (0, rounds_max.saturating_add(1));
    while beyond - fits > 1 {
        let middle = fits + (beyond - fits) / 2;
        if spent(charge, middle)? <= epsilon_max { fits = middle } else { beyond = middle }
    }
    Ok(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poisson(noise_multiplier: f64) -> Charge {
        let sampling = Sampling::Poisson(0.1);
        Charge { noise_multiplier, delta: 1e-4, sampling, mechanism: Mechanism::Independent, mode: DpMode::Central }
    }

    #[test]
    fn a_hundred_rounds_cost_what_google_says() {
        // dp-accounting 0.6.0, PLD: q = 0.1, T = 100, δ = 1e-4.
        for (noise, epsilon) in [(1.0, 5.9659), (2.0, 1.9659), (4.0, 0.8154)] {
            let got = spent(&poisson(noise), 100).expect("in range");
            assert!((got / epsilon - 1.0).abs() < 2e-3, "z = {noise}: {got}");
        }
    }

    #[test]
    fn without_coins_every_round_costs_in_full() {
        // dp-accounting 0.6.0, PLD: full participation, z = 4, T = 20, δ = 1e-3.
        let charge = Charge { delta: 1e-3, sampling: Sampling::Any, ..poisson(4.0) };
        assert!((spent(&charge, 20).expect("in range") / 3.6051 - 1.0).abs() < 2e-3);
        let amplified = spent(&Charge { delta: 1e-3, ..poisson(4.0) }, 20).expect("in range");
        assert!(amplified < 0.5 * spent(&charge, 20).expect("in range"), "{amplified}");
    }

    #[test]
    fn nothing_is_spent_before_the_first_round_and_everything_without_noise() {
        assert_eq!(spent(&poisson(1.0), 0), Ok(0.0));
        assert_eq!(spent(&poisson(0.0), 1), Ok(f64::INFINITY));
        assert!(spent(&Charge { delta: 0.0, ..poisson(1.0) }, 1).is_err());
        // Next to no noise without coins; losses that no transform holds and a δ below its floor go to the other accountant.
        assert!(spent(&Charge { sampling: Sampling::Any, ..poisson(1e-4) }, 5).expect("bounded") > 1e6);
        assert!(spent(&Charge { delta: 1e-12, ..poisson(1.0) }, 5).expect("bounded") > 0.0);
    }

    #[test]
    fn a_budget_lasts_for_as_long_as_it_is_not_passed() {
        let charge = poisson(2.0);
        let rounds = rounds_within(&charge, 1.0, 1000).expect("in range");
        assert!(spent(&charge, rounds).expect("in range") <= 1.0);
        assert!(spent(&charge, rounds + 1).expect("in range") > 1.0);
        assert_eq!(rounds_within(&charge, 1e6, 50), Ok(50));
        assert_eq!(rounds_within(&poisson(0.0), 5.0, 50), Ok(0));
    }
}
