//! What follows a layer and can be done while its outputs are still at hand.

use starling_spec::shape::{Node, Op};

use super::form::{Form, Tensors};
use crate::kernel::integer::Quantiser;
use crate::step::norm::EPSILON;

/// `(value − mean) · factor + shift`, a value a channel: a batch normalisation by its running statistics.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub(crate) mean: Vec<f64>,
    pub(crate) factor: Vec<f64>,
    pub(crate) shift: Vec<f64>,
}

impl Norm {
    /// The batch normalisation of `node`, if it is one. A running variance below 0 counts as 0.
    pub(crate) fn of(tensors: &Tensors<'_>, node: &Node) -> Option<Self> {
        let Op::BatchNorm { scale, shift, mean, variance } = node.op else { return None };
        let wide = |tensor| tensors.weights(tensor).dense().into_iter().map(f64::from).collect::<Vec<_>>();
        let pairs = wide(scale).into_iter().zip(wide(variance));
        let factor = pairs.map(|(scale, variance)| scale / (variance.max(0.0) + EPSILON).sqrt());
        Some(Self { factor: factor.collect(), mean: wide(mean), shift: wide(shift) })
    }

    /// The identity.
    pub(crate) fn none(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], factor: vec![1.0; channels], shift: vec![0.0; channels] }
    }

    /// The normalised `value` of a channel.
    pub(crate) fn apply(&self, channel: usize, value: f64) -> f64 {
        (value - self.mean[channel]) * self.factor[channel] + self.shift[channel]
    }
}

/// What a layer takes on.
pub(crate) struct Follow {
    /// Its normalisation, or the identity.
    pub(crate) norm: Norm,
    pub(crate) relu: bool,
    /// The first node that it does not take on.
    pub(crate) next: usize,
}

impl Follow {
    /// What follows the layer at `at`. A normalisation goes by channels, which are the outputs of a linear layer only when it
    /// gives one row.
    pub(crate) fn new(tensors: &Tensors<'_>, nodes: &[&Node], at: usize) -> Self {
        let node = nodes[at];
        let linear = matches!(node.op, Op::Linear { .. });
        let channels = if linear { node.output[node.output.len() - 1] } else { node.output[0] };
        let mut next = at + 1;
        let following = nodes.get(next).filter(|_| !linear || node.output.len() == 1);
        let norm = following.and_then(|node| Norm::of(tensors, node));
        next += usize::from(norm.is_some());
        let relu = nodes.get(next).is_some_and(|node| node.op == Op::Relu);
        Self { norm: norm.unwrap_or_else(|| Norm::none(channels)), relu, next: next + usize::from(relu) }
    }
}

/// How the positions and channels of a form with channels last lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Image {
    pub(crate) channels: usize,
    pub(crate) positions: usize,
}

impl Image {
    /// Of an activation of channels first.
    pub(crate) fn of(shape: &[usize]) -> Self {
        Self { channels: shape[0], positions: shape[1..].iter().product() }
    }
}

/// The levels that the layer at `at` can give at once: those of the next layer, when that computes with integers and nothing
/// but pools of the largest, ReLUs and a change of shape lies between, all of which keep the order of levels.
pub(crate) fn levels_wanted(tensors: &Tensors<'_>, nodes: &[&Node], at: usize, next: usize) -> Option<Quantiser> {
    let convolution = !matches!(nodes[at].op, Op::Linear { .. });
    let mut flat = nodes[at].output.len() == 1;
    for node in &nodes[next..] {
        match node.op {
            Op::Relu => {}
            Op::MaxPool { .. } if convolution => {}
            Op::Flatten => flat = true,
            _ => {
                let Some(Form::Integer(range)) = tensors.form(node) else { return None };
                let linear = matches!(node.op, Op::Linear { .. });
                let fits = if convolution { linear == flat } else { linear };
                return fits.then(|| Quantiser::new(range));
            }
        }
    }
    None
}

/// Whether the layer at `at` can give signs at once: its next node is a sign, and the layer behind that takes them in the
/// order in which they come.
pub(crate) fn bits_wanted(tensors: &Tensors<'_>, nodes: &[&Node], at: usize, next: usize) -> bool {
    let convolution = !matches!(nodes[at].op, Op::Linear { .. });
    if nodes.get(next).is_none_or(|node| node.op != Op::Sign) || (!convolution && nodes[at].output.len() != 1) {
        return false;
    }
    let Some((consumer, flattened)) = taker(tensors, nodes, next + 1) else { return false };
    let linear = matches!(nodes[consumer].op, Op::Linear { .. });
    if convolution { linear == flattened } else { linear }
}

/// The binary layer that takes the signs that come to `next`, and whether they are flattened before.
pub(crate) fn taker(tensors: &Tensors<'_>, nodes: &[&Node], next: usize) -> Option<(usize, bool)> {
    let count = nodes.get(next..)?.iter().take_while(|node| node.op == Op::Flatten).count();
    let consumer = nodes.get(next + count)?;
    (tensors.form(consumer) == Some(Form::Binary)).then_some((next + count, count > 0))
}
