//! From layers to steps: which kernel runs a layer, what is fused into it, and in what form activations pass between layers.

mod binary;
mod float;
mod follow;
mod form;
mod integer;

use starling_compress::Release;
use starling_spec::shape::{Network, Node, Op};

use self::follow::{Follow, Image, Norm, taker};
use self::form::{Form, Tensors};
use crate::error::EngineError;
use crate::isa::Isa;
use crate::kernel::binary::{Threshold, Thresholds};
use crate::kernel::integer::Quantiser;
use crate::kernel::window::Window;
use crate::step::Step;
use crate::step::activation::{Apply, Function, LevelRelu};
use crate::step::binary::{Layout, Pack};
use crate::step::observe::Observe;
use crate::step::pool::{FloatPool, GlobalMean, Kind, LevelPool};
use crate::step::residual::Residual;

/// The steps of a checked release.
pub(crate) fn lower(release: &Release, network: &Network, isa: Isa) -> Result<Vec<Box<dyn Step>>, EngineError> {
    let tensors = Tensors::new(release, network)?;
    Lowering { tensors: &tensors, isa, observing: false }.list(&network.nodes)
}

/// The steps of a checked release in floats throughout, with observers of what linear layers and convolutions take in.
pub(crate) fn lower_observed(
    release: &Release,
    network: &Network,
    isa: Isa,
) -> Result<Vec<Box<dyn Step>>, EngineError> {
    let tensors = Tensors::new(release, network)?;
    Lowering { tensors: &tensors, isa, observing: true }.list(&network.nodes)
}

/// In what form the last step leaves its outputs.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Domain {
    /// Floats, channels first.
    Floats {
        /// Whether all of them are 1 or −1.
        signs: bool,
    },
    /// Levels; of an image with its channels last, or in the order of floats.
    Levels { quantiser: Quantiser, image: Option<Image> },
    /// Packed signs; of an image position by position, or in the order of floats.
    Bits { image: Option<Image> },
}

struct Lowering<'a> {
    tensors: &'a Tensors<'a>,
    isa: Isa,
    /// Everything in floats, nothing in signs or levels, with observers.
    observing: bool,
}

/// A list of layers on its way to steps.
struct Walk<'a> {
    lowering: &'a Lowering<'a>,
    nodes: Vec<&'a Node>,
    steps: Vec<Box<dyn Step>>,
    domain: Domain,
}

impl Lowering<'_> {
    fn list(&self, nodes: &[Node]) -> Result<Vec<Box<dyn Step>>, EngineError> {
        // Dropout does nothing here.
        let nodes = nodes.iter().filter(|node| !matches!(node.op, Op::Dropout { .. })).collect();
        let mut walk = Walk { lowering: self, nodes, steps: Vec::new(), domain: Domain::Floats { signs: false } };
        let mut at = 0;
        while at < walk.nodes.len() {
            at = walk.node(at)?;
        }
        Ok(walk.steps)
    }
}

impl<'a> Walk<'a> {
    fn push(&mut self, step: impl Step + 'static, domain: Domain) {
        self.steps.push(Box::new(step));
        self.domain = domain;
    }

    fn push_floats(&mut self, step: impl Step + 'static) {
        self.push(step, Domain::Floats { signs: false });
    }

    /// Takes the node at `at`, and perhaps some behind it; gives the first one that is left.
    fn node(&mut self, at: usize) -> Result<usize, EngineError> {
        let node = self.nodes[at];
        let isa = self.lowering.isa;
        let len = node.output.iter().product();
        match &node.op {
            Op::Linear { .. } | Op::Conv1d { .. } | Op::Conv2d { .. } => return self.weighted(at),
            Op::MaxPool { size, stride } => self.max_pool(node, *size, *stride)?,
            Op::AvgPool { size, stride } => {
                let window = Window::new("avg_pool", &node.input, &node.output, *size, *stride, 0)?;
                self.push_floats(FloatPool { isa, kind: Kind::Mean, window, line: Vec::new() });
            }
            Op::GlobalAvgPool => {
                let Image { channels, positions } = Image::of(&node.input);
                self.push_floats(GlobalMean { channels, values: positions });
            }
            Op::BatchNorm { .. } => return Ok(self.batch_norm(at)),
            Op::GroupNorm { scale, shift, groups } => {
                self.push_floats(self.normalise(node, *scale, *shift, Some(*groups)));
            }
            Op::LayerNorm { scale, shift } => self.push_floats(self.normalise(node, *scale, *shift, None)),
            Op::Relu => self.relu(len),
            Op::Gelu => self.push_floats(Apply { isa, function: Function::Gelu, len }),
            Op::Tanh => self.push_floats(Apply { isa, function: Function::Tanh, len }),
            Op::Sigmoid => self.push_floats(Apply { isa, function: Function::Sigmoid, len }),
            Op::Sign => self.sign(at, None),
            Op::Dropout { .. } | Op::Flatten => {}
            Op::Embedding { table, positions, .. } => self.push_floats(self.embedding(node, *table, *positions)),
            Op::Gru { input_weight, input_bias, state_weight, state_bias, .. } => {
                self.push_floats(self.gru(node, (*input_weight, *input_bias), (*state_weight, *state_bias)));
            }
            Op::SelfAttention { weight, bias, out_weight, out_bias, heads, causal } => {
                self.push_floats(self.attention(node, (*weight, *bias), (*out_weight, *out_bias), *heads, *causal));
            }
            Op::Residual(nodes) => {
                let steps = self.lowering.list(nodes)?;
                self.push_floats(Residual { steps, len, saved: Vec::new() });
            }
        }
        Ok(at + 1)
    }

    /// A linear layer or a convolution, with what it takes on.
    fn weighted(&mut self, at: usize) -> Result<usize, EngineError> {
        let (tensors, node) = (self.lowering.tensors, self.nodes[at]);
        let form = tensors.form(node).unwrap_or(Form::Dense);
        let follow = Follow::new(tensors, &self.nodes, at);
        if self.lowering.observing {
            self.observe(node);
        }
        match (form, self.domain) {
            (Form::Integer(range), _) if !self.lowering.observing => self.integer(at, Quantiser::new(range), &follow),
            (Form::Binary, Domain::Bits { .. } | Domain::Floats { signs: true }) if !self.lowering.observing => {
                self.binary(at, &follow)
            }
            _ => self.float(at, form, &follow),
        }
    }

    fn observe(&mut self, node: &Node) {
        if let Op::Linear { weight, .. } | Op::Conv1d { weight, .. } | Op::Conv2d { weight, .. } = node.op {
            self.push(Observe { tensor: weight, len: node.input.iter().product() }, self.domain);
        }
    }

    fn max_pool(&mut self, node: &Node, size: usize, stride: usize) -> Result<(), EngineError> {
        let isa = self.lowering.isa;
        let window = Window::new("max_pool", &node.input, &node.output, size, stride, 0)?;
        match self.domain {
            Domain::Levels { quantiser, .. } => {
                let image = Some(Image::of(&node.output));
                self.push(LevelPool { isa, window }, Domain::Levels { quantiser, image });
            }
            // The largest of signs is a sign.
            domain => self.push(FloatPool { isa, kind: Kind::Max, window, line: Vec::new() }, domain),
        }
        Ok(())
    }

    fn relu(&mut self, len: usize) {
        match self.domain {
            Domain::Levels { quantiser, .. } => self.push(LevelRelu { zero: quantiser.zero, len }, self.domain),
            _ => self.push_floats(Apply { isa: self.lowering.isa, function: Function::Relu, len }),
        }
    }

    /// A normalisation that no layer took on; a sign behind it may.
    fn batch_norm(&mut self, at: usize) -> usize {
        let node = self.nodes[at];
        let norm = Norm::of(self.lowering.tensors, node).unwrap_or_else(|| Norm::none(node.output[0]));
        let signed = self.nodes.get(at + 1).is_some_and(|node| node.op == Op::Sign);
        if signed && !self.lowering.observing && taker(self.lowering.tensors, &self.nodes, at + 2).is_some() {
            let packs = self.pack(at + 1, Some(&norm));
            if packs {
                return at + 2;
            }
        }
        self.push_floats(self.affine(node, &norm));
        at + 1
    }

    fn sign(&mut self, at: usize, norm: Option<&Norm>) {
        if self.lowering.observing || !self.pack(at, norm) {
            let len = self.nodes[at].output.iter().product();
            let sign = Apply { isa: self.lowering.isa, function: Function::Sign, len };
            self.push(sign, Domain::Floats { signs: true });
        }
    }

    /// Packs the signs of floats, normalised by `norm`, for the binary layer behind the sign at `at`, if there is one.
    fn pack(&mut self, at: usize, norm: Option<&Norm>) -> bool {
        let Some((consumer, _)) = taker(self.lowering.tensors, &self.nodes, at + 1) else { return false };
        let (from, to) = (self.nodes[at], self.nodes[consumer]);
        let values: usize = from.output.iter().product();
        let channels = norm.map_or(1, |norm| norm.mean.len());
        let threshold = |channel: usize| {
            norm.map_or(Threshold::SIGN, |norm| {
                Threshold::of_affine(norm.mean[channel], norm.factor[channel], norm.shift[channel])
            })
        };
        let isa = self.lowering.isa;
        if matches!(to.op, Op::Linear { .. }) {
            let row = to.input[to.input.len() - 1];
            let rows = values / row;
            if rows > 1 && norm.is_some() {
                return false;
            }
            let thresholds = Thresholds::new((0..row).map(|index| threshold(index / (values / channels).max(1))));
            self.push(Pack { isa, thresholds, layout: Layout::Rows { rows } }, Domain::Bits { image: None });
        } else {
            let image = Image::of(&to.input);
            let channel = |index| if norm.is_some() { index } else { 0 };
            let thresholds = Thresholds::new((0..image.channels).map(|index| threshold(channel(index))));
            let layout = Layout::Image { positions: image.positions };
            self.push(Pack { isa, thresholds, layout }, Domain::Bits { image: Some(image) });
        }
        true
    }
}
