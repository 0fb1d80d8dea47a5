//! The numbers that a run's plan fixes for all its updates.

use std::ops::RangeInclusive;

use starling_compress::{CodecSpec, FixedPoint, FixedPointError, encoded_len_bounds};
use starling_spec::UpdateSettings;
use starling_wire::limits::{PARAMETERS_MAX, WEIGHT_MAX};

use crate::sealed::PREAMBLE_BYTES;

/// Settings that leave no room for a fold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NumericsError {
    /// A model without parameters, or with more than any accumulator here holds.
    #[error("a model of {0} parameters: expected 1 to {PARAMETERS_MAX}")]
    Parameters(usize),
    /// A weight cap of zero or over the protocol's.
    #[error("update.weight_max = {0}: expected 1 to {WEIGHT_MAX}")]
    WeightMax(u32),
    /// No fixed point fits.
    #[error(transparent)]
    FixedPoint(#[from] FixedPointError),
}

/// The numeric contract of a run: codec, parameter count, weight cap, cohort cap and the fixed point that follows from them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Numerics {
    codec: CodecSpec,
    parameters: usize,
    weight_max: u32,
    cohort_max: u32,
    fixed: FixedPoint,
    norm_max: Option<f64>,
}

impl Numerics {
    /// The numbers of a run with `parameters` parameters and at most `cohort_max` contributors a round.
    ///
    /// # Errors
    /// [`NumericsError`] names the setting that does not fit.
    pub fn new(settings: &UpdateSettings, parameters: usize, cohort_max: u32) -> Result<Self, NumericsError> {
        if !(1..=PARAMETERS_MAX).contains(&parameters) {
            return Err(NumericsError::Parameters(parameters));
        }
        if !(1..=WEIGHT_MAX).contains(&settings.weight_max) {
            return Err(NumericsError::WeightMax(settings.weight_max));
        }
        let weight_sum_max = u64::from(settings.weight_max) * u64::from(cohort_max);
        let fixed = FixedPoint::new(settings.value_max_log2, weight_sum_max)?;
        let UpdateSettings { codec, weight_max, .. } = *settings;
        Ok(Self { codec, parameters, weight_max, cohort_max, fixed, norm_max: None })
    }

    /// The same, for updates whose L2 norm is bounded: that of what is decoded.
    #[must_use]
    pub fn with_norm_max(self, norm_max: Option<f64>) -> Self {
        Self { norm_max, ..self }
    }

    /// The codec of updates.
    pub fn codec(&self) -> CodecSpec {
        self.codec
    }

    /// The parameters of the model.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// The fixed point of the fold.
    pub fn fixed(&self) -> &FixedPoint {
        &self.fixed
    }

    /// The largest weight of one update.
    pub fn weight_max(&self) -> u32 {
        self.weight_max
    }

    /// The largest L2 norm of what an update decodes to, where there is one.
    pub fn norm_max(&self) -> Option<f64> {
        self.norm_max
    }

    /// The most updates that one fold may take.
    pub fn cohort_max(&self) -> u32 {
        self.cohort_max
    }

    /// The fewest and the most bytes of an update's body, preamble and payload: equal where codec and parameter count fix
    /// the length.
    pub fn update_body_length_bounds(&self) -> RangeInclusive<u64> {
        let payload = encoded_len_bounds(self.codec, self.parameters);
        (PREAMBLE_BYTES + payload.start()) as u64..=(PREAMBLE_BYTES + payload.end()) as u64
    }
}
