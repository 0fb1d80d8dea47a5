//! The AVX2 build. Bits of bytes are counted by a table of 16 in a register (Muła, Kurz, Lemire 2018, §3.2) and summed as bytes
//! for as long as those cannot overflow.
#![allow(unsafe_code, reason = "vector loads from pointers, with the bounds checked once a call")]

use std::arch::x86_64::{
    __m256i, _CMP_GE_OQ, _mm256_add_epi8, _mm256_add_epi64, _mm256_and_si256, _mm256_cmp_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_movemask_ps, _mm256_sad_epu8, _mm256_set1_epi8, _mm256_set1_epi64x, _mm256_setr_epi8,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi16, _mm256_storeu_si256, _mm256_xor_si256,
};

use super::{BITS, Panels, Run, WIDTH};
use crate::isa::{Isa, Level};

/// Words whose counts of bytes, at most 8 each, can be summed in a byte.
const WORDS: usize = 31;

pub(super) fn mismatches(isa: Isa, panels: &Panels, x: &[u64], runs: &[Run], counts: &mut [u32]) {
    assert!(isa.level() >= Level::Avx2, "checked by the caller");
    let groups = panels.weights.chunks_exact(panels.words.max(1));
    for (weights, counts) in groups.zip(counts.as_chunks_mut::<WIDTH>().0) {
        // SAFETY: the level has AVX2.
        unsafe { group(weights, x, runs, counts) }
    }
}

#[target_feature(enable = "avx2,popcnt,bmi1")]
fn group(weights: &[[u64; WIDTH]], x: &[u64], runs: &[Run], counts: &mut [u32; WIDTH]) {
    let mut sums = [_mm256_setzero_si256(); 2];
    for run in runs {
        let weights = &weights[run.weight..][..run.words];
        for (x, weights) in x[run.x..][..run.words].chunks(WORDS).zip(weights.chunks(WORDS)) {
            let mut bytes = [_mm256_setzero_si256(); 2];
            for (x, weights) in x.iter().zip(weights) {
                let x = _mm256_set1_epi64x(x.cast_signed());
                for (half, bytes) in bytes.iter_mut().enumerate() {
                    // SAFETY: four words of the array.
                    let weights = unsafe { _mm256_loadu_si256(weights.as_ptr().add(4 * half).cast()) };
                    *bytes = _mm256_add_epi8(*bytes, ones(_mm256_xor_si256(x, weights)));
                }
            }
            for (sums, bytes) in sums.iter_mut().zip(bytes) {
                *sums = _mm256_add_epi64(*sums, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
            }
        }
    }
    let mut wide = [0u64; WIDTH];
    for (half, sums) in sums.iter().enumerate() {
        // SAFETY: four words of the array.
        unsafe { _mm256_storeu_si256(wide.as_mut_ptr().add(4 * half).cast(), *sums) };
    }
    #[allow(clippy::cast_possible_truncation, reason = "a count of at most 2^31 bits")]
    for (count, wide) in counts.iter_mut().zip(wide) {
        *count = wide as u32;
    }
}

/// How many bits of each byte are set.
#[target_feature(enable = "avx2")]
fn ones(bytes: __m256i) -> __m256i {
    #[rustfmt::skip]
    let table = _mm256_setr_epi8(
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
    );
    let nibble = _mm256_set1_epi8(15);
    let low = _mm256_shuffle_epi8(table, _mm256_and_si256(bytes, nibble));
    let high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble));
    _mm256_add_epi8(low, high)
}

pub(super) fn pack(isa: Isa, x: &[f32], bounds: &[f32], words: &mut [u64]) {
    assert!(isa.level() >= Level::Avx2, "checked by the caller");
    // SAFETY: the level has AVX2.
    unsafe { pack_words(x, bounds, words) }
}

#[target_feature(enable = "avx2")]
fn pack_words(x: &[f32], bounds: &[f32], words: &mut [u64]) {
    for ((x, bounds), word) in x.chunks(BITS).zip(bounds.chunks(BITS)).zip(words) {
        let (x, x_tail) = x.as_chunks::<8>();
        let first = 8 * x.len();
        let (bounds, bounds_tail) = bounds.as_chunks::<8>();
        *word = 0;
        for (index, (x, bounds)) in x.iter().zip(bounds).enumerate() {
            // SAFETY: the eight floats of each array.
            let above =
                unsafe { _mm256_cmp_ps::<_CMP_GE_OQ>(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(bounds.as_ptr())) };
            *word |= u64::from(_mm256_movemask_ps(above).cast_unsigned()) << (8 * index);
        }
        for (index, (x, bound)) in x_tail.iter().zip(bounds_tail).enumerate() {
            *word |= u64::from(x >= bound) << (first + index);
        }
    }
}
