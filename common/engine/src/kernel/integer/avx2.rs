//! The AVX2 build. A quad of activations and four quads of weights are widened to 16 bits; `madd` sums pairs exactly in 32.
//! Each sum is held in two parts until the end.
#![allow(unsafe_code, reason = "vector loads from pointers, with the bounds checked once a call")]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm_set1_epi32, _mm256_add_epi32, _mm256_cvtepi8_epi16, _mm256_cvtepu8_epi16,
    _mm256_hadd_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_permute4x64_epi64, _mm256_setzero_si256,
    _mm256_storeu_si256,
};

use super::{Panels, QUAD, Rows, STEP, WIDTH};
use crate::buffers::Nonzero;
use crate::isa::Level;

/// Vectors of parts of a panel's sums.
const PARTS: usize = 4;

/// Rows of a tile: with four vectors each, 12 of 16 registers.
const ROWS: usize = 3;

pub(super) fn product(panels: &Panels, rows: Rows<'_>, sums: &mut [i32]) {
    assert!(panels.isa.level() >= Level::Avx2, "checked by the caller");
    let padded = panels.padded();
    for (index, starts) in rows.starts.chunks(ROWS).enumerate() {
        let sums = &mut sums[index * ROWS * padded..][..starts.len() * padded];
        for panel in 0..padded / WIDTH {
            // SAFETY: the level has AVX2; the caller checked that all runs of all rows lie in the data.
            unsafe {
                match *starts {
                    [a, b, c] => tile(panels, panel, rows, [a, b, c], sums),
                    [a, b] => tile(panels, panel, rows, [a, b], sums),
                    [a] => tile(panels, panel, rows, [a], sums),
                    _ => unreachable!("chunks of up to three"),
                }
            }
        }
    }
}

/// The sums of one panel for the rows that begin at `starts`.
///
/// # Safety
/// All runs of these rows, in whole quads, lie in `rows.data`.
#[target_feature(enable = "avx2")]
unsafe fn tile<const R: usize>(panels: &Panels, panel: usize, rows: Rows<'_>, starts: [u32; R], sums: &mut [i32]) {
    let weights = panels.weights[panel * panels.quads() * STEP..][..panels.quads() * STEP].as_chunks::<STEP>().0;
    let mut parts = [[_mm256_setzero_si256(); PARTS]; R];
    for (run, weights) in weights.chunks_exact(panels.run_quads).enumerate() {
        // SAFETY: the run lies in the data.
        let mut data = starts.map(|start| unsafe { rows.data.as_ptr().add(start as usize + run * rows.run_stride) });
        for weights in weights {
            // SAFETY: the quad lies in its run; the place behind the last one is not read.
            let levels = data.map(|data| unsafe { widened(data) });
            data = data.map(|data| data.wrapping_add(QUAD));
            for part in 0..PARTS {
                let weights = weights_of(weights, part);
                for (parts, levels) in parts.iter_mut().zip(levels) {
                    parts[part] = _mm256_add_epi32(parts[part], _mm256_madd_epi16(levels, weights));
                }
            }
        }
    }
    for (parts, sums) in parts.iter().zip(sums.chunks_exact_mut(panels.padded())) {
        finish(*parts, panels, panel, sums);
    }
}

pub(super) fn vector(panels: &Panels, nonzero: &Nonzero, sums: &mut [i32]) {
    assert!(panels.isa.level() >= Level::Avx2, "checked by the caller");
    assert!(nonzero.places.last().is_none_or(|last| (*last as usize) < panels.quads()), "places are quads");
    let count = panels.padded() / WIDTH;
    let mut panel = 0;
    while panel < count {
        // SAFETY: the level has AVX2; the panels exist; places rise, and the last is a quad.
        unsafe {
            match count - panel {
                1 => vector_tile::<1>(panels, panel, nonzero, sums),
                2 => vector_tile::<2>(panels, panel, nonzero, sums),
                _ => vector_tile::<3>(panels, panel, nonzero, sums),
            }
        }
        panel += 3;
    }
}

/// The sums of `P` panels from `first` on.
///
/// # Safety
/// All places are below the panels' quads.
#[target_feature(enable = "avx2")]
unsafe fn vector_tile<const P: usize>(panels: &Panels, first: usize, nonzero: &Nonzero, sums: &mut [i32]) {
    let quads = panels.quads();
    let weights = panels.weights[first * quads * STEP..][..P * quads * STEP].as_chunks::<STEP>().0;
    let mut parts = [[_mm256_setzero_si256(); PARTS]; P];
    let panels_of: [*const [i8; STEP]; P] = std::array::from_fn(|panel| weights[panel * quads..].as_ptr());
    for (place, quad) in nonzero.places.iter().zip(&nonzero.quads) {
        // SAFETY: the four bytes of the array.
        let levels = unsafe { widened(quad.as_ptr()) };
        for (panel, parts) in panels_of.iter().zip(&mut parts) {
            // SAFETY: the place is a quad of the panel.
            let weights = unsafe { &*panel.add(*place as usize) };
            for (part, parts) in parts.iter_mut().enumerate() {
                *parts = _mm256_add_epi32(*parts, _mm256_madd_epi16(levels, weights_of(weights, part)));
            }
        }
    }
    for (panel, parts) in parts.iter().enumerate() {
        finish(*parts, panels, first + panel, sums);
    }
}

/// Four levels as 16-bit integers, four times.
///
/// # Safety
/// Four bytes can be read at `quad`.
#[target_feature(enable = "avx2")]
unsafe fn widened(quad: *const u8) -> __m256i {
    // SAFETY: the caller says so; the read is unaligned.
    _mm256_cvtepu8_epi16(_mm_set1_epi32(unsafe { quad.cast::<i32>().read_unaligned() }))
}

/// The quads of four outputs as 16-bit integers.
#[target_feature(enable = "avx2")]
fn weights_of(weights: &[i8; STEP], part: usize) -> __m256i {
    let quarter: &[i8; 16] = &weights.as_chunks::<16>().0[part];
    // SAFETY: 16 bytes of the array.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(quarter.as_ptr().cast::<__m128i>()) })
}

/// Joins the parts of a panel's sums and writes them to their places in a row.
#[target_feature(enable = "avx2")]
fn finish(parts: [__m256i; PARTS], panels: &Panels, panel: usize, sums: &mut [i32]) {
    let start: &[i32; WIDTH] = &panels.start.as_chunks::<WIDTH>().0[panel];
    let sums: &mut [i32; WIDTH] = &mut sums.as_chunks_mut::<WIDTH>().0[panel];
    for half in 0..2 {
        // Pairs 01 45 | 23 67 come out: the middle quarters change places.
        let joined = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(parts[2 * half], parts[2 * half + 1]));
        // SAFETY: eight integers of each array.
        unsafe {
            let start = _mm256_loadu_si256(start.as_ptr().add(8 * half).cast());
            _mm256_storeu_si256(sums.as_mut_ptr().add(8 * half).cast(), _mm256_add_epi32(start, joined));
        }
    }
}
