//! What a device finds out over its own training rows without training: the ranges of each layer's inputs, the moments of its features.

use starling_compress::Release;
use starling_engine::EngineError;
use starling_model::Samples;
use starling_spec::TaskPlan;
use starling_spec::moments::Moments;
use starling_wire::{UpdateReport, ValueRange};

use crate::learner::Trained;

/// Rows that are read at once.
const ROWS_AT_ONCE: usize = 256;

/// Rows that a model is run over. Ranges leave outliers out, so a few hundred say as much as all of them.
pub const SURVEY_ROWS_MAX: usize = 500;

/// The ranges of each layer's inputs when the network of `plan` with `parameters` is run over the first [`SURVEY_ROWS_MAX`] of
/// `rows`, at the place of the layer's weight in the manifest; and how many rows those are.
///
/// # Errors
/// What the engine says of a network that it does not know.
pub fn ranges(
    plan: &TaskPlan,
    parameters: &[f32],
    data: &dyn Samples,
    rows: &[u32],
) -> Result<(u64, Vec<Option<ValueRange>>), EngineError> {
    let rows = &rows[..SURVEY_ROWS_MAX.min(rows.len())];
    let mut features = Vec::new();
    data.features_into(rows, &mut features);
    let ranges = starling_engine::calibrate(&Release::float(plan, parameters), &features)?;
    let ranges = ranges.into_iter().map(|range| range.map(|range| ValueRange { low: range.low, high: range.high }));
    Ok((rows.len() as u64, ranges.collect()))
}

/// What the device says of the features of `rows`, as an update from `base`; nothing of no rows.
pub fn moments(
    moments: &Moments<'_>,
    base: &[f32],
    data: &dyn Samples,
    rows: &[u32],
    weight_max: u32,
) -> Option<Trained> {
    let mut sums = moments.sums();
    let mut features = Vec::new();
    for rows in rows.chunks(ROWS_AT_ONCE) {
        data.features_into(rows, &mut features);
        sums.add(&features);
    }
    let mut said = sums.finish()?;
    said.values.iter_mut().zip(base).for_each(|(value, base)| *value -= base);
    if said.cut > 0.0 {
        tracing::warn!(share = said.cut, "values outside of data.range count as its ends");
    }
    let weight = u32::try_from(rows.len()).unwrap_or(u32::MAX).min(weight_max);
    // No step was taken, and so there is no loss.
    let report = UpdateReport { weight, train_loss: 0.0, steps: 0, within_clip: false };
    Some(Trained { delta: said.values, report })
}
