//! What makes a trained network smaller or faster: each method is a function over the network, its flat parameters and, where
//! it goes by an effect, gradients or outputs that its caller has measured on calibration data. None of them trains.
//!
//! | module | what it does | source |
//! | --- | --- | --- |
//! | [`prune`] | zeroes weights and keeps them at zero | Han et al. 2015; Lee et al. 2021; Molchanov et al. 2017 |
//! | [`sensitivity`] | shares of layers by how far cutting each one moves the outputs | Han et al. 2015, §5 |
//! | [`quantise`] | fixed point, integers, halves | Jacob et al. 2018; Krishnamoorthi 2018 |
//! | [`codebook`] | shares a few values among all weights | Han, Mao, Dally 2016, §3 |
//! | [`binary`] | one sign a weight and one scale an output | Rastegari et al. 2016 |
//! | [`structure`] | removes layers, units and channels; makes a network binary | Li et al. 2017; Molchanov et al. 2017 |

pub mod binary;
pub mod codebook;
pub mod prune;
pub mod quantise;
pub mod sensitivity;
pub mod structure;

use starling_spec::shape::{Network, Node, Op};

/// The weight of a linear layer or a convolution: its place in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weight {
    /// The index of its tensor.
    pub(crate) tensor: usize,
    /// The index of its bias.
    pub(crate) bias: Option<usize>,
    /// Whether its layer computes with signs.
    pub(crate) binary: bool,
}

/// The weights of all linear layers and convolutions, those inside residuals included, in the manifest's order.
pub(crate) fn weights(network: &Network) -> Vec<Weight> {
    fn walk(nodes: &[Node], found: &mut Vec<Weight>) {
        for node in nodes {
            match &node.op {
                Op::Linear { weight, bias, binary }
                | Op::Conv1d { weight, bias, binary, .. }
                | Op::Conv2d { weight, bias, binary, .. } => {
                    found.push(Weight { tensor: *weight, bias: *bias, binary: *binary });
                }
                Op::Residual(nodes) => walk(nodes, found),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(&network.nodes, &mut found);
    found
}

#[cfg(test)]
mod tests;
