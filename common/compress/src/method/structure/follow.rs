//! Where the outputs of a layer go: through activations, pools, norms and flattening to the weights that take them in. On the way,
//! every tensor that has a value for each of them is noted, and what becomes of outputs that are constant.

use starling_spec::Layer;
use starling_spec::shape::{Network, Node, Op};

use super::{Found, StructureError, find};

/// What the model adds to a variance before it divides by its root.
const EPSILON: f64 = 1e-5;

/// A tensor with a slice for each of a layer's units.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slices {
    /// Its index in the manifest.
    pub(super) tensor: usize,
    /// The axis that counts them.
    pub(super) axis: usize,
    /// The unit of each slice.
    pub(super) owners: Vec<usize>,
}

/// The weights that take the outputs in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Consumer {
    /// Its weight, by the axis of its inputs.
    pub(super) slices: Slices,
    /// Its bias, where constants can go.
    pub(super) bias: Option<usize>,
    /// Outputs of a convolution, or features of a matrix.
    pub(super) outputs_last: bool,
    /// It sees zeros around the image instead of the constants.
    pub(super) padded: bool,
    /// It computes with signs.
    pub(super) binary: bool,
}

/// What hangs on the units of a layer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Followed {
    /// How many units there are.
    pub(super) units: usize,
    /// The layer's own weight and bias, and norms on the way.
    pub(super) slices: Vec<Slices>,
    pub(super) consumer: Consumer,
    /// What each input of the consumer is, where it is the same for every sample.
    pub(super) constants: Vec<Option<f64>>,
    /// A norm on the way computes over several units: removing one changes the others.
    pub(super) mixed: bool,
}

/// The axis of an activation that counts the units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Axis {
    First,
    Last,
}

struct Stream<'a> {
    network: &'a Network,
    parameters: &'a [f32],
    axis: Axis,
    owners: Vec<usize>,
    constants: Vec<Option<f64>>,
    slices: Vec<Slices>,
    mixed: bool,
}

/// Follows the units of the layer at `path`.
pub(super) fn follow(
    network: &Network,
    layers: &[Layer],
    parameters: &[f32],
    path: &[usize],
) -> Result<Followed, StructureError> {
    let found = find(network, layers, path)?;
    let (weight, bias, weight_axis) = match found.node.op {
        Op::Linear { weight, bias, .. } => (weight, bias, 1),
        Op::Conv1d { weight, bias, .. } | Op::Conv2d { weight, bias, groups: 1, .. } => (weight, bias, 0),
        Op::Conv2d { .. } => {
            return Err(found.error(path, "it has no channels of its own; remove those of the layer before it"));
        }
        Op::Embedding { .. } | Op::Gru { .. } | Op::SelfAttention { .. } => {
            return Err(
                found.error(path, "its features cannot be removed one by one; quantise it, or train a smaller one")
            );
        }
        _ => return Err(found.error(path, "it has no units; name a linear layer or a convolution")),
    };
    let units = network.manifest.tensors[weight].shape[weight_axis];
    let owners: Vec<usize> = (0..units).collect();
    let mut slices = vec![Slices { tensor: weight, axis: weight_axis, owners: owners.clone() }];
    slices.extend(bias.map(|tensor| Slices { tensor, axis: 0, owners: owners.clone() }));
    let axis = if weight_axis == 1 && found.node.output.len() > 1 { Axis::Last } else { Axis::First };
    let constants = constants(network, parameters, &found.node.op, units);
    let mut stream = Stream { network, parameters, axis, owners, constants, slices, mixed: false };
    for position in found.position + 1..found.nodes.len() {
        let mut at = path.to_vec();
        if let Some(last) = at.last_mut() {
            *last = position;
        }
        let here = Found {
            nodes: found.nodes,
            layers: found.layers,
            position,
            node: &found.nodes[position],
            layer: &found.layers[position],
        };
        match stream.pass(here.node) {
            Ok(None) => {}
            Ok(Some(consumer)) => {
                let Stream { slices, constants, mixed, .. } = stream;
                return Ok(Followed { units, slices, consumer, constants, mixed });
            }
            Err(problem) => return Err(here.error(&at, problem)),
        }
    }
    Err(found.error(
        path,
        if path.len() > 1 {
            "its outputs are added to its residual's shortcut, which needs all of them; remove the whole residual"
        } else {
            "its outputs are the network's, and all of them are asked for"
        },
    ))
}

/// The output of each unit that no input reaches: all its weights are zero.
fn constants(network: &Network, parameters: &[f32], op: &Op, units: usize) -> Vec<Option<f64>> {
    let (Op::Linear { weight, bias, binary }
    | Op::Conv1d { weight, bias, binary, .. }
    | Op::Conv2d { weight, bias, binary, .. }) = op
    else {
        return vec![None; units];
    };
    // The sign of zero is one: a binary unit hears every input.
    let mut reached = vec![*binary; units];
    let tensor = &network.manifest.tensors[*weight];
    for (index, value) in parameters[tensor.range()].iter().enumerate() {
        if *value != 0.0 {
            reached[crate::tensor::channel_of(&tensor.shape, index)] = true;
        }
    }
    let bias = bias.map(|bias| &parameters[network.manifest.tensors[bias].range()]);
    let constant = |unit: usize| bias.map_or(0.0, |bias| f64::from(bias[unit]));
    reached.iter().enumerate().map(|(unit, reached)| (!reached).then(|| constant(unit))).collect()
}

impl Stream<'_> {
    /// Passes a layer, or ends at the one that takes the outputs in.
    fn pass(&mut self, node: &Node) -> Result<Option<Consumer>, String> {
        let flat = node.input.len() == 1;
        match &node.op {
            Op::Relu => self.map(|value| Some(value.max(0.0))),
            Op::Tanh => self.map(|value| Some(value.tanh())),
            Op::Sigmoid => self.map(|value| Some(1.0 / (1.0 + (-value).exp()))),
            Op::Sign => self.map(|value| Some(if value >= 0.0 { 1.0 } else { -1.0 })),
            Op::Gelu => self.map(|value| (value == 0.0).then_some(0.0)),
            Op::Dropout { .. } => {}
            Op::MaxPool { .. } | Op::AvgPool { .. } | Op::GlobalAvgPool if self.axis == Axis::Last => {
                return Err("it pools over the units that would go".into());
            }
            Op::MaxPool { .. } | Op::AvgPool { .. } | Op::GlobalAvgPool => {}
            Op::Flatten => self.flatten(&node.input),
            Op::BatchNorm { scale, shift, mean, variance } => {
                if self.axis == Axis::First {
                    self.batch_norm([*scale, *shift, *mean, *variance]);
                } else {
                    // It scales positions, not units: what was constant now depends on the position.
                    self.map(|_| None);
                }
            }
            Op::GroupNorm { .. } => {
                return Err("it normalises groups of units; removing one would take a group apart".into());
            }
            Op::LayerNorm { scale, shift } => {
                if flat || self.axis == Axis::Last {
                    self.slice(*scale, 0);
                    self.slice(*shift, 0);
                    self.mixed = true;
                }
                self.map(|_| None);
            }
            Op::Linear { weight, bias, binary } => {
                if flat || self.axis == Axis::Last {
                    return Ok(Some(self.consumer(*weight, 0, *bias, true, false, *binary)));
                }
                // It computes along another axis: its outputs still count the units by their first.
                self.map(|_| None);
            }
            Op::Conv1d { .. } | Op::Conv2d { .. } if self.axis == Axis::Last => {
                return Err("it convolves over the units that would go".into());
            }
            Op::Conv1d { weight, bias, padding, binary, .. }
            | Op::Conv2d { weight, bias, padding, binary, groups: 1, .. } => {
                return Ok(Some(self.consumer(*weight, 1, *bias, false, *padding > 0, *binary)));
            }
            Op::Conv2d { weight, bias, padding, .. } => self.depthwise(*weight, *bias, *padding > 0),
            Op::Gru { input_weight, input_bias, .. } => {
                if self.axis == Axis::First {
                    return Err("it walks over the units that would go".into());
                }
                return Ok(Some(self.consumer(*input_weight, 0, Some(*input_bias), true, false, false)));
            }
            Op::SelfAttention { .. } => return Err("it gives back as many features as it takes".into()),
            Op::Residual(_) => {
                return Err("its shortcut needs every unit that it takes; remove the whole residual instead".into());
            }
            Op::Embedding { .. } => return Err("it takes tokens".into()),
        }
        Ok(None)
    }

    fn map(&mut self, value: impl Fn(f64) -> Option<f64>) {
        for constant in &mut self.constants {
            *constant = constant.and_then(&value);
        }
    }

    fn values(&self, tensor: usize) -> &[f32] {
        &self.parameters[self.network.manifest.tensors[tensor].range()]
    }

    fn slice(&mut self, tensor: usize, axis: usize) {
        self.slices.push(Slices { tensor, axis, owners: self.owners.clone() });
    }

    fn flatten(&mut self, shape: &[usize]) {
        let total: usize = shape.iter().product();
        let units = self.owners.len().max(1);
        // The first axis is the slowest, the last the fastest.
        let inner = total / units;
        let source = |index: usize| if self.axis == Axis::First { index / inner } else { index % units };
        let owners = (0..total).map(|index| self.owners[source(index)]).collect();
        let constants = (0..total).map(|index| self.constants[source(index)]).collect();
        (self.owners, self.constants, self.axis) = (owners, constants, Axis::First);
    }

    fn batch_norm(&mut self, tensors: [usize; 4]) {
        let [scale, shift, mean, variance] = tensors.map(|tensor| self.values(tensor).to_vec());
        for (index, constant) in self.constants.iter_mut().enumerate() {
            let normal = |value: f64| (value - f64::from(mean[index])) / (f64::from(variance[index]) + EPSILON).sqrt();
            *constant = constant.map(|value| f64::from(scale[index]) * normal(value) + f64::from(shift[index]));
        }
        for tensor in tensors {
            self.slice(tensor, 0);
        }
    }

    fn depthwise(&mut self, weight: usize, bias: Option<usize>, padded: bool) {
        let kernels = self.values(weight).to_vec();
        let biases = bias.map(|bias| self.values(bias).to_vec());
        let length = kernels.len() / self.constants.len().max(1);
        for (index, constant) in self.constants.iter_mut().enumerate() {
            let sum: f64 = kernels[index * length..(index + 1) * length].iter().map(|value| f64::from(*value)).sum();
            let bias = biases.as_ref().map_or(0.0, |biases| f64::from(biases[index]));
            *constant = constant.filter(|value| !padded || *value == 0.0).map(|value| value * sum + bias);
        }
        self.slice(weight, 0);
        if let Some(bias) = bias {
            self.slice(bias, 0);
        }
    }

    fn consumer(
        &self,
        weight: usize,
        axis: usize,
        bias: Option<usize>,
        outputs_last: bool,
        padded: bool,
        binary: bool,
    ) -> Consumer {
        let slices = Slices { tensor: weight, axis, owners: self.owners.clone() };
        Consumer { slices, bias, outputs_last, padded, binary }
    }
}

impl Slices {
    /// Visits each value of the tensor: its flat index in the whole vector, its slice, and its place behind the axis.
    pub(super) fn each(&self, network: &Network, mut visit: impl FnMut(usize, usize)) {
        let tensor = &network.manifest.tensors[self.tensor];
        let inner: usize = tensor.shape[self.axis + 1..].iter().product();
        let sides = tensor.shape[self.axis];
        for (within, index) in tensor.range().enumerate() {
            visit(index, within / inner % sides);
        }
    }
}
