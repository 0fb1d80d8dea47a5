//! Exact limits of a probability that was measured by counting (Clopper and Pearson 1934).

/// The probability of at least `successes` out of `trials`, each with `probability`.
fn at_least(successes: u32, trials: u32, probability: f64) -> f64 {
    if successes == 0 {
        return 1.0;
    }
    let (yes, no) = (libm::log(probability), libm::log1p(-probability));
    let factorial = |n: u32| libm::lgamma(f64::from(n) + 1.0);
    let whole = factorial(trials);
    let term = |k: u32| {
        let ways = whole - factorial(k) - factorial(trials - k);
        libm::exp(ways + f64::from(k) * yes + f64::from(trials - k) * no)
    };
    (successes..=trials).map(term).sum()
}

/// The largest probability for which so many successes or more would be as rare as `tail`.
pub fn lower(successes: u32, trials: u32, tail: f64) -> f64 {
    if successes == 0 {
        return 0.0;
    }
    bisect(|probability| at_least(successes, trials, probability) <= tail).0
}

/// The smallest probability for which so few successes or fewer would be as rare as `tail`.
pub fn upper(successes: u32, trials: u32, tail: f64) -> f64 {
    if successes >= trials {
        return 1.0;
    }
    bisect(|probability| 1.0 - at_least(successes + 1, trials, probability) > tail).1
}

/// Where a condition that holds at 0 ceases to hold, from below and from above.
fn bisect(holds: impl Fn(f64) -> bool) -> (f64, f64) {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if holds(middle) { low = middle } else { high = middle }
    }
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_closed_forms_and_of_exact_fractions() {
        // None of n: 1 − tail^(1/n). All of n: tail^(1/n).
        assert!((upper(0, 500, 0.025) - (1.0 - 0.025f64.powf(1.0 / 500.0))).abs() < 1e-9);
        assert!((lower(500, 500, 0.025) - 0.025f64.powf(1.0 / 500.0)).abs() < 1e-9);
        assert_eq!((lower(0, 500, 0.025), upper(500, 500, 0.025)), (0.0, 1.0));
        // 8 of 10, by bisection over exact fractions (Python's fractions and math.comb).
        assert!((lower(8, 10, 0.025) - 0.443_904_538).abs() < 1e-8);
        assert!((upper(8, 10, 0.025) - 0.974_789_274).abs() < 1e-8);
    }
}
