//! From a scaled value to a level: to the nearest, or up and down at random.

use crate::codec::BLOCK;

/// 1.5·2²³: added to a float of magnitude up to 2²² it leaves the nearest integer, ties to even, in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// `value · scale` to the nearest integer, ties to even; |value · scale| < 2²².
#[inline(always)]
pub(crate) fn nearest(value: f32, scale: f32) -> i32 {
    (value * scale + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()).cast_signed()
}

/// `value · scale` rounded away from zero with a probability that is its fraction, otherwise towards zero. `draw` has 24
/// bits. Both the fraction and its product with 2²⁴ are exact, so the bias is below 2⁻²⁴ of a level, and none at all where
/// |value · scale| ≥ 1.
#[inline(always)]
pub(crate) fn stochastic(value: f32, scale: f32, draw: u32) -> i32 {
    let scaled = value * scale;
    let magnitude = scaled.abs();
    let whole = magnitude.trunc();
    let up = (magnitude - whole) * 16_777_216.0 > draw.cast_signed() as f32;
    let rounded = (whole + if up { 1.0 } else { 0.0 }).copysign(scaled);
    (rounded + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()).cast_signed()
}

/// Where in the mixing function's domain the positions of a block lie: multiples of the golden ratio. A table, because a
/// counter with its overflow check would keep the loop from being vectorised.
pub(crate) const STEPS: [u32; BLOCK] = {
    let mut steps = [0u32; BLOCK];
    let mut position = 1;
    while position < BLOCK {
        steps[position] = steps[position - 1].wrapping_add(0x9e37_79b9);
        position += 1;
    }
    steps
};

/// The random bits of one block. 32-bit mixing runs on eight lanes, where the 64-bit finaliser of `spec::random` has no
/// multiplication to run on; so that one, keyed by (key, block), gives two words, and they key a 32-bit finaliser over the
/// positions in the block: Wellons' `lowbias32` (hash-prospector, 2018) with the second word between its multiplications.
#[derive(Clone, Copy)]
pub(crate) struct Draw {
    start: u32,
    twist: u32,
}

impl Draw {
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "the two halves of a word are taken on purpose")]
    pub(crate) fn of_block(key: u64, index: usize) -> Self {
        let word = starling_spec::random::word(key, index as u64);
        Self { start: word as u32, twist: (word >> 32) as u32 }
    }

    /// 24 uniform bits for one of [`STEPS`].
    #[inline(always)]
    pub(crate) fn bits(self, step: u32) -> u32 {
        let mut x = self.start.wrapping_add(step);
        x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        x ^= self.twist;
        x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        (x ^ (x >> 16)) >> 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_fill_their_range_evenly() {
        // 64 bins over 4,096 blocks: chi-square of 63 degrees of freedom stays below 103.4 in 99.9 % of fair draws.
        let mut counts = [0f64; 64];
        for index in 0..4096 {
            let draw = Draw::of_block(12_345, index);
            for step in STEPS {
                counts[usize::try_from(draw.bits(step) >> 18).expect("6 bits")] += 1.0;
            }
        }
        let expected = 4096.0 * 256.0 / 64.0;
        let chi: f64 = counts.iter().map(|count| (count - expected).powi(2) / expected).sum();
        assert!(chi < 103.4, "chi-square {chi}");
    }
}
