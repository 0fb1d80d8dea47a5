//! The AVX-512 build: VPOPCNTDQ counts a word of eight units in one instruction.
#![allow(unsafe_code, reason = "vector loads from pointers, with the bounds checked once a call")]

use std::arch::x86_64::{
    _mm256_storeu_si256, _mm512_add_epi64, _mm512_cvtepi64_epi32, _mm512_loadu_si512, _mm512_popcnt_epi64,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_xor_si512,
};

use super::{Panels, Run, WIDTH};
use crate::isa::{Isa, Level};

pub(super) fn mismatches(isa: Isa, panels: &Panels, x: &[u64], runs: &[Run], counts: &mut [u32]) {
    assert!(isa.level() >= Level::Avx512, "checked by the caller");
    let groups = panels.weights.chunks_exact(panels.words.max(1));
    for (weights, counts) in groups.zip(counts.as_chunks_mut::<WIDTH>().0) {
        // SAFETY: the level has AVX-512F and VPOPCNTDQ.
        unsafe { group(weights, x, runs, counts) }
    }
}

#[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
fn group(weights: &[[u64; WIDTH]], x: &[u64], runs: &[Run], counts: &mut [u32; WIDTH]) {
    let mut sums = [_mm512_setzero_si512(); 2];
    for run in runs {
        let weights = &weights[run.weight..][..run.words];
        for (x, weights) in x[run.x..][..run.words].chunks(2).zip(weights.chunks(2)) {
            for ((x, weights), sums) in x.iter().zip(weights).zip(&mut sums) {
                // SAFETY: the eight words of the array.
                let weights = unsafe { _mm512_loadu_si512(weights.as_ptr().cast()) };
                let differing = _mm512_xor_si512(_mm512_set1_epi64(x.cast_signed()), weights);
                *sums = _mm512_add_epi64(*sums, _mm512_popcnt_epi64(differing));
            }
        }
    }
    let sums = _mm512_cvtepi64_epi32(_mm512_add_epi64(sums[0], sums[1]));
    // SAFETY: the eight integers of the array.
    unsafe { _mm256_storeu_si256(counts.as_mut_ptr().cast(), sums) };
}
