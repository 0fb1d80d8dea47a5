//! The AVX-512 build: VNNI multiplies and sums a quad of each of 16 outputs in one instruction, exactly.
#![allow(unsafe_code, reason = "vector loads from pointers, with the bounds checked once a call")]

use std::arch::x86_64::{__m512i, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_storeu_si512};

use super::{Panels, QUAD, Rows, STEP, WIDTH};
use crate::buffers::Nonzero;
use crate::isa::Level;

/// Rows of a tile, and panels of a vector's tile: sums in flight hide the latency of four or five cycles.
const WAYS: usize = 8;

pub(super) fn product(panels: &Panels, rows: Rows<'_>, sums: &mut [i32]) {
    assert!(panels.isa.level() >= Level::Avx512, "checked by the caller");
    let padded = panels.padded();
    for (index, starts) in rows.starts.chunks(WAYS).enumerate() {
        let sums = &mut sums[index * WAYS * padded..][..starts.len() * padded];
        for panel in 0..padded / WIDTH {
            // SAFETY: the level has VNNI; the caller checked that all runs of all rows lie in the data.
            unsafe {
                match *starts {
                    [a, b, c, d, e, f, g, h] => tile(panels, panel, rows, [a, b, c, d, e, f, g, h], sums),
                    [a, b, c, d, ref rest @ ..] => {
                        tile(panels, panel, rows, [a, b, c, d], &mut *sums);
                        for (row, start) in rest.iter().enumerate() {
                            tile(panels, panel, rows, [*start], &mut sums[(4 + row) * padded..]);
                        }
                    }
                    ref rest => {
                        for (row, start) in rest.iter().enumerate() {
                            tile(panels, panel, rows, [*start], &mut sums[row * padded..]);
                        }
                    }
                }
            }
        }
    }
}

/// The sums of one panel for the rows that begin at `starts`.
///
/// # Safety
/// All runs of these rows, in whole quads, lie in `rows.data`.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn tile<const R: usize>(panels: &Panels, panel: usize, rows: Rows<'_>, starts: [u32; R], sums: &mut [i32]) {
    let weights = panels.weights[panel * panels.quads() * STEP..][..panels.quads() * STEP].as_chunks::<STEP>().0;
    let mut dots = [start_of(panels, panel); R];
    for (run, weights) in weights.chunks_exact(panels.run_quads).enumerate() {
        // SAFETY: the run lies in the data.
        let mut data = starts.map(|start| unsafe { rows.data.as_ptr().add(start as usize + run * rows.run_stride) });
        for weights in weights {
            let weights = load(weights);
            for (dots, data) in dots.iter_mut().zip(&mut data) {
                // SAFETY: the quad lies in its run; the read is unaligned. The place behind the last one is not read.
                let levels = unsafe { data.cast::<i32>().read_unaligned() };
                *data = data.wrapping_add(QUAD);
                *dots = _mm512_dpbusd_epi32(*dots, _mm512_set1_epi32(levels), weights);
            }
        }
    }
    for (dots, sums) in dots.iter().zip(sums.chunks_mut(panels.padded())) {
        store(*dots, panel, sums);
    }
}

pub(super) fn vector(panels: &Panels, nonzero: &Nonzero, sums: &mut [i32]) {
    assert!(panels.isa.level() >= Level::Avx512, "checked by the caller");
    assert!(nonzero.places.last().is_none_or(|last| (*last as usize) < panels.quads()), "places are quads");
    let count = panels.padded() / WIDTH;
    let mut panel = 0;
    while panel < count {
        // SAFETY: the level has VNNI; the panels exist; places rise, and the last is a quad.
        panel += unsafe {
            match count - panel {
                1 => vector_tile::<1>(panels, panel, nonzero, sums),
                2 => vector_tile::<2>(panels, panel, nonzero, sums),
                3 => vector_tile::<3>(panels, panel, nonzero, sums),
                4..8 => vector_tile::<4>(panels, panel, nonzero, sums),
                _ => vector_tile::<WAYS>(panels, panel, nonzero, sums),
            }
        };
    }
}

/// The sums of `P` panels from `first` on; gives `P`.
///
/// # Safety
/// All places are below the panels' quads.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn vector_tile<const P: usize>(panels: &Panels, first: usize, nonzero: &Nonzero, sums: &mut [i32]) -> usize {
    let quads = panels.quads();
    let weights = panels.weights[first * quads * STEP..][..P * quads * STEP].as_chunks::<STEP>().0;
    let mut dots = [start_of(panels, first); P];
    for (panel, dots) in dots.iter_mut().enumerate() {
        *dots = start_of(panels, first + panel);
    }
    let panels_of: [*const [i8; STEP]; P] = std::array::from_fn(|panel| weights[panel * quads..].as_ptr());
    for (place, quad) in nonzero.places.iter().zip(&nonzero.quads) {
        let levels = _mm512_set1_epi32(i32::from_ne_bytes(*quad));
        for (panel, dots) in panels_of.iter().zip(&mut dots) {
            // SAFETY: the place is a quad of the panel.
            let weights = unsafe { &*panel.add(*place as usize) };
            *dots = _mm512_dpbusd_epi32(*dots, levels, load(weights));
        }
    }
    for (panel, dots) in dots.iter().enumerate() {
        store(*dots, first + panel, sums);
    }
    P
}

#[target_feature(enable = "avx512f")]
fn load(weights: &[i8; STEP]) -> __m512i {
    // SAFETY: 64 bytes of the array.
    unsafe { _mm512_loadu_si512(weights.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn start_of(panels: &Panels, panel: usize) -> __m512i {
    let start: &[i32; WIDTH] = &panels.start.as_chunks::<WIDTH>().0[panel];
    // SAFETY: 16 integers of the array.
    unsafe { _mm512_loadu_si512(start.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn store(dots: __m512i, panel: usize, sums: &mut [i32]) {
    let sums: &mut [i32; WIDTH] = &mut sums.as_chunks_mut::<WIDTH>().0[panel];
    // SAFETY: 16 integers of the array.
    unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), dots) }
}
