//! The task file: what a data scientist writes.
//!
//! TOML, unknown keys refused; every error names its key. `--set key=value` overrides any key before the file is checked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::codec::CodecSpec;
use crate::error::SpecError;
use crate::layer::Layer;

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
    /// Less the mean, by the standard deviation, feature by feature, of the training data at hand: the pooled data in
    /// `train` and `simulate`, the device's own on a device.
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

/// The local optimiser. Its state is fresh in each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// `w ← w − lr·g`.
    #[default]
    Sgd,
    /// Heavy ball: `v ← m·v + g`, `w ← w − lr·v`.
    Momentum,
    /// Kingma and Ba 2015, with bias correction.
    Adam,
}

/// `[train]`: local training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSettings {
    /// The optimiser.
    pub optimizer: Optimizer,
    /// The learning rate.
    pub lr: f64,
    /// The momentum of `optimizer = "momentum"`.
    pub momentum: f64,
    /// Samples a step; 0 is the whole local set.
    pub batch: usize,
    /// Passes over the local data a round.
    pub epochs: usize,
    /// How the learning rate moves over the steps of one training.
    #[serde(skip_serializing_if = "Schedule::is_constant")]
    pub schedule: Schedule,
    /// What the weights may be while they are trained.
    #[serde(skip_serializing_if = "WeightForm::is_free")]
    pub weights: WeightForm,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            optimizer: Optimizer::Sgd,
            lr: 0.1,
            momentum: 0.9,
            batch: 10,
            epochs: 1,
            schedule: Schedule::Constant,
            weights: WeightForm::Free,
        }
    }
}

/// How the learning rate moves over the steps of one training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays.
    #[default]
    Constant,
    /// From `lr` to 0 along half a cosine (Loshchilov and Hutter 2017, eq. 5 without restarts).
    Cosine,
}

impl Schedule {
    /// Whether the rate stays.
    pub fn is_constant(&self) -> bool {
        *self == Self::Constant
    }
}

/// What the weights (tensors of two axes and more) may be while they are trained. Biases and norms are always free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WeightForm {
    /// Any number.
    #[default]
    Free,
    /// A weight that is 0 when training begins stays 0: the mask of a pruned model holds.
    Pruned,
    /// As `pruned`, and the weights of a tensor that are equal when training begins stay equal: a code book is tuned. Tensors with
    /// more than 256 values that differ are held to their mask alone.
    Shared,
    /// The network computes with symmetric integers of this many bits (2 to 8), a scale an output; training moves real weights
    /// behind them, and gradients pass straight through (Jacob et al. 2018, §3).
    Integer(u8),
}

impl WeightForm {
    /// Whether nothing is asked of the weights.
    pub fn is_free(&self) -> bool {
        *self == Self::Free
    }
}

impl TryFrom<String> for WeightForm {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        let wrong =
            || SpecError::value("train.weights", format!("{text:?}"), "expected free, pruned, shared, or int2 to int8");
        match text.as_str() {
            "free" => Ok(Self::Free),
            "pruned" => Ok(Self::Pruned),
            "shared" => Ok(Self::Shared),
            _ => match text.strip_prefix("int").and_then(|bits| bits.parse().ok()) {
                Some(bits @ 2..=8) => Ok(Self::Integer(bits)),
                _ => Err(wrong()),
            },
        }
    }
}

impl From<WeightForm> for String {
    fn from(form: WeightForm) -> Self {
        match form {
            WeightForm::Free => "free".into(),
            WeightForm::Pruned => "pruned".into(),
            WeightForm::Shared => "shared".into(),
            WeightForm::Integer(bits) => format!("int{bits}"),
        }
    }
}

/// How training data are spread over simulated devices.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Partition {
    /// Shuffled, in equal parts.
    Iid,
    /// Sorted by label, cut into shards, this many shards a device (McMahan et al. 2017, §3).
    Shards(u32),
    /// Each class spread by a Dirichlet draw of this concentration (Hsu et al. 2019, §3).
    Dirichlet(f64),
    /// One device a distinct value of `data.client`.
    Column,
}

impl FromStr for Partition {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let wrong = || {
            SpecError::value(
                "federation.partition",
                format!("{text:?}"),
                "expected iid, shards:K (K from 1), dirichlet:A (A above 0) or column",
            )
        };
        match text.split_once(':') {
            None if text == "iid" => Ok(Self::Iid),
            None if text == "column" => Ok(Self::Column),
            Some(("shards", count)) => match count.parse() {
                Ok(count) if count > 0 => Ok(Self::Shards(count)),
                _ => Err(wrong()),
            },
            Some(("dirichlet", alpha)) => match alpha.parse::<f64>() {
                Ok(alpha) if alpha > 0.0 && alpha.is_finite() => Ok(Self::Dirichlet(alpha)),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Partition {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl From<Partition> for String {
    fn from(partition: Partition) -> Self {
        match partition {
            Partition::Iid => "iid".into(),
            Partition::Shards(count) => format!("shards:{count}"),
            Partition::Dirichlet(alpha) => format!("dirichlet:{alpha}"),
            Partition::Column => "column".into(),
        }
    }
}

/// `[federation]`: rounds and cohorts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FederationSection {
    /// Simulated devices; not given with `partition = "column"`.
    pub devices: Option<u32>,
    /// How the data are spread over simulated devices.
    pub partition: Partition,
    /// How cohorts are drawn: `fixed` is `max(1, fraction × devices)`.
    pub participation: Participation,
    /// The share of available devices that a round selects.
    pub fraction: f64,
    /// How many more than the fraction asks are selected, as a factor; the round commits when the fraction has reported
    /// (Bonawitz et al. 2019 use 1.3).
    pub over_selection: f64,
    /// A round starts when at least this many devices are available.
    pub devices_min: u32,
    /// The share of the cohort that has to report for the round to commit at its deadline.
    pub quorum: f64,
    /// How long a round waits for its cohort, in milliseconds.
    pub deadline_ms: u64,
    /// Rounds of a run.
    pub rounds: u32,
    /// How updates become a new model.
    pub strategy: Strategy,
    /// The run stops when the aggregator-side test accuracy reaches this.
    pub target: Option<f64>,
    /// The share of each device's data that is held out for federated evaluation.
    pub holdout: f64,
    /// Devices evaluate on their hold-outs after every so many rounds; 0 is never.
    pub evaluate_every: u32,
}

impl Default for FederationSection {
    fn default() -> Self {
        Self {
            devices: None,
            partition: Partition::Iid,
            participation: Participation::Fixed,
            fraction: 1.0,
            over_selection: 1.0,
            devices_min: 1,
            quorum: 0.5,
            deadline_ms: 60_000,
            rounds: 10,
            strategy: Strategy::Fedavg,
            target: None,
            holdout: 0.0,
            evaluate_every: 0,
        }
    }
}

/// How cohorts are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Participation {
    /// A cohort of fixed size, drawn by the aggregator.
    #[default]
    Fixed,
}

/// How updates become a new model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Strategy {
    /// The mean of the updates, weighted by examples (McMahan et al. 2017, Algorithm 1).
    #[default]
    Fedavg,
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
        if self.federation.evaluate_every > 0 && self.federation.holdout == 0.0 {
            return Err(SpecError::value(
                "federation.evaluate_every",
                self.federation.evaluate_every,
                "federated evaluation needs federation.holdout above 0",
            ));
        }
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
        down_checked(self.update.down)?;
        if !(self.update.value_max >= 2f64.powi(-20) && self.update.value_max <= 2f64.powi(20)) {
            return Err(SpecError::value("update.value_max", self.update.value_max, "expected 2^-20 to 2^20"));
        }
        if !(1..=1 << 24).contains(&self.update.weight_max) {
            return Err(SpecError::value("update.weight_max", self.update.weight_max, "expected 1 to 2^24"));
        }
        Ok(self)
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

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = r#"
        name = "t"
        kind = "classification"
        [data]
        format = "csv"
        train = "embedded:optdigits"
        shape = [1, 8, 8]
        [model]
        preset = "fedavg-2nn"
    "#;

    fn with(key: &str, value: &str) -> Result<TaskFile, SpecError> {
        TaskFile::parse(TASK, &[(key.into(), value.into())])
    }

    #[test]
    fn an_override_reaches_any_key() {
        let task = with("federation.partition", "dirichlet:0.3").expect("a task");
        assert_eq!(task.federation.partition, Partition::Dirichlet(0.3));
        let task = with("data.root", "/srv/some data").expect("a task");
        assert_eq!(task.data.root.as_deref(), Some("/srv/some data"));
        let task = with("train.lr", "0.5").expect("a task");
        assert_eq!(task.train.lr, 0.5);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = with("train.learning_rate", "1").expect_err("unknown");
        assert!(error.to_string().contains("learning_rate"), "{error}");
    }

    #[test]
    fn a_mask_is_not_left_to_a_coarse_version() {
        let set = |down: &str| {
            let overrides = [("train.weights", "pruned"), ("update.down", down)];
            TaskFile::parse(TASK, &overrides.map(|(key, value)| (key.into(), value.into())))
        };
        assert!(set("f16").is_ok());
        assert!(set("q8").expect_err("coarse").to_string().starts_with("update.down = q8: "));
    }

    #[test]
    fn versions_travel_only_in_codecs_of_fixed_length() {
        for codec in ["eden:1", "topk:0.04", "q8+ec"] {
            let task = with("update.codec", codec).expect("an update may");
            assert_eq!(task.update.codec.to_string(), codec);
            let error = with("update.down", codec).expect_err("a version may not");
            assert_eq!(
                error.to_string(),
                format!("update.down = \"{codec}\": versions travel as f32, f16, or q2 to q16")
            );
        }
    }

    #[test]
    fn a_value_out_of_range_names_its_key_and_the_range() {
        let error = with("federation.fraction", "1.5").expect_err("too large");
        assert_eq!(error.to_string(), "federation.fraction = 1.5: expected above 0 and at most 1");
    }
}
