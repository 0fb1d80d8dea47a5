//! The plainest interpreter of a network, in `f64`, one sample at a time: the oracle of the engine's float path.
#![allow(dead_code, reason = "each test uses a part of this")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "small counts"
)]

use starling_spec::shape::{Network, Node, Op};

const EPSILON: f64 = 1e-5;

/// The outputs of `network` with the flat `parameters` for one sample. Binary layers multiply by the parameters as they are:
/// a release's are `α sign(W)` already.
pub(crate) fn outputs(network: &Network, parameters: &[f32], features: &[f32]) -> Vec<f64> {
    let naive = Naive { network, parameters };
    naive.run(&network.nodes, features.iter().map(|value| f64::from(*value)).collect())
}

struct Naive<'a> {
    network: &'a Network,
    parameters: &'a [f32],
}

impl Naive<'_> {
    fn tensor(&self, index: usize) -> Vec<f64> {
        self.parameters[self.network.manifest.tensors[index].range()].iter().map(|value| f64::from(*value)).collect()
    }

    fn shape(&self, index: usize) -> &[usize] {
        &self.network.manifest.tensors[index].shape
    }

    fn bias(&self, bias: Option<usize>, count: usize) -> Vec<f64> {
        bias.map_or_else(|| vec![0.0; count], |bias| self.tensor(bias))
    }

    fn run(&self, nodes: &[Node], x: Vec<f64>) -> Vec<f64> {
        nodes.iter().fold(x, |x, node| {
            let y = self.node(node, x);
            assert_eq!(y.len(), node.output.iter().product::<usize>(), "{:?}", node.op);
            y
        })
    }

    /// Rows times a matrix.
    fn linear(&self, x: &[f64], weight: usize, bias: Option<usize>) -> Vec<f64> {
        let (inputs, outputs) = (self.shape(weight)[0], self.shape(weight)[1]);
        let (weight, bias) = (self.tensor(weight), self.bias(bias, outputs));
        let row = |x: &[f64]| -> Vec<f64> {
            (0..outputs)
                .map(|output| {
                    bias[output] + (0..inputs).map(|input| x[input] * weight[input * outputs + output]).sum::<f64>()
                })
                .collect()
        };
        x.chunks(inputs).flat_map(row).collect()
    }

    fn node(&self, node: &Node, x: Vec<f64>) -> Vec<f64> {
        let channel_values = node.input[1..].iter().product::<usize>();
        let channel = |index: usize| index / channel_values;
        match &node.op {
            Op::Linear { weight, bias, .. } => self.linear(&x, *weight, *bias),
            Op::Conv1d { weight, bias, stride, padding, .. } => {
                self.convolution(node, &x, *weight, *bias, (1, *stride), (0, *padding), 1)
            }
            Op::Conv2d { weight, bias, stride, padding, groups, .. } => {
                self.convolution(node, &x, *weight, *bias, (*stride, *stride), (*padding, *padding), *groups)
            }
            Op::MaxPool { size, stride } => {
                windows(node, &x, *size, *stride, |values| values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
            }
            Op::AvgPool { size, stride } => {
                windows(node, &x, *size, *stride, |values| values.iter().sum::<f64>() / values.len() as f64)
            }
            Op::GlobalAvgPool => {
                x.chunks(channel_values).map(|values| values.iter().sum::<f64>() / values.len() as f64).collect()
            }
            Op::BatchNorm { scale, shift, mean, variance } => {
                let [scale, shift, mean, variance] =
                    [*scale, *shift, *mean, *variance].map(|tensor| self.tensor(tensor));
                let normal = |(index, x): (usize, &f64)| {
                    let c = channel(index);
                    (x - mean[c]) / (variance[c].max(0.0) + EPSILON).sqrt() * scale[c] + shift[c]
                };
                x.iter().enumerate().map(normal).collect()
            }
            Op::GroupNorm { scale, shift, groups } => {
                let (scale, shift) = (self.tensor(*scale), self.tensor(*shift));
                let normal = normalised(&x, x.len() / groups);
                normal.iter().enumerate().map(|(i, x)| x * scale[channel(i)] + shift[channel(i)]).collect()
            }
            Op::LayerNorm { scale, shift } => {
                let (scale, shift) = (self.tensor(*scale), self.tensor(*shift));
                let last = scale.len();
                normalised(&x, last).iter().enumerate().map(|(i, x)| x * scale[i % last] + shift[i % last]).collect()
            }
            Op::Relu => x.iter().map(|x| x.max(0.0)).collect(),
            Op::Gelu => x.iter().map(|x| x * normal_distribution(*x)).collect(),
            Op::Tanh => x.iter().map(|x| x.tanh()).collect(),
            Op::Sigmoid => x.iter().map(|x| logistic(*x)).collect(),
            Op::Sign => x.iter().map(|x| if *x >= 0.0 { 1.0 } else { -1.0 }).collect(),
            Op::Dropout { .. } | Op::Flatten => x,
            Op::Embedding { table, positions, .. } => {
                let features = node.output[1];
                let (table, positions) = (self.tensor(*table), self.bias(*positions, node.output.iter().product()));
                let row = |(position, token): (usize, &f64)| {
                    let start = *token as usize * features;
                    (0..features)
                        .map(|feature| table[start + feature] + positions[position * features + feature])
                        .collect::<Vec<_>>()
                };
                x.iter().enumerate().flat_map(row).collect()
            }
            Op::Gru { input_weight, input_bias, state_weight, state_bias, state } => {
                let (inputs, n) = (self.linear(&x, *input_weight, Some(*input_bias)), *state);
                let mut h = vec![0.0; n];
                let mut states = Vec::new();
                for input in inputs.chunks(3 * n) {
                    let product = self.linear(&h, *state_weight, Some(*state_bias));
                    for unit in 0..n {
                        let reset = logistic(input[unit] + product[unit]);
                        let update = logistic(input[n + unit] + product[n + unit]);
                        let candidate = (input[2 * n + unit] + reset * product[2 * n + unit]).tanh();
                        h[unit] = candidate + update * (h[unit] - candidate);
                    }
                    states.extend_from_slice(&h);
                }
                states
            }
            Op::SelfAttention { weight, bias, out_weight, out_bias, heads, causal } => {
                let (positions, features) = (node.input[0], node.input[1]);
                let width = features / heads;
                let projected = self.linear(&x, *weight, Some(*bias));
                let at = |position: usize, third: usize, feature: usize| {
                    projected[position * 3 * features + third * features + feature]
                };
                let mut joined = vec![0.0; positions * features];
                for (position, head) in (0..positions).flat_map(|p| (0..*heads).map(move |h| (p, h))) {
                    let seen = if *causal { position + 1 } else { positions };
                    let range = head * width..(head + 1) * width;
                    let score = |other: usize| {
                        let dot: f64 = range.clone().map(|f| at(position, 0, f) * at(other, 1, f)).sum();
                        (dot / (width as f64).sqrt()).exp()
                    };
                    let scores: Vec<f64> = (0..seen).map(score).collect();
                    let sum: f64 = scores.iter().sum();
                    for feature in range {
                        let value: f64 = (0..seen).map(|other| scores[other] * at(other, 2, feature)).sum();
                        joined[position * features + feature] = value / sum;
                    }
                }
                self.linear(&joined, *out_weight, Some(*out_bias))
            }
            Op::Residual(nodes) => {
                let y = self.run(nodes, x.clone());
                x.iter().zip(y).map(|(x, y)| x + y).collect()
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "a convolution has that many settings")]
    fn convolution(
        &self,
        node: &Node,
        x: &[f64],
        weight: usize,
        bias: Option<usize>,
        stride: (usize, usize),
        padding: (usize, usize),
        groups: usize,
    ) -> Vec<f64> {
        let (shape, outputs) = (self.shape(weight), node.output[0]);
        let (height, width) = sides(&node.input);
        let (out_height, out_width) = sides(&node.output);
        let (depth, across) = (shape[1], shape[shape.len() - 1]);
        let down = if shape.len() == 4 { shape[2] } else { 1 };
        let (weight, bias) = (self.tensor(weight), self.bias(bias, outputs));
        let mut y = Vec::new();
        for output in 0..outputs {
            for (line, column) in (0..out_height).flat_map(|line| (0..out_width).map(move |column| (line, column))) {
                let mut sum = bias[output];
                for (c, i, j) in
                    (0..depth).flat_map(|c| (0..down).flat_map(move |i| (0..across).map(move |j| (c, i, j))))
                {
                    let channel = output / (outputs / groups) * depth + c;
                    let row = (line * stride.0 + i).checked_sub(padding.0).filter(|row| *row < height);
                    let place = (column * stride.1 + j).checked_sub(padding.1).filter(|place| *place < width);
                    if let (Some(row), Some(place)) = (row, place) {
                        let w = weight[((output * depth + c) * down + i) * across + j];
                        sum += w * x[(channel * height + row) * width + place];
                    }
                }
                y.push(sum);
            }
        }
        y
    }
}

/// Height and width; a signal has one line.
pub(crate) fn sides(shape: &[usize]) -> (usize, usize) {
    if shape.len() == 3 { (shape[1], shape[2]) } else { (1, shape[1]) }
}

fn windows(node: &Node, x: &[f64], size: usize, stride: usize, join: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let ((height, width), (out_height, out_width)) = (sides(&node.input), sides(&node.output));
    let down = if node.input.len() == 3 { size } else { 1 };
    let mut y = Vec::new();
    for plane in x.chunks(height * width) {
        for (line, column) in (0..out_height).flat_map(|line| (0..out_width).map(move |column| (line, column))) {
            let values: Vec<f64> = (0..down)
                .flat_map(|i| (0..size).map(move |j| (i, j)))
                .map(|(i, j)| plane[(line * stride + i) * width + column * stride + j])
                .collect();
            y.push(join(&values));
        }
    }
    y
}

fn normalised(x: &[f64], len: usize) -> Vec<f64> {
    let group = |x: &[f64]| -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        x.iter().map(|x| (x - mean) / (variance + EPSILON).sqrt()).collect()
    };
    x.chunks(len).flat_map(group).collect()
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Φ by Simpson's rule over the density, from −12 on: independent of how the engine does it.
fn normal_distribution(x: f64) -> f64 {
    if x < -12.0 {
        return 0.0;
    }
    let (steps, start) = (4000, -12.0);
    let width = (x.min(12.0) - start) / f64::from(steps);
    let density = |t: f64| (-t * t / 2.0).exp();
    let inner: f64 =
        (1..steps).map(|step| density(start + f64::from(step) * width) * if step % 2 == 1 { 4.0 } else { 2.0 }).sum();
    (density(start) + density(x.min(12.0)) + inner) * width / 3.0 / std::f64::consts::TAU.sqrt()
}
