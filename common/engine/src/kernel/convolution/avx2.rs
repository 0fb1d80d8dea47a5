//! The AVX2 build: the sums of a tile stay in 12 registers while the taps go by.
#![allow(unsafe_code, reason = "vector loads from pointers, with the bounds checked once a call")]

use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps};

use super::{BLOCK, TILE};
use crate::isa::{Isa, Level};

/// Floats of a vector.
const LANES: usize = 8;

/// Vectors of a tile of a dense block: three of each of four channels.
const DENSE: usize = 3;

/// The runs of a block of up to four output channels, each `run + TILE` apart.
pub(super) fn dense(
    isa: Isa,
    taps: &[u32],
    weights: &[[f32; BLOCK]],
    bias: &[f32],
    planes: &[f32],
    run: usize,
    runs: &mut [f32],
) {
    assert!(isa.level() >= Level::Avx2, "checked by the caller");
    let last = taps.iter().max().map_or(0, |tap| *tap as usize);
    assert!(last + run + TILE <= planes.len() && runs.len() >= BLOCK * (run + TILE), "tiles stay inside");
    assert_eq!(weights.len(), taps.len(), "weights for each tap");
    let mut all = [0f32; BLOCK];
    all[..bias.len()].copy_from_slice(bias);
    let mut at = 0;
    while at < run {
        // SAFETY: the level has AVX2 and FMA; `at < run`, and a tile is shorter than `TILE`.
        unsafe {
            match (run - at).div_ceil(LANES) {
                1 => dense_tile::<1>(taps, weights, &all, planes, at, run + TILE, runs),
                2 => dense_tile::<2>(taps, weights, &all, planes, at, run + TILE, runs),
                _ => dense_tile::<DENSE>(taps, weights, &all, planes, at, run + TILE, runs),
            }
        }
        at += DENSE * LANES;
    }
}

/// # Safety
/// `at + V · LANES` values behind each tap lie in `planes`, and in each run of `runs`, which are `stride` apart.
#[target_feature(enable = "avx2,fma")]
unsafe fn dense_tile<const V: usize>(
    taps: &[u32],
    weights: &[[f32; BLOCK]],
    bias: &[f32; BLOCK],
    planes: &[f32],
    at: usize,
    stride: usize,
    runs: &mut [f32],
) {
    let mut sums = bias.map(|bias| [_mm256_set1_ps(bias); V]);
    for (tap, weights) in taps.iter().zip(weights) {
        // SAFETY: as the caller says.
        let x = unsafe { planes.as_ptr().add(*tap as usize + at) };
        for vector in 0..V {
            // SAFETY: as the caller says.
            let x = unsafe { _mm256_loadu_ps(x.add(vector * LANES)) };
            for (sums, weight) in sums.iter_mut().zip(weights) {
                sums[vector] = _mm256_fmadd_ps(x, _mm256_set1_ps(*weight), sums[vector]);
            }
        }
    }
    for (channel, sums) in sums.iter().enumerate() {
        for (vector, sums) in sums.iter().enumerate() {
            // SAFETY: as the caller says.
            unsafe { _mm256_storeu_ps(runs.as_mut_ptr().add(channel * stride + at + vector * LANES), *sums) };
        }
    }
}

/// The run of one output channel.
pub(super) fn sparse(isa: Isa, taps: &[(u32, f32)], bias: f32, planes: &[f32], run: usize, runs: &mut [f32]) {
    assert!(isa.level() >= Level::Avx2, "checked by the caller");
    let last = taps.iter().map(|(tap, _)| *tap as usize).max().unwrap_or(0);
    assert!(last + run + TILE <= planes.len() && runs.len() >= run + TILE, "tiles stay inside");
    let mut at = 0;
    while at < run {
        // SAFETY: the level has AVX2 and FMA; `at < run`, and a tile is not longer than `TILE`.
        at += unsafe {
            match (run - at).div_ceil(LANES) {
                1 => sparse_tile::<1>(taps, bias, planes, at, runs),
                2 => sparse_tile::<2>(taps, bias, planes, at, runs),
                3 => sparse_tile::<3>(taps, bias, planes, at, runs),
                4 => sparse_tile::<4>(taps, bias, planes, at, runs),
                5 | 6 => sparse_tile::<6>(taps, bias, planes, at, runs),
                7 | 8 => sparse_tile::<8>(taps, bias, planes, at, runs),
                9 | 10 => sparse_tile::<10>(taps, bias, planes, at, runs),
                _ => sparse_tile::<12>(taps, bias, planes, at, runs),
            }
        };
    }
}

/// Gives the values of the tile.
///
/// # Safety
/// `at + V · LANES` values behind each tap lie in `planes`, and in `runs`.
#[target_feature(enable = "avx2,fma")]
unsafe fn sparse_tile<const V: usize>(
    taps: &[(u32, f32)],
    bias: f32,
    planes: &[f32],
    at: usize,
    runs: &mut [f32],
) -> usize {
    let mut sums = [_mm256_set1_ps(bias); V];
    for (tap, weight) in taps {
        let weight = _mm256_set1_ps(*weight);
        // SAFETY: as the caller says.
        let x = unsafe { planes.as_ptr().add(*tap as usize + at) };
        for (vector, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as the caller says.
            *sums = _mm256_fmadd_ps(unsafe { _mm256_loadu_ps(x.add(vector * LANES)) }, weight, *sums);
        }
    }
    for (vector, sums) in sums.iter().enumerate() {
        // SAFETY: as the caller says.
        unsafe { _mm256_storeu_ps(runs.as_mut_ptr().add(at + vector * LANES), *sums) };
    }
    V * LANES
}
