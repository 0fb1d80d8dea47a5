//! What a release costs to run, whichever kernels run it.

use starling_compress::Release;
use starling_spec::shape::{Node, Op};

use crate::check::check;
use crate::error::EngineError;

/// The multiply-accumulates of one sample. Only weights that are kept count, once for each place where
/// they are used; convolutions count zeros of their padding. The products of attention count for what a position sees.
///
/// # Errors
/// [`EngineError`] as [`Engine::new`](crate::Engine::new).
pub fn multiply_accumulates(release: &Release) -> Result<u64, EngineError> {
    let network = check(release)?;
    let kept: Vec<u64> = release.tensors.iter().map(|tensor| tensor.values.len() as u64).collect();
    Ok(nodes(&network.nodes, &kept))
}

fn nodes(nodes: &[Node], kept: &[u64]) -> u64 {
    nodes.iter().fold(0, |sum, next| sum.saturating_add(node(next, kept)))
}

fn node(node: &Node, kept: &[u64]) -> u64 {
    let places = |axes: &[usize]| axes.iter().product::<usize>() as u64;
    match &node.op {
        Op::Linear { weight, .. } => kept[*weight].saturating_mul(places(&node.input[..node.input.len() - 1])),
        Op::Conv1d { weight, .. } | Op::Conv2d { weight, .. } => {
            kept[*weight].saturating_mul(places(&node.output[1..]))
        }
        Op::Gru { input_weight, state_weight, .. } => {
            (kept[*input_weight].saturating_add(kept[*state_weight])).saturating_mul(node.input[0] as u64)
        }
        Op::SelfAttention { weight, out_weight, causal, .. } => {
            let (positions, features) = (node.input[0] as u64, node.input[1] as u64);
            let seen = if *causal { positions * (positions + 1) / 2 } else { positions * positions };
            let projected = (kept[*weight].saturating_add(kept[*out_weight])).saturating_mul(positions);
            projected.saturating_add(seen.saturating_mul(2 * features))
        }
        Op::Residual(inner) => nodes(inner, kept),
        _ => 0,
    }
}
