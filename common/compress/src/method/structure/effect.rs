//! What a removal would cost.

use starling_spec::shape::{Network, Node, Op, infer};
use starling_spec::{Layer, TaskKind};

use super::block::check;
use super::follow::follow;
use super::units::followed;
use super::{Removal, StructureError, find, tensors};
use crate::map::Probe;
use crate::method::prune::output_difference;

/// What a removal does to the network, on the probe's data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effect {
    /// By how much the mean loss rises; below 0 it falls.
    pub loss: f64,
    /// By how much the outputs move: `1/N Σ‖y − ŷ‖²` over all output values.
    pub output: f64,
}

/// The effect of each of `removals` on its own. One that a network of the same layers cannot imitate has an error in words.
///
/// # Errors
/// The probe's.
///
/// # Panics
/// If `parameters` are not those of the layers.
pub fn effects(
    probe: &mut dyn Probe,
    kind: TaskKind,
    shape: &[usize],
    layers: &[Layer],
    parameters: &[f32],
    removals: &[Removal],
) -> Result<Vec<Result<Effect, StructureError>>, String> {
    let mut gradient = vec![0.0; parameters.len()];
    let whole = probe.loss_gradient(parameters, &mut gradient)?;
    let mut effects = Vec::with_capacity(removals.len());
    for removal in removals {
        effects.push(match without(kind, shape, layers, parameters, removal) {
            Err(error) => Err(error),
            Ok(rest) => {
                let loss = probe.loss_gradient(&rest, &mut gradient)? - whole;
                Ok(Effect { loss, output: output_difference(probe, parameters, &rest)? })
            }
        });
    }
    Ok(effects)
}

/// Parameters with which the network **as it is** computes what it would without `removal`: a residual's last weights are zero, a
/// layer's weights the identity, nobody listens to a removed unit. Constant outputs of removed units are not added to a bias.
///
/// # Errors
/// [`StructureError`] where the removal does not apply, or where no parameters do that; remove it then, and measure what is left.
///
/// # Panics
/// If `parameters` are not those of the layers.
pub fn without(
    kind: TaskKind,
    shape: &[usize],
    layers: &[Layer],
    parameters: &[f32],
    removal: &Removal,
) -> Result<Vec<f32>, StructureError> {
    let network = infer(kind, shape, layers)?;
    assert_eq!(parameters.len(), network.manifest.len(), "the parameters of the layers");
    let mut rest = parameters.to_vec();
    match removal {
        Removal::Units { layer, keep } => {
            let consumer = followed(&network, layers, parameters, layer, keep)?.consumer;
            let found = find(&network, layers, layer)?;
            if consumer.binary {
                return Err(found.error(layer, "the binary layer after it has no weight that is zero"));
            }
            consumer.slices.each(&network, |index, slice| {
                if !keep[consumer.slices.owners[slice]] {
                    rest[index] = 0.0;
                }
            });
        }
        Removal::Block(path) => {
            check(&network, layers, path)?;
            let found = find(&network, layers, path)?;
            let imitated = match &found.node.op {
                Op::Residual(nodes) => silence(&network, nodes, &mut rest),
                op => identity(&network, op, &mut rest),
            };
            if !imitated {
                return Err(
                    found.error(path, "no weights of it compute what remains without it; remove it and measure that")
                );
            }
        }
    }
    Ok(rest)
}

/// Makes a residual's branch give zeros; false when its end cannot.
fn silence(network: &Network, nodes: &[Node], rest: &mut [f32]) -> bool {
    for node in nodes.iter().rev() {
        match &node.op {
            // Of zeros these make zeros.
            Op::Relu | Op::Gelu | Op::Tanh | Op::Dropout { .. } | Op::Flatten => {}
            Op::MaxPool { .. } | Op::AvgPool { .. } | Op::GlobalAvgPool => {}
            Op::Linear { binary: false, .. } | Op::Conv1d { binary: false, .. } | Op::Conv2d { binary: false, .. } => {
                return zero(network, &node.op, rest);
            }
            // Scale and shift, or the output's projection, make its outputs; the statistics stay.
            Op::BatchNorm { scale, shift, .. }
            | Op::GroupNorm { scale, shift, .. }
            | Op::LayerNorm { scale, shift } => {
                return zero_tensors(network, &[*scale, *shift], rest);
            }
            Op::SelfAttention { out_weight, out_bias, .. } => {
                return zero_tensors(network, &[*out_weight, *out_bias], rest);
            }
            // Binary weights have signs even at zero, but their scale is then zero.
            Op::Linear { .. } | Op::Conv1d { .. } | Op::Conv2d { .. } => return zero(network, &node.op, rest),
            _ => return false,
        }
    }
    false
}

fn zero(network: &Network, op: &Op, rest: &mut [f32]) -> bool {
    let mut found = Vec::new();
    tensors(op, &mut found);
    zero_tensors(network, &found, rest)
}

fn zero_tensors(network: &Network, tensors: &[usize], rest: &mut [f32]) -> bool {
    for tensor in tensors {
        rest[network.manifest.tensors[*tensor].range()].fill(0.0);
    }
    true
}

/// Makes a shape-keeping layer give what it takes; false when it cannot.
fn identity(network: &Network, op: &Op, rest: &mut [f32]) -> bool {
    let (weight, grouped) = match op {
        Op::Linear { weight, binary: false, .. } | Op::Conv1d { weight, binary: false, .. } => (*weight, false),
        Op::Conv2d { weight, binary: false, groups, .. } => (*weight, *groups > 1),
        _ => return false,
    };
    zero(network, op, rest);
    let tensor = &network.manifest.tensors[weight];
    // The middle of a kernel; a convolution that keeps the shape has an odd one, and a step of 1.
    let kernel: usize = tensor.shape.get(2..).map_or(1, |sides| sides.iter().product());
    let outputs = tensor.shape[0];
    for unit in 0..outputs {
        let row = if grouped { unit } else { unit * tensor.shape[1] + unit };
        rest[tensor.offset + row * kernel + kernel / 2] = 1.0;
    }
    true
}

/// The first-order estimate of what each unit of the layer at `path` is worth: `|Σ w · ∂L/∂w|` over its weights and its bias, with
/// the flat gradient of the loss.
///
/// # Errors
/// [`StructureError`] when its units cannot be removed.
///
/// # Panics
/// If `parameters` or `gradient` are not those of the layers.
pub fn unit_saliency(
    kind: TaskKind,
    shape: &[usize],
    layers: &[Layer],
    parameters: &[f32],
    gradient: &[f32],
    path: &[usize],
) -> Result<Vec<f64>, StructureError> {
    let network = infer(kind, shape, layers)?;
    assert_eq!(parameters.len(), network.manifest.len(), "the parameters of the layers");
    assert_eq!(gradient.len(), parameters.len(), "a gradient of all parameters");
    let followed = follow(&network, layers, parameters, path)?;
    let found = find(&network, layers, path)?;
    let mut own = Vec::new();
    tensors(&found.node.op, &mut own);
    let mut sums = vec![0f64; followed.units];
    for slices in followed.slices.iter().filter(|slices| own.contains(&slices.tensor)) {
        slices.each(&network, |index, slice| {
            sums[slices.owners[slice]] += f64::from(parameters[index]) * f64::from(gradient[index]);
        });
    }
    Ok(sums.into_iter().map(f64::abs).collect())
}
