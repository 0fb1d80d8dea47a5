//! Training with values from a code book that moves along.

use std::cell::RefCell;

use starling_compress::method::codebook::cluster;
use starling_compress::method::prune::{self, Mask};
use starling_compress::{Values, WeightMap};
use starling_spec::shape::Network;

/// Steps between two clusterings. Between them a weight may still change its cluster.
const STEPS_PER_CLUSTERING: usize = 16;

/// The network computes with the nearest centroid of each kept weight, a code book a tensor; gradients pass straight through to
/// the weights (Courbariaux et al. 2015, "BinaryConnect", §2.3, with centroids for signs), so that a weight may move to another
/// cluster. Weights that were 0 stay 0. What is left for [`starling_compress::method::codebook::SharedWeights`] is small.
#[derive(Debug)]
pub struct Clustered<'a> {
    network: &'a Network,
    centroids: usize,
    mask: Mask,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    steps: usize,
    /// The code book of each prunable tensor, rising.
    books: Vec<Vec<f32>>,
}

impl<'a> Clustered<'a> {
    /// At most `centroids` values for each prunable tensor of `network`, whose `parameters` say what is pruned.
    ///
    /// # Panics
    /// If `centroids` is not 1 to 256, or `parameters` are not the network's.
    pub fn new(network: &'a Network, parameters: &[f32], centroids: usize) -> Self {
        assert!((1..=256).contains(&centroids), "1 to 256 centroids");
        Self { network, centroids, mask: Mask::of_zeros(network, parameters), state: RefCell::default() }
    }
}

impl WeightMap for Clustered<'_> {
    /// Clusters anew where it is due, and gives each kept weight its nearest centroid.
    fn forward(&self, free: &[f32], computed: &mut [f32]) {
        computed.copy_from_slice(free);
        self.mask.apply(computed);
        let mut state = self.state.borrow_mut();
        let due = state.steps.is_multiple_of(STEPS_PER_CLUSTERING);
        state.steps += 1;
        for (place, index) in prune::prunable(self.network).into_iter().enumerate() {
            let range = self.network.manifest.tensors[index].range();
            let kept = &self.mask.kept()[range.clone()];
            let values = &mut computed[range];
            if due {
                let picked: Vec<f32> =
                    values.iter().zip(kept).filter(|(_, kept)| **kept).map(|(value, _)| *value).collect();
                let book = match cluster(&picked, self.centroids) {
                    Values::Codebook { centroids, .. } => centroids,
                    _ => Vec::new(),
                };
                if place < state.books.len() { state.books[place] = book } else { state.books.push(book) }
            }
            nearest(&state.books[place], values, kept);
        }
    }

    /// Straight through; what is pruned gets no gradient.
    fn backward(&self, _free: &[f32], gradient: &mut [f32]) {
        self.mask.apply(gradient);
    }
}

/// Replaces each kept value by its nearest centroid of the rising `book`.
fn nearest(book: &[f32], values: &mut [f32], kept: &[bool]) {
    let middles: Vec<f32> = book.windows(2).map(|pair| f32::midpoint(pair[0], pair[1])).collect();
    for (value, _) in values.iter_mut().zip(kept).filter(|(_, kept)| **kept) {
        if let Some(centroid) = book.get(middles.partition_point(|middle| *middle < *value)) {
            *value = *centroid;
        }
    }
}

#[cfg(test)]
mod tests {
    use starling_spec::layer::Linear;
    use starling_spec::shape::infer;
    use starling_spec::{Layer, TaskKind};

    use super::*;

    #[test]
    fn kept_weights_take_centroids_and_may_change_them() {
        let layers = [Layer::Linear(Linear { out: 2, bias: true, binary: false })];
        let network = infer(TaskKind::Classification, &[4], &layers).expect("a network");
        let mut free = [1.0, 1.5, 0.0, -2.0, -2.5, 0.0, 1.0, -2.0, 7.0, 8.0];
        let map = Clustered::new(&network, &free, 2);
        let mut computed = [9.0; 10];
        map.forward(&free, &mut computed);
        let (low, high) = (computed[3], computed[0]);
        assert_eq!(computed, [high, high, 0.0, low, low, 0.0, high, low, 7.0, 8.0]);
        // A book of two is written with few bits.
        assert!((high - 3.5 / 3.0).abs() < 0.1 && (low + 6.5 / 3.0).abs() < 0.15, "means, rounded: {high} and {low}");
        free[0] = -1.9;
        map.forward(&free, &mut computed);
        assert_eq!((computed[0], computed[1]), (low, high), "the same centroids, another member");
        let mut gradient = [1.0; 10];
        map.backward(&free, &mut gradient);
        assert_eq!(gradient, [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_tensor_of_zeros_stays_one() {
        let layers = [Layer::Linear(Linear { out: 2, bias: false, binary: false })];
        let network = infer(TaskKind::Classification, &[2], &layers).expect("a network");
        let map = Clustered::new(&network, &[0.0; 4], 8);
        let mut computed = [1.0; 4];
        map.forward(&[0.0; 4], &mut computed);
        assert_eq!(computed, [0.0; 4]);
    }
}
