//! The AVX-512 build: VPOPCNTDQ counts a word of eight units in one instruction.
#![allow(unsafe_code, reason = "vector loads from pointers, with the bounds checked once a call")]

use std::arch::x86_64::{
    __m512i, _mm256_storeu_si256, _mm512_add_epi64, _mm512_cvtepi64_epi32, _mm512_loadu_si512, _mm512_popcnt_epi64,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_xor_si512,
};

use super::{Panels, Run, WIDTH};
use crate::isa::{Isa, Level};

/// Sums in flight.
const WAYS: usize = 4;

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
    let mut sums = [_mm512_setzero_si512(); WAYS];
    for run in runs {
        let (x, x_rest) = x[run.x..][..run.words].as_chunks::<WAYS>();
        let (weights, weights_rest) = weights[run.weight..][..run.words].as_chunks::<WAYS>();
        for (x, weights) in x.iter().zip(weights) {
            for way in 0..WAYS {
                sums[way] = _mm512_add_epi64(sums[way], differing(x[way], &weights[way]));
            }
        }
        for (x, weights) in x_rest.iter().zip(weights_rest) {
            sums[0] = _mm512_add_epi64(sums[0], differing(*x, weights));
        }
    }
    let pairs = [_mm512_add_epi64(sums[0], sums[1]), _mm512_add_epi64(sums[2], sums[3])];
    let sums = _mm512_cvtepi64_epi32(_mm512_add_epi64(pairs[0], pairs[1]));
    // SAFETY: the eight integers of the array.
    unsafe { _mm256_storeu_si256(counts.as_mut_ptr().cast(), sums) };
}

/// How many bits of `x` differ from those of each unit's word.
#[target_feature(enable = "avx512f,avx512vpopcntdq")]
fn differing(x: u64, weights: &[u64; WIDTH]) -> __m512i {
    // SAFETY: the eight words of the array.
    let weights = unsafe { _mm512_loadu_si512(weights.as_ptr().cast()) };
    _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_set1_epi64(x.cast_signed()), weights))
}
