//! Degree and threshold for a cohort, from what is assumed about it. Every party computes them for itself.

use crate::graph::bounds::Bounds;
use crate::limits::{COHORT_MAX, COHORT_MIN, COMPLETE_MAX};

/// Bits of statistical security that are left when the aggregator has tried graphs: see `GRINDING_LOG2`.
const SECURITY_LOG2: f64 = 40.0;

/// Tries, as a power of two, that the aggregator is granted to find keys of its colluders with which the graph suits it. The graph is drawn
/// from everybody's keys, so a try is a hash over the roster and a permutation: 2⁴⁰ of them take 10⁴ cores a day, and the
/// key phase lasts minutes.
const GRINDING_LOG2: f64 = 40.0;

/// What is assumed of a cohort, in thousandths of its devices. The plan states it, and a device's policy may ask for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assumptions {
    /// Devices that may collude with the aggregator.
    pub corrupt_per_mille: u16,
    /// Devices that may go away, over all phases together.
    pub dropout_per_mille: u16,
}

impl Assumptions {
    /// The most devices of a cohort that may collude. A part of a colluder is one: in a cohort of five, a tenth that colludes is one device.
    pub fn colluders(&self, devices: usize) -> usize {
        (devices * usize::from(self.corrupt_per_mille)).div_ceil(1000)
    }
}

/// A cohort for which there is no secure graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// Fewer or more devices than any secure sum may have.
    #[error("a cohort of {0} devices; expected {COHORT_MIN} to {COHORT_MAX}")]
    Devices(usize),
    /// Colluders and drop-outs leave no threshold that is both safe and reachable.
    #[error(
        "{devices} devices of which {corrupt} may collude and {dropped} may drop out have no safe threshold; assume less, or \
         take a larger cohort"
    )]
    Infeasible {
        /// Devices in the cohort.
        devices: usize,
        /// Assumed colluders.
        corrupt: usize,
        /// Assumed drop-outs.
        dropped: usize,
    },
}

/// Degree, threshold and what survivors must look like.
///
/// A device's secrets are shared with its `degree` neighbours and itself. The threshold t is such that 2t > degree + 1 + c, where c is the most
/// colluders that any neighbourhood has but for the stated probability: were it lower, the aggregator could tell a device's
/// neighbours different survivor lists and get t shares of both of its secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    devices: u16,
    degree: u16,
    threshold: u16,
    window_min: u16,
}

impl Topology {
    /// The topology of a cohort: complete up to 128 devices, a Harary graph of the smallest sufficient degree above, complete again where
    /// there is none.
    ///
    /// # Errors
    /// [`TopologyError`] when the cohort is too small, too large, or assumed to be too bad.
    pub fn of(devices: usize, assumptions: Assumptions) -> Result<Self, TopologyError> {
        if !(COHORT_MIN..=COHORT_MAX).contains(&devices) {
            return Err(TopologyError::Devices(devices));
        }
        let corrupt = assumptions.colluders(devices);
        let dropped = devices * usize::from(assumptions.dropout_per_mille) / 1000;
        let infeasible = TopologyError::Infeasible { devices, corrupt, dropped };
        if corrupt + 2 * dropped > devices {
            return Err(infeasible);
        }
        let ring =
            if devices > COMPLETE_MAX { Self::ring(&Bounds::new(devices, corrupt, dropped), devices) } else { None };
        ring.or_else(|| Self::complete(devices, corrupt, dropped)).ok_or(infeasible)
    }

    fn complete(devices: usize, corrupt: usize, dropped: usize) -> Option<Self> {
        let threshold = (devices + corrupt) / 2 + 1;
        (threshold <= devices - dropped).then(|| Self::new(devices, devices - 1, threshold, 0))
    }

    fn ring(bounds: &Bounds, devices: usize) -> Option<Self> {
        // A third of the failure probability each for the graph, the thresholds and the windows.
        let log2 = SECURITY_LOG2 + GRINDING_LOG2 + libm::log2(3.0);
        (2..devices - 1).step_by(2).filter(|degree| bounds.stays_connected(*degree, log2)).find_map(|degree| {
            let threshold = (degree + 1 + bounds.corrupt_max(degree, log2)) / 2 + 1;
            let window_min = bounds.corrupt_max(degree / 2, log2) + 1;
            let reached = threshold <= bounds.surviving_min(degree) && window_min <= bounds.surviving_min(degree / 2);
            reached.then(|| Self::new(devices, degree, threshold, window_min))
        })
    }

    fn new(devices: usize, degree: usize, threshold: usize, window_min: usize) -> Self {
        let narrow = |count: usize| u16::try_from(count).expect("counts are at most COHORT_MAX");
        Self {
            devices: narrow(devices),
            degree: narrow(degree),
            threshold: narrow(threshold),
            window_min: narrow(window_min),
        }
    }

    /// Devices in the cohort.
    pub fn devices(&self) -> usize {
        usize::from(self.devices)
    }

    /// Neighbours of each device.
    pub fn degree(&self) -> usize {
        usize::from(self.degree)
    }

    /// Shares that determine a secret, and confirmations that a device asks for, its own included.
    pub fn threshold(&self) -> usize {
        usize::from(self.threshold)
    }

    /// Survivors that every degree/2 places of the ring in a row must hold.
    pub(crate) fn window_min(&self) -> usize {
        usize::from(self.window_min)
    }

    /// Whether everybody is everybody's neighbour.
    pub fn is_complete(&self) -> bool {
        self.degree() == self.devices() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Adversary, published_parameters};

    #[test]
    fn a_complete_graph_has_the_threshold_of_bonawitz_2017() {
        // Against a malicious aggregator and n/3 colluders: floor(2n/3) + 1.
        for devices in [10, 50, 100, 128] {
            let topology =
                Topology::of(devices, Assumptions { corrupt_per_mille: 333, dropout_per_mille: 0 }).expect("feasible");
            assert!(topology.is_complete());
            assert_eq!(topology.threshold(), (devices + (devices * 333).div_ceil(1000)) / 2 + 1);
            assert!(topology.threshold().abs_diff(2 * devices / 3 + 1) <= 1);
        }
    }

    #[test]
    fn a_ring_is_never_weaker_than_the_published_parameters() {
        for (devices, corrupt, dropout) in
            [(129, 50, 100), (200, 100, 100), (500, 100, 100), (1000, 50, 50), (1000, 50, 330)]
        {
            let assumptions = Assumptions { corrupt_per_mille: corrupt, dropout_per_mille: dropout };
            let ours = Topology::of(devices, assumptions).expect("feasible");
            let rate = |per_mille: u16| f64::from(per_mille) / 1000.0;
            let (degree, threshold) =
                published_parameters(devices, rate(corrupt), rate(dropout), Adversary::SemiMalicious)
                    .expect("feasible");
            assert!(
                ours.degree() >= degree && ours.threshold() >= threshold,
                "{devices} {ours:?} {degree} {threshold}"
            );
            assert!(ours.degree() < devices - 1 && ours.degree().is_multiple_of(2));
            assert!(2 * ours.threshold() > ours.degree() + 1);
        }
    }

    #[test]
    fn hopeless_cohorts_are_refused() {
        let all = |corrupt_per_mille, dropout_per_mille| Assumptions { corrupt_per_mille, dropout_per_mille };
        assert_eq!(Topology::of(2, all(0, 0)), Err(TopologyError::Devices(2)));
        assert_eq!(Topology::of(COHORT_MAX + 1, all(0, 0)), Err(TopologyError::Devices(COHORT_MAX + 1)));
        let infeasible = TopologyError::Infeasible { devices: 100, corrupt: 40, dropped: 31 };
        assert_eq!(Topology::of(100, all(400, 310)), Err(infeasible));
        assert_eq!(Topology::of(300, all(1000, 1000)).map_err(|_| ()), Err(()));
        // Three devices can do without one, or with one that colludes, but not both.
        assert_eq!(Topology::of(3, all(0, 300)).map(|topology| topology.threshold()), Ok(2));
        assert_eq!(Topology::of(3, all(100, 0)).map(|topology| topology.threshold()), Ok(3));
        assert_eq!(
            Topology::of(3, all(100, 340)),
            Err(TopologyError::Infeasible { devices: 3, corrupt: 1, dropped: 1 })
        );
    }
}
