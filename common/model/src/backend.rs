//! Which of burn's CPU backends computes a network.

use burn::tensor::Device;
use starling_spec::Backend;
use starling_spec::shape::{Node, Op};

/// The backend that trains the network's graphs and the one that evaluates them, `Auto` resolved from the figures of
/// `docs/decisions/0002-burn-backends.md`.
pub(crate) fn choose(asked: Backend, nodes: &[Node]) -> (Backend, Backend) {
    match asked {
        Backend::Auto if dense(nodes) => (Backend::Ndarray, Backend::Flex),
        Backend::Auto => (Backend::Flex, Backend::Flex),
        given => (given, given),
    }
}

/// The device of a backend, without gradients.
#[allow(
    deprecated,
    reason = "burn calls burn-ndarray deprecated in favour of flex; it trains dense networks faster, so both are kept"
)]
pub(crate) fn device(backend: Backend) -> Device {
    match backend {
        Backend::Ndarray => Device::ndarray(),
        Backend::Flex | Backend::Auto => Device::flex(),
    }
}

/// Whether matrix products with element-wise layers are all there is.
fn dense(nodes: &[Node]) -> bool {
    nodes.iter().all(|node| match &node.op {
        Op::Linear { .. }
        | Op::Relu
        | Op::Gelu
        | Op::Tanh
        | Op::Sigmoid
        | Op::Sign
        | Op::Dropout { .. }
        | Op::Flatten => true,
        Op::Residual(inner) => dense(inner),
        _ => false,
    })
}
