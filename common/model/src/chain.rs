//! Convolutions, pools and the ReLUs behind them that stand in a row, forward and back without a graph.
//!
//! Samples go through one by one, so that a sample's activations are still in the cache when the next layer reads them.

use starling_spec::ParamManifest;
use starling_spec::shape::{Node, Op};

use crate::convolution::kernel::{Build, PAD};
use crate::convolution::{Convolution, Packed, Size};
use crate::pool::MaxPool;

/// Layers in a row.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    build: Build,
    steps: Vec<Step>,
    /// Channels and positions of what goes in and of what comes out.
    input: [usize; 2],
    output: [usize; 2],
}

#[derive(Debug, Clone)]
struct Step {
    layer: Layer,
    /// Whether negative outputs become 0.
    relu: bool,
}

#[derive(Debug, Clone)]
enum Layer {
    Convolution { convolution: Convolution, weight: usize, bias: Option<usize> },
    MaxPool(MaxPool),
}

/// A chain's weights, as its kernels read them.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChainWeights(Vec<Packed>);

/// Activations and gradients of a chain, used again from batch to batch. A default one fits any chain; after its first use, that
/// chain alone.
#[derive(Debug, Default)]
pub(crate) struct ChainBuffers {
    /// The input of each step, padded as the step wants it, then the output; for each sample while training.
    activations: Vec<Vec<f32>>,
    /// What each pool chose, for each sample while training.
    winners: Vec<Vec<u32>>,
    dense: Vec<f32>,
    slopes: Vec<f32>,
    padded: Vec<f32>,
    weights: Vec<Vec<f32>>,
    biases: Vec<Vec<f32>>,
}

impl Chain {
    /// The chain that the first of `nodes` make, and how many those are; `None` when the first is no layer of a chain.
    pub(crate) fn of(nodes: &[Node], manifest: &ParamManifest) -> Option<(Self, usize)> {
        let mut steps: Vec<Step> = Vec::new();
        let mut count = 0usize;
        for node in nodes {
            match (layer(node, manifest), steps.last_mut()) {
                (Some(layer), _) => steps.push(Step { layer, relu: false }),
                (None, Some(last)) if node.op == Op::Relu => last.relu = true,
                _ => break,
            }
            count += 1;
        }
        let size = |shape: &[usize]| [shape[0], shape[1..].iter().product()];
        let build = Build::available()[0];
        let (input, output) = (size(&nodes.first()?.input), size(&nodes.get(count.checked_sub(1)?)?.output));
        Some((Self { build, steps, input, output }, count))
    }

    /// The indices of its parameters in the manifest.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = usize> + '_ {
        self.steps
            .iter()
            .flat_map(|step| match &step.layer {
                Layer::Convolution { weight, bias, .. } => [Some(*weight), *bias],
                Layer::MaxPool(_) => [None, None],
            })
            .flatten()
    }

    /// Lays out the weights among `tensors`, for training too if `train`.
    pub(crate) fn pack<'a>(&self, tensor: impl Fn(usize) -> &'a [f32], train: bool, weights: &mut ChainWeights) {
        weights.0.resize_with(self.steps.len(), Packed::default);
        for (step, packed) in self.steps.iter().zip(&mut weights.0) {
            if let Layer::Convolution { convolution, weight, bias } = &step.layer {
                convolution.pack(tensor(*weight), bias.map(&tensor), train, packed);
            }
        }
    }

    /// The outputs for `batch` samples of `[channels, positions]`, in the same order. While training, `buffers` remember what
    /// [`Chain::backward`] needs.
    pub(crate) fn forward(
        &self,
        weights: &ChainWeights,
        buffers: &mut ChainBuffers,
        x: &[f32],
        batch: usize,
        train: bool,
    ) -> Vec<f32> {
        let kept = if train { batch } else { batch.min(1) };
        buffers.activations.resize_with(self.steps.len() + 1, Vec::new);
        buffers.winners.resize_with(self.steps.len(), Vec::new);
        for (index, step) in self.steps.iter().enumerate() {
            buffers.activations[index].resize(kept * step.layer.padded(), 0.0);
            if let Layer::MaxPool(pool) = &step.layer {
                buffers.winners[index].resize(kept * pool.output_len(), 0);
            }
        }
        let ([channels, positions], [out_channels, out_positions]) = (self.input, self.output);
        let out_len = out_channels * out_positions;
        buffers.activations[self.steps.len()].resize(kept * out_len, 0.0);
        let mut outputs = vec![0f32; batch * out_len];
        for (sample, x) in x.chunks_exact(channels * positions).enumerate() {
            let slot = if train { sample } else { 0 };
            buffers.dense.resize(channels * positions, 0.0);
            transpose(x, channels, &mut buffers.dense);
            let first = &self.steps[0].layer;
            first.pad(&buffers.dense, &mut buffers.activations[0][slot * first.padded()..][..first.padded()]);
            for (index, step) in self.steps.iter().enumerate() {
                let (before, after) = buffers.activations.split_at_mut(index + 1);
                let x = &before[index][slot * step.layer.padded()..][..step.layer.padded()];
                let len = step.layer.output_len();
                buffers.dense.resize(len, 0.0);
                match &step.layer {
                    Layer::Convolution { convolution, .. } => {
                        convolution.forward(self.build, &weights.0[index], x, &mut buffers.dense);
                    }
                    Layer::MaxPool(pool) => {
                        pool.forward(
                            self.build,
                            x,
                            &mut buffers.dense,
                            &mut buffers.winners[index][slot * len..][..len],
                        );
                    }
                }
                if step.relu {
                    for value in &mut buffers.dense {
                        *value = if *value < 0.0 { 0.0 } else { *value };
                    }
                }
                match self.steps.get(index + 1) {
                    Some(next) => {
                        let padded = next.layer.padded();
                        next.layer.pad(&buffers.dense, &mut after[0][slot * padded..][..padded]);
                    }
                    None => after[0][slot * len..][..len].copy_from_slice(&buffers.dense),
                }
            }
            transpose(&buffers.dense, out_positions, &mut outputs[sample * out_len..][..out_len]);
        }
        outputs
    }

    /// From the gradient by the outputs of the last [`Chain::forward`] to that of each parameter, given to `found` with its
    /// index, and to that by the inputs, if `inputs`.
    pub(crate) fn backward(
        &self,
        weights: &ChainWeights,
        buffers: &mut ChainBuffers,
        slope: &[f32],
        inputs: bool,
        found: &mut dyn FnMut(usize, Vec<f32>),
    ) -> Option<Vec<f32>> {
        buffers.weights.resize_with(self.steps.len(), Vec::new);
        buffers.biases.resize_with(self.steps.len(), Vec::new);
        for (index, step) in self.steps.iter().enumerate() {
            if let Layer::Convolution { convolution, .. } = &step.layer {
                buffers.weights[index].clear();
                buffers.weights[index].resize(convolution.gradient_len(), 0.0);
                buffers.biases[index].clear();
                buffers.biases[index].resize(convolution.size.out, 0.0);
            }
        }
        let ([channels, positions], [out_channels, out_positions]) = (self.input, self.output);
        let (in_len, out_len) = (channels * positions, out_channels * out_positions);
        let batch = slope.len() / out_len;
        let mut input_slopes = if inputs { vec![0f32; batch * in_len] } else { Vec::new() };
        for (sample, slope) in slope.chunks_exact(out_len).enumerate() {
            buffers.slopes.resize(out_len, 0.0);
            transpose(slope, out_channels, &mut buffers.slopes);
            let outputs = &buffers.activations[self.steps.len()][sample * out_len..][..out_len];
            if self.steps.last().is_some_and(|step| step.relu) {
                mask(&mut buffers.slopes, outputs);
            }
            for (index, step) in self.steps.iter().enumerate().rev() {
                let padded = step.layer.padded();
                let x = &buffers.activations[index][sample * padded..][..padded];
                if let Layer::Convolution { convolution, .. } = &step.layer {
                    // The kernel reads whole vectors.
                    buffers.slopes.resize(convolution.output_len() + PAD, 0.0);
                    let (dw, db) = (&mut buffers.weights[index], &mut buffers.biases[index]);
                    convolution.backward_weights(self.build, x, &buffers.slopes, dw, db);
                }
                if index == 0 && !inputs {
                    break;
                }
                buffers.padded.clear();
                buffers.padded.resize(padded, 0.0);
                match &step.layer {
                    Layer::Convolution { convolution, .. } => {
                        convolution.backward_inputs(
                            self.build,
                            &weights.0[index],
                            &buffers.slopes,
                            &mut buffers.padded,
                        );
                    }
                    Layer::MaxPool(pool) => {
                        let len = pool.output_len();
                        let winners = &buffers.winners[index][sample * len..][..len];
                        pool.backward(winners, &buffers.slopes, &mut buffers.padded);
                    }
                }
                if index > 0 && self.steps[index - 1].relu {
                    mask(&mut buffers.padded, x);
                }
                step.layer.crop(&buffers.padded, &mut buffers.slopes);
            }
            if inputs {
                transpose(&buffers.slopes, positions, &mut input_slopes[sample * in_len..][..in_len]);
            }
        }
        for (index, step) in self.steps.iter().enumerate() {
            if let Layer::Convolution { convolution, weight, bias } = &step.layer {
                found(*weight, convolution.gradient(&buffers.weights[index]));
                if let Some(bias) = bias {
                    found(*bias, buffers.biases[index].clone());
                }
            }
        }
        inputs.then_some(input_slopes)
    }
}

/// The layer of a node that a chain can hold.
fn layer(node: &Node, manifest: &ParamManifest) -> Option<Layer> {
    // A signal is an image of width 1.
    let (signal, channels, height, width) = match *node.input {
        [channels, length] => (true, channels, length, 1),
        [channels, height, width] => (false, channels, height, width),
        _ => return None,
    };
    let both = |value: usize, across: usize| [value, if signal { across } else { value }];
    match node.op {
        Op::Conv1d { weight, bias, stride, padding, .. }
        | Op::Conv2d { weight, bias, stride, padding, groups: 1, .. } => {
            let kernel = both(manifest.tensors[weight].shape[2], 1);
            let padding = both(padding, 0);
            let size = Size { channels, height, width, out: node.output[0], kernel, stride, padding };
            Some(Layer::Convolution { convolution: Convolution::new(size), weight, bias })
        }
        Op::MaxPool { size, stride } => {
            let (window, stride) = (both(size, 1), both(stride, 1));
            Some(Layer::MaxPool(MaxPool { channels, input: [height, width], window, stride }))
        }
        _ => None,
    }
}

impl Layer {
    /// Values of a sample as this layer takes it.
    fn padded(&self) -> usize {
        match self {
            Self::Convolution { convolution, .. } => convolution.size.padded(),
            Self::MaxPool(pool) => pool.input[0] * pool.input[1] * pool.channels,
        }
    }

    fn output_len(&self) -> usize {
        match self {
            Self::Convolution { convolution, .. } => convolution.output_len(),
            Self::MaxPool(pool) => pool.output_len(),
        }
    }

    /// Copies a sample into the middle of a padded one, whose border stays.
    fn pad(&self, x: &[f32], padded: &mut [f32]) {
        match self {
            Self::Convolution { convolution, .. } => convolution.size.pad(x, padded),
            Self::MaxPool(_) => padded.copy_from_slice(x),
        }
    }

    /// Replaces `x` by the middle of a padded sample.
    fn crop(&self, padded: &[f32], x: &mut Vec<f32>) {
        x.clear();
        match self {
            Self::Convolution { convolution, .. } => convolution.size.crop(padded, x),
            Self::MaxPool(_) => x.extend_from_slice(padded),
        }
    }
}

/// From `[a, b]` to `[b, a]`.
fn transpose(from: &[f32], a: usize, to: &mut [f32]) {
    let b = from.len() / a;
    if a == 1 || b == 1 {
        to.copy_from_slice(from);
        return;
    }
    for (row, to) in to.chunks_exact_mut(a).enumerate() {
        for (to, from) in to.iter_mut().zip(from[row..].iter().step_by(b)) {
            *to = *from;
        }
    }
}

/// The way back through a ReLU: slopes pass where its output is above 0.
fn mask(slopes: &mut [f32], outputs: &[f32]) {
    for (slope, output) in slopes.iter_mut().zip(outputs) {
        *slope = if *output > 0.0 { *slope } else { 0.0 };
    }
}
