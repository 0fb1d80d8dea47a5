//! Each layer as nodes of ONNX.

use starling_spec::ParamManifest;
use starling_spec::shape::{Node, Op};

use super::graph::{Attribute, Graph, signed};

/// Inside the root of every normalisation.
const EPSILON: f32 = 1e-5;

/// What is added to a score that a position must not see; `e` to it is 0.
const UNSEEN: f32 = -1e9;

pub(super) struct Writer<'a> {
    pub(super) graph: Graph,
    pub(super) manifest: &'a ParamManifest,
    pub(super) parameters: &'a [f32],
}

/// Values of constants that are no parameters: causal masks.
pub(super) fn constants(nodes: &[Node]) -> u64 {
    let of = |node: &Node| match &node.op {
        Op::SelfAttention { causal: true, .. } => (node.input[0] as u64).saturating_pow(2),
        Op::Residual(nodes) => constants(nodes),
        _ => 0,
    };
    nodes.iter().map(of).fold(0, u64::saturating_add)
}

impl Writer<'_> {
    /// Adds `nodes` after the value `x` and gives the name of what they compute; `prefix` is the place of the residual around them.
    pub(super) fn list(&mut self, nodes: &[Node], mut x: String, prefix: &str) -> String {
        for (position, node) in nodes.iter().enumerate() {
            x = self.node(node, x, &format!("{prefix}{position}"));
        }
        x
    }

    fn node(&mut self, node: &Node, x: String, place: &str) -> String {
        let name = |word: &str| format!("{place}.{word}");
        match &node.op {
            Op::Linear { weight, bias, .. } => self.linear(&x, (*weight, *bias), node.input.len(), place, "linear"),
            Op::Conv1d { weight, bias, stride, padding, .. } => {
                self.convolution(&x, (*weight, *bias), &[*stride], *padding, 1, name("conv1d"))
            }
            Op::Conv2d { weight, bias, stride, padding, groups, .. } => {
                self.convolution(&x, (*weight, *bias), &[*stride; 2], *padding, *groups, name("conv2d"))
            }
            Op::MaxPool { size, stride } => self.pool("MaxPool", &x, node, (*size, *stride), name("max_pool")),
            Op::AvgPool { size, stride } => self.pool("AveragePool", &x, node, (*size, *stride), name("avg_pool")),
            Op::GlobalAvgPool => {
                let mean = self.graph.node("GlobalAveragePool", name("mean"), &[&x], &[]);
                self.flat(&mean, name("global_avg_pool"))
            }
            Op::BatchNorm { scale, shift, mean, variance } => {
                let [scale, shift, mean] = [scale, shift, mean].map(|index| self.parameter(*index));
                let tensor = &self.manifest.tensors[*variance];
                // A running variance that came through a coarse codec may lie a little below zero.
                let variances = self.parameters[tensor.range()].iter().map(|value| value.max(0.0));
                let variance = self.graph.floats(&tensor.name, &tensor.shape, variances);
                let inputs = [x.as_str(), &scale, &shift, &mean, &variance];
                self.graph.node("BatchNormalization", name("batch_norm"), &inputs, &[epsilon()])
            }
            Op::GroupNorm { scale, shift, groups } => self.group_norm(&x, node, (*scale, *shift), *groups, place),
            Op::LayerNorm { scale, shift } => {
                let [scale, shift] = [scale, shift].map(|index| self.parameter(*index));
                let attributes = [("axis", Attribute::Integer(-1)), epsilon()];
                self.graph.node("LayerNormalization", name("layer_norm"), &[&x, &scale, &shift], &attributes)
            }
            Op::Relu => self.graph.node("Relu", name("relu"), &[&x], &[]),
            Op::Gelu => self.gelu(&x, place),
            Op::Tanh => self.graph.node("Tanh", name("tanh"), &[&x], &[]),
            Op::Sigmoid => self.graph.node("Sigmoid", name("sigmoid"), &[&x], &[]),
            Op::Sign => {
                // ONNX's own sign of 0 is 0.
                let [zero, above, below] = [("zero", 0.0), ("above", 1.0), ("below", -1.0)]
                    .map(|(word, value)| self.graph.floats(&name(word), &[], [value]));
                let positive = self.graph.node("GreaterOrEqual", name("positive"), &[&x, &zero], &[]);
                self.graph.node("Where", name("sign"), &[&positive, &above, &below], &[])
            }
            Op::Dropout { .. } => x,
            Op::Flatten if node.input.len() == 1 => x,
            Op::Flatten => self.flat(&x, name("flatten")),
            Op::Embedding { table, positions, .. } => {
                let table = self.parameter(*table);
                let rows = self.graph.node("Gather", name("embedding"), &[&table, &x], &[]);
                match positions {
                    Some(positions) => {
                        let positions = self.parameter(*positions);
                        self.graph.node("Add", name("placed"), &[&rows, &positions], &[])
                    }
                    None => rows,
                }
            }
            Op::Gru { input_weight, input_bias, state_weight, state_bias, state } => {
                self.gru(&x, [*input_weight, *state_weight], [*input_bias, *state_bias], *state, place)
            }
            Op::SelfAttention { weight, bias, out_weight, out_bias, heads, causal } => {
                let (projections, out) = ((*weight, Some(*bias)), (*out_weight, Some(*out_bias)));
                self.attention(&x, node, projections, out, (*heads, *causal), place)
            }
            Op::Residual(nodes) => {
                let inner = self.list(nodes, x.clone(), &format!("{place}."));
                self.graph.node("Add", name("residual"), &[&x, &inner], &[])
            }
        }
    }

    /// The parameter tensor `index` as a constant under its own name.
    fn parameter(&mut self, index: usize) -> String {
        let tensor = &self.manifest.tensors[index];
        self.graph.floats(&tensor.name, &tensor.shape, self.parameters[tensor.range()].iter().copied())
    }

    /// `x W + b` on the last of `rank` axes beside the batch.
    fn linear(
        &mut self,
        x: &str,
        (weight, bias): (usize, Option<usize>),
        rank: usize,
        place: &str,
        word: &str,
    ) -> String {
        let name = format!("{place}.{word}");
        let weight = self.parameter(weight);
        let bias = bias.map(|bias| self.parameter(bias));
        match bias {
            Some(bias) if rank == 1 => self.graph.node("Gemm", name, &[x, &weight, &bias], &[]),
            Some(bias) => {
                let product = self.graph.node("MatMul", format!("{name}.product"), &[x, &weight], &[]);
                self.graph.node("Add", name, &[&product, &bias], &[])
            }
            None => self.graph.node("MatMul", name, &[x, &weight], &[]),
        }
    }

    fn convolution(
        &mut self,
        x: &str,
        (weight, bias): (usize, Option<usize>),
        strides: &[usize],
        padding: usize,
        groups: usize,
        name: String,
    ) -> String {
        let kernel = &self.manifest.tensors[weight].shape[2..];
        let attributes = [
            ("kernel_shape", integers(kernel)),
            ("strides", integers(strides)),
            // Before each axis, then after each.
            ("pads", integers(&vec![padding; 2 * strides.len()])),
            ("group", Attribute::Integer(signed(groups))),
        ];
        let weight = self.parameter(weight);
        let bias = bias.map(|bias| self.parameter(bias));
        let inputs: Vec<&str> = [x, &weight].into_iter().chain(bias.as_deref()).collect();
        self.graph.node("Conv", name, &inputs, &attributes)
    }

    fn pool(
        &mut self,
        operator: &'static str,
        x: &str,
        node: &Node,
        (size, stride): (usize, usize),
        name: String,
    ) -> String {
        let axes = node.input.len() - 1;
        let attributes = [("kernel_shape", integers(&vec![size; axes])), ("strides", integers(&vec![stride; axes]))];
        self.graph.node(operator, name, &[x], &attributes)
    }

    /// One row a sample.
    fn flat(&mut self, x: &str, name: String) -> String {
        self.graph.node("Flatten", name, &[x], &[("axis", Attribute::Integer(1))])
    }

    /// `x` in another shape; a size of 0 keeps the batch, −1 is what is left.
    fn reshaped(&mut self, x: &str, shape: &[i64], name: String) -> String {
        let shape = self.graph.integers(&format!("{name}.shape"), shape);
        self.graph.node("Reshape", name, &[x, &shape], &[])
    }

    fn transposed(&mut self, x: &str, order: &[usize], name: String) -> String {
        self.graph.node("Transpose", name, &[x], &[("perm", integers(order))])
    }

    /// Opset 17 has no group normalisation: groups become the channels of an instance normalisation of scale 1 and shift 0; the
    /// channels' own scale and shift follow.
    fn group_norm(
        &mut self,
        x: &str,
        node: &Node,
        (scale, shift): (usize, usize),
        groups: usize,
        place: &str,
    ) -> String {
        let name = |word: &str| format!("{place}.{word}");
        let grouped = self.reshaped(x, &[0, signed(groups), -1], name("groups"));
        let ones = self.graph.floats(&name("ones"), &[groups], vec![1.0; groups]);
        let zeros = self.graph.floats(&name("zeros"), &[groups], vec![0.0; groups]);
        let inputs = [grouped.as_str(), &ones, &zeros];
        let normal = self.graph.node("InstanceNormalization", name("normal"), &inputs, &[epsilon()]);
        let sizes: Vec<i64> = [0].into_iter().chain(node.input.iter().map(|size| signed(*size))).collect();
        let normal = self.reshaped(&normal, &sizes, name("ungrouped"));
        // A value a channel, beside the axes that come after it.
        let mut shape = vec![1; node.input.len()];
        shape[0] = node.input[0];
        let [scale, shift] = [scale, shift].map(|index| {
            let tensor = &self.manifest.tensors[index];
            self.graph.floats(&tensor.name, &shape, self.parameters[tensor.range()].iter().copied())
        });
        let scaled = self.graph.node("Mul", name("scaled"), &[&normal, &scale], &[]);
        self.graph.node("Add", name("group_norm"), &[&scaled, &shift], &[])
    }

    /// `x · (1 + erf(x / √2)) / 2`.
    fn gelu(&mut self, x: &str, place: &str) -> String {
        let name = |word: &str| format!("{place}.{word}");
        let [root, one, half] = [("root", std::f32::consts::SQRT_2), ("one", 1.0), ("half", 0.5)]
            .map(|(word, value)| self.graph.floats(&name(word), &[], [value]));
        let scaled = self.graph.node("Div", name("scaled"), &[x, &root], &[]);
        let erf = self.graph.node("Erf", name("erf"), &[&scaled], &[]);
        let sum = self.graph.node("Add", name("sum"), &[&erf, &one], &[]);
        let product = self.graph.node("Mul", name("product"), &[x, &sum], &[]);
        self.graph.node("Mul", name("gelu"), &[&product, &half], &[])
    }

    /// ONNX's GRU wants positions before the batch, weights `[1, 3 state, in]`, and its thirds in the order update, reset,
    /// candidate; with `linear_before_reset` the reset gate acts after the product, as here.
    fn gru(&mut self, x: &str, weights: [usize; 2], biases: [usize; 2], state: usize, place: &str) -> String {
        let name = |word: &str| format!("{place}.{word}");
        // Row r of ONNX's weight is column `theirs(r)` of ours.
        let theirs = |row: usize| match row / state {
            0 => row + state,
            1 => row - state,
            _ => row,
        };
        let gates = 3 * state;
        let [input, recurrent] = weights.map(|index| {
            let tensor = &self.manifest.tensors[index];
            let (values, rows) = (&self.parameters[tensor.range()], tensor.shape[0]);
            let by_gate = (0..gates)
                .flat_map(|gate| (0..rows).map(move |row| (row, gate)))
                .map(|(row, gate)| values[row * gates + theirs(gate)]);
            self.graph.floats(&tensor.name, &[1, gates, rows], by_gate)
        });
        let bias = biases.iter().flat_map(|index| {
            let values = &self.parameters[self.manifest.tensors[*index].range()];
            (0..gates).map(move |gate| values[theirs(gate)])
        });
        let bias = self.graph.floats(&name("gru.bias"), &[1, 2 * gates], bias);
        let by_position = self.transposed(x, &[1, 0, 2], name("by_position"));
        let attributes =
            [("hidden_size", Attribute::Integer(signed(state))), ("linear_before_reset", Attribute::Integer(1))];
        let inputs = [by_position.as_str(), &input, &recurrent, &bias];
        let states = self.graph.node("GRU", name("states"), &inputs, &attributes);
        // [positions, directions, batch, state]
        let direction = self.graph.integers(&name("direction"), &[1]);
        let states = self.graph.node("Squeeze", name("one_way"), &[&states, &direction], &[]);
        self.transposed(&states, &[1, 0, 2], name("gru"))
    }

    /// `softmax(Q Kᵀ / √width) V` a head, heads joined and projected.
    #[allow(clippy::cast_possible_truncation, reason = "a factor at the precision of the activations")]
    fn attention(
        &mut self,
        x: &str,
        node: &Node,
        projections: (usize, Option<usize>),
        out: (usize, Option<usize>),
        (heads, causal): (usize, bool),
        place: &str,
    ) -> String {
        let name = |word: &str| format!("{place}.{word}");
        let (positions, features) = (node.input[0], node.input[1]);
        let width = features / heads;
        let projected = self.linear(x, projections, 2, place, "projected");
        let sizes = self.graph.integers(&name("thirds"), &[signed(features); 3]);
        let thirds = self.graph.thirds(&name("third"), &projected, &sizes, 2);
        let by_head = [0, signed(positions), signed(heads), signed(width)];
        let orders = [("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])];
        let mut parts = Vec::with_capacity(3);
        for (third, (word, order)) in thirds.iter().zip(orders) {
            let headed = self.reshaped(third, &by_head, name(&format!("{word}.heads")));
            parts.push(self.transposed(&headed, &order, name(word)));
        }
        let product = self.graph.node("MatMul", name("product"), &[&parts[0], &parts[1]], &[]);
        let factor = self.graph.floats(&name("factor"), &[], [(1.0 / (width as f64).sqrt()) as f32]);
        let mut scores = self.graph.node("Mul", name("scores"), &[&product, &factor], &[]);
        if causal {
            let rows = (0..positions).flat_map(|row| (0..positions).map(move |column| (row, column)));
            let unseen = rows.map(|(row, column)| if column > row { UNSEEN } else { 0.0 });
            let mask = self.graph.floats(&name("mask"), &[1, 1, positions, positions], unseen);
            scores = self.graph.node("Add", name("masked"), &[&scores, &mask], &[]);
        }
        let shares = self.graph.node("Softmax", name("shares"), &[&scores], &[("axis", Attribute::Integer(-1))]);
        let seen = self.graph.node("MatMul", name("seen"), &[&shares, &parts[2]], &[]);
        let seen = self.transposed(&seen, &[0, 2, 1, 3], name("by_place"));
        let joined = self.reshaped(&seen, &[0, signed(positions), signed(features)], name("joined"));
        self.linear(&joined, out, 2, place, "self_attention")
    }
}

fn epsilon() -> (&'static str, Attribute) {
    ("epsilon", Attribute::Float(EPSILON))
}

fn integers(values: &[usize]) -> Attribute {
    Attribute::Integers(values.iter().map(|value| signed(*value)).collect())
}
