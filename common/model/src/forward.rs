//! The forward pass: one function for training and for evaluation, with gradients where the leaves are tracked.

use burn::tensor::activation::{gelu, relu, sigmoid, tanh};
use burn::tensor::module::{avg_pool1d, avg_pool2d, conv1d, conv2d, embedding, linear, max_pool1d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData};
use starling_spec::random::{Purpose, Random};
use starling_spec::shape::{Node, Op};

use crate::norm::{batch_norm, group_norm, norm_last};
use crate::sequence::{attention, gru};
use crate::tensors::{Act, Leaf, each};

/// What the dropout masks of one step are derived from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaskKey {
    pub(crate) seed: u64,
    pub(crate) device: u64,
    pub(crate) round: u64,
    pub(crate) step: u64,
}

/// The batch statistics of one normalisation: tensor indices in the manifest and the batch's moments.
pub(crate) struct Moments {
    pub(crate) mean: (usize, Tensor<1>),
    /// The unbiased variance.
    pub(crate) variance: (usize, Tensor<1>),
}

/// One pass over a batch.
pub(crate) struct Pass<'a> {
    pub(crate) leaves: &'a [Leaf],
    pub(crate) device: &'a Device,
    pub(crate) batch: usize,
    /// Present while training.
    pub(crate) masks: Option<MaskKey>,
    /// Filled while training.
    pub(crate) moments: Vec<Moments>,
}

impl Pass<'_> {
    /// The outputs of `nodes` for `x`.
    pub(crate) fn run(&mut self, nodes: &[Node], x: Act) -> Act {
        nodes.iter().fold(x, |x, node| self.node(node, x))
    }

    fn node(&mut self, node: &Node, x: Act) -> Act {
        let leaves = self.leaves;
        match &node.op {
            Op::Linear { weight, bias, .. } => {
                let (weight, bias) = (leaves[*weight].d2(), bias.map(|bias| leaves[bias].d1()));
                each!(x, x => linear(x, weight, bias))
            }
            Op::Conv1d { weight, bias, stride, padding, .. } => {
                let options = ConvOptions::new([*stride], [*padding], [1], 1);
                Act::D3(conv1d(signal(x), leaves[*weight].d3(), bias.map(|bias| leaves[bias].d1()), options))
            }
            Op::Conv2d { weight, bias, stride, padding, groups, .. } => {
                let options = ConvOptions::new([*stride; 2], [*padding; 2], [1; 2], *groups);
                Act::D4(conv2d(image(x), leaves[*weight].d4(), bias.map(|bias| leaves[bias].d1()), options))
            }
            Op::MaxPool { size, stride } => match x {
                Act::D4(x) => Act::D4(max_pool2d(x, MaxPoolOptions::new([*size; 2]).with_stride([*stride; 2]))),
                x => Act::D3(max_pool1d(signal(x), MaxPoolOptions::new([*size]).with_stride([*stride]))),
            },
            Op::AvgPool { size, stride } => match x {
                Act::D4(x) => Act::D4(avg_pool2d(x, AvgPoolOptions::new([*size; 2]).with_stride([*stride; 2]))),
                x => Act::D3(avg_pool1d(signal(x), AvgPoolOptions::new([*size]).with_stride([*stride]))),
            },
            Op::GlobalAvgPool => {
                let (channels, rest) = (node.input[0], node.input[1..].iter().product());
                let x = signal(x.shaped(self.batch, &[channels, rest]));
                Act::D2(x.mean_dim(2).reshape([self.batch, channels]))
            }
            Op::BatchNorm { scale, shift, mean, variance } => {
                let affine = (leaves[*scale].d1(), leaves[*shift].d1());
                let running = (leaves[*mean].d1(), leaves[*variance].d1());
                let train = self.masks.is_some();
                let count = self.batch * node.input[1..].iter().product::<usize>();
                let (x, moments) = batch_norm(x, affine, running, train, count);
                if let Some((batch_mean, batch_variance)) = moments {
                    self.moments.push(Moments { mean: (*mean, batch_mean), variance: (*variance, batch_variance) });
                }
                x
            }
            Op::GroupNorm { scale, shift, groups } => {
                group_norm(x, self.batch, &node.input, *groups, leaves[*scale].d1(), leaves[*shift].d1())
            }
            Op::LayerNorm { scale, shift } => {
                let (scale, shift) = (leaves[*scale].d1(), leaves[*shift].d1());
                each!(x, x => norm_last(x, scale, shift))
            }
            Op::Relu => each!(x, x => relu(x)),
            Op::Gelu => each!(x, x => gelu(x)),
            Op::Tanh => each!(x, x => tanh(x)),
            Op::Sigmoid => each!(x, x => sigmoid(x)),
            Op::Sign => each!(x, x => sign(x)),
            Op::Dropout { probability, stream } => self.dropout(x, &node.input, *probability, *stream),
            Op::Flatten => Act::D2(x.flat(self.batch, node.output[0])),
            Op::Embedding { table, positions, .. } => {
                let tokens = x.flat(self.batch, node.input[0]).int();
                let rows = embedding(leaves[*table].d2(), tokens);
                Act::D3(match positions {
                    Some(positions) => rows + leaves[*positions].d2().unsqueeze::<3>(),
                    None => rows,
                })
            }
            Op::Gru { input_weight, input_bias, state_weight, state_bias, state } => {
                let input = (leaves[*input_weight].d2(), leaves[*input_bias].d1());
                let recurrent = (leaves[*state_weight].d2(), leaves[*state_bias].d1());
                Act::D3(gru(signal(x), input, recurrent, *state, self.device))
            }
            Op::SelfAttention { weight, bias, out_weight, out_bias, heads, causal } => {
                let projections = (leaves[*weight].d2(), leaves[*bias].d1());
                let out = (leaves[*out_weight].d2(), leaves[*out_bias].d1());
                Act::D3(attention(signal(x), projections, out, *heads, *causal, self.device))
            }
            Op::Residual(nodes) => x.clone().plus(self.run(nodes, x)),
        }
    }

    /// Inverted dropout: kept values are scaled, so evaluation leaves everything as it is.
    #[allow(clippy::cast_possible_truncation, reason = "a probability at the precision of the activations")]
    fn dropout(&self, x: Act, shape: &[usize], probability: f64, stream: u64) -> Act {
        let Some(key) = self.masks.filter(|_| probability > 0.0) else { return x };
        let mut random = Random::new(key.seed, Purpose::Dropout, &[key.device, key.round, key.step, stream]);
        let scale = (1.0 / (1.0 - probability)) as f32;
        let count = self.batch * shape.iter().product::<usize>();
        let mask: Vec<f32> = (0..count).map(|_| if random.unit_f64() < probability { 0.0 } else { scale }).collect();
        match (x, Act::new(mask, self.batch, shape, self.device)) {
            (Act::D2(x), Act::D2(mask)) => Act::D2(x * mask),
            (Act::D3(x), Act::D3(mask)) => Act::D3(x * mask),
            (Act::D4(x), Act::D4(mask)) => Act::D4(x * mask),
            _ => unreachable!("the mask was made with the activation's shape"),
        }
    }
}

/// An activation of two axes a sample.
fn signal(x: Act) -> Tensor<3> {
    match x {
        Act::D3(x) => x,
        _ => unreachable!("shape inference lets two axes reach this layer"),
    }
}

/// An activation of three axes a sample.
fn image(x: Act) -> Tensor<4> {
    match x {
        Act::D4(x) => x,
        _ => unreachable!("shape inference lets three axes reach this layer"),
    }
}

/// A constant tensor of the shape `shape`.
pub(crate) fn constant<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// 1 where `x ≥ 0`, −1 elsewhere; the gradient is that of `clamp(x, −1, 1)` (the straight-through estimator of Hubara et al.
/// 2016).
fn sign<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let hard = x.clone().detach().greater_equal_elem(0.0).float().mul_scalar(2.0).sub_scalar(1.0);
    let soft = x.clamp(-1.0, 1.0);
    let gap = hard - soft.clone().detach();
    soft + gap
}
