//! The fixed point of a round: how real values become integers that any order of addition sums to the same.

/// Σ weights of a cohort may reach 2⁴⁰: [`starling_wire::limits::WEIGHT_MAX`] times 2¹⁶ devices. Beyond it fewer than 22
/// bits would be left for a value.
const WEIGHT_SUM_MAX: u64 = 1 << 40;

/// Bits of `x · 2^F` at most: up to 2⁵¹ one addition of 1.5·2⁵² converts a double to the nearest integer, ties to even.
const MAGNITUDE_BITS_MAX: i32 = 51;

/// The exponents of a plan's value bound; the task file allows no others.
const VALUE_MAX_LOG2: std::ops::RangeInclusive<i8> = -20..=20;

/// Numbers of a plan that leave no room for a fixed point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FixedPointError {
    /// The bound of a value is not one that a task file can ask for.
    #[error("update.value_max = 2^{0}: expected 2^-20 to 2^20")]
    ValueMax(i8),
    /// The weights of a cohort could overflow the accumulators.
    #[error("a cohort's weights may sum to {0}, expected 1 to 2^40; lower update.weight_max or the cohort")]
    WeightSum(u64),
}

/// How the values of a round become integers: `round_half_even(x · 2^F)` with |x| ≤ 2^v.
///
/// ```text
/// F = min(62 − v − ⌈log2 Σ weight_max⌉, 51 − v)
/// ```
///
/// The first term keeps every sum within ±2⁶², one bit clear of overflow. The second keeps a single value within ±2⁵¹, where a
/// conversion costs one addition (see [`crate::fold_into`]); it binds only below Σ weights of 2¹¹, and a step of 2⁻⁵¹ of the
/// bound is far below what an `f32` of that size can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedPoint {
    fraction_bits: i32,
    value_max_log2: i8,
}

impl FixedPoint {
    /// The fixed point for values up to `2^value_max_log2` whose weights sum to at most `weight_sum_max`.
    ///
    /// # Errors
    /// [`FixedPointError`] when the plan's numbers leave no room.
    pub fn new(value_max_log2: i8, weight_sum_max: u64) -> Result<Self, FixedPointError> {
        if !VALUE_MAX_LOG2.contains(&value_max_log2) {
            return Err(FixedPointError::ValueMax(value_max_log2));
        }
        if !(1..=WEIGHT_SUM_MAX).contains(&weight_sum_max) {
            return Err(FixedPointError::WeightSum(weight_sum_max));
        }
        let weight_bits = weight_sum_max.next_power_of_two().trailing_zeros().cast_signed();
        let magnitude_bits = (62 - weight_bits).min(MAGNITUDE_BITS_MAX);
        Ok(Self { fraction_bits: magnitude_bits - i32::from(value_max_log2), value_max_log2 })
    }

    /// F: the binary places of an accumulator. 2 to 71.
    pub fn fraction_bits(&self) -> i32 {
        self.fraction_bits
    }

    /// v: the exponent of the largest magnitude.
    pub fn value_max_log2(&self) -> i8 {
        self.value_max_log2
    }

    /// 2^F, exactly.
    pub(crate) fn scale(&self) -> f64 {
        2f64.powi(self.fraction_bits)
    }

    /// `master[i] += rate · acc[i] / (2^F · weight_sum)` for a `rate` above 0, each step in `f64`, rounded to `f32` once. Nothing
    /// happens when `weight_sum` is 0: an empty fold has no mean.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn add_mean(&self, accumulators: &[i64], weight_sum: u64, rate: f64, master: &mut [f32]) {
        if weight_sum > 0 {
            self.add_share(accumulators, weight_sum as f64 / rate, master);
        }
    }

    /// `master[i] += acc[i] / (2^F · denominator)`, likewise, for a denominator that does not follow from what was folded.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn add_share(&self, accumulators: &[i64], denominator: f64, master: &mut [f32]) {
        assert_eq!(accumulators.len(), master.len(), "one accumulator a parameter");
        crate::kernel::float::add_mean(accumulators, denominator, 1.0 / self.scale(), master);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fraction_follows_the_formula() {
        let fraction = |v, sum| FixedPoint::new(v, sum).expect("in range").fraction_bits();
        assert_eq!(fraction(4, 10 << 20), 62 - 4 - 24);
        assert_eq!(fraction(0, 1 << 40), 22);
        assert_eq!(fraction(0, (1 << 20) + 1), 62 - 21);
        assert_eq!(fraction(4, 1), 51 - 4);
        assert_eq!(fraction(-20, 1), 71);
    }

    #[test]
    fn a_full_cohort_of_the_largest_values_cannot_overflow() {
        for v in [-20i8, -3, 0, 4, 20] {
            for sum in [1u64, 3, 1 << 11, (1 << 24) + 7, 1 << 40] {
                let fixed = FixedPoint::new(v, sum).expect("in range");
                let largest = 1i128 << (fixed.fraction_bits() + i32::from(v));
                assert!(largest * i128::from(sum) <= 1 << 62, "v {v} sum {sum}");
            }
        }
    }

    #[test]
    fn numbers_without_room_are_refused() {
        assert_eq!(FixedPoint::new(21, 1), Err(FixedPointError::ValueMax(21)));
        assert_eq!(FixedPoint::new(0, 0), Err(FixedPointError::WeightSum(0)));
        assert_eq!(FixedPoint::new(0, (1 << 40) + 1), Err(FixedPointError::WeightSum((1 << 40) + 1)));
    }
}
