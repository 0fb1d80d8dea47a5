//! Rényi differential privacy of the sampled Gaussian mechanism.
//!
//! A step's divergence at order α is `ln A(α) / (α − 1)`; steps add; the sum becomes an ε for a given δ at the order where that is
//! least. Sources: Mironov, Talwar and Zhang 2019, "Rényi differential privacy of the sampled Gaussian mechanism", section 3.3;
//! Canonne, Kamath and Steinke 2020, "The discrete Gaussian for differential privacy", proposition 12.

use super::SampledGaussian;
use super::pld::log_ratio;
use crate::logarithm::{add, binomial, erfc, subtract};

/// Terms of the series for fractional orders below e⁻³⁵ of its sum change nothing.
const NEGLIGIBLE: f64 = -35.0;

/// Terms of that series that are added. Where sampling is frequent and noise small it converges only slowly.
const TERMS_MAX: u32 = 1000;

/// Deviations around both modes of the integral that it is taken over: what lies beyond is below 10⁻¹⁹ of it for orders up to 11.
const DEVIATIONS: f64 = 10.0;

/// Points at which the integral is taken, at most: noise multipliers down to 0.03.
const POINTS_MAX: f64 = (1 << 16) as f64;

/// The orders at which divergences are composed: dense where many steps of little noise have their least ε, sparse where few steps
/// of much noise do.
pub fn orders() -> impl Iterator<Item = f64> {
    let dense = (1..100).map(|tenths| 1.0 + f64::from(tenths) / 10.0);
    let whole = (11..64).map(f64::from);
    dense.chain(whole).chain([128.0, 256.0, 512.0, 1024.0])
}

/// The Rényi divergence of all of `steps` at `order` > 1.
pub fn divergence(steps: &SampledGaussian, order: f64) -> f64 {
    if steps.is_void() {
        return 0.0;
    }
    let (rate, noise) = (steps.sampling_rate, steps.noise_multiplier);
    let one = if rate == 1.0 {
        order / (2.0 * noise * noise)
    } else if order.fract() == 0.0 {
        log_a_whole(rate, noise, order) / (order - 1.0)
    } else {
        log_a_fractional(rate, noise, order) / (order - 1.0)
    };
    one.max(0.0) * f64::from(steps.steps)
}

/// The least ε over [`orders`].
pub fn epsilon(steps: &[SampledGaussian], delta: f64) -> f64 {
    let at = |order: f64| {
        let divergence: f64 = steps.iter().map(|steps| divergence(steps, order)).sum();
        to_epsilon(divergence, order, delta)
    };
    orders().map(at).fold(f64::INFINITY, f64::min).max(0.0)
}

/// The ε at `delta` of a `divergence` at `order`.
pub(super) fn to_epsilon(divergence: f64, order: f64, delta: f64) -> f64 {
    // Where the divergence bounds the total variation below δ, there is nothing to pay for.
    if delta * delta + (-divergence).exp_m1() > 0.0 {
        return 0.0;
    }
    divergence + (-1.0 / order).ln_1p() - (delta * order).ln() / (order - 1.0)
}

/// `ln A(α)` for a whole α: `Σₖ C(α, k) (1 − q)^(α−k) qᵏ exp((k² − k) / 2σ²)`.
fn log_a_whole(rate: f64, noise: f64, order: f64) -> f64 {
    let mut sum = f64::NEG_INFINITY;
    let mut k = 0.0;
    while k <= order {
        let exponent = (k * k - k) / (2.0 * noise * noise);
        let term = binomial(order, k) + k * rate.ln() + (order - k) * (-rate).ln_1p() + exponent;
        sum = add(sum, term);
        k += 1.0;
    }
    sum
}

/// `ln A(α)` for any α: the two half-lines around the point where both densities weigh the same, each a binomial series. Where that
/// has not converged, the integral itself, or else the chord between the whole orders around α, which lies above the convex curve.
fn log_a_fractional(rate: f64, noise: f64, order: f64) -> f64 {
    let variance = noise * noise;
    let middle = variance * (1.0 / rate - 1.0).ln() + 0.5;
    let scale = std::f64::consts::SQRT_2 * noise;
    let half = std::f64::consts::LN_2;
    let (mut positive, mut negative) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    // The generalised binomial C(α, i) is kept as sign and logarithm: beyond α its sign alternates.
    let (mut log_binomial, mut is_negative) = (0.0, false);
    for term in 0..TERMS_MAX {
        let i = f64::from(term);
        let j = order - i;
        let left = log_binomial + i * rate.ln() + j * (-rate).ln_1p();
        let right = log_binomial + j * rate.ln() + i * (-rate).ln_1p();
        let left = left + (i * i - i) / (2.0 * variance) + erfc((i - middle) / scale) - half;
        let right = right + (j * j - j) / (2.0 * variance) + erfc((middle - j) / scale) - half;
        let sum = if is_negative { &mut negative } else { &mut positive };
        *sum = add(add(*sum, left), right);
        if i > order && left.max(right) < positive + NEGLIGIBLE {
            return subtract(positive, negative);
        }
        let factor = (order - i) / (i + 1.0);
        log_binomial += factor.abs().ln();
        is_negative ^= factor < 0.0;
    }
    if let Some(integral) = log_a_integral(rate, noise, order) {
        return integral;
    }
    let (below, share) = (order.floor(), order.fract());
    let at = |order: f64| if order == 1.0 { 0.0 } else { log_a_whole(rate, noise, order) };
    (1.0 - share) * at(below) + share * at(below + 1.0)
}

/// `ln ∫ N(0, σ²)·((1 − q) + q·e^((2x − 1)/2σ²))^α dx` by the trapezoidal rule; none where that takes more than [`POINTS_MAX`] points.
///
/// The integrand is analytic but for zeros of the mixture at a distance of πσ² from the line, so the error falls as
/// `e^(−2π²σ²/h)` with the step h (Trefethen and Weideman 2014, "The exponentially convergent trapezoidal rule", theorem 5.1): below
/// 10⁻¹⁶ here.
fn log_a_integral(rate: f64, noise: f64, order: f64) -> Option<f64> {
    let step = noise.min(noise * noise * 4.0) / 8.0;
    let start = -DEVIATIONS * noise;
    let points = ((order + 2.0 * DEVIATIONS * noise) / step).ceil();
    if points > POINTS_MAX {
        return None;
    }
    let at = |x: f64| order * log_ratio(rate, noise, x) - x * x / (2.0 * noise * noise);
    let (mut sum, mut point) = (f64::NEG_INFINITY, 0.0);
    while point <= points {
        sum = add(sum, at(start + point * step));
        point += 1.0;
    }
    Some(sum + (step / (noise * (2.0 * std::f64::consts::PI).sqrt())).ln())
}
