//! Losses on plain slices: their value, their gradient by the network's outputs, and what was right.
//!
//! The gradient enters the graph as a constant, so the graph holds the network alone.

use crate::error::ModelError;

/// What a batch's outputs are worth.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Scored {
    /// The sum of the losses: cross-entropy in nats, or squared error.
    pub(crate) loss_sum: f64,
    /// How many outputs had their largest value at the label.
    pub(crate) correct: u64,
}

/// Cross-entropy of rows of `logits` with their `labels`: `log Σ exp z − z_label`, shifted by the largest logit.
/// `gradient`, when given, becomes `(softmax(z) − onehot(label)) / labels.len()`.
pub(crate) fn cross_entropy(
    logits: &[f32],
    labels: &[u32],
    classes: usize,
    mut gradient: Option<&mut Vec<f32>>,
) -> Result<Scored, ModelError> {
    let mut scored = Scored::default();
    #[allow(clippy::cast_possible_truncation, reason = "the mean's factor at the precision of the gradient")]
    let share = (1.0 / labels.len() as f64) as f32;
    if let Some(gradient) = gradient.as_deref_mut() {
        gradient.clear();
        gradient.reserve(logits.len());
    }
    for (row, label) in logits.chunks_exact(classes).zip(labels) {
        let index = usize::try_from(*label).ok().filter(|index| *index < classes);
        let index = index.ok_or(ModelError::Label { label: *label, classes })?;
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = row.iter().map(|z| (z - largest).exp()).sum();
        scored.loss_sum += f64::from(total.ln()) - f64::from(row[index] - largest);
        // The first of equal outputs counts, as in argmax; a NaN is never right.
        if row.iter().position(|z| *z == largest) == Some(index) {
            scored.correct += 1;
        }
        if let Some(gradient) = gradient.as_deref_mut() {
            let factor = share / total;
            let start = gradient.len();
            gradient.extend(row.iter().map(|z| (z - largest).exp() * factor));
            gradient[start + index] -= share;
        }
    }
    // `max` passes over a NaN among numbers; the loss must not.
    if logits.iter().any(|z| z.is_nan()) {
        scored.loss_sum = f64::NAN;
    }
    Ok(scored)
}

/// The sum of `(y − ŷ)²`. `gradient`, when given, becomes `2 (ŷ − y) / N`: that of `1/N Σ‖y−ŷ‖²`.
pub(crate) fn squared_error(outputs: &[f32], values: &[f32], gradient: Option<&mut Vec<f32>>) -> Scored {
    let loss_sum = outputs.iter().zip(values).map(|(output, value)| f64::from(output - value).powi(2)).sum();
    if let Some(gradient) = gradient {
        #[allow(clippy::cast_possible_truncation, reason = "the mean's factor at the precision of the gradient")]
        let share = (2.0 / values.len() as f64) as f32;
        gradient.clear();
        gradient.extend(outputs.iter().zip(values).map(|(output, value)| share * (output - value)));
    }
    Scored { loss_sum, correct: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_of_known_logits() {
        let logits = [0.0, 0.0, 0.0, 0.0, 1000.0, 0.0, 1000.0, 999.0];
        let mut gradient = Vec::new();
        let scored = cross_entropy(&logits, &[1, 1], 4, Some(&mut gradient)).expect("labels in range");
        // ln 4, and 1000 + ln(2 + e^-1) for the class that got nothing.
        assert!((scored.loss_sum - (4f64.ln() + 1000.0 + (2.0 + (-1f64).exp()).ln())).abs() < 1e-4);
        assert_eq!(scored.correct, 0, "the first of four equal outputs is class 0, not 1");
        assert_eq!(gradient[..4], [0.125, 0.125 - 0.5, 0.125, 0.125]);
        assert!((gradient.iter().sum::<f32>()).abs() < 1e-6);
    }

    #[test]
    fn a_label_without_an_output_is_named() {
        let error = cross_entropy(&[0.0; 3], &[3], 3, None).expect_err("out of range");
        assert!(error.to_string().contains("label 3 where the network tells 3 classes apart (0 to 2)"), "{error}");
    }

    #[test]
    fn not_a_number_is_not_hidden() {
        let scored = cross_entropy(&[f32::NAN, 1.0], &[1], 2, None).expect("labels in range");
        assert!(scored.loss_sum.is_nan());
    }

    #[test]
    fn squared_error_and_its_gradient() {
        let mut gradient = Vec::new();
        let scored = squared_error(&[1.0, 2.0], &[0.0, 4.0], Some(&mut gradient));
        assert_eq!(scored.loss_sum, 5.0);
        assert_eq!(gradient, [1.0, -2.0]);
    }
}
