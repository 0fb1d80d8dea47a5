//! What a plan itself puts between the parameters that travel and those that its network computes with: pruned weights that stay
//! zero, integers, signs.

use std::borrow::Cow;
use std::ops::Range;

use starling_compress::WeightMap;
use starling_compress::method::binary::Binarised;
use starling_compress::method::prune::Mask;
use starling_compress::method::quantise::FakeQuantised;
use starling_spec::WeightForm;
use starling_spec::shape::{Network, Node, Op};

/// The maps of a network whatever its parameters are.
#[derive(Debug)]
pub(crate) struct Forms {
    integers: Option<FakeQuantised>,
    signs: Option<Binarised>,
    /// Where the weights of binary layers lie in the flat vector.
    binary: Vec<Range<usize>>,
}

impl Forms {
    /// The forms of `network` when its plan asks for `weights`.
    pub(crate) fn new(network: &Network, weights: WeightForm) -> Self {
        let mut tensors = Vec::new();
        binary(&network.nodes, &mut tensors);
        let binary: Vec<_> = tensors.into_iter().map(|index| network.manifest.tensors[index].range()).collect();
        let integers = match weights {
            WeightForm::Integer(bits) => Some(FakeQuantised::new(network, bits)),
            WeightForm::Free | WeightForm::Pruned => None,
        };
        Self { integers, signs: (!binary.is_empty()).then(|| Binarised::new(network)), binary }
    }

    /// The maps in the order in which they act.
    pub(crate) fn maps(&self) -> Vec<&dyn WeightMap> {
        let integers = self.integers.as_ref().map(|map| map as &dyn WeightMap);
        integers.into_iter().chain(self.signs.as_ref().map(|map| map as &dyn WeightMap)).collect()
    }

    /// What the network computes with when its parameters are `free`.
    pub(crate) fn computed<'a>(&self, free: &'a [f32]) -> Cow<'a, [f32]> {
        let mut computed = Cow::Borrowed(free);
        for map in self.maps() {
            let mut next = vec![0.0; free.len()];
            map.forward(&computed, &mut next);
            computed = Cow::Owned(next);
        }
        computed
    }

    /// Turns the gradient by what the network computes with into that by `free`.
    pub(crate) fn backward(&self, free: &[f32], gradient: &mut [f32]) {
        match (&self.integers, &self.signs) {
            (Some(integers), Some(signs)) => {
                let mut between = vec![0.0; free.len()];
                integers.forward(free, &mut between);
                signs.backward(&between, gradient);
                integers.backward(free, gradient);
            }
            (Some(map), None) => map.backward(free, gradient),
            (None, Some(map)) => map.backward(free, gradient),
            (None, None) => {}
        }
    }

    /// Where the weights of binary layers lie in the flat vector.
    pub(crate) fn binary(&self) -> &[Range<usize>] {
        &self.binary
    }
}

/// The mask that a training from `free` keeps, when its settings ask for `weights`.
pub(crate) fn mask(network: &Network, weights: WeightForm, free: &[f32]) -> Option<Mask> {
    (weights == WeightForm::Pruned).then(|| Mask::of_zeros(network, free))
}

/// The weights of binary layers, by their index in the manifest.
fn binary(nodes: &[Node], found: &mut Vec<usize>) {
    for node in nodes {
        match &node.op {
            Op::Linear { weight, binary: true, .. }
            | Op::Conv1d { weight, binary: true, .. }
            | Op::Conv2d { weight, binary: true, .. } => found.push(*weight),
            Op::Residual(nodes) => binary(nodes, found),
            _ => {}
        }
    }
}
