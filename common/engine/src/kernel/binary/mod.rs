//! Binary products: signs packed 64 to a word, XNOR and popcount (XNOR-Net, Rastegari et al. 2016, §3.2).
//!
//! For vectors of ±1, `Σ x w = n − 2 · mismatches`, where the mismatches are the ones of `x xor w`. The kernel counts those.
//! Weights lie in groups of [`WIDTH`] units, word by word: `[group][word][WIDTH]`, so that a vector holds one word of each unit.
//! Bits behind the last input are 0 on both sides and match.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod pack;

pub(crate) use pack::{Limit, Threshold, Thresholds, counts_to_bits, counts_to_floats, pack_channels, pack_row};

use crate::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::isa::Level;

/// Units of a group.
pub(crate) const WIDTH: usize = 8;

/// Signs of a word.
pub(crate) const BITS: usize = 64;

/// Packed weights of several units.
#[derive(Debug)]
pub(crate) struct Panels {
    units: usize,
    words: usize,
    weights: Vec<[u64; WIDTH]>,
}

/// A run of words that is compared: from `x` of the inputs and from `weight` of each unit's words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Run {
    pub(crate) x: usize,
    pub(crate) weight: usize,
    pub(crate) words: usize,
}

impl Panels {
    /// Weights of −1, `words` words for each of `units`.
    pub(crate) fn new(units: usize, words: usize) -> Self {
        Self { units, words, weights: vec![[0; WIDTH]; units.div_ceil(WIDTH) * words] }
    }

    /// Makes the weight of `unit` at `bit` of `word` +1.
    pub(crate) fn set(&mut self, unit: usize, word: usize, bit: usize) {
        self.weights[unit / WIDTH * self.words + word][unit % WIDTH] |= 1 << bit;
    }

    /// Units.
    pub(crate) fn units(&self) -> usize {
        self.units
    }

    /// Units, rounded up to whole groups: counts of a row.
    pub(crate) fn padded(&self) -> usize {
        self.units.next_multiple_of(WIDTH)
    }

    /// Words of a unit.
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    /// Bytes that it keeps.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.len() * size_of::<[u64; WIDTH]>()
    }
}

/// Counts, for each unit, the bits of the runs where `x` and its weights differ; `counts` has [`Panels::padded`] places.
///
/// # Panics
/// If a run leaves `x` or the weights, or has 2²⁵ words or more.
pub(crate) fn mismatches(isa: Isa, panels: &Panels, x: &[u64], runs: &[Run], counts: &mut [u32]) {
    assert_eq!(counts.len(), panels.padded(), "a count for each unit");
    for run in runs {
        assert!(run.x + run.words <= x.len() && run.weight + run.words <= panels.words, "runs lie in the words");
    }
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::mismatches(isa, panels, x, runs, counts),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::mismatches(isa, panels, x, runs, counts),
        _ => mismatches_portable(panels, x, runs, counts),
    }
}

/// The definition of [`mismatches`].
fn mismatches_portable(panels: &Panels, x: &[u64], runs: &[Run], counts: &mut [u32]) {
    let groups = panels.weights.chunks_exact(panels.words.max(1));
    for (weights, counts) in groups.zip(counts.as_chunks_mut::<WIDTH>().0) {
        *counts = [0; WIDTH];
        for run in runs {
            for (x, weights) in x[run.x..][..run.words].iter().zip(&weights[run.weight..][..run.words]) {
                for (count, weight) in counts.iter_mut().zip(weights) {
                    *count = count.wrapping_add((x ^ weight).count_ones());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::Draw;

    #[test]
    fn every_build_counts_what_plain_signs_give() {
        let mut draw = Draw::new(41);
        let word = |draw: &mut Draw| match draw.below(6) {
            0 => 0,
            1 => u64::MAX,
            _ => (draw.below(1 << 32) as u64) << 32 | draw.below(1 << 32) as u64,
        };
        for words in (1..=9).chain([15, 16, 31, 32, 33, 62, 63, 64, 70, 130]) {
            for units in (1..=17).chain([24, 31, 100]) {
                let mut panels = Panels::new(units, words);
                let plain: Vec<Vec<u64>> = (0..units).map(|_| (0..words).map(|_| word(&mut draw)).collect()).collect();
                for (unit, weights) in plain.iter().enumerate() {
                    for bit in (0..words * BITS).filter(|bit| weights[bit / BITS] >> (bit % BITS) & 1 == 1) {
                        panels.set(unit, bit / BITS, bit % BITS);
                    }
                }
                let x: Vec<u64> = (0..words + 5).map(|_| word(&mut draw)).collect();
                let whole = vec![Run { x: 3, weight: 0, words }];
                let parts = vec![
                    Run { x: 1, weight: words / 2, words: words - words / 2 },
                    Run { x: 5, weight: 0, words: words / 3 },
                    Run { x: 0, weight: words - 1, words: 1 },
                ];
                for runs in [vec![], whole, parts] {
                    let expected: Vec<u32> = plain
                        .iter()
                        .map(|weights| {
                            let pairs = runs
                                .iter()
                                .flat_map(|run| (0..run.words).map(|word| (run.x + word, run.weight + word)));
                            pairs.map(|(x_at, weight_at)| (x[x_at] ^ weights[weight_at]).count_ones()).sum()
                        })
                        .collect();
                    for isa in Isa::all() {
                        let mut counts = vec![7; panels.padded()];
                        mismatches(isa, &panels, &x, &runs, &mut counts);
                        assert_eq!(counts[..units], expected, "{isa:?}, {units} units of {words} words, {runs:?}");
                    }
                }
            }
        }
    }
}
