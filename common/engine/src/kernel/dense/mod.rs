//! Dense float products: `y = x W + b`, for one row (a matrix-vector product) and for several.
//!
//! Weights lie in panels of [`WIDTH`] outputs: `[panel][input][WIDTH]`, the last panel filled up with zeros, so that a vector
//! of outputs stays in registers while the inputs go by. A single row skips its zero inputs, which halves the work or better
//! behind a ReLU and on images.

#[cfg(target_arch = "x86_64")]
mod avx2;

use crate::buffers::Nonzero;
use crate::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::isa::Level;

/// Outputs of a panel.
pub(crate) const WIDTH: usize = 16;

/// A weight matrix `[inputs, outputs]` in panels, with its biases.
#[derive(Debug)]
pub(crate) struct Panels {
    inputs: usize,
    outputs: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Panels {
    /// A matrix of zeros with the biases `bias`, as many as there are outputs.
    pub(crate) fn new(inputs: usize, bias: &[f32]) -> Self {
        let outputs = bias.len();
        let padded = outputs.next_multiple_of(WIDTH);
        let mut bias = bias.to_vec();
        bias.resize(padded, 0.0);
        Self { inputs, outputs, weights: vec![0.0; inputs * padded], bias }
    }

    /// The weight from `input` to `output`.
    pub(crate) fn weight_mut(&mut self, input: usize, output: usize) -> &mut f32 {
        &mut self.weights[(output / WIDTH * self.inputs + input) * WIDTH + output % WIDTH]
    }

    /// Values of a row of inputs.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Values of a row of outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes that it keeps.
    pub(crate) fn bytes(&self) -> usize {
        (self.weights.len() + self.bias.len()) * size_of::<f32>()
    }
}

/// `y = x W + b` for whole rows; with `relu`, negative outputs become 0. `x` holds rows of `inputs` values, `y` of `outputs`.
///
/// # Panics
/// If the rows of `x` and `y` are not as many.
pub(crate) fn product(isa: Isa, panels: &Panels, relu: bool, x: &[f32], nonzero: &mut Nonzero, y: &mut [f32]) {
    let rows = x.len() / panels.inputs;
    assert!(x.len() == rows * panels.inputs && y.len() == rows * panels.outputs, "whole rows, as many as there are");
    if rows == 1 {
        collect_nonzero(isa, x, nonzero);
        vector(isa, panels, relu, nonzero, y);
    } else {
        matrix(isa, panels, relu, x, y);
    }
}

fn vector(isa: Isa, panels: &Panels, relu: bool, nonzero: &Nonzero, y: &mut [f32]) {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::Avx512 => avx2::vector(isa, panels, relu, nonzero, y),
        _ => vector_portable(panels, relu, nonzero, y),
    }
}

fn matrix(isa: Isa, panels: &Panels, relu: bool, x: &[f32], y: &mut [f32]) {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::Avx512 => avx2::matrix(isa, panels, relu, x, y),
        _ => matrix_portable(panels, relu, x, y),
    }
}

compiled_twice!(
    /// Lists the non-zero values of `x`.
    collect_nonzero / collect_nonzero_body(x: &[f32], nonzero: &mut Nonzero)
);

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "an activation has at most 2^26 values")]
fn collect_nonzero_body(x: &[f32], nonzero: &mut Nonzero) {
    let Nonzero { places, values, .. } = nonzero;
    places.clear();
    values.clear();
    places.resize(x.len(), 0);
    values.resize(x.len(), 0.0);
    let mut count = 0;
    // Written always and kept when it was not zero: a branch would be guessed wrong every other time.
    for (place, value) in x.iter().enumerate() {
        places[count] = place as u32;
        values[count] = *value;
        count += usize::from(*value != 0.0);
    }
    places.truncate(count);
    values.truncate(count);
}

/// Writes a panel's sums: bias is in them already.
#[inline(always)]
fn finish(sums: &[f32], relu: bool, y: &mut [f32]) {
    for (y, sum) in y.iter_mut().zip(sums) {
        *y = if relu && *sum < 0.0 { 0.0 } else { *sum };
    }
}

/// The definition of [`vector`].
fn vector_portable(panels: &Panels, relu: bool, nonzero: &Nonzero, y: &mut [f32]) {
    let each = panels.weights.chunks_exact(panels.inputs * WIDTH).zip(panels.bias.as_chunks::<WIDTH>().0);
    for ((weights, bias), y) in each.zip(y.chunks_mut(WIDTH)) {
        let weights = weights.as_chunks::<WIDTH>().0;
        let mut sums = *bias;
        for (place, value) in nonzero.places.iter().zip(&nonzero.values) {
            for (sum, weight) in sums.iter_mut().zip(&weights[*place as usize]) {
                *sum += value * weight;
            }
        }
        finish(&sums, relu, y);
    }
}

/// The definition of [`matrix`].
fn matrix_portable(panels: &Panels, relu: bool, x: &[f32], y: &mut [f32]) {
    for (panel, weights) in panels.weights.chunks_exact(panels.inputs * WIDTH).enumerate() {
        let outputs = panel * WIDTH..panels.outputs.min((panel + 1) * WIDTH);
        for (x, y) in x.chunks_exact(panels.inputs).zip(y.chunks_exact_mut(panels.outputs)) {
            let mut sums = panels.bias.as_chunks::<WIDTH>().0[panel];
            for (value, weights) in x.iter().zip(weights.as_chunks::<WIDTH>().0) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum += value * weight;
                }
            }
            finish(&sums, relu, &mut y[outputs.clone()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::Draw;

    fn panels(draw: &mut Draw, inputs: usize, outputs: usize, mut value: impl FnMut(&mut Draw) -> f32) -> Panels {
        let bias: Vec<f32> = (0..outputs).map(|_| value(draw)).collect();
        let mut panels = Panels::new(inputs, &bias);
        for (input, output) in (0..inputs).flat_map(|input| (0..outputs).map(move |output| (input, output))) {
            *panels.weight_mut(input, output) = value(draw);
        }
        panels
    }

    #[test]
    fn every_build_gives_the_bits_of_the_definition_where_sums_are_exact() {
        let mut draw = Draw::new(11);
        for inputs in [1usize, 2, 3, 7, 16, 33, 130] {
            for outputs in (1..=34).chain([47, 63, 64, 65, 66, 80, 100, 129]) {
                let panels = panels(&mut draw, inputs, outputs, Draw::whole);
                for rows in [1usize, 2, 5, 6, 7, 13] {
                    let x = draw.sparse_wholes(rows * inputs);
                    for relu in [false, true] {
                        let mut expected = vec![0.0; rows * outputs];
                        matrix_portable(&panels, relu, &x, &mut expected);
                        for isa in Isa::all() {
                            let mut y = vec![f32::NAN; rows * outputs];
                            product(isa, &panels, relu, &x, &mut Nonzero::default(), &mut y);
                            assert_eq!(y, expected, "{isa:?}, {inputs} × {outputs}, {rows} rows");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_gives_the_same_bits_alone_and_in_a_batch() {
        let mut draw = Draw::new(12);
        let panels = panels(&mut draw, 70, 37, Draw::normal);
        let mut x = draw.normals(70 * 9);
        x.iter_mut().step_by(3).for_each(|value| *value = 0.0);
        for isa in Isa::all() {
            let mut batch = vec![0.0; 37 * 9];
            product(isa, &panels, true, &x, &mut Nonzero::default(), &mut batch);
            for (x, expected) in x.chunks(70).zip(batch.chunks(37)) {
                let mut alone = vec![0.0; 37];
                product(isa, &panels, true, x, &mut Nonzero::default(), &mut alone);
                assert_eq!(alone, expected, "{isa:?}");
            }
        }
    }

    #[test]
    fn overflow_is_carried_on() {
        let mut panels = Panels::new(2, &[f32::NAN, 0.0, 0.0]);
        (*panels.weight_mut(0, 1), *panels.weight_mut(0, 2)) = (f32::MAX, f32::MIN_POSITIVE);
        for isa in Isa::all() {
            for rows in [1, 2] {
                let x = [f32::MAX, f32::MAX].repeat(rows);
                let mut y = vec![0.0; 3 * rows];
                product(isa, &panels, true, &x, &mut Nonzero::default(), &mut y);
                assert!(y[0].is_nan() && y[1] == f32::INFINITY && y[2] > 0.0, "{isa:?} {y:?}");
            }
        }
    }
}
