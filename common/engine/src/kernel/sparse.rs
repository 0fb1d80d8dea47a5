//! Sparse float products: only the kept weights are stored and multiplied.
//!
//! Weights lie output by output (compressed sparse rows of the transposed matrix), [`CHUNK`] at a time: each output is
//! `b + Σ w · x[input]`, in as many partial sums. Going input by input instead, `y[output] += w · x[input]`, would let inputs
//! that are 0 be skipped, but every sum would then pass through memory: measured at 8 % of 300 × 784 it is slower even where
//! half of the inputs are 0, and half as fast where none is. Gathers of 8 or 16 inputs are slower too, on processors of AMD.
//!
//! Several rows go through transposed, [`LANES`] at once, with the same sums in the same order.

use crate::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::isa::Level;

/// Rows that one pass over the weights serves.
pub(crate) const LANES: usize = 8;

/// Weights of an output that are multiplied side by side.
const CHUNK: usize = 4;

/// The kept values of a matrix, row by row.
#[derive(Debug)]
pub(crate) struct Rows {
    /// Where the values of each row begin, and at the end how many there are.
    starts: Vec<u32>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

impl Rows {
    /// No values yet, for [`Rows::push`] to fill in order.
    pub(crate) fn new() -> Self {
        Self { starts: vec![0], columns: Vec::new(), values: Vec::new() }
    }

    /// Adds a value; rows rise, and so do the columns of a row.
    #[allow(clippy::cast_possible_truncation, reason = "a network has at most 2^30 parameters")]
    pub(crate) fn push(&mut self, row: usize, column: usize, value: f32) {
        assert!(row + 1 >= self.starts.len(), "rows rise");
        self.starts.resize(row + 1, self.values.len() as u32);
        let before = &self.columns[self.starts[row] as usize..];
        assert!(before.last().is_none_or(|last| (*last as usize) < column), "and so do the columns of a row");
        self.columns.push(column as u32);
        self.values.push(value);
    }

    /// Ends the last of `rows`.
    #[allow(clippy::cast_possible_truncation, reason = "a network has at most 2^30 parameters")]
    pub(crate) fn finish(mut self, rows: usize) -> Self {
        assert!(rows + 1 >= self.starts.len(), "no value lies behind the last row");
        self.starts.resize(rows + 1, self.values.len() as u32);
        self
    }

    /// The columns and the values of a row.
    pub(crate) fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.starts[row] as usize..self.starts[row + 1] as usize;
        (&self.columns[range.clone()], &self.values[range])
    }

    /// Bytes that it keeps.
    pub(crate) fn bytes(&self) -> usize {
        (self.starts.len() + self.columns.len() + self.values.len()) * size_of::<f32>()
    }
}

/// A sparse weight matrix `[inputs, outputs]` with its biases.
#[derive(Debug)]
pub(crate) struct Sparse {
    inputs: usize,
    /// Where the chunks of each output begin, and at the end how many there are.
    starts: Vec<u32>,
    /// The input of each weight, at most `inputs`: a last chunk is filled up with weights of 0 for a spare input.
    places: Vec<[u32; CHUNK]>,
    weights: Vec<[f32; CHUNK]>,
    bias: Vec<f32>,
}

impl Sparse {
    /// The matrix with these rows: one for each input, and an output for each bias.
    #[allow(clippy::cast_possible_truncation, reason = "a network has at most 2^30 parameters")]
    pub(crate) fn new(rows: &Rows, bias: &[f32]) -> Self {
        let inputs = rows.starts.len() - 1;
        // How many weights each output has, then where its chunks begin.
        let mut counts = vec![0usize; bias.len()];
        rows.columns.iter().for_each(|output| counts[*output as usize] += 1);
        let mut starts = vec![0u32];
        for count in &counts {
            starts.push(starts[starts.len() - 1] + count.div_ceil(CHUNK) as u32);
        }
        let chunks = starts[bias.len()] as usize;
        let (mut places, mut weights) = (vec![[inputs as u32; CHUNK]; chunks], vec![[0.0; CHUNK]; chunks]);
        let mut filled = vec![0usize; bias.len()];
        for input in 0..inputs {
            let (outputs, values) = rows.row(input);
            for (output, value) in outputs.iter().zip(values) {
                let at = &mut filled[*output as usize];
                let chunk = starts[*output as usize] as usize + *at / CHUNK;
                (places[chunk][*at % CHUNK], weights[chunk][*at % CHUNK]) = (input as u32, *value);
                *at += 1;
            }
        }
        Self { inputs, starts, places, weights, bias: bias.to_vec() }
    }

    /// Values of a row of inputs.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Values of a row of outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Bytes that it keeps.
    pub(crate) fn bytes(&self) -> usize {
        let words = self.starts.len() + self.bias.len();
        words * size_of::<f32>() + size_of_val(&self.places[..]) + size_of_val(&self.weights[..])
    }

    /// The chunks of each output.
    #[inline(always)]
    fn outputs_chunks(&self) -> impl Iterator<Item = (f32, &[[u32; CHUNK]], &[[f32; CHUNK]])> {
        self.bias.iter().zip(self.starts.windows(2)).map(|(bias, range)| {
            let range = range[0] as usize..range[1] as usize;
            (*bias, &self.places[range.clone()], &self.weights[range])
        })
    }
}

/// What is kept between calls: inputs with the spare one behind them, which is 0.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    row: Vec<f32>,
    lanes: Vec<[f32; LANES]>,
}

/// `y = x W + b` for whole rows; with `relu`, negative outputs become 0.
///
/// # Panics
/// If the rows of `x` and `y` are not as many.
pub(crate) fn product(isa: Isa, sparse: &Sparse, relu: bool, x: &[f32], scratch: &mut Scratch, y: &mut [f32]) {
    let (inputs, outputs) = (sparse.inputs(), sparse.outputs());
    let rows = x.len() / inputs;
    assert!(x.len() == rows * inputs && y.len() == rows * outputs, "whole rows, as many as there are");
    for (x, y) in x.chunks(LANES * inputs).zip(y.chunks_mut(LANES * outputs)) {
        if x.len() == inputs {
            scratch.row.clear();
            scratch.row.extend_from_slice(x);
            scratch.row.push(0.0);
            vector(isa, sparse, &scratch.row, y);
        } else {
            transpose(x, inputs, &mut scratch.lanes);
            lanes(isa, sparse, &scratch.lanes, y);
        }
    }
    if relu {
        super::value::relu(isa, y);
    }
}

/// Rows as columns, with the spare one of zeros.
fn transpose(x: &[f32], inputs: usize, columns: &mut Vec<[f32; LANES]>) {
    columns.clear();
    columns.resize(inputs + 1, [0.0; LANES]);
    for (lane, x) in x.chunks_exact(inputs).enumerate() {
        columns.iter_mut().zip(x).for_each(|(column, x)| column[lane] = *x);
    }
}

/// Defines a function that runs `$body` with fused products where the processor has them: on one without, fusing would be
/// a call of a library.
macro_rules! fused_where_possible {
    ($(#[$doc:meta])* $name:ident / $body:ident ($x:ty)) => {
        $(#[$doc])*
        fn $name(isa: Isa, sparse: &Sparse, x: &[$x], y: &mut [f32]) {
            assert!(x.len() > sparse.inputs, "a row and the spare input");
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn wide(sparse: &Sparse, x: &[$x], y: &mut [f32]) {
                    $body(sparse, x, y, |sum, x, weight| x.mul_add(weight, sum));
                }
                if isa.level() >= Level::Avx2 {
                    #[allow(unsafe_code, reason = "calling code compiled for features that the compiler cannot assume")]
                    // SAFETY: an `Isa` of this level exists only where these features were found.
                    return unsafe { wide(sparse, x, y) };
                }
            }
            let _ = isa;
            $body(sparse, x, y, |sum, x, weight| sum + x * weight);
        }
    };
}

fused_where_possible!(
    /// One row.
    vector / vector_body (f32)
);

#[inline(always)]
#[allow(unsafe_code, reason = "a bounds check a weight would cost a third of the time")]
fn vector_body(sparse: &Sparse, x: &[f32], y: &mut [f32], add: impl Fn(f32, f32, f32) -> f32 + Copy) {
    for (y, (bias, places, weights)) in y.iter_mut().zip(sparse.outputs_chunks()) {
        let mut sums = [0f32; CHUNK];
        for (places, weights) in places.iter().zip(weights) {
            for at in 0..CHUNK {
                // SAFETY: `Sparse::new` made no place above `inputs`, and the caller asserted that `x` has more values.
                sums[at] = add(sums[at], unsafe { *x.get_unchecked(places[at] as usize) }, weights[at]);
            }
        }
        *y = bias + ((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
}

fused_where_possible!(
    /// Up to [`LANES`] rows.
    lanes / lanes_body ([f32; LANES])
);

#[inline(always)]
#[allow(unsafe_code, reason = "a bounds check a weight would cost a third of the time")]
fn lanes_body(sparse: &Sparse, x: &[[f32; LANES]], y: &mut [f32], add: impl Fn(f32, f32, f32) -> f32 + Copy) {
    let outputs = sparse.outputs();
    for (output, (bias, places, weights)) in sparse.outputs_chunks().enumerate() {
        let mut sums = [[0f32; LANES]; CHUNK];
        for (places, weights) in places.iter().zip(weights) {
            for at in 0..CHUNK {
                // SAFETY: as in `vector_body`.
                let x = unsafe { x.get_unchecked(places[at] as usize) };
                for lane in 0..LANES {
                    sums[at][lane] = add(sums[at][lane], x[lane], weights[at]);
                }
            }
        }
        for (lane, y) in y[output..].iter_mut().step_by(outputs).enumerate() {
            *y = bias + ((sums[0][lane] + sums[1][lane]) + (sums[2][lane] + sums[3][lane]));
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
                let (mut kept, mut plain) = (Rows::new(), vec![0.0; inputs * outputs]);
                for (index, plain) in plain.iter_mut().enumerate() {
                    if draw.below(keep_one_in) == 0 {
                        *plain = draw.whole();
                        kept.push(index / outputs, index % outputs, *plain);
                    }
                }
                let sparse = Sparse::new(&kept.finish(inputs), &bias);
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
                        product(isa, &sparse, true, &x, &mut Scratch::default(), &mut y);
                        assert_eq!(y, expected, "{isa:?}, {inputs} × {outputs}, {rows} rows");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_gives_the_same_bits_alone_and_in_a_batch() {
        let mut draw = Draw::new(32);
        let mut kept = Rows::new();
        (0..50).for_each(|input| (input % 3..11).step_by(4).for_each(|output| kept.push(input, output, draw.normal())));
        let sparse = Sparse::new(&kept.finish(50), &draw.normals(11));
        let x = draw.normals(50 * 11);
        for isa in Isa::all() {
            let mut batch = vec![0.0; 11 * 11];
            product(isa, &sparse, false, &x, &mut Scratch::default(), &mut batch);
            for (x, expected) in x.chunks(50).zip(batch.chunks(11)) {
                let mut alone = vec![0.0; 11];
                product(isa, &sparse, false, x, &mut Scratch::default(), &mut alone);
                assert_eq!(alone, expected, "{isa:?}");
            }
        }
    }
}
