//! The graph: all devices on a ring in random order, each joined to the k/2 on either side; or everybody to everybody.

use starling_wire::Digest;

use crate::bitmap::Bitmap;
use crate::graph::Topology;
use crate::keystream::Keystream;

/// Who is joined to whom, by roster index.
#[derive(Debug, Clone)]
pub(crate) struct Graph {
    // For a ring: the roster index at each place, and each index's place. Empty for a complete graph.
    order: Vec<usize>,
    place: Vec<usize>,
    topology: Topology,
}

impl Graph {
    /// The graph that `seed` draws. The same seed and topology give the same graph to everybody.
    pub(crate) fn draw(topology: Topology, seed: &Digest) -> Self {
        if topology.is_complete() {
            return Self { order: Vec::new(), place: Vec::new(), topology };
        }
        let devices = topology.devices();
        let mut order: Vec<usize> = (0..devices).collect();
        let mut random = Keystream::new(&seed.0);
        // Fisher and Yates.
        for last in (1..devices).rev() {
            let bound = u32::try_from(last + 1).expect("a cohort index fits in 16 bits");
            order.swap(last, random.below(bound) as usize);
        }
        let mut place = vec![0; devices];
        order.iter().enumerate().for_each(|(at, index)| place[*index] = at);
        Self { order, place, topology }
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The neighbours of a device, in ascending order of their roster indices.
    pub(crate) fn neighbours(&self, index: usize) -> Vec<usize> {
        let devices = self.topology.devices();
        if self.topology.is_complete() {
            return (0..devices).filter(|other| *other != index).collect();
        }
        let at = self.place[index];
        let steps = 1..=self.topology.degree() / 2;
        let mut neighbours: Vec<usize> = steps
            .flat_map(|step| [self.order[(at + step) % devices], self.order[(at + devices - step) % devices]])
            .collect();
        neighbours.sort_unstable();
        neighbours
    }

    /// Whether the honest among `survivors` are in one piece: every k/2 places in a row hold more survivors than there may be
    /// colluders, so the gaps between honest ones are never wide enough to cut the ring. Otherwise the aggregator
    /// could choose the drop-outs so that a part of the sum comes apart from the rest.
    pub(crate) fn holds_together(&self, survivors: &Bitmap) -> bool {
        if self.topology.is_complete() {
            return true;
        }
        let devices = self.topology.devices();
        let window = self.topology.degree() / 2;
        let alive = |at: usize| usize::from(survivors.contains(self.order[at % devices]));
        let mut count: usize = (0..window).map(alive).sum();
        for start in 0..devices {
            if count < self.topology.window_min() {
                return false;
            }
            count = count + alive(start + window) - alive(start);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Assumptions;

    fn topology(devices: usize) -> Topology {
        Topology::of(devices, Assumptions { corrupt_per_mille: 100, dropout_per_mille: 100 }).expect("feasible")
    }

    #[test]
    fn a_ring_is_regular_and_symmetric_and_its_seed_matters() {
        let topology = topology(300);
        assert!(!topology.is_complete());
        let graph = Graph::draw(topology, &Digest([1; 32]));
        for index in 0..300 {
            let neighbours = graph.neighbours(index);
            assert_eq!(neighbours.len(), topology.degree());
            assert!(neighbours.windows(2).all(|pair| pair[0] < pair[1]) && !neighbours.contains(&index));
            assert!(neighbours.iter().all(|other| graph.neighbours(*other).contains(&index)));
        }
        assert_ne!(graph.neighbours(0), Graph::draw(topology, &Digest([2; 32])).neighbours(0));
    }

    #[test]
    fn survivors_that_come_apart_are_seen() {
        let topology = topology(300);
        let graph = Graph::draw(topology, &Digest([1; 32]));
        let without = |gone: &[usize]| {
            let mut survivors = Bitmap::empty(300);
            (0..300).filter(|index| !gone.contains(index)).for_each(|index| survivors.insert(index));
            graph.holds_together(&survivors)
        };
        assert!(without(&[]));
        // Every tenth place: what chance does.
        assert!(without(&(0..300).step_by(10).map(|at| graph.order[at]).collect::<Vec<_>>()));
        // One window emptied of its honest devices.
        let window = topology.degree() / 2;
        assert!(!without(&(290..290 + window).map(|at| graph.order[at % 300]).collect::<Vec<_>>()));
        assert!(!without(&(10..10 + window - topology.window_min() + 1).map(|at| graph.order[at]).collect::<Vec<_>>()));
    }

    #[test]
    fn a_permutation_is_drawn_without_bias() {
        // Chi-square of the place of index 0 over 300 places, 30,000 seeds; 99.99 % quantile of 299 degrees of freedom: 395.
        let topology = topology(300);
        let mut counts = vec![0u32; 300];
        for seed in 0u32..30_000 {
            counts[Graph::draw(topology, &Digest::of(&seed.to_le_bytes())).place[0]] += 1;
        }
        let chi_square: f64 = counts.iter().map(|count| (f64::from(*count) - 100.0).powi(2) / 100.0).sum();
        assert!(chi_square < 395.0, "{chi_square}");
    }
}
