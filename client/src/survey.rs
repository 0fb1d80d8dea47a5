//! What a device finds out about a model over its own training rows without training: the ranges of each layer's inputs.

use starling_compress::Release;
use starling_engine::EngineError;
use starling_model::Samples;
use starling_spec::TaskPlan;
use starling_wire::ValueRange;

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
