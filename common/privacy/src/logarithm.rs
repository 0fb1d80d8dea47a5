//! Sums, tails and binomials as logarithms: privacy losses span hundreds of orders of magnitude.

use std::f64::consts::{PI, SQRT_2};

/// `ln(eᵃ + eᵇ)`.
pub(crate) fn add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// `ln(eᵃ − eᵇ)` for a ≥ b.
pub(crate) fn subtract(a: f64, b: f64) -> f64 {
    if b == f64::NEG_INFINITY {
        a
    } else if a <= b {
        f64::NEG_INFINITY
    } else {
        // ln(1 − eˣ) loses digits on one side each way (Mächler 2012).
        let gap = b - a;
        a + if gap > -std::f64::consts::LN_2 { (-gap.exp_m1()).ln() } else { (-gap.exp()).ln_1p() }
    }
}

/// `ln erfc(x)`; beyond the range of doubles by the asymptotic series (Abramowitz and Stegun, 7.1.23).
pub(crate) fn erfc(x: f64) -> f64 {
    let direct = libm::erfc(x);
    if direct > 1e-290 {
        return direct.ln();
    }
    let inverse = 1.0 / (x * x);
    let series = 1.0 - 0.5 * inverse * (1.0 - 1.5 * inverse * (1.0 - 2.5 * inverse * (1.0 - 3.5 * inverse)));
    -x * x - x.ln() - 0.5 * PI.ln() + series.ln()
}

/// `ln P(X > x)` of a standard normal X.
pub(crate) fn normal_tail(x: f64) -> f64 {
    erfc(x / SQRT_2) - std::f64::consts::LN_2
}

/// `ln C(n, k)`.
pub(crate) fn binomial(n: f64, k: f64) -> f64 {
    libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_the_normal_is_the_tables() {
        // Abramowitz and Stegun, table 26.1 and 26.2: Q(1), Q(5); −log10 Q(40) = 349.43701.
        assert!((normal_tail(1.0).exp() - 0.158_655_253_931_457_05).abs() < 1e-15);
        assert!((normal_tail(5.0).exp() / 2.866_515_718_791_94e-7 - 1.0).abs() < 1e-12);
        assert!((-normal_tail(40.0) / std::f64::consts::LN_10 - 349.437_01).abs() < 1e-5);
    }

    #[test]
    fn sums_and_differences_undo_each_other() {
        for (a, b) in [(0.0, -1.0), (0.0, -40.0), (-700.0, -700.1), (5.0, f64::NEG_INFINITY)] {
            assert!((subtract(add(a, b), b) - a).abs() < 1e-12, "{a} {b}");
        }
        assert_eq!(subtract(1.0, 1.0), f64::NEG_INFINITY);
        assert!((binomial(10.0, 3.0) - 120f64.ln()).abs() < 1e-12);
    }
}
