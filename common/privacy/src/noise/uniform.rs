//! Uniform reals of [0, 1) with as many bits as a comparison needs: what makes samplers exact.

use std::cmp::Ordering;

use super::Source;

/// A uniform real: its first 64 bits, and further words where a comparison has been that close.
#[derive(Debug, Clone)]
pub(super) struct Uniform {
    first: u64,
    more: Vec<u64>,
}

impl Uniform {
    #[inline]
    pub(super) fn draw(source: &mut impl Source) -> Self {
        Self { first: source.next_u64(), more: Vec::new() }
    }

    /// Whether it is below 1/2.
    #[inline]
    pub(super) fn is_below_half(&self) -> bool {
        self.first >> 63 == 0
    }

    /// Whether it is below another one.
    #[inline]
    pub(super) fn is_below(&mut self, other: &mut Self, source: &mut impl Source) -> bool {
        match self.first.cmp(&other.first) {
            Ordering::Equal => self.is_below_later(other, source),
            order => order.is_lt(),
        }
    }

    #[cold]
    fn is_below_later(&mut self, other: &mut Self, source: &mut impl Source) -> bool {
        for index in 0.. {
            let (mine, theirs) = (self.word(index, source), other.word(index, source));
            if mine != theirs {
                return mine < theirs;
            }
        }
        unreachable!("a loop without an end")
    }

    fn word(&mut self, index: usize, source: &mut impl Source) -> u64 {
        while self.more.len() <= index {
            self.more.push(source.next_u64());
        }
        self.more[index]
    }

    /// Whether it is below the fraction `numerator / denominator`, of 0 to 1; the denominator is below 2⁶³.
    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a quotient below 2^64, since the numerator is below the denominator"
    )]
    pub(super) fn is_below_fraction(&mut self, numerator: u64, denominator: u64, source: &mut impl Source) -> bool {
        if numerator >= denominator {
            return true;
        }
        let (mut rest, mut word) = (numerator, self.first);
        for index in 0.. {
            let shifted = u128::from(rest) << 64;
            let digit = (shifted / u128::from(denominator)) as u64;
            if word != digit {
                return word < digit;
            }
            rest = (shifted % u128::from(denominator)) as u64;
            if rest == 0 {
                return false;
            }
            word = self.word(index, source);
        }
        unreachable!("a loop without an end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the words of a list, to make what is rare happen.
    struct Words(Vec<u64>);

    impl Source for Words {
        fn next_u64(&mut self) -> u64 {
            self.0.remove(0)
        }
    }

    #[test]
    fn equal_words_are_told_apart_by_later_ones() {
        let mut source = Words(vec![7, 7, 3, 3, 9, 2]);
        let (mut a, mut b) = (Uniform::draw(&mut source), Uniform::draw(&mut source));
        assert!(!a.is_below(&mut b, &mut source));
        assert!(source.0.is_empty());
        // What was drawn stays: the other way round needs no more words.
        assert!(b.is_below(&mut a, &mut source));
    }

    #[test]
    fn a_fraction_is_compared_digit_by_digit() {
        // 1/3 = 0.5555… in words of 16 hexadecimal digits.
        let third = 0x5555_5555_5555_5555;
        for (words, below) in [
            (vec![third - 1], true),
            (vec![third + 1], false),
            (vec![third, third - 1], true),
            (vec![third, third, third + 1], false),
        ] {
            let mut source = Words(words);
            let mut uniform = Uniform::draw(&mut source);
            assert_eq!(uniform.is_below_fraction(1, 3, &mut source), below);
            assert!(source.0.is_empty());
        }
        // 1/2 ends: a number that begins with it is not below it.
        let mut source = Words(vec![1 << 63]);
        assert!(!Uniform::draw(&mut source).is_below_fraction(1, 2, &mut Words(vec![])));
        assert!(Uniform { first: u64::MAX, more: vec![] }.is_below_fraction(1, 1, &mut Words(vec![])));
    }
}
