//! Means and standard deviations of features that nobody has in one place: what a device says of its rows, and what the mean of all that
//! comes to.
//!
//! A device cuts each value x of a feature to the interval `[low, high]` that the task states, moves it to `u = (x − mid) / half` in
//! `[−1, 1]`, and says the means of u and of u² over its rows: 2 × features numbers, of an L2 norm of at most √(2 × features). They travel as any
//! update does, times [`Moments::unit`], which makes that norm the task's clipping norm: nothing is clipped, and noise of z clipping norms on
//! a sum of n devices is z · √(2 × features) / n on each mean. The deviation is √(mean of u² − (mean of u)²).

use serde::{Deserialize, Serialize};

use crate::error::SpecError;
use crate::manifest::{ParamManifest, ParamRole, Start};
use crate::task::{PrivacyPlan, TaskKind};

/// A variance of u up to this is taken for none: what floats of 24 bits leave of a difference of two numbers near 1.
const VARIANCE_MIN: f64 = 1e-6;

/// The same in a secure sum, whose values have 16 bits over some 12 deviations: a device's rounding moves its mean of u² by about 10⁻⁴.
const VARIANCE_MIN_SECURE: f64 = 2e-4;

/// Features that are looked at one by one at most: what a device allocates for a plan's moments is a few times as many bytes.
const FEATURES_MAX: usize = 1 << 22;

/// A value that all features share, or one for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerFeature {
    /// The same for all.
    All(f32),
    /// In the order of the features.
    Each(Vec<f32>),
}

impl PerFeature {
    /// The value of the feature at `index`.
    ///
    /// # Panics
    /// If there is none.
    pub fn at(&self, index: usize) -> f32 {
        match self {
            Self::All(value) => *value,
            Self::Each(values) => values[index],
        }
    }

    fn check(&self, key: &str, features: usize) -> Result<(), SpecError> {
        match self {
            Self::Each(values) if values.len() != features => Err(SpecError::value(
                key,
                format!("({} values)", values.len()),
                format!("expected one value for all features, or one for each of the {features} of data.shape"),
            )),
            Self::All(value) if !value.is_finite() => Err(SpecError::value(key, value, "expected a finite number")),
            Self::Each(values) if !values.iter().all(|value| value.is_finite()) => {
                Err(SpecError::value(key, "…", "expected finite numbers"))
            }
            _ => Ok(()),
        }
    }
}

/// The interval that a feature's values are cut to before they count for its moments. Everybody knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureRange {
    /// Its lower end, in the feature's units.
    pub low: PerFeature,
    /// Its upper end.
    pub high: PerFeature,
}

impl FeatureRange {
    /// Checks it as that of a run for the moments of samples of this kind and shape.
    ///
    /// # Errors
    /// [`SpecError`] names the key.
    pub fn check(&self, kind: TaskKind, shape: &[usize]) -> Result<(), SpecError> {
        if kind == TaskKind::NextToken {
            return Err(SpecError::value(
                "kind",
                "\"next-token\"",
                "tokens have no means: moments are of numeric features",
            ));
        }
        let features = features(shape)?;
        self.low.check("data.range.low", features)?;
        self.high.check("data.range.high", features)?;
        let empty = (0..features).find(|index| self.low.at(*index) >= self.high.at(*index));
        empty.map_or(Ok(()), |index| {
            let (low, high) = (self.low.at(index), self.high.at(index));
            let found = format!("{low} to {high} (feature {index})");
            Err(SpecError::value("data.range", found, "expected low below high"))
        })
    }

    /// The middle and half the width.
    fn of(&self, index: usize) -> (f64, f64) {
        let (low, high) = (f64::from(self.low.at(index)), f64::from(self.high.at(index)));
        ((low + high) / 2.0, (high - low) / 2.0)
    }
}

/// What features are standardised by: `(x − mean) / deviation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standardisation {
    /// The mean of each feature.
    pub mean: PerFeature,
    /// Its standard deviation, or whatever else it is divided by: above 0.
    pub deviation: PerFeature,
}

impl Standardisation {
    /// Checks it for samples of this shape.
    ///
    /// # Errors
    /// [`SpecError`] names the key.
    pub fn check(&self, shape: &[usize]) -> Result<(), SpecError> {
        let features = features(shape)?;
        self.mean.check("data.standardise.mean", features)?;
        self.deviation.check("data.standardise.deviation", features)?;
        match (0..features).map(|index| self.deviation.at(index)).find(|deviation| *deviation <= 0.0) {
            Some(deviation) => Err(SpecError::value("data.standardise.deviation", deviation, "expected above 0")),
            None => Ok(()),
        }
    }
}

/// Digits of a deviation that are written down, and so much of a mean as these are worth.
const DIGITS: i32 = 4;

impl Standardisation {
    /// The table `[data.standardise]` of a task file, to a ten-thousandth of each deviation: plans travel in one frame.
    pub fn to_toml(&self) -> String {
        let count = |values: &PerFeature| match values {
            PerFeature::All(_) => 1,
            PerFeature::Each(values) => values.len(),
        };
        let features = count(&self.mean).max(count(&self.deviation));
        let all = |values: &PerFeature| {
            let written = (0..features).map(|index| rounded(values.at(index), self.deviation.at(index)));
            written.collect::<Vec<_>>().join(", ")
        };
        format!("[data.standardise]\nmean = [{}]\ndeviation = [{}]\n", all(&self.mean), all(&self.deviation))
    }
}

/// `value` to a ten-thousandth of `unit`, at least.
fn rounded(value: f32, unit: f32) -> String {
    #[allow(clippy::cast_possible_truncation, reason = "the exponent of a float")]
    let places = DIGITS - unit.max(f32::MIN_POSITIVE).log10().floor() as i32;
    let text = format!("{value:.*}", usize::try_from(places).unwrap_or(0));
    // TOML tells floats from integers, and both are read.
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The moments that a plan asks for.
#[derive(Debug, Clone, Copy)]
pub struct Moments<'a> {
    range: &'a FeatureRange,
    features: usize,
    unit: f64,
    variance_min: f64,
}

/// Sums over the rows of a device.
#[derive(Debug, Clone)]
pub struct MomentSums<'a> {
    moments: Moments<'a>,
    sums: Vec<f64>,
    rows: u64,
    cut: u64,
}

impl MomentSums<'_> {
    /// Counts whole samples in, one after the other. A value that is no number counts as the middle of its interval.
    ///
    /// # Panics
    /// If they are no whole samples.
    pub fn add(&mut self, samples: &[f32]) {
        let features = self.moments.features;
        assert!(samples.len().is_multiple_of(features), "whole samples");
        let (firsts, seconds) = self.sums.split_at_mut(features);
        for sample in samples.chunks_exact(features) {
            self.rows += 1;
            for (index, value) in sample.iter().enumerate() {
                let (middle, half) = self.moments.range.of(index);
                let exact = (f64::from(*value) - middle) / half;
                let u = if exact.is_nan() { 0.0 } else { exact.clamp(-1.0, 1.0) };
                self.cut += u64::from(u != exact);
                firsts[index] += u;
                seconds[index] += u * u;
            }
        }
    }

    /// What the device says; nothing of no rows.
    #[allow(clippy::cast_possible_truncation, reason = "what travels has no more digits")]
    pub fn finish(&self) -> Option<LocalMoments> {
        let rows = (self.rows > 0).then_some(self.rows as f64)?;
        let values = self.sums.iter().map(|sum| (sum / rows * self.moments.unit) as f32).collect();
        Some(LocalMoments { values, cut: self.cut as f64 / (rows * self.moments.features as f64) })
    }
}

/// What a device says.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalMoments {
    /// The means of u, then those of u², in units of [`Moments::unit`].
    pub values: Vec<f32>,
    /// The share of the device's values that lay outside the interval and were cut.
    pub cut: f64,
}

impl<'a> Moments<'a> {
    /// Those of features in `range`, under what the plan says of privacy.
    pub(crate) fn new(range: &'a FeatureRange, shape: &[usize], privacy: Option<&PrivacyPlan>) -> Self {
        let features = shape.iter().product::<usize>();
        let norm = (2.0 * features as f64).sqrt();
        let unit = privacy.and_then(|privacy| privacy.asked.clip()).map_or(1.0, |clip| clip / norm);
        let noise = privacy.and_then(|privacy| {
            let multiplier = privacy.asked.dp.as_ref()?.noise_multiplier;
            Some(multiplier * norm / privacy.cohort()?)
        });
        let secure = privacy.is_some_and(|privacy| privacy.asked.secure_aggregation);
        let rounding = if secure { VARIANCE_MIN_SECURE } else { VARIANCE_MIN };
        // What noise on the mean of u² looks like is not told from a variance.
        let variance_min = noise.map_or(rounding, |noise| rounding.max(2.0 * noise));
        Self { range, features, unit, variance_min }
    }

    /// What 1 is in the vector that travels.
    pub fn unit(&self) -> f64 {
        self.unit
    }

    /// A device's sums over none of its rows yet.
    pub fn sums(&self) -> MomentSums<'a> {
        MomentSums { moments: *self, sums: vec![0.0; 2 * self.features], rows: 0, cut: 0 }
    }

    /// What the mean of the devices' vectors comes to. A feature whose variance is too small to tell from rounding and noise is divided by
    /// half the width of its interval.
    ///
    /// # Panics
    /// If `mean` has not 2 × features values.
    #[allow(clippy::cast_possible_truncation, reason = "features have no more digits")]
    pub fn standardisation(&self, mean: &[f32]) -> Standardisation {
        assert_eq!(mean.len(), 2 * self.features, "two moments of each feature");
        let (firsts, seconds) = mean.split_at(self.features);
        let found = firsts.iter().zip(seconds).enumerate().map(|(index, (first, second))| {
            let (middle, half) = self.range.of(index);
            let first = (f64::from(*first) / self.unit).clamp(-1.0, 1.0);
            let variance = f64::from(*second) / self.unit - first * first;
            let deviation = if variance > self.variance_min { variance.min(1.0).sqrt() } else { 1.0 };
            ((middle + half * first) as f32, ((half * deviation) as f32).max(f32::MIN_POSITIVE))
        });
        let (mean, deviation) = found.unzip();
        Standardisation { mean: PerFeature::Each(mean), deviation: PerFeature::Each(deviation) }
    }
}

/// How many features samples of this shape have, as far as anybody may ask about them one by one.
fn features(shape: &[usize]) -> Result<usize, SpecError> {
    let features = shape.iter().try_fold(1usize, |features, size| features.checked_mul(*size));
    features.filter(|features| (1..=FEATURES_MAX).contains(features)).ok_or_else(|| {
        SpecError::value(
            "data.shape",
            format!("{shape:?}"),
            format!("expected 1 to {FEATURES_MAX} features to scale one by one"),
        )
    })
}

/// The tensors of a vector of moments.
pub(crate) fn manifest(shape: &[usize]) -> ParamManifest {
    let mut manifest = ParamManifest::default();
    for name in ["first", "second"] {
        manifest.push(name.to_owned(), shape.to_vec(), ParamRole::Trainable, Start::Constant(0.0));
    }
    manifest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};

    fn range(low: f32, high: f32) -> FeatureRange {
        FeatureRange { low: PerFeature::All(low), high: PerFeature::All(high) }
    }

    #[test]
    fn moments_of_devices_together_are_those_of_all_rows() {
        let range =
            FeatureRange { low: PerFeature::Each(vec![-5.0, 0.0, 7.0]), high: PerFeature::Each(vec![5.0, 1e5, 9.0]) };
        let moments = Moments::new(&range, &[3], None);
        let mut random = Random::new(3, Purpose::Noise, &[]);
        #[allow(clippy::cast_possible_truncation, reason = "any value will do")]
        let mut uniform =
            |low: f64, high: f64| (low + (high - low) * (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64) as f32;
        // The last feature is constant.
        let rows: Vec<Vec<f32>> = (0..300).map(|_| vec![uniform(-2.0, 4.0), uniform(1e4, 6e4), 8.5]).collect();
        let mut mean = vec![0f64; 6];
        for part in [0..50, 50..120, 120..300] {
            let share = part.len() as f64 / 300.0;
            let mut sums = moments.sums();
            rows[part].iter().for_each(|row| sums.add(row));
            let said = sums.finish().expect("rows");
            assert_eq!(said.cut, 0.0);
            mean.iter_mut().zip(said.values).for_each(|(mean, value)| *mean += share * f64::from(value));
        }
        #[allow(clippy::cast_possible_truncation, reason = "as a version has it")]
        let mean: Vec<f32> = mean.into_iter().map(|value| value as f32).collect();
        let found = moments.standardisation(&mean);
        for feature in 0..2 {
            let column: Vec<f64> = rows.iter().map(|row| f64::from(row[feature])).collect();
            let centre = column.iter().sum::<f64>() / 300.0;
            let deviation = (column.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / 300.0).sqrt();
            let off = (f64::from(found.mean.at(feature)) - centre).abs() / deviation;
            let stretched = f64::from(found.deviation.at(feature)) / deviation - 1.0;
            assert!(off < 1e-5 && stretched.abs() < 1e-5, "feature {feature}: {off} {stretched}");
        }
        assert_eq!((found.mean.at(2), found.deviation.at(2)), (8.5, 1.0), "a constant is divided by half its interval");
        found.check(&[3]).expect("what is found can be asked for");

        let written: toml::Table = toml::from_str(&found.to_toml()).expect("TOML");
        let read: Standardisation = written["data"]["standardise"].clone().try_into().expect("a standardisation");
        for feature in 0..3 {
            let deviation = found.deviation.at(feature);
            assert!((read.mean.at(feature) - found.mean.at(feature)).abs() <= 1e-4 * deviation, "{}", found.to_toml());
            assert!((read.deviation.at(feature) / deviation - 1.0).abs() <= 1e-4, "{}", found.to_toml());
        }
    }

    #[test]
    fn what_a_device_says_is_within_the_clipping_norm_whatever_its_rows_are() {
        let range = range(0.0, 1.0);
        let moments = Moments { unit: 0.5 / 8f64.sqrt(), ..Moments::new(&range, &[4], None) };
        let wild = [f32::NAN, f32::INFINITY, -1e30, 0.25];
        let of = |samples: &[f32]| {
            let mut sums = moments.sums();
            sums.add(samples);
            sums.finish()
        };
        let said = of(&[&wild[..], &[1.0; 4], &[0.0; 4]].concat()).expect("rows");
        let norm = said.values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        assert!(norm <= 0.5, "{norm}");
        assert!((said.cut - 3.0 / 12.0).abs() < 1e-12, "{}", said.cut);
        let furthest = of(&[9.0; 4]).expect("a row");
        let norm = furthest.values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        assert!((norm - 0.5).abs() < 1e-6, "the furthest value has the norm itself: {norm}");
        assert_eq!(of(&[]), None);
    }
}
