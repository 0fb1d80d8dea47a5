//! The numbers of one round: what the run's plan fixes, with the clipping norm that the round has.

use std::sync::Arc;

use starling_spec::{SpecError, TaskPlan};

use crate::bounded::norm_max;
use crate::noisy::{NoisyMean, NoisyMeanError};
use crate::numerics::{Numerics, NumericsError};
use crate::ring::RingError;
use crate::secure::SecureSums;

/// Why a round has no numbers.
#[derive(Debug, thiserror::Error)]
pub enum NumbersError {
    /// A clipping norm of another plan.
    #[error("a clipping norm of {0:?} is none that the plan's rounds have")]
    Clip(Option<f64>),
    /// The network is none.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// There is no room for the fold.
    #[error(transparent)]
    Numerics(#[from] NumericsError),
    /// The noise does not fit the fold's grid.
    #[error(transparent)]
    Noise(#[from] NoisyMeanError),
    /// The secure sum has no ring.
    #[error(transparent)]
    Ring(#[from] RingError),
}

/// The numbers of a round.
#[derive(Debug, Clone)]
pub struct RoundNumbers {
    /// What the round's devices follow.
    pub plan: Arc<TaskPlan>,
    /// What their updates are admitted and folded by.
    pub numerics: Numerics,
    /// How the sum becomes a mean where the aggregator adds noise.
    pub noisy: Option<NoisyMean>,
    /// Where updates are summed under masks.
    pub secure: Option<Arc<SecureSums>>,
}

impl RoundNumbers {
    /// Those of a round of the run with this `plan` whose clipping norm is `clip`, where it adapts, and that has at most `cohort_max`
    /// contributors.
    ///
    /// # Errors
    /// [`NumbersError`].
    pub fn of(plan: &TaskPlan, clip: Option<f64>, cohort_max: u32) -> Result<Self, NumbersError> {
        let plan = plan.for_round(clip).ok_or(NumbersError::Clip(clip))?;
        let parameters = plan.manifest()?.len();
        let numerics = Numerics::new(&plan.update, parameters, cohort_max)?.with_norm_max(norm_max(&plan));
        let noisy = NoisyMean::of(&plan, &numerics)?;
        let secure = SecureSums::of(&plan, parameters)?.map(Arc::new);
        Ok(Self { plan: Arc::new(plan), numerics, noisy, secure })
    }
}
