//! The wide builds: the sums of a tile stay in registers while the taps go by. Both are the same code for vectors of another
//! length.
#![allow(unsafe_code, reason = "vector loads from pointers, with the bounds checked once a call")]

use super::{BLOCK, TILE};
use crate::isa::{Isa, Level};

/// Defines `dense` and `sparse` for one kind of vector. `$dense` vectors of each of four channels, one of weights and those of
/// the inputs have to fit into the registers, and so have `$sparse` and two.
macro_rules! tiles {
    (
        $name:ident, $level:ident, $features:literal, lanes $lanes:literal,
        $set:ident, $load:ident, $store:ident, $fma:ident,
        dense $dense:literal: $($dense_tile:literal),*; sparse $sparse:literal: $($sparse_tile:literal),*
    ) => {
        pub(super) mod $name {
            use super::{BLOCK, Isa, Level, TILE};
            use std::arch::x86_64::{$fma, $load, $set, $store};

            /// Floats of a vector.
            const LANES: usize = $lanes;

            /// The runs of a block of up to four output channels, each `run + TILE` apart.
            pub(in super::super) fn dense(
                isa: Isa,
                taps: &[u32],
                weights: &[[f32; BLOCK]],
                bias: &[f32],
                planes: &[f32],
                run: usize,
                runs: &mut [f32],
            ) {
                assert!(isa.level() >= Level::$level, "checked by the caller");
                let last = taps.iter().max().map_or(0, |tap| *tap as usize);
                assert!(last + run + TILE <= planes.len() && runs.len() >= BLOCK * (run + TILE), "tiles stay inside");
                assert_eq!(weights.len(), taps.len(), "weights for each tap");
                const { assert!($dense * LANES <= TILE, "a tile that begins inside a run ends inside the slack") };
                let mut all = [0f32; BLOCK];
                all[..bias.len()].copy_from_slice(bias);
                let mut at = 0;
                while at < run {
                    // SAFETY: the level has the features; `at < run`, and a tile is not longer than `TILE`.
                    at += unsafe {
                        match (run - at).div_ceil(LANES) {
                            $($dense_tile => dense_tile::<$dense_tile>(taps, weights, &all, planes, at, run + TILE, runs),)*
                            _ => dense_tile::<$dense>(taps, weights, &all, planes, at, run + TILE, runs),
                        }
                    };
                }
            }

            /// Gives the values of the tile.
            ///
            /// # Safety
            /// `at + V · LANES` values behind each tap lie in `planes`, and in each run of `runs`, which are `stride` apart.
            #[target_feature(enable = $features)]
            unsafe fn dense_tile<const V: usize>(
                taps: &[u32],
                weights: &[[f32; BLOCK]],
                bias: &[f32; BLOCK],
                planes: &[f32],
                at: usize,
                stride: usize,
                runs: &mut [f32],
            ) -> usize {
                let mut sums = bias.map(|bias| [$set(bias); V]);
                // SAFETY: as the caller says, here and below.
                let planes = unsafe { planes.as_ptr().add(at) };
                for (tap, weights) in taps.iter().zip(weights) {
                    let mut x = [$set(0.0); V];
                    for (vector, x) in x.iter_mut().enumerate() {
                        // SAFETY: as the caller says.
                        *x = unsafe { $load(planes.add(*tap as usize).add(vector * LANES)) };
                    }
                    for (sums, weight) in sums.iter_mut().zip(weights) {
                        let weight = $set(*weight);
                        for (sums, x) in sums.iter_mut().zip(x) {
                            *sums = $fma(x, weight, *sums);
                        }
                    }
                }
                for (channel, sums) in sums.iter().enumerate() {
                    for (vector, sums) in sums.iter().enumerate() {
                        // SAFETY: as the caller says.
                        unsafe { $store(runs.as_mut_ptr().add(channel * stride + at + vector * LANES), *sums) };
                    }
                }
                V * LANES
            }

            /// The run of one output channel.
            pub(in super::super) fn sparse(
                isa: Isa,
                taps: &[(u32, f32)],
                bias: f32,
                planes: &[f32],
                run: usize,
                runs: &mut [f32],
            ) {
                assert!(isa.level() >= Level::$level, "checked by the caller");
                let last = taps.iter().map(|(tap, _)| *tap as usize).max().unwrap_or(0);
                assert!(last + run + TILE <= planes.len() && runs.len() >= run + TILE, "tiles stay inside");
                const { assert!($sparse * LANES <= TILE, "a tile that begins inside a run ends inside the slack") };
                let mut at = 0;
                while at < run {
                    // SAFETY: the level has the features; `at < run`, and a tile is not longer than `TILE`.
                    at += unsafe {
                        match (run - at).div_ceil(LANES) {
                            $($sparse_tile => sparse_tile::<$sparse_tile>(taps, bias, planes, at, runs),)*
                            _ => sparse_tile::<$sparse>(taps, bias, planes, at, runs),
                        }
                    };
                }
            }

            /// Gives the values of the tile.
            ///
            /// # Safety
            /// `at + V · LANES` values behind each tap lie in `planes`, and in `runs`.
            #[target_feature(enable = $features)]
            unsafe fn sparse_tile<const V: usize>(
                taps: &[(u32, f32)],
                bias: f32,
                planes: &[f32],
                at: usize,
                runs: &mut [f32],
            ) -> usize {
                let mut sums = [$set(bias); V];
                // SAFETY: as the caller says, here and below.
                let planes = unsafe { planes.as_ptr().add(at) };
                for (tap, weight) in taps {
                    let weight = $set(*weight);
                    // SAFETY: as the caller says.
                    let x = unsafe { planes.add(*tap as usize) };
                    for (vector, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: as the caller says.
                        *sums = $fma(unsafe { $load(x.add(vector * LANES)) }, weight, *sums);
                    }
                }
                for (vector, sums) in sums.iter().enumerate() {
                    // SAFETY: as the caller says.
                    unsafe { $store(runs.as_mut_ptr().add(at + vector * LANES), *sums) };
                }
                V * LANES
            }
        }
    };
}

tiles!(
    avx2, Avx2, "avx2,fma", lanes 8,
    _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps,
    dense 2: 1; sparse 12: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
);

tiles!(
    avx512, Avx512, "avx512f", lanes 16,
    _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps,
    dense 6: 1, 2, 3, 4, 5; sparse 12: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
);
