//! From the `[data]` section of a task to sets in memory.

use std::path::{Path, PathBuf};

use starling_spec::task::Column;
use starling_spec::{DataFormat, DataSection, Scale, TaskKind};

use crate::dataset::{Dataset, Features, Labels};
use crate::embedded::{self, Half};
use crate::error::DataError;
use crate::scale::Scaling;
use crate::source::Source;
use crate::split::split_test;
use crate::{idx, table, text};

/// What [`load`] found.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The samples to train on.
    pub train: Dataset,
    /// The test set, where the section names a file or a fraction.
    pub test: Option<Dataset>,
    /// The natural client of each training row, where the section has `client`.
    pub clients: Option<Clients>,
}

/// Natural clients: the people, places or roles that rows come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// Their names, in the order of their first rows.
    pub names: Vec<String>,
    /// The client of each training row, as an index into `names`.
    pub of_row: Vec<u32>,
}

impl Loaded {
    /// Keeps only these training rows, under the scaling that was fitted to the whole file: what a device does that loads
    /// its partition of a shared file. The test set stays.
    ///
    /// # Panics
    /// If a row is not below the number of training rows.
    #[must_use]
    pub fn keep(self, rows: &[u32]) -> Self {
        let clients = self.clients.map(|clients| clients.select(rows));
        Self { train: self.train.select(rows), test: self.test, clients }
    }
}

impl Clients {
    fn select(&self, rows: &[u32]) -> Self {
        let of_row: Vec<u32> = rows.iter().map(|row| self.of_row[crate::dataset::index(*row)]).collect();
        // Clients that have lost all their rows would be devices without data.
        let mut renumbered = vec![None; self.names.len()];
        let mut kept = Self { names: Vec::new(), of_row: Vec::with_capacity(rows.len()) };
        for client in of_row {
            let client = crate::dataset::index(client);
            let number = *renumbered[client].get_or_insert_with(|| {
                kept.names.push(self.names[client].clone());
                u32::try_from(kept.names.len() - 1).expect("no more clients than before, whose numbers fitted")
            });
            kept.of_row.push(number);
        }
        kept
    }
}

/// What a reader makes of one file.
pub(crate) struct Raw {
    pub(crate) features: Features,
    pub(crate) labels: Labels,
    pub(crate) clients: Option<Clients>,
    /// The largest value of the features' type, where the format fixes it.
    pub(crate) type_max: Option<f32>,
}

/// Reads the files of `section`, relative to `base` (the task file's folder) and `data.root`.
///
/// `kind` and `shape` are the plan's: on a device they come from the aggregator, not from the device's own configuration.
/// For text, `shape` is the tokens of context. Scaling is fitted to the training rows, without those of
/// `data.test_fraction`, and applied to both sets. `seed` draws the rows of `data.test_fraction`.
///
/// # Errors
/// [`DataError`] names file, line and column, or the key of the section that does not fit.
pub fn load(
    section: &DataSection,
    kind: TaskKind,
    shape: &[usize],
    base: &Path,
    seed: u64,
) -> Result<Loaded, DataError> {
    let sample_len = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let sample_len = match sample_len {
        Some(len) if len > 0 && !shape.is_empty() => len,
        _ => return Err(DataError::setting("data.shape", format!("{shape:?} has no samples; expected sizes above 0"))),
    };
    check(section, kind, sample_len)?;
    let root = section.root.as_ref().map_or_else(|| base.to_owned(), |root| base.join(root));
    let reader = Reader { section, kind, sample_len, root };

    let raw = reader.read(&section.train, section.train_labels.as_deref(), Half::Train)?;
    let mut train = Dataset { kind, sample_len, features: raw.features, labels: raw.labels, scaling: Scaling::None };
    let mut clients = raw.clients;
    if u32::try_from(train.len()).is_err() {
        return Err(DataError::file(&section.train, format!("{} rows; expected less than 2^32", train.len())));
    }
    if train.is_empty() {
        return Err(DataError::file(&section.train, "holds no sample"));
    }
    let mut test = None;
    if let Some(fraction) = section.test_fraction.filter(|fraction| *fraction > 0.0) {
        let (kept, drawn) = split_test(train.rows(), fraction, seed);
        test = Some(train.select(&drawn));
        train = train.select(&kept);
        clients = clients.map(|clients| clients.select(&kept));
    } else if let Some(name) = &section.test {
        let raw = reader.read(name, section.test_labels.as_deref(), Half::Test)?;
        let set = Dataset { kind, sample_len, features: raw.features, labels: raw.labels, scaling: Scaling::None };
        if set.is_empty() || u32::try_from(set.len()).is_err() {
            return Err(DataError::file(name, format!("{} samples; expected 1 to 2^32 − 1", set.len())));
        }
        test = Some(set);
    }
    train.scaling = Scaling::of(section, &train.features, sample_len, raw.type_max);
    if let Some(test) = &mut test {
        test.scaling = train.scaling.clone();
    }
    Ok(Loaded { train, test, clients })
}

/// Combinations of keys that have no meaning are refused rather than ignored.
fn check(section: &DataSection, kind: TaskKind, sample_len: usize) -> Result<(), DataError> {
    let wrong = |key, problem: &str| Err(DataError::setting(key, problem));
    let is_text = section.format == DataFormat::Text;
    if is_text != (kind == TaskKind::NextToken) {
        return wrong("data.format", "`text` is for next-token tasks, `csv` and `idx` are for the others");
    }
    match section.context {
        Some(_) if !is_text => return wrong("data.context", "only text has a context"),
        Some(context) if context != sample_len => {
            let problem = format!("{context} tokens, but the plan says {sample_len}");
            return Err(DataError::setting("data.context", problem));
        }
        _ => {}
    }
    if is_text && section.scale != Scale::None {
        return wrong("data.scale", "tokens are not scaled; leave it out");
    }
    if let Some(standardise) = &section.standardise {
        let problem = |error: starling_spec::SpecError| DataError::setting("data.standardise", error.to_string());
        standardise.check(&[sample_len]).map_err(problem)?;
    }
    if section.format != DataFormat::Csv {
        if section.label.is_some() {
            return wrong("data.label", "only a CSV file has a label column");
        }
        if !section.drop.is_empty() {
            return wrong("data.drop", "only a CSV file has columns to drop");
        }
    }
    match (&section.client, section.format) {
        (None, _) | (Some(_), DataFormat::Csv) => {}
        (Some(Column::Name(name)), DataFormat::Text) if name == "role" => {}
        (Some(_), DataFormat::Text) => return wrong("data.client", "text knows one kind of client: \"role\""),
        (Some(_), DataFormat::Idx) => return wrong("data.client", "IDX files do not name clients; leave it out"),
    }
    if section.format != DataFormat::Idx {
        if section.train_labels.is_some() {
            return wrong("data.train_labels", "only IDX keeps labels in a file of their own");
        }
        if section.test_labels.is_some() {
            return wrong("data.test_labels", "only IDX keeps labels in a file of their own");
        }
    } else if section.train_labels.is_none() {
        return wrong("data.train_labels", "missing: IDX keeps labels in a file of their own");
    } else if section.test.is_some() && section.test_labels.is_none() {
        return wrong("data.test_labels", "missing: IDX keeps labels in a file of their own");
    }
    if embedded::is_embedded(&section.train) && section.format != DataFormat::Csv {
        return wrong("data.format", "the embedded set is \"csv\"");
    }
    if let Some(fraction) = section.test_fraction {
        if !(0.0..1.0).contains(&fraction) {
            return wrong("data.test_fraction", "expected at least 0 and below 1");
        }
        if section.test.is_some() {
            return wrong("data.test_fraction", "expected at most one of `test` and `test_fraction`");
        }
    }
    Ok(())
}

/// What the files of one section have in common.
struct Reader<'a> {
    section: &'a DataSection,
    kind: TaskKind,
    sample_len: usize,
    root: PathBuf,
}

impl Reader<'_> {
    fn read(&self, name: &str, labels: Option<&str>, half: Half) -> Result<Raw, DataError> {
        if embedded::is_embedded(name) {
            if self.section.format != DataFormat::Csv {
                return Err(DataError::setting("data.format", "the embedded set is \"csv\""));
            }
            // The label is the last column of the embedded set, which its reader need not know.
            let label = self.section.label.clone().unwrap_or(Column::Index(-1));
            let columns =
                table::Wanted { label: &label, client: self.section.client.as_ref(), drop: &self.section.drop };
            let raw = table::read(embedded::open(name, half)?, &columns, self.kind, self.sample_len)?;
            return Ok(Raw { type_max: Some(embedded::FEATURE_MAX), ..raw });
        }
        let source = Source::open(&self.root.join(name))?;
        match self.section.format {
            DataFormat::Csv => {
                let label = self.section.label.as_ref().ok_or_else(|| {
                    DataError::setting(
                        "data.label",
                        "missing: the label's column, by name or by index (-1 is the last)",
                    )
                })?;
                let columns = table::Wanted { label, client: self.section.client.as_ref(), drop: &self.section.drop };
                table::read(source, &columns, self.kind, self.sample_len)
            }
            DataFormat::Idx => {
                let labels = labels.ok_or_else(|| DataError::setting("data.train_labels", "missing"))?;
                idx::read(source, Source::open(&self.root.join(labels))?, self.kind, self.sample_len)
            }
            DataFormat::Text => text::read(source, self.section.client.is_some(), self.sample_len),
        }
    }
}
