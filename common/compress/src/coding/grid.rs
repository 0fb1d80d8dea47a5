//! Where a weight stands: its output, and the channel, row and column of the input that it is multiplied with. Coders take the
//! weights nearby as evidence.

use starling_spec::shape::{Network, Node, Op};

/// The geometry of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) outputs: usize,
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Whether outputs are the fastest axis, as in a matrix `[in, out]`, or the slowest, as in a convolution's `[out, in, …]`.
    pub(crate) outputs_last: bool,
}

/// What is known of a tensor before it is read: its geometry, and which tensor's outputs are its channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) grid: Grid,
    /// The weight whose outputs are this tensor's channels, earlier in the manifest.
    pub(crate) source: Option<usize>,
}

impl Grid {
    /// How many inputs an output has.
    pub(crate) fn inputs(&self) -> usize {
        self.channels * self.plane()
    }

    /// How many inputs a channel has.
    pub(crate) fn plane(&self) -> usize {
        self.height * self.width
    }

    pub(crate) fn len(&self) -> usize {
        self.inputs() * self.outputs
    }

    /// The distance in the tensor of the weights of two neighbouring inputs.
    pub(crate) fn stride(&self) -> usize {
        if self.outputs_last { self.outputs } else { 1 }
    }

    /// The input and the output of the weight at `index`.
    pub(crate) fn input_output(&self, index: usize) -> (usize, usize) {
        if self.outputs_last {
            (index / self.outputs, index % self.outputs)
        } else {
            (index % self.inputs(), index / self.inputs())
        }
    }

    /// A tensor of which nothing more than its shape is known.
    pub(crate) fn of_shape(shape: &[usize]) -> Self {
        match *shape {
            [inputs, outputs] => Self { outputs, channels: inputs, height: 1, width: 1, outputs_last: true },
            [outputs, channels, width] => Self { outputs, channels, height: 1, width, outputs_last: false },
            [outputs, channels, height, width] => Self { outputs, channels, height, width, outputs_last: false },
            _ => Self { outputs: shape.iter().product(), channels: 1, height: 1, width: 1, outputs_last: true },
        }
    }
}

/// The setting of each tensor of the manifest.
pub(crate) fn settings(network: &Network) -> Vec<Setting> {
    let shapes = network.manifest.tensors.iter().map(|tensor| &tensor.shape);
    let mut settings: Vec<Setting> =
        shapes.map(|shape| Setting { grid: Grid::of_shape(shape), source: None }).collect();
    let mut walk = Walk { settings: &mut settings, image: Vec::new(), source: None };
    walk.list(&network.nodes);
    settings
}

struct Walk<'a> {
    settings: &'a mut [Setting],
    /// The shape that was flattened, while its values stay where they are.
    image: Vec<usize>,
    /// The last weight, while its outputs are still the channels, and how many.
    source: Option<(usize, usize)>,
}

impl Walk<'_> {
    fn list(&mut self, nodes: &[Node]) {
        for node in nodes {
            match &node.op {
                Op::Linear { weight, .. } => {
                    let grid = &mut self.settings[*weight].grid;
                    if let [channels, sides @ ..] = &self.image[..]
                        && self.image.iter().product::<usize>() == grid.channels
                    {
                        grid.channels = *channels;
                        grid.width = sides.last().copied().unwrap_or(1);
                        grid.height = sides.iter().product::<usize>() / grid.width.max(1);
                    }
                    self.weight(*weight);
                }
                Op::Conv1d { weight, .. } | Op::Conv2d { weight, .. } => self.weight(*weight),
                Op::Flatten => self.image.clone_from(&node.input),
                Op::Residual(nodes) => self.list(nodes),
                Op::Embedding { .. } | Op::Gru { .. } | Op::SelfAttention { .. } => {
                    self.source = None;
                    self.image.clear();
                }
                _ => {}
            }
        }
    }

    fn weight(&mut self, tensor: usize) {
        let grid = self.settings[tensor].grid;
        self.settings[tensor].source =
            self.source.filter(|(_, outputs)| *outputs == grid.channels).map(|(source, _)| source);
        self.source = Some((tensor, grid.outputs));
        self.image.clear();
    }
}
