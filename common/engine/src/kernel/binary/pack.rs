//! Into packed signs and out of counts.

use super::BITS;
use crate::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::isa::Level;

/// What makes the bit of a value: `value ≥ bound`, turned round when `flip`. A NaN is not above any bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Threshold {
    pub(crate) bound: f32,
    pub(crate) flip: bool,
}

impl Threshold {
    /// The plain sign.
    pub(crate) const SIGN: Self = Self { bound: 0.0, flip: false };

    /// The sign of `(value − mean) · factor + shift` for every float `value`, as exact arithmetic on the bound has it.
    pub(crate) fn of_affine(mean: f64, factor: f64, shift: f64) -> Self {
        if factor == 0.0 {
            return Self { bound: f32::NEG_INFINITY, flip: shift < 0.0 };
        }
        let exact = mean - shift / factor;
        #[allow(clippy::cast_possible_truncation, reason = "the rounding is made good below")]
        let nearest = exact as f32;
        if factor > 0.0 {
            // The smallest float that is not below the exact bound.
            Self { bound: if f64::from(nearest) < exact { nearest.next_up() } else { nearest }, flip: false }
        } else {
            // `value ≤ exact` is the opposite of `value ≥` the smallest float above it.
            Self { bound: if f64::from(nearest) > exact { nearest } else { nearest.next_up() }, flip: true }
        }
    }
}

/// Thresholds in the form that packing reads: a bound a value, and the flips in words.
#[derive(Debug, Clone)]
pub(crate) struct Thresholds {
    pub(crate) bounds: Vec<f32>,
    pub(crate) flips: Vec<u64>,
}

impl Thresholds {
    pub(crate) fn new(thresholds: impl Iterator<Item = Threshold>) -> Self {
        let (mut bounds, mut flips) = (Vec::new(), Vec::new());
        for (index, threshold) in thresholds.enumerate() {
            if index % BITS == 0 {
                flips.push(0);
            }
            flips[index / BITS] |= u64::from(threshold.flip) << (index % BITS);
            bounds.push(threshold.bound);
        }
        Self { bounds, flips }
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.bounds[..]) + size_of_val(&self.flips[..])
    }
}

/// Packs a row: bit `i` is that of `x[i]`. `words` has as many words as the row needs; bits behind it become 0.
pub(crate) fn pack_row(isa: Isa, x: &[f32], thresholds: &Thresholds, words: &mut [u64]) {
    assert!(x.len() == thresholds.bounds.len() && words.len() == x.len().div_ceil(BITS), "a bound a value");
    let Thresholds { bounds, flips } = thresholds;
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::Avx512 => super::avx2::pack(isa, x, bounds, words),
        _ => pack_portable(x, bounds, words),
    }
    words.iter_mut().zip(flips).for_each(|(word, flip)| *word ^= flip);
}

fn pack_portable(x: &[f32], bounds: &[f32], words: &mut [u64]) {
    for ((x, bounds), word) in x.chunks(BITS).zip(bounds.chunks(BITS)).zip(words) {
        let mut flags = [0u8; BITS];
        for ((flag, x), bound) in flags.iter_mut().zip(x).zip(bounds) {
            *flag = u8::from(*x >= *bound);
        }
        *word = gather(&flags);
    }
}

/// The lowest bits of 64 bytes in one word: a product moves those of eight bytes into its top byte without a carry.
#[inline(always)]
fn gather(flags: &[u8; BITS]) -> u64 {
    let eights = flags.as_chunks::<8>().0.iter().rev();
    eights.fold(0, |word, eight| word << 8 | u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56)
}

compiled_twice!(
    /// Packs an image `[channels, positions]` position by position: bit `c` of a position's words is that of channel `c`.
    /// `words` has `⌈channels / 64⌉` words a position.
    pack_channels / pack_channels_body(x: &[f32], thresholds: &Thresholds, words: &mut [u64])
);

#[inline(always)]
fn pack_channels_body(x: &[f32], thresholds: &Thresholds, words: &mut [u64]) {
    let each = thresholds.flips.len();
    let positions = words.len() / each;
    for position in words.chunks_exact_mut(each) {
        position.copy_from_slice(&thresholds.flips);
    }
    for (channel, (x, bound)) in x.chunks_exact(positions).zip(&thresholds.bounds).enumerate() {
        let bit = channel % BITS;
        for (x, word) in x.iter().zip(words[channel / BITS..].iter_mut().step_by(each)) {
            *word ^= u64::from(*x >= *bound) << bit;
        }
    }
}

/// What makes the bit of a unit: `dot ≥ limit`, turned round when `flip`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limit {
    pub(crate) dot: i32,
    pub(crate) flip: bool,
}

impl Limit {
    /// The sign of `value(dot)` for `dot` in `−n..=n`, where `value` rises or falls throughout.
    pub(crate) fn of_monotone(n: i32, value: impl Fn(i32) -> f64) -> Self {
        let positive = |dot| value(dot) >= 0.0;
        let flip = positive(-n) && !positive(n);
        if positive(-n) && positive(n) {
            return Self { dot: i32::MIN, flip: false };
        }
        // The first dot where the answer is no longer that of −n; n + 1 when there is none.
        let (mut low, mut high) = (-n, n + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if positive(middle) == positive(-n) { low = middle + 1 } else { high = middle }
        }
        Self { dot: low, flip }
    }
}

/// Packs the signs of a row of dots, `n − 2 · counts`; `words` has `⌈limits / 64⌉` words.
#[allow(clippy::cast_possible_wrap, reason = "counts and n stay below 2^31: a unit has at most 2^30 weights")]
pub(crate) fn counts_to_bits(counts: &[u32], n: i32, limits: &[Limit], words: &mut [u64]) {
    for ((counts, limits), word) in counts.chunks(BITS).zip(limits.chunks(BITS)).zip(words) {
        *word = counts.iter().zip(limits).rev().fold(0, |word, (count, limit)| {
            let dot = n.wrapping_sub((*count as i32).wrapping_mul(2));
            word << 1 | u64::from((dot >= limit.dot) != limit.flip)
        });
    }
}

compiled_twice!(
    /// `y = dot · factor + offset` for a row of dots, and with `relu` not below 0; output `o` goes to `y[o · stride]`.
    counts_to_floats / counts_to_floats_body(
        counts: &[u32],
        n: i32,
        affine: (&[f32], &[f32]),
        relu: bool,
        stride: usize,
        y: &mut [f32],
    )
);

#[inline(always)]
fn counts_to_floats_body(counts: &[u32], n: i32, affine: (&[f32], &[f32]), relu: bool, stride: usize, y: &mut [f32]) {
    // Side by side they go in vectors.
    if stride == 1 {
        each_float(counts, n, affine, relu, y.iter_mut());
    } else {
        each_float(counts, n, affine, relu, y.iter_mut().step_by(stride));
    }
}

#[inline(always)]
#[allow(clippy::cast_possible_wrap, reason = "counts and n stay below 2^31: a unit has at most 2^30 weights")]
fn each_float<'a>(
    counts: &[u32],
    n: i32,
    (factor, offset): (&[f32], &[f32]),
    relu: bool,
    y: impl Iterator<Item = &'a mut f32>,
) {
    for (((y, count), factor), offset) in y.zip(counts).zip(factor).zip(offset) {
        let value = n.wrapping_sub((*count as i32).wrapping_mul(2)) as f32 * factor + offset;
        *y = if relu && value < 0.0 { 0.0 } else { value };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::Draw;

    #[test]
    fn rows_and_images_pack_to_plain_comparisons_in_every_build() {
        let mut draw = Draw::new(43);
        for length in (0usize..=20).chain([63, 64, 65, 100, 127, 128, 130, 784]) {
            let x: Vec<f32> = (0..length).map(|_| [draw.normal(), 0.0, -0.0, f32::NAN][draw.below(9).min(3)]).collect();
            let thresholds: Vec<Threshold> = (0..length)
                .map(|_| Threshold { bound: [0.0, 0.5, f32::NEG_INFINITY][draw.below(3)], flip: draw.below(2) == 1 })
                .collect();
            let expected = |index: usize| (x[index] >= thresholds[index].bound) != thresholds[index].flip;
            for isa in Isa::all() {
                let mut words = vec![u64::MAX; length.div_ceil(BITS)];
                pack_row(isa, &x, &Thresholds::new(thresholds.iter().copied()), &mut words);
                for bit in 0..words.len() * BITS {
                    let found = words[bit / BITS] >> (bit % BITS) & 1 == 1;
                    assert_eq!(found, bit < length && expected(bit), "{isa:?}, bit {bit} of {length}");
                }
            }
        }
        for (channels, positions) in [(1, 7), (3, 9), (20, 16), (64, 5), (65, 33), (130, 2)] {
            let x = draw.normals(channels * positions);
            let thresholds: Vec<Threshold> =
                (0..channels).map(|_| Threshold { bound: draw.normal(), flip: draw.below(2) == 1 }).collect();
            let each = channels.div_ceil(BITS);
            for isa in Isa::all() {
                let mut words = vec![u64::MAX; positions * each];
                pack_channels(isa, &x, &Thresholds::new(thresholds.iter().copied()), &mut words);
                for (position, bit) in (0..positions).flat_map(|at| (0..each * BITS).map(move |bit| (at, bit))) {
                    let expected = thresholds
                        .get(bit)
                        .is_some_and(|threshold| (x[bit * positions + position] >= threshold.bound) != threshold.flip);
                    assert_eq!(words[position * each + bit / BITS] >> (bit % BITS) & 1 == 1, expected, "{isa:?}");
                }
            }
        }
    }

    #[test]
    fn thresholds_decide_as_exact_arithmetic() {
        let mut draw = Draw::new(44);
        for round in 0..2000 {
            // Small binary fractions: the affine map is exact in f64, so it is the oracle.
            let fraction = |draw: &mut Draw| f64::from(draw.whole()) / 8.0;
            let (mean, shift) = (fraction(&mut draw), fraction(&mut draw));
            let factor = [fraction(&mut draw), 0.0, 0.5][round % 3];
            let threshold = Threshold::of_affine(mean, factor, shift);
            for _ in 0..20 {
                let value = draw.whole() / 4.0;
                let expected = (f64::from(value) - mean) * factor + shift >= 0.0;
                let found = (value >= threshold.bound) != threshold.flip;
                assert_eq!(found, expected, "({value} − {mean}) · {factor} + {shift} against {threshold:?}");
            }
        }
    }

    #[test]
    fn limits_are_where_the_sign_turns() {
        let mut draw = Draw::new(45);
        for round in 0..500 {
            let n = i32::try_from(draw.below(70)).expect("small");
            let (factor, offset) = ([draw.normal(), 0.0][round % 2], draw.normal() * 20.0);
            let value = |dot: i32| f64::from(factor) * f64::from(dot) + f64::from(offset);
            let limit = Limit::of_monotone(n, value);
            for dot in -n..=n {
                assert_eq!((dot >= limit.dot) != limit.flip, value(dot) >= 0.0, "{dot} of {n}: {factor} {offset}");
            }
        }
    }

    #[test]
    fn counts_become_signs_and_floats() {
        for units in (0u32..10).chain([63, 64, 65, 130]) {
            let counts: Vec<u32> = (0..units).collect();
            let limits: Vec<Limit> = (0..units).map(|unit| Limit { dot: 4, flip: unit % 3 == 0 }).collect();
            let mut words = vec![0; limits.len().div_ceil(BITS)];
            counts_to_bits(&counts, 40, &limits, &mut words);
            for unit in 0..units as usize {
                let expected = (40 - 2 * unit.cast_signed() >= 4) != (unit % 3 == 0);
                assert_eq!(words[unit / BITS] >> (unit % BITS) & 1 == 1, expected);
            }
        }
        for isa in Isa::all() {
            let mut y = [9.0; 5];
            counts_to_floats(isa, &[0, 3, 5], 6, (&[0.5, 2.0, 1.0], &[1.0, 0.0, 1.0]), true, 2, &mut y);
            assert_eq!(y, [4.0, 9.0, 0.0, 9.0, 0.0]);
            for units in 0..40 {
                let counts: Vec<u32> = (0..units).collect();
                let affine = [vec![0.5; counts.len()], vec![-3.0; counts.len()]];
                let mut y = vec![9.0; counts.len()];
                counts_to_floats(isa, &counts, 40, (&affine[0], &affine[1]), false, 1, &mut y);
                assert!(
                    y.iter().zip(0u8..).all(|(y, unit)| *y == (40.0 - 2.0 * f32::from(unit)) * 0.5 - 3.0),
                    "{isa:?}"
                );
            }
        }
    }
}
