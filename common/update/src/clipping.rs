//! The clipping norm of the next round.

use starling_spec::TaskPlan;
use starling_spec::task::{AdaptiveClip, CLIP_MIN};

/// How a round's clipping norm becomes the next one's (Andrew et al. 2021, Algorithm 1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ClipStep {
    clip: f64,
    adaptive: AdaptiveClip,
}

impl ClipStep {
    /// The step after a round by `plan`; none where the norm stays.
    pub(crate) fn of(plan: &TaskPlan) -> Option<Self> {
        let asked = &plan.privacy.as_ref()?.asked;
        Some(Self { clip: asked.clip()?, adaptive: asked.adaptive_clip? })
    }

    /// The next norm, after a round in which this share of the devices had updates within it: as noise has it, so it may be below 0 or above 1.
    /// The same norm after a round of nobody.
    pub(crate) fn next(&self, within: Option<f64>) -> f64 {
        let Self { clip, adaptive } = self;
        let factor = within.map_or(1.0, |share| libm::exp(-adaptive.rate * (share - adaptive.quantile)));
        (clip * factor).clamp(CLIP_MIN, adaptive.clip_max)
    }
}
