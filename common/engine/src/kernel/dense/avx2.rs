//! The AVX2 build. Eight sums of eight floats are in flight, as many as a latency of four cycles and two multipliers need.
#![allow(unsafe_code, reason = "vector loads from pointers, with the bounds checked once a call")]

use std::arch::x86_64::{
    __m256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::{Panels, WIDTH};
use crate::buffers::Nonzero;
use crate::isa::{Isa, Level};

/// Rows of a tile of [`matrix`]: with two vectors each, 12 of 16 registers.
const ROWS: usize = 6;

pub(super) fn vector(isa: Isa, panels: &Panels, relu: bool, nonzero: &Nonzero, y: &mut [f32]) {
    assert!(isa.level() >= Level::Avx2, "checked by the caller");
    assert!(nonzero.places.last().is_none_or(|last| (*last as usize) < panels.inputs), "places are inputs");
    assert!(y.len() == panels.outputs, "one row");
    let count = panels.bias.len() / WIDTH;
    let mut panel = 0;
    while panel < count {
        // SAFETY: the level has AVX2 and FMA; `panel` and those beside it exist; places rise and the last is an input.
        unsafe {
            match count - panel {
                1 => vector_tile::<1>(panels, panel, relu, nonzero, y),
                2 => vector_tile::<2>(panels, panel, relu, nonzero, y),
                3 => vector_tile::<3>(panels, panel, relu, nonzero, y),
                _ => vector_tile::<4>(panels, panel, relu, nonzero, y),
            }
        }
        panel += 4;
    }
}

/// The outputs of `P` panels from `first` on.
///
/// # Safety
/// The panels exist, and all places are below `panels.inputs`.
#[target_feature(enable = "avx2,fma")]
unsafe fn vector_tile<const P: usize>(panels: &Panels, first: usize, relu: bool, nonzero: &Nonzero, y: &mut [f32]) {
    let stride = panels.inputs * WIDTH;
    let weights = &panels.weights[first * stride..(first + P) * stride];
    let mut sums = [[_mm256_setzero_ps(); 2]; P];
    for (panel, sums) in sums.iter_mut().enumerate() {
        *sums = load(&panels.bias.as_chunks::<WIDTH>().0[first + panel]);
    }
    let panels_of: [*const [f32; WIDTH]; P] = std::array::from_fn(|panel| weights[panel * stride..].as_ptr().cast());
    for (place, value) in nonzero.places.iter().zip(&nonzero.values) {
        let value = _mm256_set1_ps(*value);
        for (panel, sums) in panels_of.iter().zip(&mut sums) {
            // SAFETY: `place < inputs`, so 16 floats from there lie inside the panel.
            unsafe {
                let at = panel.add(*place as usize).cast::<f32>();
                sums[0] = _mm256_fmadd_ps(value, _mm256_loadu_ps(at), sums[0]);
                sums[1] = _mm256_fmadd_ps(value, _mm256_loadu_ps(at.add(8)), sums[1]);
            }
        }
    }
    for (panel, sums) in sums.iter().enumerate() {
        let outputs = (first + panel) * WIDTH..y.len().min((first + panel + 1) * WIDTH);
        store(*sums, relu, &mut y[outputs]);
    }
}

pub(super) fn matrix(isa: Isa, panels: &Panels, relu: bool, x: &[f32], y: &mut [f32]) {
    assert!(isa.level() >= Level::Avx2, "checked by the caller");
    let rows = x.len() / panels.inputs;
    assert!(x.len() == rows * panels.inputs && y.len() == rows * panels.outputs, "whole rows, as many as there are");
    for panel in 0..panels.bias.len() / WIDTH {
        let mut row = 0;
        while row < rows {
            // SAFETY: the level has AVX2 and FMA; the rows from `row` on exist.
            unsafe {
                match rows - row {
                    1 => matrix_tile::<1>(panels, panel, relu, row, x, y),
                    2 => matrix_tile::<2>(panels, panel, relu, row, x, y),
                    3 => matrix_tile::<3>(panels, panel, relu, row, x, y),
                    4 => matrix_tile::<4>(panels, panel, relu, row, x, y),
                    5 => matrix_tile::<5>(panels, panel, relu, row, x, y),
                    _ => matrix_tile::<ROWS>(panels, panel, relu, row, x, y),
                }
            }
            row += ROWS;
        }
    }
}

/// The outputs of one panel for `R` rows from `row` on.
///
/// # Safety
/// The rows exist in `x` and `y`.
#[target_feature(enable = "avx2,fma")]
unsafe fn matrix_tile<const R: usize>(panels: &Panels, panel: usize, relu: bool, row: usize, x: &[f32], y: &mut [f32]) {
    let (inputs, outputs) = (panels.inputs, panels.outputs);
    let weights = panels.weights[panel * inputs * WIDTH..(panel + 1) * inputs * WIDTH].as_chunks::<WIDTH>().0;
    let x = &x[row * inputs..(row + R) * inputs];
    let mut sums = [load(&panels.bias.as_chunks::<WIDTH>().0[panel]); R];
    let mut rows: [*const f32; R] = std::array::from_fn(|row| x[row * inputs..].as_ptr());
    for weights in weights {
        let weights = load(weights);
        for (x, sums) in rows.iter_mut().zip(&mut sums) {
            // SAFETY: one of `inputs` values of the row; the place behind the last one is not read.
            let value = _mm256_set1_ps(unsafe { **x });
            *x = x.wrapping_add(1);
            sums[0] = _mm256_fmadd_ps(value, weights[0], sums[0]);
            sums[1] = _mm256_fmadd_ps(value, weights[1], sums[1]);
        }
    }
    let columns = panel * WIDTH..outputs.min((panel + 1) * WIDTH);
    for (index, sums) in sums.iter().enumerate() {
        let y = &mut y[(row + index) * outputs..][..outputs];
        store(*sums, relu, &mut y[columns.clone()]);
    }
}

#[target_feature(enable = "avx2")]
fn load(values: &[f32; WIDTH]) -> [__m256; 2] {
    // SAFETY: both halves lie in the array.
    unsafe { [_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))] }
}

/// Writes up to 16 sums.
#[target_feature(enable = "avx2")]
fn store(mut sums: [__m256; 2], relu: bool, y: &mut [f32]) {
    if relu {
        // The second operand is what a NaN gives: it is carried on.
        sums = sums.map(|sums| _mm256_max_ps(_mm256_setzero_ps(), sums));
    }
    let mut whole = [0f32; WIDTH];
    let target = if y.len() == WIDTH { y.as_mut_ptr() } else { whole.as_mut_ptr() };
    // SAFETY: both targets have room for 16 floats.
    unsafe {
        _mm256_storeu_ps(target, sums[0]);
        _mm256_storeu_ps(target.add(8), sums[1]);
    }
    if y.len() != WIDTH {
        y.copy_from_slice(&whole[..y.len()]);
    }
}
