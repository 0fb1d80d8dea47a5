//! Which kernel a weight tensor gets.

use std::borrow::Cow;

use starling_compress::{Compressed, InputRange, Release, Values};
use starling_spec::shape::{Network, Node, Op};

use crate::error::EngineError;
use crate::weights::Weights;

/// Shares of kept weights below which a layer runs sparse, in floats: where its other choice is a dense float kernel, and where
/// it is an integer one, which is several times as fast. They are the same on every processor, since outputs hang on them.
struct SparseBelow {
    floats: f64,
    integers: f64,
}

/// Measured at 784 × 300 and 800 × 500: a kept weight costs as much as 5 to 10 floats and 20 to 30 integers.
const LINEAR: SparseBelow = SparseBelow { floats: 0.2, integers: 0.05 };

/// Measured at 20 × 50 channels of 12 × 12 and a kernel of 5: sparse convolutions skip taps, not values, and stay in vectors.
const CONVOLUTION: SparseBelow = SparseBelow { floats: 0.5, integers: 0.2 };

/// Sums of so many products of 255 and 128 fit into 32 bits.
const INTEGER_INPUTS_MAX: usize = i32::MAX as usize / (255 * 128);

/// How a layer computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Form {
    /// In floats, with all weights.
    Dense,
    /// In floats, with the weights that are kept.
    Sparse,
    /// With integer levels of this range.
    Integer(InputRange),
    /// With signs, where signs come in; in floats otherwise.
    Binary,
}

/// The tensors of a release, as its layers use them.
pub(crate) struct Tensors<'a> {
    network: &'a Network,
    inputs: &'a [Option<InputRange>],
    tensors: Vec<Cow<'a, Compressed>>,
}

impl<'a> Tensors<'a> {
    /// Weights of binary layers that are not written as signs yet become `α sign(W)`, α the mean magnitude of an output.
    pub(crate) fn new(release: &'a Release, network: &'a Network) -> Result<Self, EngineError> {
        let tensors = release.tensors.iter().map(Cow::Borrowed).collect();
        let mut own = Self { network, inputs: &release.inputs, tensors };
        own.binarise(&network.nodes)?;
        Ok(own)
    }

    fn binarise(&mut self, nodes: &[Node]) -> Result<(), EngineError> {
        for node in nodes {
            match node.op {
                Op::Linear { weight, binary: true, .. }
                | Op::Conv1d { weight, binary: true, .. }
                | Op::Conv2d { weight, binary: true, .. } => {
                    let weights = self.weights(weight);
                    if weights.compressed().kept.is_some() {
                        let problem =
                            "pruned weights of a binary layer, where 0 would count as +1; keep all".to_owned();
                        return Err(EngineError::Tensor { tensor: weights.name().into(), problem });
                    }
                    if !matches!(weights.compressed().values, Values::Binary { .. }) {
                        let signs = weights.signs();
                        self.tensors[weight] = Cow::Owned(signs);
                    }
                }
                Op::Residual(ref nodes) => self.binarise(nodes)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The tensor of this index.
    pub(crate) fn weights(&self, tensor: usize) -> Weights<'_> {
        Weights::new(&self.network.manifest.tensors[tensor], &self.tensors[tensor])
    }

    /// Its values, or zeros when there is no tensor.
    pub(crate) fn values(&self, tensor: Option<usize>, len: usize) -> Vec<f32> {
        tensor.map_or_else(|| vec![0.0; len], |tensor| self.weights(tensor).dense())
    }

    /// Whether so few of a matrix's weights are kept that they are multiplied one by one.
    pub(crate) fn is_sparse(&self, tensor: usize) -> bool {
        self.share(tensor) < LINEAR.floats
    }

    /// The share of weights that are not 0.
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    fn share(&self, tensor: usize) -> f64 {
        let weights = self.weights(tensor);
        weights.nonzero() as f64 / weights.len() as f64
    }

    /// How a linear layer or a convolution computes; `None` for any other layer.
    pub(crate) fn form(&self, node: &Node) -> Option<Form> {
        let (weight, sparse_below, ungrouped) = match &node.op {
            Op::Linear { weight, .. } => (*weight, LINEAR, true),
            Op::Conv1d { weight, .. } => (*weight, CONVOLUTION, true),
            Op::Conv2d { weight, groups, .. } => (*weight, CONVOLUTION, *groups == 1),
            _ => return None,
        };
        let weights = self.weights(weight);
        if ungrouped && matches!(weights.compressed().values, Values::Binary { .. }) {
            return Some(Form::Binary);
        }
        let share = self.share(weight);
        let levels = weights.levels().is_some() && weights.fan_in() <= INTEGER_INPUTS_MAX;
        match self.inputs[weight] {
            Some(range) if ungrouped && levels && share >= sparse_below.integers => Some(Form::Integer(range)),
            _ if share < sparse_below.floats => Some(Form::Sparse),
            _ => Some(Form::Dense),
        }
    }
}
