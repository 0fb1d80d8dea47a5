//! The task file: what a data scientist writes.
//!
//! TOML, unknown keys refused; every error names its key. `--set key=value` overrides any key before the file is checked.

mod clipping;
mod dp;
mod dp_sgd;
mod federation;
mod groups;
mod moments;
mod privacy;
mod tags;
#[cfg(test)]
mod tests;
mod train;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::CodecSpec;
use crate::error::SpecError;
use crate::layer::Layer;
use crate::moments::{FeatureRange, Standardisation};

pub use clipping::{AdaptiveClip, CLIP_MIN};
pub use dp::{DpMechanism, DpMode, DpSection};
pub use dp_sgd::DpSgd;
pub use federation::{FederationSection, Goal, Participation, Partition, Strategy};
pub use groups::{GROUPS_MIN, GroupRule};
pub use privacy::{PrivacyPlan, PrivacySection, Weights};
pub use tags::{TAG_BYTES_MAX, TAGS_MAX, check_tags};
pub use train::{Optimizer, Schedule, TrainSettings, WeightForm};

/// A task file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskFile {
    /// The task's name, by which devices find their data.
    pub name: String,
    /// What is learnt.
    pub kind: TaskKind,
    /// Where the data are and what they look like.
    pub data: DataSection,
    /// The network.
    pub model: ModelSection,
    /// Local training.
    #[serde(default)]
    pub train: TrainSettings,
    /// Rounds and cohorts.
    #[serde(default)]
    pub federation: FederationSection,
    /// What travels.
    #[serde(default)]
    pub update: UpdateSection,
    /// What the aggregator may learn; single updates where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacySection>,
}

/// What is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// One class a sample; the loss is the mean cross-entropy in nats.
    Classification,
    /// A value a sample; the loss is `1/N Σ‖y−ŷ‖²`.
    Regression,
    /// The next token at every position; the loss is the mean cross-entropy a token in nats.
    NextToken,
}

/// How data files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataFormat {
    /// Comma-separated values, with or without a header row.
    Csv,
    /// LeCun's IDX: images and labels in files of their own.
    Idx,
    /// Plain text; a token is a byte.
    Text,
}

/// How features are scaled. Labels never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// As they are.
    #[default]
    None,
    /// Divided by the largest value of their type: 255 for bytes; for CSV the largest magnitude in the training data.
    Unit,
    /// Less the mean, by the standard deviation, feature by feature: those of `data.standardise`, and where it is not given those of the
    /// training data at hand, which are the pooled data in `train` and `simulate` and the device's own on a device.
    Standardise,
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// The format of the files; `.gz` is accepted for all.
    pub format: DataFormat,
    /// The training file, relative to `root`; `embedded:optdigits` is the set that every build carries.
    pub train: String,
    /// The test file.
    #[serde(default)]
    pub test: Option<String>,
    /// Instead of a test file: this share of the training data, drawn by seed, is the test set.
    #[serde(default)]
    pub test_fraction: Option<f64>,
    /// IDX: the labels of the training images.
    #[serde(default)]
    pub train_labels: Option<String>,
    /// IDX: the labels of the test images.
    #[serde(default)]
    pub test_labels: Option<String>,
    /// CSV: the label's column, by name or index.
    #[serde(default)]
    pub label: Option<Column>,
    /// CSV: the column that names the natural client. Text: `role` splits a play by speaker.
    #[serde(default)]
    pub client: Option<Column>,
    /// CSV: columns to leave out.
    #[serde(default)]
    pub drop: Vec<Column>,
    /// The shape of one sample; its product is the number of features.
    #[serde(default)]
    pub shape: Vec<usize>,
    /// How features are scaled.
    #[serde(default)]
    pub scale: Scale,
    /// What `scale = "standardise"` scales by: the same on every device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standardise: Option<Standardisation>,
    /// The interval of each feature, for a run with `federation.goal = "moments"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<FeatureRange>,
    /// Text: tokens of context.
    #[serde(default)]
    pub context: Option<usize>,
    /// The folder of the files; the task file's own when not given.
    #[serde(default)]
    pub root: Option<String>,
}

/// A CSV column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// By position, from 0; negative counts from the end.
    Index(i64),
    /// By the name in the header row.
    Name(String),
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => index.fmt(f),
            Self::Name(name) => write!(f, "{name:?}"),
        }
    }
}

/// Which of burn's CPU backends computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The faster one for the model, from measured figures (`docs/decisions/`).
    #[default]
    Auto,
    /// burn-ndarray.
    Ndarray,
    /// burn-flex.
    Flex,
}

/// `[model]`: a preset or a list of layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// A network by name (`fedavg-2nn`, `fedavg-cnn`, `lenet-300-100`, `lenet-5`, `digits-cnn`).
    #[serde(default)]
    pub preset: Option<String>,
    /// Or its layers.
    #[serde(default)]
    pub layers: Option<Vec<Layer>>,
    /// Which backend computes it.
    #[serde(default)]
    pub backend: Backend,
}

/// `[update]`: what travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateSection {
    /// The codec of updates.
    pub codec: CodecSpec,
    /// The codec of model versions on their way down: f32, f16 or qB.
    pub down: CodecSpec,
    /// Devices that hold the version before get the next one as a lossless difference. It saves bytes and costs CPU on both
    /// sides; f32 versions differ in nearly every byte and are always sent whole.
    pub difference: bool,
    /// The largest magnitude that one parameter of an update may have; rounded up to a power of two.
    pub value_max: f64,
    /// The largest weight (examples) of one update.
    pub weight_max: u32,
}

impl Default for UpdateSection {
    fn default() -> Self {
        Self { codec: CodecSpec::F32, down: CodecSpec::F32, difference: true, value_max: 16.0, weight_max: 1 << 20 }
    }
}

/// Whether model versions may travel in `down`.
pub(crate) fn down_checked(down: CodecSpec) -> Result<(), SpecError> {
    if down.encodes_versions() {
        return Ok(());
    }
    Err(SpecError::value("update.down", format!("{:?}", down.to_string()), "versions travel as f32, f16, or q2 to q16"))
}

impl TaskFile {
    /// Reads a task file after putting `overrides` (`key = value`, keys dotted) in place.
    ///
    /// A value is read as TOML where it is TOML (`0.1`, `"x"`, `[1, 2]`), otherwise as a string: `data.root=/srv/data`
    /// needs no quotes.
    ///
    /// # Errors
    /// [`SpecError`] names the key.
    pub fn parse(text: &str, overrides: &[(String, String)]) -> Result<Self, SpecError> {
        let toml_error = |error: toml::de::Error| SpecError::Toml(error.to_string().trim_end().to_owned());
        if overrides.is_empty() {
            // Straight from the text, so that errors show its lines.
            let task: Self = toml::from_str(text).map_err(toml_error)?;
            return task.checked();
        }
        let mut table: toml::Table = toml::from_str(text).map_err(toml_error)?;
        for (key, value) in overrides {
            set(&mut table, key, value)?;
        }
        let task: Self = table.try_into().map_err(toml_error)?;
        task.checked()
    }

    fn checked(self) -> Result<Self, SpecError> {
        let this = moments::asked_alone(self);
        this.check()?;
        Ok(this)
    }

    fn check(&self) -> Result<(), SpecError> {
        let share = |key: &str, value: f64, zero: bool| {
            let ok = if zero { (0.0..1.0).contains(&value) } else { value > 0.0 && value <= 1.0 };
            let range = if zero { "expected at least 0 and below 1" } else { "expected above 0 and at most 1" };
            if ok { Ok(()) } else { Err(SpecError::value(key, value, range)) }
        };
        let at_least_one = |key: &str, value: u64| {
            if value > 0 { Ok(()) } else { Err(SpecError::value(key, value, "expected at least 1")) }
        };
        if self.name.is_empty() || self.name.len() > 64 || self.name.contains(char::is_control) {
            return Err(SpecError::value("name", format!("{:?}", self.name), "expected 1 to 64 printable bytes"));
        }
        if self.model.preset.is_some() == self.model.layers.is_some() {
            return Err(SpecError::value("model", "…", "expected exactly one of `preset` and `layers`"));
        }
        if self.data.test.is_some() && self.data.test_fraction.is_some() {
            return Err(SpecError::value(
                "data.test_fraction",
                "…",
                "expected at most one of `test` and `test_fraction`",
            ));
        }
        if let Some(fraction) = self.data.test_fraction {
            share("data.test_fraction", fraction, true)?;
        }
        share("federation.fraction", self.federation.fraction, false)?;
        share("federation.quorum", self.federation.quorum, false)?;
        share("federation.holdout", self.federation.holdout, true)?;
        at_least_one("federation.rounds", self.federation.rounds.into())?;
        at_least_one("federation.devices_min", self.federation.devices_min.into())?;
        at_least_one("federation.deadline_ms", self.federation.deadline_ms)?;
        at_least_one("train.epochs", self.train.epochs as u64)?;
        if !(1.0..=10.0).contains(&self.federation.over_selection) {
            return Err(SpecError::value(
                "federation.over_selection",
                self.federation.over_selection,
                "expected 1 to 10",
            ));
        }
        if self.federation.participation == Participation::Poisson {
            if self.federation.over_selection != 1.0 {
                return Err(SpecError::value(
                    "federation.over_selection",
                    self.federation.over_selection,
                    "each device is in by its own coin under participation = \"poisson\": nobody is asked beyond them",
                ));
            }
            if self.privacy.as_ref().is_some_and(|privacy| privacy.secure_aggregation) {
                return Err(SpecError::value(
                    "federation.participation",
                    "\"poisson\"",
                    "the members of a secure sum see who is in it, so nothing is gained by coins: use \"fixed\" or \"any\"",
                ));
            }
        }
        self.federation.check_server()?;
        if self.federation.evaluate_every > 0 && self.federation.holdout == 0.0 {
            return Err(SpecError::value(
                "federation.evaluate_every",
                self.federation.evaluate_every,
                "federated evaluation needs federation.holdout above 0",
            ));
        }
        moments::check(self)?;
        if self.federation.goal != Goal::Train && self.federation.rounds != 1 {
            return Err(SpecError::value(
                "federation.rounds",
                self.federation.rounds,
                "a run whose goal is to evaluate or to find ranges has 1 round",
            ));
        }
        if self.federation.goal == Goal::Evaluate && self.federation.holdout == 0.0 {
            return Err(SpecError::value(
                "federation.goal",
                "\"evaluate\"",
                "devices evaluate on what they hold out: federation.holdout has to be above 0",
            ));
        }
        check_tags("federation.tags", &self.federation.tags)?;
        if !(self.train.lr.is_finite() && self.train.lr > 0.0) {
            return Err(SpecError::value("train.lr", self.train.lr, "expected a finite number above 0"));
        }
        if !(0.0..1.0).contains(&self.train.momentum) {
            return Err(SpecError::value("train.momentum", self.train.momentum, "expected at least 0 and below 1"));
        }
        let held = matches!(self.train.weights, WeightForm::Pruned | WeightForm::Shared);
        if held && !matches!(self.update.down, CodecSpec::F32 | CodecSpec::F16) {
            return Err(SpecError::value(
                "update.down",
                self.update.down,
                "train.weights = \"pruned\" and \"shared\" need f32 or f16: coarser versions round small weights to 0",
            ));
        }
        // A weight that is masked, or that shares its value with others, must come back as it was sent.
        let eden = matches!(self.update.codec, CodecSpec::Eden(_));
        let exact = matches!(self.update.codec, CodecSpec::F32 | CodecSpec::F16);
        if held && (eden || self.train.weights == WeightForm::Shared && !exact) {
            return Err(SpecError::value(
                "update.codec",
                self.update.codec,
                "train.weights = \"pruned\" needs a codec that keeps zeros (all but eden), and \"shared\" one that keeps equal \
                 values equal (f32, f16)",
            ));
        }
        down_checked(self.update.down)?;
        if !(self.update.value_max >= 2f64.powi(-20) && self.update.value_max <= 2f64.powi(20)) {
            return Err(SpecError::value("update.value_max", self.update.value_max, "expected 2^-20 to 2^20"));
        }
        if !(1..=1 << 24).contains(&self.update.weight_max) {
            return Err(SpecError::value("update.weight_max", self.update.weight_max, "expected 1 to 2^24"));
        }
        if let Some(privacy) = &self.privacy {
            privacy.check(self)?;
        }
        if let Some(dp_sgd) = &self.train.dp_sgd {
            dp_sgd.check(self)?;
        }
        Ok(())
    }
}

/// Puts `value` at the dotted `key`, making tables on the way.
fn set(table: &mut toml::Table, key: &str, value: &str) -> Result<(), SpecError> {
    let parsed = toml::from_str::<toml::Table>(&format!("v = {value}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut parts = key.split('.').collect::<Vec<_>>();
    let last = parts.pop().filter(|last| !last.is_empty());
    let last = last.ok_or_else(|| SpecError::value(key, value, "expected --set key=value with a dotted key"))?;
    let mut here = table;
    for part in parts {
        here = here
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| SpecError::value(key, value, format!("{part} is no table")))?;
    }
    here.insert(last.to_owned(), parsed);
    Ok(())
}
