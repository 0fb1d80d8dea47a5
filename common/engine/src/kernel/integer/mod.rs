//! Integer products: 256 levels of activations by signed 8-bit weights, summed exactly in 32 bits.
//!
//! Weights lie in panels of [`WIDTH`] outputs and quads of four inputs: `[panel][quad][WIDTH][4]`, filled up with zeros. A quad
//! of activations is one 32-bit word, which is what VNNI multiplies at once; AVX2 widens both sides to 16 bits and multiplies
//! pairs, whose sum cannot saturate (unlike that of `maddubs`). The portable build has its quads as `[4][WIDTH]`, so that the
//! compiler sees vectors of outputs.
//!
//! One kernel serves linear layers and convolutions: a row of inputs is some runs of memory, one for a linear layer, one for
//! each line of a convolution's window over an image with its channels last. Nothing is copied into columns.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod level;

pub(crate) use level::{Places, Quantiser, levels_of, sums_to_floats, sums_to_levels};

use crate::buffers::{Nonzero, SLACK};
use crate::isa::{Isa, Level};

/// Outputs of a panel.
pub(crate) const WIDTH: usize = 16;

/// Inputs of a quad.
pub(crate) const QUAD: usize = 4;

/// Bytes of a quad of a panel.
const STEP: usize = WIDTH * QUAD;

/// The weights of one output channel after another, in panels.
#[derive(Debug)]
pub(crate) struct Panels {
    isa: Isa,
    outputs: usize,
    runs: usize,
    run_quads: usize,
    weights: Vec<i8>,
    /// What the sums of each output begin with.
    start: Vec<i32>,
}

impl Panels {
    /// Zeros for `outputs`, each over `runs` runs of `run` inputs, as the kernels of `isa` read them.
    pub(crate) fn new(isa: Isa, runs: usize, run: usize, outputs: usize) -> Self {
        let run_quads = run.div_ceil(QUAD);
        let padded = outputs.next_multiple_of(WIDTH);
        let weights = vec![0; padded * runs * run_quads * QUAD];
        Self { isa, outputs, runs, run_quads, weights, start: vec![0; padded] }
    }

    /// The weight of `output` at `place` of `run`.
    pub(crate) fn weight_mut(&mut self, run: usize, place: usize, output: usize) -> &mut i8 {
        let quads = self.runs * self.run_quads;
        let quad = (output / WIDTH * quads) + run * self.run_quads + place / QUAD;
        let inside = match self.isa.level() {
            Level::Portable => place % QUAD * WIDTH + output % WIDTH,
            _ => output % WIDTH * QUAD + place % QUAD,
        };
        &mut self.weights[quad * STEP + inside]
    }

    /// Makes the sums those of `level − zero` instead of `level`: they begin with `−zero Σ w`.
    pub(crate) fn centre(&mut self, zero: u8) {
        let panel_bytes = self.runs * self.run_quads * STEP;
        for (panel, weights) in self.weights.chunks_exact(panel_bytes).enumerate() {
            for (place, weight) in weights.iter().enumerate() {
                let output = match self.isa.level() {
                    Level::Portable => place % WIDTH,
                    _ => place % STEP / QUAD,
                };
                let start = &mut self.start[panel * WIDTH + output];
                *start = start.wrapping_sub(i32::from(*weight).wrapping_mul(i32::from(zero)));
            }
        }
    }

    /// Outputs, rounded up to whole panels: sums of a row.
    pub(crate) fn padded(&self) -> usize {
        self.start.len()
    }

    /// Outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes that it keeps.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.len() + self.start.len() * size_of::<i32>()
    }

    fn quads(&self) -> usize {
        self.runs * self.run_quads
    }
}

/// Rows of inputs in `data`: row `i` has its runs at `starts[i] + run · run_stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) starts: &'a [u32],
    pub(crate) run_stride: usize,
}

/// The sums of rows: `sums[row][output] = start[output] + Σ level · weight`, rows of [`Panels::padded`] sums.
///
/// # Panics
/// If a run of a row, rounded up to whole quads, leaves `rows.data`, or `sums` is not as long as the rows ask for.
pub(crate) fn product(panels: &Panels, rows: Rows<'_>, sums: &mut [i32]) {
    assert_eq!(sums.len(), rows.starts.len() * panels.padded(), "a row of sums for each start");
    let reach = (panels.runs - 1) * rows.run_stride + panels.run_quads * QUAD;
    let last = rows.starts.iter().max().map_or(0, |start| *start as usize);
    assert!(rows.starts.is_empty() || last + reach <= rows.data.len(), "every run lies in the data");
    match panels.isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::product(panels, rows, sums),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::product(panels, rows, sums),
        _ => product_portable(panels, rows, sums),
    }
}

/// The sums of one row of a linear layer, `x`, with [`SLACK`] levels behind its `len`. Quads of zeros are skipped.
///
/// # Panics
/// If the panels have several runs or another length.
pub(crate) fn vector(panels: &Panels, x: &[u8], len: usize, nonzero: &mut Nonzero, sums: &mut [i32]) {
    assert!(panels.runs == 1 && len.div_ceil(QUAD) == panels.run_quads && x.len() >= len + SLACK, "one row");
    assert_eq!(sums.len(), panels.padded(), "a sum for each output");
    collect_quads(panels.isa, &x[..panels.run_quads * QUAD], nonzero);
    match panels.isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::vector(panels, nonzero, sums),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::vector(panels, nonzero, sums),
        _ => vector_portable(panels, nonzero, sums),
    }
}

compiled_twice!(
    /// Lists the quads of `x` that are not all zero.
    collect_quads / collect_quads_body(x: &[u8], nonzero: &mut Nonzero)
);

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "an activation has at most 2^26 values")]
fn collect_quads_body(x: &[u8], nonzero: &mut Nonzero) {
    let x = x.as_chunks::<QUAD>().0;
    let Nonzero { places, quads, .. } = nonzero;
    if places.len() < x.len() {
        places.resize(x.len(), 0);
    }
    if quads.len() < x.len() {
        quads.resize(x.len(), [0; QUAD]);
    }
    let mut count = 0;
    for (place, quad) in x.iter().enumerate() {
        places[count] = place as u32;
        quads[count] = *quad;
        count += usize::from(*quad != [0; QUAD]);
    }
    places.truncate(count);
    quads.truncate(count);
}

/// Adds the products of a quad to the sums of a panel.
#[inline(always)]
fn add_quad(sums: &mut [i32; WIDTH], quad: [u8; QUAD], weights: &[i8; STEP]) {
    for (level, weights) in quad.iter().zip(weights.as_chunks::<WIDTH>().0) {
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum = sum.wrapping_add(i32::from(*level).wrapping_mul(i32::from(*weight)));
        }
    }
}

/// The definition of [`product`].
fn product_portable(panels: &Panels, rows: Rows<'_>, sums: &mut [i32]) {
    let starts = panels.start.as_chunks::<WIDTH>().0;
    for (row, sums) in rows.starts.iter().zip(sums.chunks_exact_mut(panels.padded())) {
        let panels_of = panels.weights.chunks_exact(panels.quads() * STEP).zip(starts);
        for ((weights, start), to) in panels_of.zip(sums.as_chunks_mut::<WIDTH>().0) {
            let mut sums = *start;
            for (run, weights) in weights.chunks_exact(panels.run_quads * STEP).enumerate() {
                let run = &rows.data[*row as usize + run * rows.run_stride..][..panels.run_quads * QUAD];
                for (quad, weights) in run.as_chunks::<QUAD>().0.iter().zip(weights.as_chunks::<STEP>().0) {
                    add_quad(&mut sums, *quad, weights);
                }
            }
            *to = sums;
        }
    }
}

/// The definition of [`vector`], after the zeros.
fn vector_portable(panels: &Panels, nonzero: &Nonzero, sums: &mut [i32]) {
    let starts = panels.start.as_chunks::<WIDTH>().0;
    let panels_of = panels.weights.chunks_exact(panels.quads() * STEP).zip(starts);
    for ((weights, start), to) in panels_of.zip(sums.as_chunks_mut::<WIDTH>().0) {
        let mut sums = *start;
        let weights = weights.as_chunks::<STEP>().0;
        for (place, quad) in nonzero.places.iter().zip(&nonzero.quads) {
            add_quad(&mut sums, *quad, &weights[*place as usize]);
        }
        *to = sums;
    }
}

#[cfg(test)]
mod tests;
