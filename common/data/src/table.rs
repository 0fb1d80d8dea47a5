//! CSV: a label, perhaps a client, and features.
//!
//! A header row is recognised when a column is addressed by name, or when no cell of the first row is a number. A first row
//! that is neither is read as data, so that a broken first row is reported and not swallowed.

use std::collections::HashMap;

use csv::{ByteRecord, ReaderBuilder, Trim};
use starling_spec::TaskKind;
use starling_spec::task::Column;

use crate::CLASS_MAX;
use crate::dataset::{Features, Labels};
use crate::error::DataError;
use crate::load::{Clients, Raw};
use crate::source::Source;

/// Columns that are no features.
pub(crate) struct Wanted<'a> {
    pub(crate) label: &'a Column,
    pub(crate) client: Option<&'a Column>,
    pub(crate) drop: &'a [Column],
}

/// What a column is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Feature,
    Label,
    Client,
    Dropped,
}

pub(crate) fn read(source: Source, wanted: &Wanted<'_>, kind: TaskKind, sample_len: usize) -> Result<Raw, DataError> {
    let file = source.name.clone();
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).trim(Trim::All).from_reader(source);
    let mut record = ByteRecord::new();
    let mut layout: Option<Layout> = None;
    let mut features = Narrow::Bytes(Vec::new());
    let mut labels = LabelColumn::new(kind);
    let mut clients = wanted.client.map(|_| ClientColumn::default());
    while reader.read_byte_record(&mut record).map_err(|error| csv_error(&file, error))? {
        let line = record.position().map_or(0, csv::Position::line);
        let layout = match &mut layout {
            Some(layout) => layout,
            empty => {
                let (found, header) = Layout::of(&file, line, &record, wanted, sample_len)?;
                let layout = empty.insert(found);
                if header {
                    continue;
                }
                layout
            }
        };
        if record.len() != layout.uses.len() {
            let problem = format!("{} columns; expected {} as in the first row", record.len(), layout.uses.len());
            return Err(DataError::line(&file, line, problem));
        }
        for (index, (cell, usage)) in record.iter().zip(&layout.uses).enumerate() {
            let put = match usage {
                Use::Feature => features.push(cell),
                Use::Label => labels.push(cell),
                Use::Client => clients.as_mut().map_or(Ok(()), |clients| clients.push(cell)),
                Use::Dropped => Ok(()),
            };
            put.map_err(|expected| {
                let found = String::from_utf8_lossy(&cell[..cell.len().min(40)]);
                DataError::Cell {
                    file: file.clone(),
                    line,
                    column: layout.column(index),
                    problem: format!("{found:?}; expected {expected}"),
                }
            })?;
        }
    }
    Ok(Raw {
        features: match features {
            Narrow::Bytes(values) => Features::Bytes(values),
            Narrow::Floats(values) => Features::Floats(values),
        },
        labels: labels.finish(),
        clients: clients.map(|clients| clients.clients),
        type_max: None,
    })
}

fn csv_error(file: &str, error: csv::Error) -> DataError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => DataError::io(file, error),
        other => DataError::file(file, format!("is no CSV: {other:?}")),
    }
}

/// The columns of a file.
struct Layout {
    uses: Vec<Use>,
    names: Option<Vec<String>>,
}

impl Layout {
    /// The layout that the first row shows, and whether that row is a header.
    fn of(
        file: &str,
        line: u64,
        first: &ByteRecord,
        wanted: &Wanted<'_>,
        sample_len: usize,
    ) -> Result<(Self, bool), DataError> {
        let named = |column: &Column| matches!(column, Column::Name(_));
        let by_name = named(wanted.label) || wanted.client.is_some_and(named) || wanted.drop.iter().any(named);
        let is_number = |cell: &[u8]| std::str::from_utf8(cell).is_ok_and(|cell| cell.parse::<f64>().is_ok());
        let header = by_name || !first.iter().any(is_number);
        let names: Option<Vec<String>> =
            header.then(|| first.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect());
        let mut layout = Self { uses: vec![Use::Feature; first.len()], names };
        let mark = |layout: &mut Self, key: &'static str, column: &Column, usage: Use| {
            let index = layout.find(file, key, column)?;
            if layout.uses[index] != Use::Feature {
                return Err(DataError::setting(key, format!("column {column} of {file} is already spoken for")));
            }
            layout.uses[index] = usage;
            Ok(())
        };
        mark(&mut layout, "data.label", wanted.label, Use::Label)?;
        if let Some(client) = wanted.client {
            mark(&mut layout, "data.client", client, Use::Client)?;
        }
        for column in wanted.drop {
            mark(&mut layout, "data.drop", column, Use::Dropped)?;
        }
        let found = layout.uses.iter().filter(|usage| **usage == Use::Feature).count();
        if found != sample_len {
            let problem = format!(
                "{found} feature columns, but data.shape has {sample_len} values; expected them equal after label, client \
                 and drop"
            );
            return Err(DataError::line(file, line, problem));
        }
        Ok((layout, header))
    }

    fn find(&self, file: &str, key: &'static str, column: &Column) -> Result<usize, DataError> {
        let width = self.uses.len();
        match column {
            Column::Index(index) => {
                let from_end = index.unsigned_abs().try_into().ok().and_then(|back| width.checked_sub(back));
                let place = if *index < 0 { from_end } else { usize::try_from(*index).ok() };
                place.filter(|place| *place < width).ok_or_else(|| {
                    DataError::setting(key, format!("{file} has no column {index}: it has {width}, counted from 0"))
                })
            }
            Column::Name(name) => {
                let names = self.names.as_deref().unwrap_or_default();
                let mut places = names.iter().enumerate().filter(|(_, found)| *found == name);
                match (places.next(), places.next()) {
                    (Some((place, _)), None) => Ok(place),
                    (Some(_), Some(_)) => {
                        Err(DataError::setting(key, format!("{file} has more than one column {name:?}")))
                    }
                    (None, _) => {
                        let mut shown = names.iter().take(8).map(|name| format!("{name:?}")).collect::<Vec<_>>();
                        if names.len() > shown.len() {
                            shown.push("…".into());
                        }
                        let shown = shown.join(", ");
                        Err(DataError::setting(key, format!("{file} has no column {name:?}; its first row is {shown}")))
                    }
                }
            }
        }
    }

    fn column(&self, index: usize) -> String {
        match self.names.as_ref().and_then(|names| names.get(index)) {
            Some(name) => format!("{index} ({name:?})"),
            None => index.to_string(),
        }
    }
}

/// Features, bytes until the first that is none.
enum Narrow {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

impl Narrow {
    fn push(&mut self, cell: &[u8]) -> Result<(), &'static str> {
        match self {
            Self::Bytes(values) => match byte(cell) {
                Some(value) => values.push(value),
                None => {
                    let value = float(cell)?;
                    // "3.0" and "1e2" are bytes in another spelling.
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a byte")]
                    if value.fract() == 0.0 && (0.0..=255.0).contains(&value) && value.is_sign_positive() {
                        values.push(value as u8);
                    } else {
                        let mut floats: Vec<f32> = values.iter().map(|value| f32::from(*value)).collect();
                        floats.push(value);
                        *self = Self::Floats(floats);
                    }
                }
            },
            Self::Floats(values) => values.push(float(cell)?),
        }
        Ok(())
    }
}

/// One to three digits of at most 255: nearly every cell of an integer table.
fn byte(cell: &[u8]) -> Option<u8> {
    if cell.is_empty() || cell.len() > 3 {
        return None;
    }
    cell.iter().try_fold(0u8, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

fn float(cell: &[u8]) -> Result<f32, &'static str> {
    let value = std::str::from_utf8(cell).ok().and_then(|cell| cell.parse::<f32>().ok());
    value.filter(|value| value.is_finite()).ok_or("a finite number")
}

/// Labels, bytes until the first class that is none.
pub(crate) enum LabelColumn {
    Bytes(Vec<u8>),
    Classes(Vec<u32>),
    Values(Vec<f32>),
}

/// What a class has to be; [`CLASS_MAX`] in words.
pub(crate) const CLASS_EXPECTED: &str =
    "a class number from 0 to 65535 (number named classes in a file's labels from 0)";

impl LabelColumn {
    pub(crate) fn new(kind: TaskKind) -> Self {
        match kind {
            TaskKind::Regression => Self::Values(Vec::new()),
            TaskKind::Classification | TaskKind::NextToken => Self::Bytes(Vec::new()),
        }
    }

    fn push(&mut self, cell: &[u8]) -> Result<(), &'static str> {
        match self {
            Self::Values(_) => self.push_value(float(cell)?),
            Self::Bytes(_) | Self::Classes(_) => match byte(cell) {
                Some(class) => self.push_class(class.into()),
                None => self.push_value(float(cell).map_err(|_| CLASS_EXPECTED)?),
            },
        }
    }

    /// A label that was read as a number.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a class number")]
    pub(crate) fn push_value(&mut self, value: f32) -> Result<(), &'static str> {
        match self {
            Self::Values(values) if value.is_finite() => values.push(value),
            Self::Values(_) => return Err("a finite number"),
            _ if value.fract() == 0.0 && (0.0..=CLASS_MAX as f32).contains(&value) => {
                return self.push_class(value as u32);
            }
            _ => return Err(CLASS_EXPECTED),
        }
        Ok(())
    }

    fn push_class(&mut self, class: u32) -> Result<(), &'static str> {
        match (&mut *self, u8::try_from(class)) {
            (Self::Bytes(labels), Ok(class)) => labels.push(class),
            (Self::Bytes(labels), Err(_)) => {
                let mut classes: Vec<u32> = labels.iter().map(|label| u32::from(*label)).collect();
                classes.push(class);
                *self = Self::Classes(classes);
            }
            (Self::Classes(labels), _) => labels.push(class),
            (Self::Values(_), _) => return Err("a value"),
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Labels {
        match self {
            Self::Bytes(labels) => Labels::Bytes(labels),
            Self::Classes(labels) => Labels::Classes(labels),
            Self::Values(values) => Labels::Values(values),
        }
    }
}

/// The client of each row.
struct ClientColumn {
    numbers: HashMap<String, u32>,
    clients: Clients,
}

impl Default for ClientColumn {
    fn default() -> Self {
        Self { numbers: HashMap::new(), clients: Clients { names: Vec::new(), of_row: Vec::new() } }
    }
}

impl ClientColumn {
    fn push(&mut self, cell: &[u8]) -> Result<(), &'static str> {
        let name = std::str::from_utf8(cell).ok().filter(|name| !name.is_empty()).ok_or("the name of a client")?;
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.clients.names.len()).map_err(|_| "less than 2^32 clients")?;
                self.numbers.insert(name.to_owned(), number);
                self.clients.names.push(name.to_owned());
                number
            }
        };
        self.clients.of_row.push(number);
        Ok(())
    }
}
