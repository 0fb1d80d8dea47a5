//! Layers over `[positions, features]`: embedding, gated recurrent unit, self-attention.

use super::Step;
use super::matrix::Matrix;
use crate::buffers::{Buffers, room};
use crate::isa::Isa;
use crate::kernel::attention;
use crate::kernel::sparse::Rows;
use crate::kernel::value::logistic;

/// The rows of an embedding's table.
#[derive(Debug)]
pub(crate) enum Table {
    /// `[tokens, features]`.
    Dense(Vec<f32>),
    /// Few values of it.
    Sparse(Rows),
}

/// A row of the table for each token, and a vector of each position where there are some. Tokens were checked.
#[derive(Debug)]
pub(crate) struct Embedding {
    pub(crate) table: Table,
    /// `[positions, features]`, or empty.
    pub(crate) positions: Vec<f32>,
    pub(crate) count: usize,
    pub(crate) features: usize,
}

impl Step for Embedding {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "tokens were checked to lie in the table"
    )]
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let tokens = &buffers.x.floats[..batch * self.count];
        let outputs = tokens.len() * self.features;
        let y = &mut room(&mut buffers.y.floats, outputs)[..outputs];
        for (index, (token, y)) in tokens.iter().zip(y.chunks_exact_mut(self.features)).enumerate() {
            let token = *token as usize;
            match &self.table {
                Table::Dense(table) => y.copy_from_slice(&table[token * self.features..][..self.features]),
                Table::Sparse(table) => {
                    y.fill(0.0);
                    let (places, values) = table.row(token);
                    places.iter().zip(values).for_each(|(place, value)| y[*place as usize] = *value);
                }
            }
            if !self.positions.is_empty() {
                let position = &self.positions[index % self.count * self.features..][..self.features];
                y.iter_mut().zip(position).for_each(|(y, x)| *y += x);
            }
        }
        buffers.turn();
    }

    fn weight_bytes(&self) -> usize {
        let table = match &self.table {
            Table::Dense(table) => size_of_val(&table[..]),
            Table::Sparse(table) => table.bytes(),
        };
        table + size_of_val(&self.positions[..])
    }
}

/// A gated recurrent unit; gives its state at each position, beginning from zeros:
///
/// `r = σ(x Wr + br + h Ur + cr)`, `z = σ(x Wz + bz + h Uz + cz)`, `n = tanh(x Wn + bn + r ∘ (h Un + cn))`,
/// `h' = n + z ∘ (h − n)` (Cho et al. 2014, arXiv 1406.1078v1; cuDNN's form).
#[derive(Debug)]
pub(crate) struct Gru {
    pub(crate) isa: Isa,
    pub(crate) input: Matrix,
    pub(crate) recurrent: Matrix,
    pub(crate) positions: usize,
    pub(crate) state: usize,
    /// Scratch: the inputs' products, the state's, the states.
    pub(crate) scratch: [Vec<f32>; 3],
}

impl Step for Gru {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let (positions, state) = (self.positions, self.state);
        let x = &buffers.x.floats[..batch * positions * self.input.inputs()];
        let [inputs, products, h] = &mut self.scratch;
        let inputs = &mut room(inputs, batch * positions * 3 * state)[..batch * positions * 3 * state];
        self.input.apply(self.isa, false, x, inputs);
        let products = &mut room(products, batch * 3 * state)[..batch * 3 * state];
        let h = &mut room(h, batch * state)[..batch * state];
        h.fill(0.0);
        let y = room(&mut buffers.y.floats, batch * positions * state);
        for position in 0..positions {
            self.recurrent.apply(self.isa, false, h, products);
            for (sample, (h, product)) in h.chunks_exact_mut(state).zip(products.chunks_exact(3 * state)).enumerate() {
                let row = sample * positions + position;
                let input = &inputs[row * 3 * state..][..3 * state];
                for (unit, h) in h.iter_mut().enumerate() {
                    let gate = |third: usize| input[third * state + unit] + product[third * state + unit];
                    let (reset, update) = (logistic(gate(0)), logistic(gate(1)));
                    let candidate = (input[2 * state + unit] + reset * product[2 * state + unit]).tanh();
                    *h = candidate + update * (*h - candidate);
                }
                y[row * state..][..state].copy_from_slice(h);
            }
        }
        buffers.turn();
    }

    fn weight_bytes(&self) -> usize {
        self.input.bytes() + self.recurrent.bytes()
    }
}

/// Scaled dot-product attention of several heads (Vaswani et al. 2017, §3.2), with its projections.
#[derive(Debug)]
pub(crate) struct SelfAttention {
    pub(crate) isa: Isa,
    /// To queries, keys and values.
    pub(crate) project: Matrix,
    pub(crate) out: Matrix,
    pub(crate) positions: usize,
    pub(crate) heads: usize,
    pub(crate) causal: bool,
    /// Scratch: projections, the joined heads, a row of scores.
    pub(crate) scratch: [Vec<f32>; 3],
}

impl Step for SelfAttention {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let (rows, features) = (batch * self.positions, self.out.outputs());
        let [projected, joined, scores] = &mut self.scratch;
        let projected = &mut room(projected, rows * 3 * features)[..rows * 3 * features];
        let joined = &mut room(joined, rows * features)[..rows * features];
        let scores = &mut room(scores, self.positions)[..self.positions];
        self.project.apply(self.isa, false, &buffers.x.floats[..rows * features], projected);
        let samples = projected.chunks_exact(self.positions * 3 * features);
        for (projected, joined) in samples.zip(joined.chunks_exact_mut(self.positions * features)) {
            attention::heads(self.isa, projected, features, self.heads, self.causal, scores, joined);
        }
        let y = &mut room(&mut buffers.y.floats, rows * features)[..rows * features];
        self.out.apply(self.isa, false, joined, y);
        buffers.turn();
    }

    fn weight_bytes(&self) -> usize {
        self.project.bytes() + self.out.bytes()
    }
}
