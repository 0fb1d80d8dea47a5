//! Sparse float products: only the kept weights are stored and multiplied.
//!
//! Weights lie input by input (compressed sparse rows of `[inputs, outputs]`): `y[output] += x[input] · w`. An input that is 0
//! costs nothing then, which is worth more than what vectors of gathered inputs would win: behind a ReLU and on images half of
//! them are. Several rows go through transposed, [`LANES`] at once.

use crate::isa::Isa;

/// Rows that one pass over the weights serves.
pub(crate) const LANES: usize = 8;

/// A sparse weight matrix `[inputs, outputs]` with its biases.
#[derive(Debug)]
pub(crate) struct Sparse {
    /// Where the weights of each input begin, and at the end how many there are.
    starts: Vec<u32>,
    /// The output of each weight.
    outputs: Vec<u32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Sparse {
    /// No weights yet, for rows of inputs that [`Sparse::push`] fills in order.
    pub(crate) fn new(bias: &[f32]) -> Self {
        Self { starts: vec![0], outputs: Vec::new(), weights: Vec::new(), bias: bias.to_vec() }
    }

    /// Adds the weight from `input`, which may not be below the one before, to `output`.
    #[allow(clippy::cast_possible_truncation, reason = "a network has at most 2^30 parameters")]
    pub(crate) fn push(&mut self, input: usize, output: usize, weight: f32) {
        assert!(input + 1 >= self.starts.len() && output < self.bias.len(), "inputs rise, and the output exists");
        self.starts.resize(input + 1, self.weights.len() as u32);
        self.outputs.push(output as u32);
        self.weights.push(weight);
    }

    /// Ends the last of `inputs`.
    #[allow(clippy::cast_possible_truncation, reason = "a network has at most 2^30 parameters")]
    pub(crate) fn finish(mut self, inputs: usize) -> Self {
        assert!(inputs + 1 >= self.starts.len(), "no weight lies behind the last input");
        self.starts.resize(inputs + 1, self.weights.len() as u32);
        self
    }

    /// Values of a row of inputs.
    pub(crate) fn inputs(&self) -> usize {
        self.starts.len() - 1
    }

    /// Values of a row of outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Bytes that it keeps.
    pub(crate) fn bytes(&self) -> usize {
        (self.starts.len() + self.outputs.len() + self.weights.len() + self.bias.len()) * size_of::<f32>()
    }

    /// The outputs and the weights of an input.
    pub(crate) fn of_input(&self, input: usize) -> (&[u32], &[f32]) {
        let range = self.starts[input] as usize..self.starts[input + 1] as usize;
        (&self.outputs[range.clone()], &self.weights[range])
    }
}

/// Transposed rows, kept between calls.
#[derive(Debug, Default)]
pub(crate) struct Transposed {
    x: Vec<[f32; LANES]>,
    y: Vec<[f32; LANES]>,
}

/// `y = x W + b` for whole rows; with `relu`, negative outputs become 0.
///
/// # Panics
/// If the rows of `x` and `y` are not as many.
pub(crate) fn product(isa: Isa, sparse: &Sparse, relu: bool, x: &[f32], transposed: &mut Transposed, y: &mut [f32]) {
    let (inputs, outputs) = (sparse.inputs(), sparse.outputs());
    let rows = x.len() / inputs;
    assert!(x.len() == rows * inputs && y.len() == rows * outputs, "whole rows, as many as there are");
    for (x, y) in x.chunks(LANES * inputs).zip(y.chunks_mut(LANES * outputs)) {
        if x.len() == inputs {
            vector(isa, sparse, x, y);
        } else {
            lanes(isa, sparse, x, transposed, y);
        }
    }
    if relu {
        super::value::relu(isa, y);
    }
}

compiled_twice!(
    /// One row.
    vector / vector_body(sparse: &Sparse, x: &[f32], y: &mut [f32])
);

#[inline(always)]
#[allow(unsafe_code, reason = "a bounds check a weight would cost a third of the time")]
fn vector_body(sparse: &Sparse, x: &[f32], y: &mut [f32]) {
    y.copy_from_slice(&sparse.bias);
    for (input, x) in x.iter().enumerate() {
        if *x == 0.0 {
            continue;
        }
        let (outputs, weights) = sparse.of_input(input);
        for (output, weight) in outputs.iter().zip(weights) {
            // SAFETY: `push` asserted that every output is below the number of biases, which is the length of `y`.
            let y = unsafe { y.get_unchecked_mut(*output as usize) };
            *y += x * weight;
        }
    }
}

compiled_twice!(
    /// Up to [`LANES`] rows.
    lanes / lanes_body(sparse: &Sparse, x: &[f32], transposed: &mut Transposed, y: &mut [f32])
);

#[inline(always)]
fn lanes_body(sparse: &Sparse, x: &[f32], transposed: &mut Transposed, y: &mut [f32]) {
    let (inputs, outputs) = (sparse.inputs(), sparse.outputs());
    transposed.x.clear();
    transposed.x.resize(inputs, [0.0; LANES]);
    for (lane, x) in x.chunks_exact(inputs).enumerate() {
        for (to, x) in transposed.x.iter_mut().zip(x) {
            to[lane] = *x;
        }
    }
    transposed.y.clear();
    transposed.y.extend(sparse.bias.iter().map(|bias| [*bias; LANES]));
    for (input, x) in transposed.x.iter().enumerate() {
        if *x == [0.0; LANES] {
            continue;
        }
        let (outputs, weights) = sparse.of_input(input);
        for (output, weight) in outputs.iter().zip(weights) {
            let y = &mut transposed.y[*output as usize];
            for (y, x) in y.iter_mut().zip(x) {
                *y += x * weight;
            }
        }
    }
    for (lane, y) in y.chunks_exact_mut(outputs).enumerate() {
        for (y, from) in y.iter_mut().zip(&transposed.y) {
            *y = from[lane];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::Draw;

    #[test]
    fn every_build_gives_the_sums_of_the_dense_product() {
        let mut draw = Draw::new(31);
        for (inputs, outputs) in [(1, 1), (2, 9), (7, 3), (40, 33), (130, 100)] {
            for keep_one_in in [1, 3, 20, 1000] {
                let bias = draw.wholes(outputs);
                let (mut sparse, mut plain) = (Sparse::new(&bias), vec![0.0; inputs * outputs]);
                for (index, plain) in plain.iter_mut().enumerate() {
                    if draw.below(keep_one_in) == 0 {
                        *plain = draw.whole();
                        sparse.push(index / outputs, index % outputs, *plain);
                    }
                }
                let sparse = sparse.finish(inputs);
                for rows in [1, 2, 7, 8, 9, 17] {
                    let x = draw.sparse_wholes(rows * inputs);
                    let expected: Vec<f32> = (0..rows * outputs)
                        .map(|index| {
                            let (row, output) = (index / outputs, index % outputs);
                            let sum = (0..inputs)
                                .map(|input| x[row * inputs + input] * plain[input * outputs + output])
                                .sum::<f32>();
                            (bias[output] + sum).max(0.0)
                        })
                        .collect();
                    for isa in Isa::all() {
                        let mut y = vec![f32::NAN; rows * outputs];
                        product(isa, &sparse, true, &x, &mut Transposed::default(), &mut y);
                        assert_eq!(y, expected, "{isa:?}, {inputs} × {outputs}, {rows} rows");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_gives_the_same_bits_alone_and_in_a_batch() {
        let mut draw = Draw::new(32);
        let mut sparse = Sparse::new(&draw.normals(11));
        (0..50)
            .for_each(|input| (input % 3..11).step_by(4).for_each(|output| sparse.push(input, output, draw.normal())));
        let sparse = sparse.finish(50);
        let x = draw.normals(50 * 11);
        for isa in Isa::all() {
            let mut batch = vec![0.0; 11 * 11];
            product(isa, &sparse, false, &x, &mut Transposed::default(), &mut batch);
            for (x, expected) in x.chunks(50).zip(batch.chunks(11)) {
                let mut alone = vec![0.0; 11];
                product(isa, &sparse, false, x, &mut Transposed::default(), &mut alone);
                assert_eq!(alone, expected, "{isa:?}");
            }
        }
    }
}
