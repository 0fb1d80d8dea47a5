//! Between floats, integer levels and sums.
//!
//! A level stands for `(level − zero) · scale`. All conversions round to the nearest level, ties to even, after clamping; a NaN
//! becomes the lowest. Products and additions are never fused here, so that every processor gives the same levels.

use starling_compress::InputRange;

/// How floats become levels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quantiser {
    /// What a level more stands for.
    pub(crate) scale: f32,
    /// Its inverse.
    pub(crate) steps: f32,
    /// The level of 0, exactly.
    pub(crate) zero: u8,
}

impl Quantiser {
    /// 256 levels over a range that was checked to include 0 and to have a normal step.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded and clamped to a byte before")]
    pub(crate) fn new(range: InputRange) -> Self {
        let scale = (range.high - range.low) / 255.0;
        let zero = (-range.low / scale).round_ties_even().clamp(0.0, 255.0) as u8;
        Self { scale, steps: scale.recip(), zero }
    }
}

/// 1.5·2²³: added to a float from 0 to 255 it leaves the nearest integer, ties to even, in the lowest byte.
const MAGIC: f32 = 12_582_912.0;

/// `value`, clamped to `low..=255` and rounded.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the lowest byte is what is asked for")]
fn level(value: f32, low: f32) -> u8 {
    let value = if value > low { value } else { low };
    let value = if value < 255.0 { value } else { 255.0 };
    (value + MAGIC).to_bits() as u8
}

compiled_twice!(
    /// `levels = round(x · steps + zero)`.
    levels_of / levels_of_body(quantiser: Quantiser, x: &[f32], levels: &mut [u8])
);

#[inline(always)]
fn levels_of_body(quantiser: Quantiser, x: &[f32], levels: &mut [u8]) {
    let (steps, zero) = (quantiser.steps, f32::from(quantiser.zero));
    for (to, x) in levels.iter_mut().zip(x) {
        *to = level(x * steps + zero, 0.0);
    }
}

compiled_twice!(
    /// `levels = round(max(sum · factor + offset, low))`, row by row. Rows of `sums` are as long as the factors and
    /// offsets of `affine`, rows of `levels` as long as `outputs`.
    sums_to_levels / sums_to_levels_body(
        sums: &[i32],
        affine: (&[f32], &[f32]),
        low: f32,
        outputs: usize,
        levels: &mut [u8],
    )
);

#[inline(always)]
fn sums_to_levels_body(sums: &[i32], (factor, offset): (&[f32], &[f32]), low: f32, outputs: usize, levels: &mut [u8]) {
    for (sums, to) in sums.chunks_exact(factor.len()).zip(levels.chunks_exact_mut(outputs)) {
        for (((to, sum), factor), offset) in to.iter_mut().zip(sums).zip(factor).zip(offset) {
            *to = level(*sum as f32 * factor + offset, low);
        }
    }
}

/// Where the floats of a row of sums go: output `o` of row `r` to `r · row + o · output`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    /// How many outputs there are.
    pub(crate) count: usize,
    pub(crate) row: usize,
    pub(crate) output: usize,
}

compiled_twice!(
    /// `y = sum · factor + offset`, row by row, and with `relu` not below 0.
    sums_to_floats / sums_to_floats_body(
        sums: &[i32],
        affine: (&[f32], &[f32]),
        relu: bool,
        places: Places,
        y: &mut [f32],
    )
);

#[inline(always)]
fn sums_to_floats_body(sums: &[i32], (factor, offset): (&[f32], &[f32]), relu: bool, places: Places, y: &mut [f32]) {
    for (row, sums) in sums.chunks_exact(factor.len()).enumerate() {
        let y = y[row * places.row..].iter_mut().step_by(places.output).take(places.count);
        for (((y, sum), factor), offset) in y.zip(sums).zip(factor).zip(offset) {
            let value = *sum as f32 * factor + offset;
            *y = if relu && value < 0.0 { 0.0 } else { value };
        }
    }
}
