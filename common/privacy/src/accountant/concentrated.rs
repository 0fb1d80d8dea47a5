//! Concentrated differential privacy: a past is one number ρ, whose Rényi divergence is at most ρα at every order α (Bun and Steinke 2016).
//!
//! It is what is proven of noise that devices add in shares: a sum of discrete Gaussians is no discrete Gaussian, but it is as
//! concentrated as one, up to [`SHARES_EXCESS`]. Gaussian noise is concentrated too, so pasts of both kinds add up here.

use super::rdp;

/// What sums of discrete Gaussian shares cost above one discrete Gaussian of their variance, in units of √(2ρ): a bound on τ√d of Kairouz, Liu
/// and Steinke 2021 ("The distributed discrete Gaussian mechanism for federated learning with secure aggregation", theorem on sums
/// of discrete Gaussians in many dimensions), `τ = 10 Σ_{k<n} e^(−2π²σ²k/(k+1))`, for shares of σ ≥ 2, of n ≤ 2,048 devices, on d ≤ 2³¹ coordinates.
pub const SHARES_EXCESS: f64 = 1e-8;

/// The least ε of ρ-concentrated privacy at `delta`, over orders that are close together (proposition 12 of Canonne, Kamath and Steinke 2020).
pub fn epsilon(rho: f64, delta: f64) -> f64 {
    if rho <= 0.0 {
        return 0.0;
    }
    // α − 1 from e⁻⁷ to e¹⁴, in steps of a hundredth: each is a bound, and the least is within 10⁻⁴ of the best.
    let orders = (-700..=1400).map(|hundredth| 1.0 + libm::exp(f64::from(hundredth) / 100.0));
    let at = |order: f64| rdp::to_epsilon(rho * order, order, delta);
    orders.map(at).fold(f64::INFINITY, f64::min).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_above_the_exact_figure_of_gaussian_noise_and_not_by_much() {
        for (loss_squared, delta) in [(0.01, 1e-6), (0.25, 1e-5), (1.0, 1e-5), (4.0, 1e-3), (50.0, 1e-9)] {
            let exact = super::super::gaussian::epsilon(loss_squared, delta).expect("in range");
            let got = epsilon(loss_squared / 2.0, delta);
            assert!(got >= exact && got < 1.15 * exact, "μ² {loss_squared} δ {delta}: {got}, exact {exact}");
        }
        // dp-accounting 0.6.0, RDP: full participation, z = 4, T = 20, δ = 1e-3. Theirs tries fewer orders.
        let got = epsilon(20.0 / 32.0, 1e-3);
        assert!(got <= 4.0528 && got > 0.995 * 4.0528, "{got}");
    }

    #[test]
    fn the_excess_bounds_the_theorem_at_its_worst() {
        let tau = 10.0
            * (1..2048)
                .map(|k| (-8.0 * std::f64::consts::PI.powi(2) * f64::from(k) / f64::from(k + 1)).exp())
                .sum::<f64>();
        let worst = tau * 2f64.powi(31).sqrt();
        assert!(worst <= SHARES_EXCESS, "{worst}");
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "indices of a test")]
    /// The divergence of sums of shares, by convolving their mass functions: what the theorem promises, seen without it.
    #[test]
    fn sums_of_shares_are_as_concentrated_as_the_theorem_says() {
        for (shares, deviation, sensitivity) in [(2, 2.0, 1), (5, 2.0, 9), (3, 4.5, 20)] {
            const REACH: i32 = 260;
            let weight = |k: i32| (-f64::from(k * k) / (2.0 * deviation * deviation)).exp();
            let one: Vec<f64> = (-REACH..=REACH).map(weight).collect();
            let whole: f64 = one.iter().sum();
            let one: Vec<f64> = one.iter().map(|mass| mass / whole).collect();
            let mut sum = vec![0.0; one.len()];
            sum[REACH as usize] = 1.0;
            for _ in 0..shares {
                let before = std::mem::replace(&mut sum, vec![0.0; one.len()]);
                for (at, mass) in before.iter().enumerate().filter(|(_, mass)| **mass > 1e-300) {
                    for (step, share) in one.iter().enumerate() {
                        let to = at + step;
                        if let Some(place) = to.checked_sub(REACH as usize).and_then(|to| sum.get_mut(to)) {
                            *place += mass * share;
                        }
                    }
                }
            }
            let variance = f64::from(shares) * deviation * deviation;
            let rho = (f64::from(sensitivity) / variance.sqrt() + SHARES_EXCESS).powi(2) / 2.0;
            for order in [1.5f64, 2.0, 4.0, 8.0] {
                // Thirty deviations on either side: beyond, masses are below 10⁻¹⁹⁰.
                let reach = (30.0 * variance.sqrt()) as i32;
                let inside = REACH - reach + sensitivity..=REACH + reach;
                let log = |at: i32| sum[at as usize].ln();
                let term = |at: i32| (order * log(at) + (1.0 - order) * log(at - sensitivity)).exp();
                let divergence = inside.map(term).sum::<f64>().ln() / (order - 1.0);
                assert!(
                    divergence <= rho * order * (1.0 + 1e-9) + 1e-12,
                    "{shares} × {deviation}, order {order}: {divergence} {}",
                    rho * order
                );
                assert!(divergence > 0.98 * rho * order, "the test sees what it should: {divergence} {}", rho * order);
            }
        }
    }
}
