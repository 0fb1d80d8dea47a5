//! Functions of single values.

use std::sync::LazyLock;

compiled_twice!(
    /// `max(x, 0)`, a NaN stays one.
    relu / relu_body(x: &mut [f32])
);

#[inline(always)]
fn relu_body(x: &mut [f32]) {
    for x in x {
        *x = if *x < 0.0 { 0.0 } else { *x };
    }
}

compiled_twice!(
    /// `x · factor + offset`.
    affine / affine_body(x: &mut [f32], factor: f32, offset: f32)
);

#[inline(always)]
fn affine_body(x: &mut [f32], factor: f32, offset: f32) {
    for x in x {
        *x = *x * factor + offset;
    }
}

compiled_twice!(
    /// Whether all are finite: NaN and infinities have the largest magnitudes, as bits.
    finite / finite_body(x: &[f32]) -> bool
);

#[inline(always)]
fn finite_body(x: &[f32]) -> bool {
    x.iter().fold(0, |largest, x| (x.to_bits() & 0x7fff_ffff).max(largest)) < f32::INFINITY.to_bits()
}

compiled_twice!(
    /// 1 where `x ≥ 0`, −1 elsewhere.
    sign / sign_body(x: &mut [f32])
);

#[inline(always)]
fn sign_body(x: &mut [f32]) {
    for x in x {
        *x = if *x >= 0.0 { 1.0 } else { -1.0 };
    }
}

/// `x Φ(x)`.
pub(crate) fn gelu(x: &mut [f32]) {
    let table = &*TAILS;
    for x in x {
        *x *= normal_distribution(table, f64::from(*x));
    }
}

/// `tanh x`.
pub(crate) fn tanh(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = x.tanh());
}

/// `1 / (1 + e^−x)`.
pub(crate) fn sigmoid(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = logistic(*x));
}

/// `1 / (1 + e^−x)`, without an overflow on either side.
#[inline]
pub(crate) fn logistic(x: f32) -> f32 {
    let small = (-x.abs()).exp();
    if x < 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) }
}

/// Nodes of [`TAILS`] a unit.
const NODES: usize = 16;

/// Where the upper tail of the normal distribution is below 10⁻¹⁷.
const FAR: usize = 9;

/// The upper tail and the density of the normal distribution at 0, 1/16, 2/16 …
static TAILS: LazyLock<[[f64; 2]; NODES * FAR + 1]> = LazyLock::new(|| {
    std::array::from_fn(|node| {
        let x = node as f64 / NODES as f64;
        let density = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
        [0.5 * complementary_error(x * std::f64::consts::FRAC_1_SQRT_2), density]
    })
});

/// Φ(x), the normal distribution function, to an absolute error of 10⁻⁹: five terms of the series of its upper tail at the
/// nearest node, whose derivatives are the density times Hermite's polynomials (Abramowitz and Stegun 26.2.31).
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a node below 145; rounded to f32 at the end"
)]
fn normal_distribution(table: &[[f64; 2]; NODES * FAR + 1], x: f64) -> f32 {
    let magnitude = x.abs();
    if magnitude.is_nan() || magnitude >= FAR as f64 {
        return if x < 0.0 { 0.0 } else { x.min(1.0) as f32 };
    }
    let node = (magnitude * NODES as f64).round();
    let (at, [tail, density]) = (node / NODES as f64, table[node as usize]);
    let h = magnitude - at;
    let series = 1.0 - h * at / 2.0 + h * h * (at * at - 1.0) / 6.0 - h * h * h * at * (at * at - 3.0) / 24.0;
    let tail = tail - density * h * series;
    (if x < 0.0 { tail } else { 1.0 - tail }) as f32
}

/// erfc(x) for `x ≥ 0`: the series of erf (Abramowitz and Stegun 7.1.6) below 2, the continued fraction of erfc (7.1.14)
/// above, evaluated from its tail. Both are within 10⁻⁹ relative of the truth.
fn complementary_error(x: f64) -> f64 {
    let gauss = (-x * x).exp();
    if x.is_nan() {
        return x;
    }
    if x < 2.0 {
        let (mut term, mut sum, mut odd) = (x, x, 1.0);
        while term > sum * 1e-17 {
            odd += 2.0;
            term *= 2.0 * x * x / odd;
            sum += term;
        }
        return 1.0 - std::f64::consts::FRAC_2_SQRT_PI * gauss * sum;
    }
    let tail = (1..=60).rev().fold(x, |tail, k| x + f64::from(k) * 0.5 / tail);
    gauss / (tail * std::f64::consts::PI.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn every_build_of_the_simple_functions_agrees() {
        let values =
            [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        for length in 0..40 {
            let x: Vec<f32> = values.iter().cycle().take(length).copied().collect();
            for isa in Isa::all() {
                assert_eq!(finite(isa, &x), x.iter().all(|x| x.is_finite()), "{isa:?}");
                let (mut rectified, mut signs, mut scaled) = (x.clone(), x.clone(), x.clone());
                relu(isa, &mut rectified);
                sign(isa, &mut signs);
                affine(isa, &mut scaled, 3.0, 1.0);
                for (index, x) in x.iter().enumerate() {
                    let bits = |value: f32| if value.is_nan() { u32::MAX } else { value.to_bits() };
                    assert_eq!(bits(rectified[index]), bits(if *x < 0.0 { 0.0 } else { *x }), "{isa:?} relu {x}");
                    assert_eq!(signs[index], if *x >= 0.0 { 1.0 } else { -1.0 }, "{isa:?} sign {x}");
                    assert_eq!(bits(scaled[index]), bits(*x * 3.0 + 1.0), "{isa:?} affine {x}");
                }
            }
        }
    }

    /// Values of erfc from Abramowitz and Stegun's table 7.1 and, above 2, from Wolfram's published expansions.
    #[test]
    fn the_error_function_is_the_tables() {
        let table = [
            (0.0, 1.0),
            (0.1, 0.887_537_083_981_7),
            (0.5, 0.479_500_122_186_95),
            (1.0, 0.157_299_207_050_28),
            (1.5, 0.033_894_853_524_69),
            (2.0, 0.004_677_734_981_05),
            (3.0, 0.000_022_090_496_998_6),
            (5.0, 1.537_459_794_428_03e-12),
        ];
        for (x, expected) in table {
            let relative = (complementary_error(x) / expected - 1.0).abs();
            assert!(relative < 1e-9, "erfc({x}) is off by {relative}");
        }
        for step in -12_000..=12_000 {
            let x = f64::from(step) / 1000.0;
            let tail = 0.5 * complementary_error(x.abs() * std::f64::consts::FRAC_1_SQRT_2);
            let expected = if x < 0.0 { tail } else { 1.0 - tail };
            assert!((f64::from(normal_distribution(&TAILS, x)) - expected).abs() < 4e-8, "Φ({x})");
        }
        let mut x = [f32::NAN, f32::INFINITY, f32::MIN, 0.0, 1.0];
        gelu(&mut x);
        assert!(
            x[0].is_nan() && x[1] == f32::INFINITY && x[2] == 0.0 && x[3] == 0.0 && (x[4] - 0.841_344_7).abs() < 1e-6
        );
    }

    #[test]
    fn the_logistic_function_does_not_overflow() {
        assert_eq!((logistic(0.0), logistic(1e30), logistic(-1e30)), (0.5, 1.0, 0.0));
        assert!((logistic(-2.0) - 0.119_202_92).abs() < 1e-7 && logistic(f32::NAN).is_nan());
    }
}
