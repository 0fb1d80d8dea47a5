//! Degree and threshold of a random Harary graph (Bell et al. 2020, "Secure single-server aggregation with (poly)logarithmic
//! overhead", §3 and §4), by the exact hypergeometric tails that Google's `graph_parameter_finder.cc` searches.
//!
//! Of n devices at most `corrupt` collude with the aggregator and at most `dropped` go away. Two things must not happen:
//!
//! - *the honest survivors fall apart*: a cut of the ring needs k/2 neighbours in a row to be gone, at two places;
//! - *somebody's secrets are found*: more shares are with colluders than the threshold allows, around any device;
//!
//! and one may happen rarely: that too few neighbours of somebody survive. Doubles are accurate enough: a relative error of 10⁻⁹ in a
//! probability moves no integer here, but for ties that the published search has as well.

use std::f64::consts::LN_2;

/// What the aggregator does beside following the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adversary {
    /// It looks at what it gets, and shares it with the colluders.
    Curious,
    /// It is honest while keys are advertised and does what it likes afterwards: the threshold also rules out that it gets both secrets
    /// of a device by telling its neighbours different things.
    SemiMalicious,
}

/// Bits of certainty that a threshold is reached by the survivors.
pub(crate) const CORRECTNESS_LOG2: f64 = 20.0;

/// Keeps a rate such as 0.1 from becoming one device less by its rounding.
const RATE_SLACK: f64 = 1e-14;

/// A cohort and the worst that is assumed of it.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    devices: usize,
    corrupt: usize,
    dropped: usize,
    // ln(i!) for i up to `devices`.
    ln_factorials: Vec<f64>,
}

impl Bounds {
    pub(crate) fn new(devices: usize, corrupt: usize, dropped: usize) -> Self {
        let ln_factorials = (0..=devices).map(|value| libm::lgamma(value as f64 + 1.0)).collect();
        Self { devices, corrupt, dropped, ln_factorials }
    }

    fn ln_choose(&self, from: usize, take: usize) -> f64 {
        self.ln_factorials[from] - self.ln_factorials[take] - self.ln_factorials[from - take]
    }

    /// P(X = hits) when `drawn` of the devices are drawn without replacement and `marked` of all are marked.
    fn probability(&self, marked: usize, drawn: usize, hits: usize) -> f64 {
        if hits > marked || hits > drawn || drawn - hits > self.devices - marked {
            return 0.0;
        }
        let ln = self.ln_choose(marked, hits) + self.ln_choose(self.devices - marked, drawn - hits)
            - self.ln_choose(self.devices, drawn);
        libm::exp(ln)
    }

    /// The smallest x with P(X > x) ≤ 2^-`log2` / n for the number X of colluders among `drawn` devices.
    pub(crate) fn corrupt_max(&self, drawn: usize, log2: f64) -> usize {
        let limit = libm::exp2(-log2) / self.devices as f64;
        let (mut most, mut tail) = (drawn.min(self.corrupt), 0.0);
        while most > 0 {
            tail += self.probability(self.corrupt, drawn, most);
            if tail > limit {
                break;
            }
            most -= 1;
        }
        most
    }

    /// The largest x with P(X < x) < 2^-20 / n for the number X of survivors among `drawn` devices.
    pub(crate) fn surviving_min(&self, drawn: usize) -> usize {
        let limit = libm::exp2(-CORRECTNESS_LOG2) / self.devices as f64;
        let surviving = self.devices - self.dropped;
        let (mut least, mut tail) = (0, 0.0);
        while least < drawn {
            tail += self.probability(surviving, drawn, least);
            if tail >= limit {
                break;
            }
            least += 1;
        }
        least
    }

    /// ln of a bound on the probability that the honest survivors of a graph of this degree are not connected: a union over the
    /// pairs of places where the ring may be cut.
    pub(crate) fn ln_disconnected(&self, degree: usize) -> f64 {
        let (n, gone) = (self.devices, self.corrupt + self.dropped);
        if degree > gone {
            return f64::NEG_INFINITY;
        }
        let ln_pairs = libm::log(n as f64) + libm::log((n - degree - 1) as f64) - LN_2;
        ln_pairs + self.ln_factorials[gone.min(n)] + self.ln_factorials[n - degree]
            - self.ln_factorials[n]
            - self.ln_factorials[gone.min(n) - degree]
    }

    /// Whether the honest survivors stay connected but for a probability of 2^-`log2`.
    pub(crate) fn stays_connected(&self, degree: usize, log2: f64) -> bool {
        self.ln_disconnected(degree) < -log2 * LN_2
    }
}

/// `floor(rate · devices)`, as the published search rounds it.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate below 1 of a count is a count")]
fn share_of(devices: usize, rate: f64) -> usize {
    libm::floor((rate + RATE_SLACK) * devices as f64) as usize
}

/// The smallest degree and its threshold for statistical security of 2⁻⁴⁰ and a failure probability of 2⁻²⁰, as
/// `graph_parameter_finder.cc` computes them; `None` where it finds none. [`super::Topology`] asks for more.
pub fn published_parameters(
    devices: usize,
    corrupt_rate: f64,
    dropout_rate: f64,
    adversary: Adversary,
) -> Option<(usize, usize)> {
    let gone = match adversary {
        Adversary::Curious => corrupt_rate + dropout_rate,
        Adversary::SemiMalicious => corrupt_rate + 2.0 * dropout_rate,
    };
    if !(0.0..=0.9).contains(&gone) || corrupt_rate < 0.0 || dropout_rate < 0.0 {
        return None;
    }
    // Half of the failure probability for each of the two ways in which security can fail.
    let log2 = 40.0 + 1.0;
    let bounds = Bounds::new(devices, share_of(devices, corrupt_rate), share_of(devices, dropout_rate));
    (2..devices.saturating_sub(1)).step_by(2).filter(|degree| bounds.stays_connected(*degree, log2)).find_map(
        |degree| {
            let corrupt = bounds.corrupt_max(degree, log2);
            let threshold = match adversary {
                Adversary::Curious => corrupt + 1,
                // ceil((corrupt + degree − 1.25) / 2) + 1
                Adversary::SemiMalicious => (corrupt + degree) / 2 + 1,
            };
            // The search raises a threshold of 1 after it has compared; so does this.
            (threshold <= bounds.surviving_min(degree)).then_some((degree, threshold.max(2)))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::Adversary::{Curious, SemiMalicious};
    use super::*;

    #[test]
    fn the_published_table_is_reproduced() {
        // graph_parameter_finder_test.cc: the degree is exact, the threshold at most the last column.
        for (devices, corrupt, dropout, adversary, degree, threshold) in [
            (100, 0.45, 0.45, Curious, 92, 46),
            (1_000, 0.45, 0.45, Curious, 822, 417),
            (10, 0.33, 0.33, Curious, 8, 4),
            (100, 0.33, 0.33, Curious, 68, 34),
            (1_000, 0.33, 0.33, Curious, 286, 150),
            (10_000, 0.33, 0.33, Curious, 422, 221),
            (100, 0.3, 0.3, SemiMalicious, 92, 62),
            (1_000, 0.3, 0.3, SemiMalicious, 872, 584),
            (10, 0.05, 0.33, Curious, 4, 2),
            (100, 0.05, 0.33, Curious, 28, 6),
            (1_000, 0.05, 0.33, Curious, 72, 24),
            (10_000, 0.05, 0.33, Curious, 86, 29),
            (10, 0.05, 0.33, SemiMalicious, 8, 5),
            (100, 0.05, 0.33, SemiMalicious, 72, 39),
            (1_000, 0.05, 0.33, SemiMalicious, 398, 223),
            (10_000, 0.05, 0.33, SemiMalicious, 746, 420),
            (10, 0.33, 0.05, Curious, 4, 4),
            (100, 0.33, 0.05, Curious, 34, 29),
            (1_000, 0.33, 0.05, Curious, 78, 60),
            (10_000, 0.33, 0.05, Curious, 92, 70),
            (10, 0.33, 0.05, SemiMalicious, 4, 4),
            (100, 0.33, 0.05, SemiMalicious, 42, 37),
            (1_000, 0.33, 0.05, SemiMalicious, 132, 109),
            (10_000, 0.33, 0.05, SemiMalicious, 178, 146),
            (100, 0.05, 0.05, Curious, 12, 6),
            (1_000, 0.05, 0.05, Curious, 30, 17),
            (1_000, 0.05, 0.05, SemiMalicious, 52, 37),
            (10_000, 0.05, 0.05, SemiMalicious, 62, 44),
        ] {
            let (found, at) = published_parameters(devices, corrupt, dropout, adversary).expect("feasible");
            assert_eq!(found, degree, "{devices} {corrupt} {dropout} {adversary:?}");
            assert!(at <= threshold, "{devices} {corrupt} {dropout} {adversary:?}: {at}");
        }
        assert_eq!(published_parameters(100, 0.46, 0.45, Curious), None);
        assert_eq!(published_parameters(100, 0.3, 0.31, SemiMalicious), None);
    }

    #[test]
    fn tails_are_those_of_counting() {
        // 10 devices, 3 marked, 4 drawn: 35, 105, 63 and 7 of the 210 draws hold 0, 1, 2 and 3.
        let bounds = Bounds::new(10, 3, 0);
        for (hits, draws) in [(0, 35.0), (1, 105.0), (2, 63.0), (3, 7.0), (4, 0.0)] {
            assert!((bounds.probability(3, 4, hits) - draws / 210.0).abs() < 1e-12, "{hits}");
        }
        // P(X > 2) = 7/210, P(X > 1) = 70/210: at 1/21 for each of ten devices, two is the bound.
        assert_eq!(bounds.corrupt_max(4, libm::log2(210.0 / 80.0)), 2);
    }
}
