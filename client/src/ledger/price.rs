//! What a round costs this device, and what its owner lets it spend.

use std::fmt;

use serde::{Deserialize, Serialize};
use starling_privacy::{Charge, Mechanism, Past, Sampling};
use starling_spec::{DpMechanism, DpMode, TaskPlan};

/// The noise of a plan, as far as it decides what a round costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Noise {
    pub(super) mode: DpMode,
    mechanism: DpMechanism,
    /// The deviation on a round's sum, in clipping norms; in local mode on the update itself.
    multiplier: f64,
    /// Rounds of the run.
    rounds: u32,
}

impl Noise {
    /// The noise that a plan promises, if it promises any.
    pub(super) fn of(plan: &TaskPlan) -> Option<Self> {
        let privacy = plan.privacy.as_ref()?;
        let dp = privacy.asked.dp.as_ref()?;
        let (mode, mechanism, multiplier) = (dp.mode, dp.mechanism, dp.noise_multiplier);
        Some(Self { mode, mechanism, multiplier, rounds: privacy.rounds })
    }

    /// What `count` rounds with an update of this device cost, the latest of them being `round`. `is_known` says that the device was asked for
    /// each of them, and so kept the plan's distance between them.
    pub(super) fn past(&self, count: u32, round: u32, is_known: bool) -> Past {
        let (mechanism, rounds) = match self.mechanism {
            // What this device did counts, not what the plan says that devices do.
            DpMechanism::Tree { separation_min, .. } => {
                let rounds = self.rounds.max(round).max(count);
                let separation_min = if is_known { separation_min } else { 1 };
                (Mechanism::Tree { participations_max: count, separation_min }, rounds)
            }
            _ => (Mechanism::Independent, count),
        };
        let (sampling, delta) = (Sampling::Any, 0.5);
        let charge = Charge { noise_multiplier: self.multiplier, delta, sampling, mechanism, mode: self.mode };
        Past::of(&charge, rounds)
    }
}

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.mode {
            DpMode::Local => "local",
            DpMode::Distributed => "distributed",
            _ => "central",
        };
        write!(f, "{who}, {} clipping norms", self.multiplier)
    }
}

/// What the owner lets runs spend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Budget {
    /// All rounds of one run.
    pub(crate) per_run: Option<f64>,
    /// All runs of all tasks.
    pub(crate) lifetime: Option<f64>,
    /// The probability of failure that both are stated at.
    pub(crate) delta: f64,
    /// Whether noise that the aggregator adds counts.
    pub(crate) trust_aggregator_noise: bool,
    /// Whose noise this device draws itself.
    pub(crate) drawn_here: &'static [DpMode],
}

impl Budget {
    /// Whether this device can vouch for the noise, or its owner trusts who adds it.
    pub(super) fn counts(&self, noise: &Noise) -> bool {
        match noise.mode {
            DpMode::Central => self.trust_aggregator_noise,
            mode => self.drawn_here.contains(&mode),
        }
    }

    pub(super) fn epsilon(&self, past: Past) -> f64 {
        past.epsilon(self.delta).expect("δ is between 0 and 1: checked with the configuration")
    }
}
