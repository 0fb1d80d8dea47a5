//! How sure a loss of accuracy is: the same rows under both models.
//!
//! Two models that differ on few rows can be told apart on far fewer rows than two accuracies can (McNemar 1947): of the rows on
//! which exactly one of them is right, a loss is what one side has more of.

use starling_engine::{Inference, InferenceError};
use starling_model::{EVALUATION_BATCH, Samples};
use starling_spec::TaskKind;
use starling_spec::shape::Network;

/// Which examples of `rows` `inference`, which runs `network`, classifies right; nothing for a regression.
pub(crate) fn correct(
    inference: &mut dyn Inference,
    network: &Network,
    data: &dyn Samples,
    rows: &[u32],
) -> Result<Option<Vec<bool>>, InferenceError> {
    if network.kind == TaskKind::Regression {
        return Ok(None);
    }
    let width = network.output.last().copied().unwrap_or(1).max(1);
    let (mut features, mut classes, mut outputs, mut found) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for rows in rows.chunks(EVALUATION_BATCH) {
        data.features_into(rows, &mut features);
        data.classes_into(rows, &mut classes);
        outputs.clear();
        inference.run_into(&features, &mut outputs)?;
        found.extend(outputs.chunks_exact(width).zip(&classes).map(|(outputs, class)| {
            let best = (1..width).fold(0, |best, class| if outputs[class] > outputs[best] { class } else { best });
            u32::try_from(best) == Ok(*class)
        }));
    }
    Ok(Some(found))
}

/// The standard error, in percentage points, of the accuracy that `after` has less than `before` on the same examples.
#[allow(clippy::cast_precision_loss, reason = "counts of examples")]
pub(crate) fn points_error(before: &[bool], after: &[bool]) -> f64 {
    let count = before.len().min(after.len()).max(1) as f64;
    let pairs = || before.iter().zip(after);
    let lost = pairs().filter(|(before, after)| **before && !**after).count() as f64;
    let won = pairs().filter(|(before, after)| !**before && **after).count() as f64;
    100.0 * ((lost + won - (lost - won).powi(2) / count).max(0.0)).sqrt() / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_that_of_the_mean_of_paired_differences() {
        // 100 pairs: 7 lost, 3 won. The differences have mean 0.04 and variance 0.1 − 0.0016.
        let before: Vec<bool> = (0..100).map(|index| index < 90).collect();
        let after: Vec<bool> = (0..100).map(|index| (7..90).contains(&index) || index >= 97).collect();
        let expected = 100.0 * ((0.1f64 - 0.0016) / 100.0).sqrt();
        assert!((points_error(&before, &after) - expected).abs() < 1e-12);
        assert_eq!(points_error(&before, &before), 0.0, "the same answers leave no doubt");
        assert_eq!(points_error(&[], &[]), 0.0);
    }
}
