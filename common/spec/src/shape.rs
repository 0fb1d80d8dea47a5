//! Shape inference: from the shape of a sample and a list of layers to a network with every size and every parameter known.
//!
//! A plan comes from a peer, so everything here is bounded before it is believed: layers, nesting, values of an activation,
//! parameters (invariant 8). All products are checked.

mod inference;

use crate::error::SpecError;
use crate::layer::Layer;
use crate::manifest::ParamManifest;
use crate::task::TaskKind;

use self::inference::{Inference, product};

/// Layers of a network, those inside residuals included. ResNet-152 has about 500.
pub const LAYERS_MAX: usize = 1024;

/// Residuals inside residuals.
pub const DEPTH_MAX: usize = 8;

/// Values of one activation of one sample: 2²⁶ take 256 MiB, and training keeps several.
pub const ACTIVATION_MAX: usize = 1 << 26;

/// Parameters of a network: the same 2³⁰ that the protocol allows.
pub const PARAMETERS_MAX: usize = 1 << 30;

/// A network with all sizes known.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// What it learns.
    pub kind: TaskKind,
    /// The shape of one sample.
    pub input: Vec<usize>,
    /// Its layers, in order.
    pub nodes: Vec<Node>,
    /// The shape of its output for one sample: `[classes]`, `[1]` for a regression, `[positions, tokens]` for a text.
    pub output: Vec<usize>,
    /// Its parameters.
    pub manifest: ParamManifest,
}

/// One layer with its sizes; shapes leave out the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// The shape that goes in.
    pub input: Vec<usize>,
    /// The shape that comes out.
    pub output: Vec<usize>,
}

/// What a layer computes. Parameters are indices into the manifest's tensors.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    missing_docs,
    reason = "the fields are the settings of the layer of the same name, or tensors named by their role"
)]
pub enum Op {
    /// `x W + b`, the weight is `[in, out]`; with `binary`, W stands for `α sign(W)`, α a value an output.
    Linear {
        weight: usize,
        bias: Option<usize>,
        binary: bool,
    },
    /// The weight is `[out, in, kernel]`.
    Conv1d {
        weight: usize,
        bias: Option<usize>,
        stride: usize,
        padding: usize,
        binary: bool,
    },
    /// The weight is `[out, in / groups, kernel, kernel]`.
    Conv2d {
        weight: usize,
        bias: Option<usize>,
        stride: usize,
        padding: usize,
        groups: usize,
        binary: bool,
    },
    /// Over the last one or two axes.
    MaxPool {
        size: usize,
        stride: usize,
    },
    /// Over the last one or two axes.
    AvgPool {
        size: usize,
        stride: usize,
    },
    /// Over all axes but the first.
    GlobalAvgPool,
    /// All four are `[channels]`; the last two are statistics.
    BatchNorm {
        scale: usize,
        shift: usize,
        mean: usize,
        variance: usize,
    },
    /// Both are `[channels]`.
    GroupNorm {
        scale: usize,
        shift: usize,
        groups: usize,
    },
    /// Both are `[last axis]`.
    LayerNorm {
        scale: usize,
        shift: usize,
    },
    Relu,
    Gelu,
    Tanh,
    Sigmoid,
    Sign,
    /// `stream` tells the masks of this layer from those of the others.
    Dropout {
        probability: f64,
        stream: u64,
    },
    Flatten,
    /// The table is `[tokens, features]`, positions are `[positions, features]`.
    Embedding {
        table: usize,
        positions: Option<usize>,
        tokens: usize,
    },
    /// Weights are `[in, 3 state]` and `[state, 3 state]`, biases `[3 state]`; the thirds are reset, update and candidate.
    Gru {
        input_weight: usize,
        input_bias: usize,
        state_weight: usize,
        state_bias: usize,
        state: usize,
    },
    /// The first weight is `[features, 3 features]` (query, key, value), the second `[features, features]`.
    SelfAttention {
        weight: usize,
        bias: usize,
        out_weight: usize,
        out_bias: usize,
        heads: usize,
        causal: bool,
    },
    /// `x + f(x)`.
    Residual(Vec<Node>),
}

/// The network of `layers` for samples of the shape `sample_shape`.
///
/// # Errors
/// [`SpecError::Layer`] names the layer that does not fit and the shape that reached it.
pub fn infer(kind: TaskKind, sample_shape: &[usize], layers: &[Layer]) -> Result<Network, SpecError> {
    let values = product(sample_shape).filter(|values| (1..=ACTIVATION_MAX).contains(values));
    if sample_shape.len() > 3 || sample_shape.is_empty() || values.is_none() {
        let expected = format!("expected one to three sizes above 0 with a product of at most {ACTIVATION_MAX}");
        return Err(SpecError::value("data.shape", format!("{sample_shape:?}"), expected));
    }
    if layers.is_empty() {
        return Err(SpecError::value("model.layers", "[]", "expected at least one layer"));
    }
    let mut inference = Inference::default();
    let nodes = inference.list(sample_shape, layers)?;
    let manifest = inference.manifest;
    let output = nodes.last().map_or_else(|| sample_shape.to_vec(), |node| node.output.clone());
    let fits = match kind {
        TaskKind::Classification => output.len() == 1 && output[0] >= 2,
        TaskKind::Regression => output == [1],
        TaskKind::NextToken => output.len() == 2 && output[0] == sample_shape[0] && output[1] >= 2,
    };
    if !fits {
        let wanted = match kind {
            TaskKind::Classification => "a classification needs [classes], at least 2",
            TaskKind::Regression => "a regression needs [1]",
            TaskKind::NextToken => "a next-token task needs [context, tokens]",
        };
        let last = layers.last().map_or("", Layer::key);
        let problem = format!("the network ends in the shape {output:?}; {wanted}");
        return Err(SpecError::Layer { index: (layers.len() - 1).to_string(), layer: last.into(), problem });
    }
    if manifest.is_empty() {
        return Err(SpecError::value("model.layers", "…", "the network has no parameters to learn"));
    }
    Ok(Network { kind, input: sample_shape.to_vec(), nodes, output, manifest })
}

#[cfg(test)]
mod tests;
