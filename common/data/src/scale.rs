//! Feature scaling: fitted on training data, applied on read.

use std::sync::Arc;

use starling_spec::{DataSection, PerFeature, Scale};

use crate::dataset::Features;

/// How a stored feature becomes an input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scaling {
    /// As it is.
    None,
    /// Divided by this, so that the largest magnitude becomes exactly 1.
    Divide(f32),
    /// `(x − mean) / deviation`, feature by feature.
    Standardise {
        /// The mean of each feature.
        mean: Arc<[f32]>,
        /// The standard deviation of each feature (of the population); 1 where a feature is constant.
        deviation: Arc<[f32]>,
    },
}

impl Scaling {
    /// Fits `scale` to training features. `type_max` is the largest value of the features' type where the format knows it
    /// (255 for IDX bytes, 16 for the embedded digits), so that every device divides by the same number; without it the
    /// largest magnitude at hand is taken.
    pub(crate) fn fit(scale: Scale, features: &Features, sample_len: usize, type_max: Option<f32>) -> Self {
        match (scale, features) {
            (Scale::None, _) | (_, Features::Windows { .. }) => Self::None,
            (Scale::Unit, _) => match type_max.unwrap_or_else(|| largest(features)) {
                largest if largest > 0.0 => Self::Divide(largest),
                // All features are 0, and stay so.
                _ => Self::None,
            },
            (Scale::Standardise, Features::Bytes(values)) => standardise(values, sample_len, |value| f64::from(*value)),
            (Scale::Standardise, Features::Floats(values)) => {
                standardise(values, sample_len, |value| f64::from(*value))
            }
        }
    }

    /// What a section says of features: the standardisation that it gives, or what [`Scaling::fit`] finds.
    pub(crate) fn of(section: &DataSection, features: &Features, sample_len: usize, type_max: Option<f32>) -> Self {
        Self::given(section, sample_len).unwrap_or_else(|| Self::fit(section.scale, features, sample_len, type_max))
    }

    /// The standardisation that a section gives, if it does.
    pub(crate) fn given(section: &DataSection, sample_len: usize) -> Option<Self> {
        let given = section.standardise.as_ref().filter(|_| section.scale == Scale::Standardise)?;
        let each = |values: &PerFeature| (0..sample_len).map(|index| values.at(index)).collect();
        Some(Self::Standardise { mean: each(&given.mean), deviation: each(&given.deviation) })
    }

    /// Scales whole samples where they are, as [`Scaling::extend`] does.
    pub(crate) fn apply(&self, values: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Divide(by) => values.iter_mut().for_each(|value| *value /= by),
            Self::Standardise { mean, deviation } => {
                for sample in values.chunks_mut(mean.len()) {
                    let fitted = mean.iter().zip(deviation.iter());
                    sample
                        .iter_mut()
                        .zip(fitted)
                        .for_each(|(value, (mean, deviation))| *value = (*value - mean) / deviation);
                }
            }
        }
    }

    /// Appends one sample.
    pub(crate) fn extend(&self, out: &mut Vec<f32>, values: impl Iterator<Item = f32>) {
        match self {
            Self::None => out.extend(values),
            Self::Divide(by) => out.extend(values.map(|value| value / by)),
            Self::Standardise { mean, deviation } => {
                let fitted = mean.iter().zip(deviation.iter());
                out.extend(values.zip(fitted).map(|(value, (mean, deviation))| (value - mean) / deviation));
            }
        }
    }
}

fn largest(features: &Features) -> f32 {
    match features {
        Features::Bytes(values) => values.iter().max().map_or(0.0, |value| f32::from(*value)),
        Features::Floats(values) => values.iter().fold(0.0, |largest, value| largest.max(value.abs())),
        Features::Windows { .. } => 0.0,
    }
}

/// Two passes, sums in f64: the mean first, so that the squares do not cancel.
#[allow(clippy::cast_possible_truncation, reason = "means and deviations are rounded to the features' own precision")]
fn standardise<T>(values: &[T], sample_len: usize, as_f64: impl Fn(&T) -> f64) -> Scaling {
    let rows = (values.len() / sample_len).max(1) as f64;
    let mut mean = vec![0.0f64; sample_len];
    for row in values.chunks_exact(sample_len) {
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += as_f64(value) / rows);
    }
    let mut variance = vec![0.0f64; sample_len];
    for row in values.chunks_exact(sample_len) {
        for ((variance, mean), value) in variance.iter_mut().zip(&mean).zip(row) {
            *variance += (as_f64(value) - mean).powi(2) / rows;
        }
    }
    // A feature that never changes may show a variance of rounding errors, which must not be blown up.
    let deviation = variance.iter().zip(&mean).map(|(variance, mean)| {
        let deviation = variance.sqrt();
        if deviation > 1e-7 * mean.abs().max(f64::from(f32::MIN_POSITIVE)) { deviation as f32 } else { 1.0 }
    });
    Scaling::Standardise { deviation: deviation.collect(), mean: mean.iter().map(|mean| *mean as f32).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(scaling: &Scaling, values: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        values.chunks(2).for_each(|row| scaling.extend(&mut out, row.iter().copied()));
        out
    }

    #[test]
    fn standardised_features_have_mean_0_and_deviation_1_and_constants_become_0() {
        let values = vec![1.0f32, 7.3, 3.0, 7.3, 5.0, 7.3];
        let scaling = Scaling::fit(Scale::Standardise, &Features::Floats(values.clone()), 2, None);
        let out = scaled(&scaling, &values);
        let deviation = (8.0f32 / 3.0).sqrt();
        assert_eq!(out, [-2.0 / deviation, 0.0, 0.0, 0.0, 2.0 / deviation, 0.0]);
    }

    #[test]
    fn unit_divides_by_the_types_maximum_or_the_largest_magnitude() {
        let floats = Features::Floats(vec![-8.0, 4.0]);
        assert_eq!(Scaling::fit(Scale::Unit, &floats, 2, None), Scaling::Divide(8.0));
        assert_eq!(Scaling::fit(Scale::Unit, &Features::Bytes(vec![3, 9]), 2, Some(255.0)), Scaling::Divide(255.0));
        assert_eq!(scaled(&Scaling::Divide(255.0), &[255.0, 0.0]), [1.0, 0.0]);
        assert_eq!(Scaling::fit(Scale::Unit, &Features::Bytes(vec![0, 0]), 2, None), Scaling::None);
    }
}
