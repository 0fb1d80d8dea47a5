//! The sensitivity of tree aggregation: how far one device moves all the sums that the tree's nodes hold.
//!
//! Rounds are the leaves of a binary tree, and each node of `2^l` rounds holds their sum with noise of its own (Dwork et al. 2010;
//! Kairouz et al. 2021, "Practical and private (deep) learning without sampling or shuffling", section 3). All of the nodes
//! together are one Gaussian release whose sensitivity is the L2 norm of what one device adds to them. Whatever is computed from
//! the nodes, Honaker's weighted prefix sums included, costs nothing more.

/// Rounds whose noise comes from one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tree {
    /// Rounds.
    pub steps: u32,
    /// The most of them that one device takes part in.
    pub participations_max: u32,
    /// The least distance between the numbers of two of them.
    pub separation_min: u32,
}

impl Tree {
    /// The L2 norm of what one device adds to the tree's nodes, in clipping norms: an upper bound, reached where the separation is a
    /// power of two and the tree is complete.
    ///
    /// A node of level l can hold at most `⌈2^l / separation⌉` of a device's participations, and a level is worst when they
    /// crowd into as few nodes as they can: sums of squares are largest there.
    pub fn sensitivity(&self) -> f64 {
        let separation = self.separation_min.max(1);
        let fit = self.steps.saturating_sub(1) / separation + 1;
        let participations = u64::from(self.participations_max.min(fit));
        let mut squares = 0u64;
        for level in 0..u32::BITS {
            let nodes = u64::from(self.steps >> level);
            if nodes == 0 {
                break;
            }
            let most = (1u64 << level).div_ceil(u64::from(separation)).min(participations);
            let full = (participations / most).min(nodes);
            let rest = if full < nodes { participations % most } else { 0 };
            squares += full * most * most + rest * rest;
        }
        #[allow(
            clippy::cast_precision_loss,
            reason = "32 levels of at most 2^32 squares: the root's error is below 2^-50"
        )]
        (squares as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest sum of squared counts over all allowed patterns, by trying them all.
    fn by_force(tree: &Tree) -> u64 {
        let mut worst = 0;
        for pattern in 0u32..1 << tree.steps {
            let rounds: Vec<u32> = (0..tree.steps).filter(|round| pattern >> round & 1 == 1).collect();
            let apart = rounds.windows(2).all(|pair| pair[1] - pair[0] >= tree.separation_min);
            if rounds.len() > tree.participations_max as usize || !apart {
                continue;
            }
            let mut squares = 0;
            for level in 0..8 {
                for node in 0..tree.steps >> level {
                    let count = rounds.iter().filter(|round| **round >> level == node).count() as u64;
                    squares += count * count;
                }
            }
            worst = worst.max(squares);
        }
        worst
    }

    #[test]
    fn no_pattern_of_participations_adds_more() {
        for steps in [1, 2, 3, 7, 8, 13, 16] {
            for participations_max in [1, 2, 3, 5] {
                for separation_min in [1, 2, 3, 4, 6] {
                    let tree = Tree { steps, participations_max, separation_min };
                    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
                    let exact = (by_force(&tree) as f64).sqrt();
                    let bound = tree.sensitivity();
                    assert!(bound >= exact - 1e-12 && bound <= exact * 1.35, "{tree:?}: {bound}, exactly {exact}");
                    if steps.is_power_of_two()
                        && separation_min.is_power_of_two()
                        && participations_max.is_power_of_two()
                    {
                        assert!((bound - exact).abs() < 1e-12, "{tree:?}: {bound}, exactly {exact}");
                    }
                }
            }
        }
    }

    #[test]
    fn one_participation_touches_one_node_a_level() {
        let tree = Tree { steps: 1600, participations_max: 1, separation_min: 1 };
        assert!((tree.sensitivity() - 11f64.sqrt()).abs() < 1e-12);
    }
}
