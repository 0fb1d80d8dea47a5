//! Model pruning: whole layers and residual blocks, and whole units or channels, leave the network. The layers shrink with their
//! parameters, so everything that runs them becomes faster, not only what knows sparse kernels (Li et al. 2017, "Pruning filters
//! for efficient convnets", §3; Veit et al. 2016 on residual blocks).
//!
//! What to remove is a matter of its effect on the loss: of a layer or block it can be measured on what [`remove`] leaves, since there
//! are few; of all units at once [`unit_saliency`] estimates it from one gradient (Molchanov et al. 2017, eq. 8: `|Σ w · ∂L/∂w|`).
//!
//! Batch normalisation is taken as it computes after training: by its running statistics.

mod binarise;
mod block;
mod dead;
mod follow;
mod saliency;
mod units;

use starling_spec::shape::{Network, Node, Op, infer};
use starling_spec::{Layer, SpecError, TaskKind};

pub use binarise::to_binary;
pub use block::blocks;
pub use dead::dead_units;
pub use saliency::unit_saliency;
pub use units::layers_with_units;

/// What is taken out.
#[derive(Debug, Clone, PartialEq)]
pub enum Removal {
    /// A layer or residual that keeps the shape, by its path: its position, behind those of the residuals that hold it.
    Block(Vec<usize>),
    /// Units of a linear layer or channels of a convolution.
    Units {
        /// The layer's path.
        layer: Vec<usize>,
        /// Which outputs stay.
        keep: Vec<bool>,
    },
}

/// Why a structure cannot be changed so.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StructureError {
    /// The layers, before or after, describe no network.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The change does not apply to a layer.
    #[error("model.layers[{index}] ({layer}): {problem}")]
    Layer {
        /// The layer's path, dotted.
        index: String,
        /// The layer's key.
        layer: String,
        /// Why not, and what could be done instead.
        problem: String,
    },
    /// There is no such layer.
    #[error("model.layers[{0}]: there is no such layer")]
    Path(String),
    /// The change does not apply to the network.
    #[error("{0}")]
    Network(String),
}

/// The layers and the parameters without what `removal` names. Where removed units had a constant output (all their weights are
/// zero), it goes into the next layer's bias.
///
/// # Errors
/// [`StructureError`] says in words why it does not apply.
///
/// # Panics
/// If `parameters` are not those of the layers.
pub fn remove(
    kind: TaskKind,
    shape: &[usize],
    layers: &[Layer],
    parameters: &[f32],
    removal: &Removal,
) -> Result<(Vec<Layer>, Vec<f32>), StructureError> {
    let network = infer(kind, shape, layers)?;
    assert_eq!(parameters.len(), network.manifest.len(), "the parameters of the layers");
    let (layers, parameters) = match removal {
        Removal::Block(path) => block::remove(&network, layers, parameters, path)?,
        Removal::Units { layer, keep } => units::remove(&network, layers, parameters, layer, keep)?,
    };
    let smaller = infer(kind, shape, &layers)?;
    assert_eq!(smaller.manifest.len(), parameters.len(), "what is left fits the layers that are left");
    Ok((layers, parameters))
}

/// A path as messages say it.
fn dotted(path: &[usize]) -> String {
    path.iter().map(usize::to_string).collect::<Vec<_>>().join(".")
}

/// The list that holds the layer at `path`, and its node.
fn find<'a>(network: &'a Network, layers: &'a [Layer], path: &[usize]) -> Result<Found<'a>, StructureError> {
    let missing = || StructureError::Path(dotted(path));
    let (last, outer) = path.split_last().ok_or_else(missing)?;
    let (mut nodes, mut list) = (&network.nodes[..], layers);
    for position in outer {
        match (nodes.get(*position).map(|node| &node.op), list.get(*position)) {
            (Some(Op::Residual(inner)), Some(Layer::Residual(residual))) => (nodes, list) = (inner, &residual.layers),
            _ => return Err(missing()),
        }
    }
    let (node, layer) = nodes.get(*last).zip(list.get(*last)).ok_or_else(missing)?;
    Ok(Found { nodes, layers: list, position: *last, node, layer })
}

/// A layer in its list.
struct Found<'a> {
    nodes: &'a [Node],
    layers: &'a [Layer],
    position: usize,
    node: &'a Node,
    layer: &'a Layer,
}

impl Found<'_> {
    fn error(&self, path: &[usize], problem: impl Into<String>) -> StructureError {
        StructureError::Layer { index: dotted(path), layer: self.layer.key().into(), problem: problem.into() }
    }
}

/// The list that the last step of a path points into, to be changed.
fn list_mut<'a>(layers: &'a mut Vec<Layer>, outer: &[usize]) -> Option<&'a mut Vec<Layer>> {
    match outer.split_first() {
        None => Some(layers),
        Some((position, rest)) => match layers.get_mut(*position)? {
            Layer::Residual(residual) => list_mut(&mut residual.layers, rest),
            _ => None,
        },
    }
}

/// The manifest's tensors that `op` computes with.
fn tensors(op: &Op, found: &mut Vec<usize>) {
    match op {
        Op::Linear { weight, bias, .. } | Op::Conv1d { weight, bias, .. } | Op::Conv2d { weight, bias, .. } => {
            found.push(*weight);
            found.extend(bias);
        }
        Op::BatchNorm { scale, shift, mean, variance } => found.extend([*scale, *shift, *mean, *variance]),
        Op::GroupNorm { scale, shift, .. } | Op::LayerNorm { scale, shift } => found.extend([*scale, *shift]),
        Op::Embedding { table, positions, .. } => {
            found.push(*table);
            found.extend(positions);
        }
        Op::Gru { input_weight, input_bias, state_weight, state_bias, .. } => {
            found.extend([*input_weight, *input_bias, *state_weight, *state_bias]);
        }
        Op::SelfAttention { weight, bias, out_weight, out_bias, .. } => {
            found.extend([*weight, *bias, *out_weight, *out_bias]);
        }
        Op::Residual(nodes) => nodes.iter().for_each(|node| tensors(&node.op, found)),
        Op::MaxPool { .. } | Op::AvgPool { .. } | Op::GlobalAvgPool | Op::Relu | Op::Gelu | Op::Tanh | Op::Sigmoid => {}
        Op::Sign | Op::Dropout { .. } | Op::Flatten => {}
    }
}

#[cfg(test)]
mod tests;
