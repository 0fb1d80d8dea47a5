//! The noise against its mass function, computed here, and against what would go unnoticed: none, half, the same each round.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures of tests stay far within their types"
)]

use starling_privacy::noise::{DiscreteGaussian, ShareError, ShareNoise, Simulated, Source, SumNoise};

/// The 99.99 % quantile of chi-square with `freedom` degrees (Wilson and Hilferty 1931).
fn chi_square_max(freedom: f64) -> f64 {
    let part = 2.0 / (9.0 * freedom);
    freedom * (1.0 - part + 3.719 * part.sqrt()).powi(3)
}

/// Chi-square of `counts` (value − low) of `draws` against masses, over cells that expect at least 10; and its degrees of freedom.
fn chi_square(counts: &[f64], masses: &[f64], draws: f64) -> (f64, f64) {
    let (mut chi, mut cells) = (0.0, 0.0);
    let (mut rest, mut rest_expected) = (draws, draws);
    for (count, mass) in counts.iter().zip(masses) {
        let expected = mass * draws;
        if expected >= 10.0 {
            chi += (count - expected).powi(2) / expected;
            cells += 1.0;
            rest -= count;
            rest_expected -= expected;
        }
    }
    if rest_expected >= 10.0 {
        chi += (rest - rest_expected).powi(2) / rest_expected;
        cells += 1.0;
    }
    (chi, cells - 1.0)
}

/// The mass function of the discrete Gaussian from `-reach` to `reach`.
fn masses(deviation: f64, reach: i64) -> Vec<f64> {
    let weight = |k: i64| (-((k * k) as f64) / (2.0 * deviation * deviation)).exp();
    let whole: f64 = (-4 * reach..=4 * reach).map(weight).sum();
    (-reach..=reach).map(|k| weight(k) / whole).collect()
}

#[test]
fn samples_follow_the_exact_mass_function() {
    for deviation in [0.5, 0.75, 1.0, 2.5, 9.40625, 40.0] {
        let gaussian = DiscreteGaussian::new(deviation).expect("in range");
        assert!((gaussian.deviation() - deviation).abs() < 1e-12, "exact in 2^-10");
        let reach = (8.0 * deviation) as i64 + 4;
        let mut source = Simulated::new(1, &[(deviation * 1024.0) as u64]);
        let mut counts = vec![0.0; 2 * reach as usize + 1];
        const DRAWS: u32 = 400_000;
        for _ in 0..DRAWS {
            counts[(gaussian.sample(&mut source) + reach) as usize] += 1.0;
        }
        let (chi, freedom) = chi_square(&counts, &masses(deviation, reach), DRAWS.into());
        assert!(chi < chi_square_max(freedom), "σ {deviation}: chi-square {chi} at {freedom}");
        // A sampler of half the deviation, or of a tenth more, would be found out.
        for wrong in [0.5, 1.1] {
            let (chi, freedom) = chi_square(&counts, &masses(deviation * wrong, reach), DRAWS.into());
            assert!(chi > 5.0 * chi_square_max(freedom), "σ {deviation} passes for {}", deviation * wrong);
        }
    }
}

#[test]
fn wide_samples_are_normal_in_every_part_of_their_range() {
    // σ of a fold: equally likely cells of the normal distribution, and even low bits.
    let gaussian = DiscreteGaussian::new(2f64.powi(45) * 1.3).expect("in range");
    let mut source = Simulated::new(2, &[]);
    let (mut cells, mut low) = ([0.0; 64], [0.0; 64]);
    const DRAWS: u32 = 400_000;
    for _ in 0..DRAWS {
        let value = gaussian.sample(&mut source);
        let share = 0.5 * libm::erfc(-(value as f64) / gaussian.deviation() / std::f64::consts::SQRT_2);
        cells[(share * 64.0) as usize] += 1.0;
        low[value.rem_euclid(64) as usize] += 1.0;
    }
    for (what, counts) in [("cells", cells), ("low bits", low)] {
        let (chi, freedom) = chi_square(&counts, &[1.0 / 64.0; 64], DRAWS.into());
        assert!(chi < chi_square_max(freedom), "{what}: chi-square {chi}");
    }
}

/// Mean, deviation and the correlation with what lies `lag` behind, all over the deviation.
fn moments(values: &[i64], lag: usize) -> (f64, f64, f64) {
    let count = values.len() as f64;
    let squares: f64 = values.iter().map(|value| (*value as f64).powi(2)).sum();
    let products: f64 = values.iter().zip(&values[lag..]).map(|(a, b)| *a as f64 * *b as f64).sum();
    (values.iter().map(|value| *value as f64).sum::<f64>() / count, (squares / count).sqrt(), products / squares)
}

#[test]
fn the_sum_of_zeros_has_the_stated_deviation_over_all_coordinates() {
    const COORDINATES: usize = 199_210;
    let norm_max = 0.3 * 2f64.powi(40);
    let noise = SumNoise::new(2.0, norm_max, COORDINATES).expect("in range");
    assert!((noise.deviation() / (2.0 * norm_max) - 1.0).abs() < 1e-8, "{}", noise.deviation());
    assert!(noise.variation() < 1e-18);
    let round = |round| {
        let mut sum = vec![0; COORDINATES];
        noise.add_to(&mut sum, &mut Simulated::new(3, &[round]));
        sum
    };
    let (first, second) = (round(1), round(2));
    for sum in [&first, &second] {
        let (mean, deviation, correlation) = moments(sum, 1);
        assert!((deviation / noise.deviation() - 1.0).abs() < 0.005, "{deviation}");
        // Four standard errors.
        let error = 4.0 / (COORDINATES as f64).sqrt();
        assert!((mean / noise.deviation()).abs() < error && correlation.abs() < error, "{mean} {correlation}");
    }
    // Rounds are independent.
    let products: f64 = first.iter().zip(&second).map(|(a, b)| *a as f64 * *b as f64).sum();
    let correlation = products / COORDINATES as f64 / noise.deviation().powi(2);
    assert!(correlation.abs() < 4.0 / (COORDINATES as f64).sqrt(), "{correlation}");
    assert_eq!(first, round(1), "a simulated source repeats itself");
}

#[test]
fn few_levels_pay_for_their_rounding() {
    // A norm of 10 units over 400 coordinates: rounding may double it.
    let noise = SumNoise::new(1.5, 10.0, 400).expect("in range");
    assert!((noise.deviation() - 30.0).abs() < 1e-3);
}

#[test]
fn the_smallest_sum_of_shares_has_the_stated_deviation_and_larger_ones_have_more() {
    const COORDINATES: usize = 50_000;
    // z = 1.5, a norm of 1,000 units, and eight devices that keep their noise to themselves.
    let noise = ShareNoise::new(1.5, 1000.0, 8, COORDINATES).expect("in range");
    let mut sum = vec![0; COORDINATES];
    for device in 1u32..=20 {
        noise.add_to(&mut sum, &mut Simulated::new(5, &[device.into()]));
        let (mean, deviation, correlation) = moments(&sum, 1);
        let stated = 1500.0 * (f64::from(device) / 8.0).sqrt();
        // Four standard errors of a deviation, of a mean and of a correlation.
        let error = 4.0 / (COORDINATES as f64).sqrt();
        assert!(
            (deviation / stated - 1.0).abs() < error / 2f64.sqrt(),
            "{device} devices: {deviation}, stated {stated}"
        );
        assert!((mean / stated).abs() < error && correlation.abs() < error, "{mean} {correlation}");
        assert!(sum.iter().all(|value| value.unsigned_abs() <= noise.sum_max(device)));
    }
    assert!(noise.sum_max(20) < 20 * noise.share_max(), "a sum needs less room than its terms could take");
}

#[test]
fn shares_that_are_too_fine_are_refused() {
    let error = ShareNoise::new(0.5, 10.0, 100, 10).expect_err("a deviation of half a unit");
    assert_eq!(error, ShareError::Fine(0.5));
    assert!(ShareNoise::new(0.5, 40.0, 100, 10).is_ok());
    assert!(matches!(ShareNoise::new(0.0, 10.0, 1, 10), Err(ShareError::Deviation(_))));
}

#[test]
fn deviations_out_of_range_are_named() {
    for deviation in [0.0, -1.0, 1e-4, f64::NAN, f64::INFINITY, 2f64.powi(58)] {
        let error = DiscreteGaussian::new(deviation).expect_err("out of range").to_string();
        assert!(error.contains("expected 2^-10 to 2^57"), "{error}");
    }
}

#[test]
fn bounded_words_are_even() {
    let mut source = Simulated::new(4, &[]);
    let mut counts = [0.0; 6];
    for _ in 0..60_000 {
        counts[source.below(6) as usize] += 1.0;
    }
    let (chi, freedom) = chi_square(&counts, &[1.0 / 6.0; 6], 60_000.0);
    assert!(chi < chi_square_max(freedom), "{chi}");
}
