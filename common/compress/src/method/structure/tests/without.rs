//! The oracle of removals: the network as it is, with weights at which it computes what it would without something.

use starling_spec::shape::{Network, Node, Op, infer};
use starling_spec::{Layer, TaskKind};

use super::super::units::followed;
use super::super::{Removal, find, tensors};

/// Parameters with which a residual's last weights are zero, a layer's weights the identity, or nobody listens to a removed unit.
/// Constant outputs of removed units are not added to a bias.
pub(super) fn without(
    kind: TaskKind,
    shape: &[usize],
    layers: &[Layer],
    parameters: &[f32],
    removal: &Removal,
) -> Vec<f32> {
    let network = infer(kind, shape, layers).expect("a network");
    let mut rest = parameters.to_vec();
    match removal {
        Removal::Units { layer, keep } => {
            let consumer = followed(&network, layers, parameters, layer, keep).expect("units that can go").consumer;
            consumer.slices.each(&network, |index, slice| {
                if !keep[consumer.slices.owners[slice]] {
                    rest[index] = 0.0;
                }
            });
        }
        Removal::Block(path) => match &find(&network, layers, path).expect("a layer").node.op {
            Op::Residual(nodes) => silence(&network, nodes, &mut rest),
            op => identity(&network, op, &mut rest),
        },
    }
    rest
}

/// Makes a residual's branch give zeros: by its last layer that can.
fn silence(network: &Network, nodes: &[Node], rest: &mut [f32]) {
    for node in nodes.iter().rev() {
        match &node.op {
            // Of zeros it makes zeros.
            Op::Relu => {}
            Op::Linear { .. } | Op::Conv2d { .. } => return zero(network, &node.op, rest),
            // Scale and shift make its outputs; the statistics stay.
            Op::BatchNorm { scale, shift, .. } => return zero_tensors(network, &[*scale, *shift], rest),
            op => unreachable!("{op:?} ends no branch here"),
        }
    }
}

fn zero(network: &Network, op: &Op, rest: &mut [f32]) {
    let mut found = Vec::new();
    tensors(op, &mut found);
    zero_tensors(network, &found, rest);
}

fn zero_tensors(network: &Network, tensors: &[usize], rest: &mut [f32]) {
    for tensor in tensors {
        rest[network.manifest.tensors[*tensor].range()].fill(0.0);
    }
}

/// Makes a shape-keeping linear layer or convolution give what it takes.
fn identity(network: &Network, op: &Op, rest: &mut [f32]) {
    let (Op::Linear { weight, .. } | Op::Conv2d { weight, groups: 1, .. }) = op else {
        unreachable!("{op:?} is removed nowhere here")
    };
    zero(network, op, rest);
    let tensor = &network.manifest.tensors[*weight];
    // The middle of a kernel; a convolution that keeps the shape has an odd one, and a step of 1.
    let kernel: usize = tensor.shape.get(2..).map_or(1, |sides| sides.iter().product());
    for unit in 0..tensor.shape[0] {
        rest[tensor.offset + (unit * tensor.shape[1] + unit) * kernel + kernel / 2] = 1.0;
    }
}
