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

/// Mixes what a teacher says into the loss and its gradient by `outputs`, for rows of `classes` logits:
/// `s · T² · KL(softmax(taught / T) ‖ softmax(outputs / T)) + (1 − s) · loss_sum` (Hinton et al. 2015, §2; the factor keeps the
/// gradients' size whatever `T` is). `gradient` holds that of the loss, a mean over rows, and becomes that of the mixture.
pub(crate) fn distil_classes(
    outputs: &[f32],
    taught: &[f32],
    classes: usize,
    (temperature, share): (f32, f32),
    loss_sum: f64,
    gradient: &mut [f32],
) -> f64 {
    let rows = outputs.len() / classes.max(1);
    #[allow(clippy::cast_possible_truncation, reason = "the mean's factor at the precision of the gradient")]
    let factor = share * temperature * (1.0 / rows.max(1) as f64) as f32;
    let (mut student, mut teacher) = (Vec::with_capacity(classes), Vec::with_capacity(classes));
    let mut divergence = 0f64;
    let rows = outputs.chunks_exact(classes).zip(taught.chunks_exact(classes));
    for ((outputs, taught), gradient) in rows.zip(gradient.chunks_exact_mut(classes)) {
        let student_log = softmax(outputs, temperature, &mut student);
        let teacher_log = softmax(taught, temperature, &mut teacher);
        for (index, gradient) in gradient.iter_mut().enumerate() {
            let (p, q) = (teacher[index], student[index]);
            // log p − log q from the logits: both may be 0 in f32 where their logarithms are still numbers.
            let ratio = (taught[index] - outputs[index]) / temperature - (teacher_log - student_log);
            divergence += f64::from(p) * f64::from(ratio);
            *gradient = (1.0 - share) * *gradient + factor * (q - p);
        }
    }
    f64::from(share * temperature * temperature) * divergence + f64::from(1.0 - share) * loss_sum
}

/// The same for a regression: `s · Σ (ŷ − taught)² + (1 − s) · loss_sum`.
pub(crate) fn distil_values(outputs: &[f32], taught: &[f32], share: f32, loss_sum: f64, gradient: &mut [f32]) -> f64 {
    let mut soft = Vec::with_capacity(outputs.len());
    let scored = squared_error(outputs, taught, Some(&mut soft));
    for (gradient, soft) in gradient.iter_mut().zip(soft) {
        *gradient = (1.0 - share) * *gradient + share * soft;
    }
    f64::from(share) * scored.loss_sum + f64::from(1.0 - share) * loss_sum
}

/// Fills `out` with `softmax(logits / temperature)` and gives `log Σ exp(logits / temperature)`.
fn softmax(logits: &[f32], temperature: f32, out: &mut Vec<f32>) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    out.clear();
    out.extend(logits.iter().map(|z| ((z - largest) / temperature).exp()));
    let total: f32 = out.iter().sum();
    for value in out.iter_mut() {
        *value /= total;
    }
    total.ln() + largest / temperature
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

    /// The mixture's gradient against differences of the mixture, and its value against the definition in f64.
    #[test]
    fn a_teachers_divergence_and_its_gradient() {
        let outputs = [0.3f32, -1.2, 0.7, 2.0, 0.1, -0.4];
        let taught = [1.5f32, 0.2, -0.9, -2.0, 3.0, 0.5];
        let labels = [2u32, 0];
        let (temperature, share) = (3.0f32, 0.7f32);
        let mixture = |outputs: &[f32], gradient: &mut Vec<f32>| {
            let hard = cross_entropy(outputs, &labels, 3, Some(gradient)).expect("labels in range").loss_sum;
            distil_classes(outputs, &taught, 3, (temperature, share), hard, gradient)
        };
        let mut gradient = Vec::new();
        let value = mixture(&outputs, &mut gradient);
        let soft = |z: &[f32]| -> Vec<f64> {
            let powers: Vec<f64> = z.iter().map(|z| (f64::from(*z) / 3.0).exp()).collect();
            let total: f64 = powers.iter().sum();
            powers.into_iter().map(|power| power / total).collect()
        };
        let mut divergence = 0.0;
        for row in [0..3, 3..6] {
            let pairs = soft(&taught[row.clone()]).into_iter().zip(soft(&outputs[row]));
            divergence += pairs.map(|(p, q)| p * (p / q).ln()).sum::<f64>();
        }
        let hard = cross_entropy(&outputs, &labels, 3, None).expect("labels in range").loss_sum;
        let expected = f64::from(share) * 9.0 * divergence + f64::from(1.0 - share) * hard;
        assert!((value - expected).abs() < 1e-5, "{value} against {expected}");
        for index in 0..6 {
            let moved = |size: f32| {
                let mut moved = outputs;
                moved[index] += size;
                mixture(&moved, &mut Vec::new())
            };
            // The gradient is a mean over two rows, the value a sum.
            let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2 / 2.0;
            assert!((f64::from(gradient[index]) - difference).abs() < 1e-4, "{index}");
        }
    }

    #[test]
    fn a_teachers_values() {
        let mut gradient = Vec::new();
        let hard = squared_error(&[1.0, 2.0], &[0.0, 4.0], Some(&mut gradient)).loss_sum;
        assert_eq!(distil_values(&[1.0, 2.0], &[1.0, 0.0], 0.5, hard, &mut gradient), 0.5 * 4.0 + 0.5 * 5.0);
        assert_eq!(gradient, [0.5, 0.5 * 2.0 - 0.5 * 2.0]);
    }
}
