//! The scaling of a task's features without its samples: for features that come from elsewhere than a data file.

use std::path::Path;

use starling_spec::{DataFormat, DataSection, Scale, TaskKind};

use crate::embedded;
use crate::error::DataError;
use crate::idx;
use crate::load::load;
use crate::scale::Scaling;
use crate::source::Source;

/// How raw features become a network's inputs: what [`load`] fits to the training samples of a section.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaler {
    scaling: Scaling,
    sample_len: usize,
}

impl Scaler {
    /// The scaling that `section.scale` means on the section's training samples. Files are read only where their values
    /// decide it: where nothing is scaled, or the section says by what, nothing is read, and `unit` on IDX reads a header. Samples are not kept.
    ///
    /// # Errors
    /// As [`load`].
    pub fn fit(
        section: &DataSection,
        kind: TaskKind,
        shape: &[usize],
        base: &Path,
        seed: u64,
    ) -> Result<Self, DataError> {
        let sample_len = shape.iter().product();
        if let Some(standardise) = &section.standardise {
            standardise.check(shape).map_err(|error| DataError::setting("data.standardise", error.to_string()))?;
        }
        if let Some(scaling) = Scaling::given(section, sample_len) {
            return Ok(Self { scaling, sample_len });
        }
        let scaling = match (section.scale, section.format) {
            (Scale::None, _) | (_, DataFormat::Text) => Scaling::None,
            (Scale::Unit, _) if embedded::is_embedded(&section.train) => Scaling::Divide(embedded::FEATURE_MAX),
            (Scale::Unit, DataFormat::Idx) => {
                let root = section.root.as_ref().map_or_else(|| base.to_owned(), |root| base.join(root));
                match idx::type_max(Source::open(&root.join(&section.train))?)? {
                    Some(largest) => Scaling::Divide(largest),
                    None => load(section, kind, shape, base, seed)?.train.scaling,
                }
            }
            _ => load(section, kind, shape, base, seed)?.train.scaling,
        };
        Ok(Self { scaling, sample_len })
    }

    /// Scales whole samples where they are, bit for bit as [`crate::Dataset::features_into`] does.
    ///
    /// # Panics
    /// If `features` are no whole number of samples.
    pub fn scale(&self, features: &mut [f32]) {
        assert!(features.len().is_multiple_of(self.sample_len.max(1)), "whole samples");
        self.scaling.apply(features);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_features_are_scaled_as_a_loaded_set_is() {
        for scale in ["none", "unit", "standardise"] {
            let section = |scale: &str| -> DataSection {
                let text = format!("format = \"csv\"\ntrain = \"embedded:optdigits\"\nscale = \"{scale}\"");
                toml::from_str(&text).expect("a section")
            };
            let shape = [1, 8, 8];
            let loaded = |scale| {
                let data = load(&section(scale), TaskKind::Classification, &shape, Path::new(""), 1).expect("data");
                let mut features = Vec::new();
                data.train.features_into(&[0, 7, 3822], &mut features);
                features
            };
            let mut raw = loaded("none");
            let scaler =
                Scaler::fit(&section(scale), TaskKind::Classification, &shape, Path::new(""), 1).expect("fitted");
            scaler.scale(&mut raw);
            assert_eq!(raw, loaded(scale), "{scale}");
        }
    }
}
