//! Layers that compute in floats.

use starling_spec::shape::{Node, Op};

use super::Walk;
use super::follow::{Follow, Norm};
use super::form::{Form, Tensors};
use crate::buffers::Nonzero;
use crate::error::EngineError;
use crate::kernel::convolution;
use crate::kernel::dense::Panels;
use crate::kernel::sparse::{Rows, Scratch, Sparse};
use crate::kernel::window::{Planes, Window};
use crate::step::convolution::{FloatConvolution, Taps};
use crate::step::linear::FloatLinear;
use crate::step::matrix::Matrix;
use crate::step::norm::{Affine, Normalise};
use crate::step::sequence::{Embedding, Gru, SelfAttention, Table};
use crate::weights::Weights;

/// What the node of a convolution says.
pub(super) struct Convolution {
    pub(super) weight: usize,
    pub(super) bias: Option<usize>,
    pub(super) groups: usize,
    pub(super) window: Window,
}

impl Convolution {
    /// Of a node that is a convolution.
    pub(super) fn of(tensors: &Tensors<'_>, node: &Node) -> Result<Option<Self>, EngineError> {
        let (layer, weight, bias, stride, padding, groups) = match node.op {
            Op::Conv1d { weight, bias, stride, padding, .. } => ("conv1d", weight, bias, stride, padding, 1),
            Op::Conv2d { weight, bias, stride, padding, groups, .. } => {
                ("conv2d", weight, bias, stride, padding, groups)
            }
            _ => return Ok(None),
        };
        let kernel = tensors.weights(weight).shape()[2];
        let window = Window::new(layer, &node.input, &node.output, kernel, stride, padding)?;
        Ok(Some(Self { weight, bias, groups, window }))
    }

    /// The output channel of the weight at the flat `index`, the channel among those of its group, and its place in the kernel.
    pub(super) fn place(&self, index: usize) -> (usize, usize, usize, usize) {
        let (down, across) = self.window.kernel;
        let depth = self.window.channels / self.groups;
        let inside = index % (depth * down * across);
        (index / (depth * down * across), inside / (down * across), inside / across % down, inside % across)
    }
}

/// An `f64` at the precision of the kernels.
#[allow(clippy::cast_possible_truncation, reason = "folded constants are rounded to f32 once, on purpose")]
pub(super) fn narrow(value: f64) -> f32 {
    value as f32
}

/// Biases behind a normalisation.
pub(super) fn biases(tensors: &Tensors<'_>, bias: Option<usize>, norm: &Norm) -> Vec<f64> {
    let bias = tensors.values(bias, norm.mean.len());
    bias.iter().enumerate().map(|(channel, bias)| norm.apply(channel, f64::from(*bias))).collect()
}

/// A matrix `[inputs, outputs]`, each output times its factor.
fn matrix(weights: Weights<'_>, bias: &[f32], factor: &[f32], sparse: bool) -> Matrix {
    let (inputs, outputs) = (weights.shape()[0], weights.shape()[1]);
    if sparse {
        let mut rows = Rows::new();
        weights.each(|index, value| {
            let (input, output) = (index / outputs, index % outputs);
            if value != 0.0 {
                rows.push(input, output, value * factor[output]);
            }
        });
        return Matrix::Sparse { sparse: Sparse::new(&rows.finish(inputs), bias), scratch: Scratch::default() };
    }
    let mut panels = Panels::new(inputs, bias);
    weights.each(|index, value| {
        let (input, output) = (index / outputs, index % outputs);
        *panels.weight_mut(input, output) = value * factor[output];
    });
    Matrix::Dense { panels, nonzero: Nonzero::default() }
}

impl Walk<'_> {
    /// A linear layer or a convolution.
    pub(super) fn float(&mut self, at: usize, form: Form, follow: &Follow) -> Result<usize, EngineError> {
        let (tensors, node, isa, relu) = (self.lowering.tensors, self.nodes[at], self.lowering.isa, follow.relu);
        let factor: Vec<f32> = follow.norm.factor.iter().map(|factor| narrow(*factor)).collect();
        let bias = |bias| biases(tensors, bias, &follow.norm).into_iter().map(narrow).collect::<Vec<_>>();
        if let Op::Linear { weight, bias: tensor, .. } = node.op {
            let matrix = matrix(tensors.weights(weight), &bias(tensor), &factor, form == Form::Sparse);
            let rows = node.input.iter().product::<usize>() / matrix.inputs();
            self.push_floats(FloatLinear { isa, matrix, rows, relu });
        } else if let Some(convolution) = Convolution::of(tensors, node)? {
            let planes = Planes::new(convolution.window);
            let sparse = form == Form::Sparse || convolution.groups > 1;
            let taps = taps(tensors, &convolution, &planes, &bias(convolution.bias), &factor, sparse);
            let (window, output_len) = (convolution.window, node.output.iter().product());
            self.push_floats(FloatConvolution { isa, taps, window, planes, output_len, relu, runs: Vec::new() });
        }
        Ok(follow.next)
    }

    /// A normalisation on its own.
    pub(super) fn affine(&self, node: &Node, norm: &Norm) -> Affine {
        let factor = norm.factor.iter().map(|factor| narrow(*factor)).collect();
        let offset = (0..norm.mean.len()).map(|channel| narrow(norm.apply(channel, 0.0))).collect();
        Affine { isa: self.lowering.isa, values: node.output[1..].iter().product(), factor, offset }
    }

    /// A normalisation by the values' own moments, over `groups` of channels or over the last axis.
    pub(super) fn normalise(&self, node: &Node, scale: usize, shift: usize, groups: Option<usize>) -> Normalise {
        let (len, last) = (node.output.iter().product::<usize>(), node.output[node.output.len() - 1]);
        let (groups, values) = match groups {
            Some(groups) => (groups, len / node.output[0]),
            None => (len / last, 1),
        };
        let dense = |tensor| self.lowering.tensors.weights(tensor).dense();
        Normalise { groups, len: len / groups, values, scale: dense(scale), shift: dense(shift) }
    }

    pub(super) fn embedding(&self, node: &Node, table: usize, positions: Option<usize>) -> Embedding {
        let tensors = self.lowering.tensors;
        let (count, features) = (node.output[0], node.output[1]);
        let positions = positions.map_or_else(Vec::new, |positions| tensors.weights(positions).dense());
        let weights = tensors.weights(table);
        let table = if tensors.is_sparse(table) {
            let mut rows = Rows::new();
            weights.each(|index, value| rows.push(index / features, index % features, value));
            Table::Sparse(rows.finish(weights.shape()[0]))
        } else {
            Table::Dense(weights.dense())
        };
        Embedding { table, positions, count, features }
    }

    fn projection(&self, (weight, bias): (usize, usize)) -> Matrix {
        let tensors = self.lowering.tensors;
        let bias = tensors.weights(bias).dense();
        matrix(tensors.weights(weight), &bias, &vec![1.0; bias.len()], tensors.is_sparse(weight))
    }

    pub(super) fn gru(&self, node: &Node, input: (usize, usize), state: (usize, usize)) -> Gru {
        Gru {
            isa: self.lowering.isa,
            input: self.projection(input),
            recurrent: self.projection(state),
            positions: node.output[0],
            state: node.output[1],
            scratch: Default::default(),
        }
    }

    pub(super) fn attention(
        &self,
        node: &Node,
        project: (usize, usize),
        out: (usize, usize),
        heads: usize,
        causal: bool,
    ) -> SelfAttention {
        let (project, out) = (self.projection(project), self.projection(out));
        let positions = node.output[0];
        SelfAttention { isa: self.lowering.isa, project, out, positions, heads, causal, scratch: Default::default() }
    }
}

/// The taps of a convolution, each output channel times its factor.
fn taps(
    tensors: &Tensors<'_>,
    convolution: &Convolution,
    planes: &Planes,
    bias: &[f32],
    factor: &[f32],
    sparse: bool,
) -> Taps {
    let weights = tensors.weights(convolution.weight);
    let depth = convolution.window.channels / convolution.groups;
    let outputs_of_group = bias.len() / convolution.groups;
    if sparse {
        let mut sparse = convolution::Sparse::new(bias);
        weights.each(|index, value| {
            let (output, channel, down, across) = convolution.place(index);
            if value != 0.0 {
                let tap = planes.tap(output / outputs_of_group * depth + channel, down, across);
                sparse.push(output, tap, value * factor[output]);
            }
        });
        return Taps::Sparse(sparse.finish());
    }
    let count = weights.fan_in();
    let place = |index| {
        let (_, channel, down, across) = convolution.place(index);
        planes.tap(channel, down, across)
    };
    let mut dense = convolution::Dense::new((0..count).map(place).collect(), bias);
    weights.each(|index, value| *dense.weight_mut(index / count, index % count) = value * factor[index / count]);
    Taps::Dense(dense)
}
