//! The discrete Fourier transform of a power-of-two number of complex values.
//!
//! Cooley and Tukey's, in place. A library's would be faster and is not what takes the time here; the usual ones change the features
//! of crates that burn is built on, and burn would be built twice.

use std::f64::consts::PI;
use std::ops::{Add, Mul, Sub};

/// A complex number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Complex {
    pub(crate) re: f64,
    pub(crate) im: f64,
}

impl Complex {
    pub(crate) const ZERO: Self = Self { re: 0.0, im: 0.0 };
    pub(crate) const ONE: Self = Self { re: 1.0, im: 0.0 };

    /// `self` to the power of `exponent`, by squaring.
    pub(crate) fn power(self, mut exponent: u32) -> Self {
        let (mut result, mut square) = (Self::ONE, self);
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = result * square;
            }
            square = square * square;
            exponent >>= 1;
        }
        result
    }
}

impl Add for Complex {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }
}

impl Sub for Complex {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { re: self.re - other.re, im: self.im - other.im }
    }
}

impl Mul for Complex {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }
}

/// Which way a transform goes. Forward and back multiplies by the number of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Forward,
    Back,
}

/// Transforms `values` in place.
///
/// # Panics
/// Unless their number is a power of two.
pub(crate) fn transform(values: &mut [Complex], way: Way) {
    let count = values.len();
    assert!(count.is_power_of_two(), "windows are made so");
    if count == 1 {
        return;
    }
    let bits = count.trailing_zeros();
    for index in 0..count {
        let mirrored = index.reverse_bits() >> (usize::BITS - bits);
        if index < mirrored {
            values.swap(index, mirrored);
        }
    }
    let turn = if way == Way::Forward { -2.0 * PI } else { 2.0 * PI };
    // Each root is computed by itself: products of roots would add their errors up.
    #[allow(clippy::cast_precision_loss, reason = "at most 2^24 values")]
    let roots: Vec<Complex> = (0..count / 2)
        .map(|index| {
            let (im, re) = (turn * index as f64 / count as f64).sin_cos();
            Complex { re, im }
        })
        .collect();
    let mut half = 1;
    while half < count {
        let stride = count / (2 * half);
        for block in values.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for (index, (low, high)) in low.iter_mut().zip(high).enumerate() {
                let turned = *high * roots[index * stride];
                (*low, *high) = (*low + turned, *low - turned);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_sum_that_defines_it() {
        let values: Vec<Complex> =
            (0..16).map(|index| Complex { re: f64::from(index * index % 7), im: f64::from(index % 5) }).collect();
        let mut transformed = values.clone();
        transform(&mut transformed, Way::Forward);
        for (k, got) in transformed.iter().enumerate() {
            let term = |(n, value): (usize, &Complex)| {
                let (im, re) = (-2.0 * PI * (k * n) as f64 / 16.0).sin_cos();
                *value * Complex { re, im }
            };
            let expected = values.iter().enumerate().map(term).fold(Complex::ZERO, Complex::add);
            assert!((got.re - expected.re).abs() < 1e-12 && (got.im - expected.im).abs() < 1e-12, "{k}");
        }
        transform(&mut transformed, Way::Back);
        for (got, value) in transformed.iter().zip(&values) {
            assert!((got.re / 16.0 - value.re).abs() < 1e-13 && (got.im / 16.0 - value.im).abs() < 1e-13);
        }
    }

    #[test]
    fn powers_are_repeated_products() {
        let base = Complex { re: 0.6, im: -0.3 };
        let product = (0..13).fold(Complex::ONE, |product, _| product * base);
        let power = base.power(13);
        assert!((power.re - product.re).abs() < 1e-15 && (power.im - product.im).abs() < 1e-15);
    }
}
