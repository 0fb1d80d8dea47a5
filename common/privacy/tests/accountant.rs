//! The accountants against Google's dp-accounting (`vectors/accountant.py`), published tables and their own laws.

use proptest::prelude::*;
use serde::Deserialize;
use starling_privacy::{Accountant, PrivacyError, SampledGaussian, noise_multiplier, rdp};

#[derive(Deserialize)]
struct Vectors {
    generator: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Part {
    rate: f64,
    noise: f64,
    steps: u32,
}

#[derive(Deserialize)]
struct Case {
    parts: Vec<Part>,
    delta: f64,
    rdp: f64,
    pld: f64,
    pld_optimistic: f64,
}

fn cases() -> Vec<(Vec<SampledGaussian>, Case)> {
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/accountant.json")).expect("the vectors");
    assert!(vectors.generator.contains("dp-accounting 0.6.0") && vectors.cases.len() >= 30, "{}", vectors.generator);
    let steps = |case: &Case| case.parts.iter().map(|part| steps(part.rate, part.noise, part.steps)).collect();
    vectors.cases.into_iter().map(|case| (steps(&case), case)).collect()
}

fn steps(rate: f64, noise: f64, steps: u32) -> SampledGaussian {
    SampledGaussian::new(rate, noise, steps).expect("in range")
}

/// Google leaves fractional orders out where the series for them does not converge; we integrate there. (Google's upper estimate of the
/// tight one may lie above: its grid costs more than a Rényi bound where thousands of steps reveal next to nothing.)
#[test]
fn rdp_is_googles_and_never_below_the_least_that_is_spent() {
    for (steps, case) in cases() {
        let epsilon = Accountant::Rdp.epsilon(&steps, case.delta).expect("in range");
        let ratio = epsilon / case.rdp;
        assert!((ratio - 1.0).abs() < 0.005, "{steps:?}: {epsilon}, expected {}", case.rdp);
        assert!(epsilon >= case.pld_optimistic, "{steps:?}: {epsilon} below {}", case.pld_optimistic);
    }
}

#[test]
fn pld_is_between_googles_lower_and_upper_estimate() {
    for (steps, case) in cases() {
        let epsilon = Accountant::Pld.epsilon(&steps, case.delta).expect("in range");
        assert!(epsilon >= case.pld_optimistic, "{steps:?}: {epsilon} below {}", case.pld_optimistic);
        assert!(epsilon <= case.pld * 1.01, "{steps:?}: {epsilon}, expected {}", case.pld);
    }
}

#[test]
fn the_noise_search_inverts_both() {
    // The search ends within a share of 1e-4 of the least noise, and the curve is steep enough to tell.
    let inverts = |accountant: Accountant, case: &Case| {
        let [Part { rate, noise, steps: count }] = case.parts[..] else { return };
        let epsilon = accountant.epsilon(&[steps(rate, noise, count)], case.delta).expect("in range");
        let found = noise_multiplier(accountant, rate, count, epsilon, case.delta).expect("reachable");
        assert!((found / noise - 1.0).abs() < 3e-4, "{accountant}: {rate} {noise} {count}: {found}");
    };
    for (index, (_, case)) in cases().iter().enumerate() {
        // Seventeen questions each, and the tight one takes seconds for thousands of steps.
        if index % 3 == 0 {
            inverts(Accountant::Rdp, case);
        }
        if index % 5 == 0 && case.parts[0].steps <= 100 {
            inverts(Accountant::Pld, case);
        }
    }
}

#[test]
fn divergences_are_the_integrals() {
    // 50·ln ∫ N(0, σ²)·((1−q) + q·e^((2x−1)/2σ²))^α dx / (α−1) by quadrature (`vectors/divergence.py`), q = 0.01, σ = 2.5. The last
    // two are also in the curve that Google's unit test publishes.
    let expected = [
        (1.5, 6.500_708_97e-4),
        (2.0, 8.675_468_29e-4),
        (2.5, 1.085_418_06e-3),
        (5.0, 2.180_756_56e-3),
        (50.0, 2.384_603_75e-2),
    ];
    for (order, divergence) in expected {
        let got = rdp::divergence(&steps(0.01, 2.5, 50), order);
        assert!((got / divergence - 1.0).abs() < 1e-7, "order {order}: {got}, expected {divergence}");
    }
    // Where the series for fractional orders does not converge.
    for (rate, noise, count, order, divergence) in [
        (0.5, 0.8, 30, 1.3, 9.867_137_013_35),
        (0.5, 0.8, 30, 2.7, 34.335_228_701_1),
        (0.1, 1.0, 100, 1.2, 0.896_508_383_219),
        (0.9, 3.0, 7, 4.5, 1.464_514_820_86),
        (0.2, 0.3, 1, 1.5, 3.755_849_554_93),
    ] {
        let got = rdp::divergence(&steps(rate, noise, count), order);
        assert!((got / divergence - 1.0).abs() < 1e-9, "{rate} {noise} order {order}: {got}, expected {divergence}");
    }
    let whole = rdp::divergence(&steps(0.01, 2.5, 50), 100.0);
    assert!((whole / 167.416_308 - 1.0).abs() < 1e-7, "{whole}");
}

#[test]
fn one_gaussian_is_the_closed_form() {
    // Balle and Wang 2018, theorem 8: δ(ε) = Φ(1/2σ − εσ) − e^ε Φ(−1/2σ − εσ).
    let tail = |x: f64| 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
    for noise in [0.3, 1.0, 5.0] {
        for delta in [1e-2, 1e-5, 1e-9] {
            let epsilon = Accountant::Pld.epsilon(&[steps(1.0, noise, 1)], delta).expect("in range");
            let (a, b) = (0.5 / noise - epsilon * noise, -0.5 / noise - epsilon * noise);
            let exact = tail(a) - epsilon.exp() * tail(b);
            assert!(exact <= delta * (1.0 + 1e-6) && exact > delta * 0.99, "σ {noise}: δ({epsilon}) = {exact}");
        }
    }
}

#[test]
fn n_full_steps_are_one_of_less_noise() {
    // A sum of n Gaussians of σ tells as much as one of σ/√n.
    let many = Accountant::Pld.epsilon(&[steps(1.0, 12.0, 36)], 1e-5).expect("in range");
    let one = Accountant::Pld.epsilon(&[steps(1.0, 2.0, 1)], 1e-5).expect("in range");
    assert!((many / one - 1.0).abs() < 1e-3, "{many} and {one}");
}

#[test]
fn noise_for_a_budget_keeps_it_and_hardly_more() {
    for accountant in [Accountant::Pld, Accountant::Rdp] {
        let noise = noise_multiplier(accountant, 0.1, 100, 2.0, 1e-4).expect("reachable");
        let spent = accountant.epsilon(&[steps(0.1, noise, 100)], 1e-4).expect("in range");
        assert!(spent <= 2.0 && spent > 1.99, "{accountant}: {noise} spends {spent}");
    }
    let out = noise_multiplier(Accountant::Rdp, 1.0, 1_000_000, 1e-6, 1e-10);
    assert!(matches!(out, Err(PrivacyError::Unreachable { .. })), "{out:?}");
}

#[test]
fn wrong_numbers_are_named() {
    for (rate, noise) in [(-0.1, 1.0), (1.1, 1.0), (f64::NAN, 1.0), (0.5, 0.0), (0.5, f64::INFINITY)] {
        assert!(SampledGaussian::new(rate, noise, 1).is_err(), "{rate} {noise}");
    }
    for delta in [0.0, 1.0, -1.0, f64::NAN, 1e-11] {
        let error = Accountant::Pld.epsilon(&[steps(0.1, 1.0, 1)], delta).expect_err("no δ").to_string();
        assert!(error.contains("delta"), "{error}");
    }
    assert!(matches!(Accountant::Pld.epsilon(&[steps(1.0, 1e-3, 5)], 1e-5), Err(PrivacyError::Span(_))));
    assert!("moments".parse::<Accountant>().expect_err("unknown").to_string().contains("pld or rdp"));
}

#[test]
fn nothing_revealed_costs_nothing() {
    for accountant in [Accountant::Pld, Accountant::Rdp] {
        assert_eq!(accountant.epsilon(&[steps(0.0, 1.0, 50), steps(0.5, 1.0, 0)], 1e-5), Ok(0.0));
        assert_eq!(accountant.epsilon(&[], 1e-5), Ok(0.0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// More noise, fewer steps, rarer sampling and a larger δ never cost more; the Rényi bound is never below the tight one.
    #[test]
    fn epsilon_moves_the_right_way(rate in 0.001f64..1.0, noise in 0.6f64..8.0, count in 1u32..200, delta in 1e-8f64..1e-2) {
        let of = |rate, noise, count, delta| Accountant::Pld.epsilon(&[steps(rate, noise, count)], delta).expect("in range");
        let epsilon = of(rate, noise, count, delta);
        let slack = epsilon * 1e-6 + 1e-6;
        prop_assert!(of(rate, noise * 1.2, count, delta) <= epsilon + slack);
        prop_assert!(of(rate, noise, count + 10, delta) + slack >= epsilon);
        prop_assert!(of(rate * 0.8, noise, count, delta) <= epsilon + slack);
        prop_assert!(of(rate, noise, count, delta * 2.0) <= epsilon + slack);
        let loose = Accountant::Rdp.epsilon(&[steps(rate, noise, count)], delta).expect("in range");
        prop_assert!(loose + slack >= epsilon, "rdp {loose} below pld {epsilon}");
    }
}
