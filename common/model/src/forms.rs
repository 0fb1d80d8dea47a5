//! What a plan itself puts between the parameters that travel and those that its network computes with: pruned weights that stay
//! zero, integers, signs.

use std::borrow::Cow;

use starling_compress::WeightMap;
use starling_compress::method::binary::Binarised;
use starling_compress::method::codebook::SharedWeights;
use starling_compress::method::prune::Mask;
use starling_compress::method::quantise::FakeQuantised;
use starling_spec::WeightForm;
use starling_spec::shape::{Network, Node, Op};

/// The maps of a network whatever its parameters are.
#[derive(Debug)]
pub(crate) struct Forms {
    integers: Option<FakeQuantised>,
    signs: Option<Binarised>,
}

impl Forms {
    /// The forms of `network` when its plan asks for `weights`.
    pub(crate) fn new(network: &Network, weights: WeightForm) -> Self {
        let integers = match weights {
            WeightForm::Integer(bits) => Some(FakeQuantised::new(network, bits)),
            WeightForm::Free | WeightForm::Pruned | WeightForm::Shared => None,
        };
        Self { integers, signs: binary(&network.nodes).then(|| Binarised::new(network)) }
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
}

/// What a training from `free` holds to, when its settings ask for `weights`: the zeros, or the code books, that `free` has.
pub(crate) fn held(network: &Network, weights: WeightForm, free: &[f32]) -> Vec<Box<dyn WeightMap>> {
    match weights {
        WeightForm::Free | WeightForm::Integer(_) => Vec::new(),
        WeightForm::Pruned => vec![Box::new(Mask::of_zeros(network, free))],
        WeightForm::Shared => {
            vec![Box::new(Mask::of_zeros(network, free)), Box::new(SharedWeights::of_equals(network, free))]
        }
    }
}

/// Whether any layer computes with signs.
fn binary(nodes: &[Node]) -> bool {
    nodes.iter().any(|node| match &node.op {
        Op::Linear { binary, .. } | Op::Conv1d { binary, .. } | Op::Conv2d { binary, .. } => *binary,
        Op::Residual(nodes) => self::binary(nodes),
        _ => false,
    })
}
