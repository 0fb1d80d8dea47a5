//! Whole numbers that are summed beside the parameters: the weight, the clip bit, metrics. A number that does not fit into one
//! coordinate is written in digits over several; sums of digits give the sum of the numbers.

use super::RingError;

/// Numbers from 0 to a maximum, in digits to the base `digit_max + 1`, the lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tally {
    max: u32,
    digit_max: u64,
}

impl Tally {
    pub(super) fn new(max: u32, digit_max: u64) -> Self {
        Self { max, digit_max }
    }

    /// How many digits the maximum has.
    pub(super) fn digits(&self) -> usize {
        let mut rest = u64::from(self.max);
        let mut digits = 0;
        while rest > 0 {
            rest /= self.digit_max + 1;
            digits += 1;
        }
        digits
    }

    /// A bound on the squared norm of the digits: the top digit is at most the maximum's.
    pub(super) fn norm_squared_max(&self) -> u64 {
        let (base, digits) = (self.digit_max + 1, self.digits() as u64);
        let top = (1..digits).fold(u64::from(self.max), |rest, _| rest / base);
        (digits - 1) * self.digit_max * self.digit_max + top * top
    }

    pub(super) fn write(&self, value: u32, out: &mut Vec<i64>) -> Result<(), RingError> {
        if value > self.max {
            return Err(RingError::Bound { what: "a metric", got: value.into(), bound: self.max.into() });
        }
        let mut rest = u64::from(value);
        for _ in 0..self.digits() {
            let digit = rest % (self.digit_max + 1);
            rest /= self.digit_max + 1;
            out.push(i64::try_from(digit).expect("a digit has at most 15 bits"));
        }
        Ok(())
    }

    /// The number of these digits, which may be sums.
    pub(super) fn read(&self, digits: &[i64]) -> i128 {
        let base = i128::from(self.digit_max) + 1;
        digits.iter().rev().fold(0, |number, digit| number * base + i128::from(*digit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_digits_are_the_digits_of_sums() {
        for (max, digit_max, digits) in
            [(1, 1, 1), (1, 7, 1), (7, 7, 1), (8, 7, 2), (1 << 24, 7, 9), (1 << 24, 127, 4), (u32::MAX, 1, 32)]
        {
            let tally = Tally::new(max, digit_max);
            assert_eq!(tally.digits(), digits, "{max} {digit_max}");
            let numbers = [0, 1, max / 3, max / 2, max - 1, max];
            let mut sums = vec![0; digits];
            for number in numbers {
                let mut written = Vec::new();
                tally.write(number, &mut written).expect("within the maximum");
                assert!(written.iter().all(|digit| (0..=digit_max).contains(&digit.unsigned_abs())));
                let norm_squared: u64 = written.iter().map(|digit| digit.unsigned_abs().pow(2)).sum();
                assert!(norm_squared <= tally.norm_squared_max());
                sums.iter_mut().zip(&written).for_each(|(sum, digit)| *sum += digit);
            }
            assert_eq!(tally.read(&sums), numbers.iter().map(|number| i128::from(*number)).sum());
        }
        let error = Tally::new(5, 7).write(6, &mut Vec::new());
        assert_eq!(error, Err(RingError::Bound { what: "a metric", got: 6, bound: 5 }));
    }
}
