//! Samples without labels, from a table that somebody wants predictions for.

use std::io::Read;

use csv::{ReaderBuilder, StringRecord, Trim};
use starling_spec::task::Column;

use crate::error::DataError;

/// Rows of raw features, all of one length.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// The values, row after row.
    pub values: Vec<f32>,
    /// Values a row; 0 when there is no row.
    pub row_len: usize,
}

/// Reads a CSV of features, without the columns `drop` (a label, an id). A header row is recognised as in a data file: when a
/// column is named, or when no cell of the first row is a number. `name` stands for the input in messages.
///
/// # Errors
/// [`DataError`] names line and column.
pub fn read_rows(name: &str, input: impl Read, drop: &[Column]) -> Result<Rows, DataError> {
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).trim(Trim::All).from_reader(input);
    let mut rows = Rows { values: Vec::new(), row_len: 0 };
    let mut dropped: Option<Vec<bool>> = None;
    let mut record = StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return Ok(rows),
            Err(error) => return Err(DataError::file(name, format!("is no CSV: {error}"))),
        }
        let line = record.position().map_or(0, csv::Position::line);
        let dropped = match &dropped {
            Some(dropped) => dropped,
            None => {
                let marks = marks(name, &record, drop)?;
                let named = drop.iter().any(|column| matches!(column, Column::Name(_)));
                let header = named || !record.iter().any(|cell| cell.parse::<f64>().is_ok());
                rows.row_len = marks.iter().filter(|dropped| !**dropped).count();
                let dropped = dropped.insert(marks);
                if header {
                    continue;
                }
                dropped
            }
        };
        if record.len() != dropped.len() {
            let problem = format!("{} columns; expected {} as in the first row", record.len(), dropped.len());
            return Err(DataError::line(name, line, problem));
        }
        for (column, (cell, dropped)) in record.iter().zip(dropped).enumerate() {
            if *dropped {
                continue;
            }
            let value: f32 = cell.parse().ok().filter(|value: &f32| value.is_finite()).ok_or_else(|| {
                let found: String = cell.chars().take(40).collect();
                let problem = format!("{found:?}; expected a finite number");
                DataError::Cell { file: name.to_owned(), line, column: column.to_string(), problem }
            })?;
            rows.values.push(value);
        }
    }
}

/// Which columns of the first row are dropped.
fn marks(name: &str, first: &StringRecord, drop: &[Column]) -> Result<Vec<bool>, DataError> {
    let mut marks = vec![false; first.len()];
    for column in drop {
        let index = match column {
            Column::Name(wanted) => first.iter().position(|cell| cell == wanted),
            Column::Index(index) => {
                let from_end = i64::try_from(first.len()).ok().filter(|_| *index < 0).map(|len| len + index);
                usize::try_from(from_end.unwrap_or(*index)).ok().filter(|index| *index < first.len())
            }
        };
        let index = index.ok_or_else(|| DataError::file(name, format!("has no column {column} to drop")))?;
        marks[index] = true;
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lose_header_and_dropped_columns() {
        let rows = read_rows("x", &b"a,b,label\n1,2,7\n3,4.5,8\n"[..], &[Column::Name("label".into())]);
        assert_eq!(rows.expect("rows"), Rows { values: vec![1.0, 2.0, 3.0, 4.5], row_len: 2 });
        let rows = read_rows("x", &b"1,2,7\n3,4,8\n"[..], &[Column::Index(-1)]);
        assert_eq!(rows.expect("rows").values, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(read_rows("x", &b""[..], &[]).expect("none"), Rows { values: vec![], row_len: 0 });
    }

    #[test]
    fn what_is_no_number_is_named() {
        let error = read_rows("x", &b"1,2\n3,four\n"[..], &[]).expect_err("a word");
        assert_eq!(error.to_string(), "x: line 2, column 1: \"four\"; expected a finite number");
        assert!(read_rows("x", &b"1,2\n3\n"[..], &[]).is_err());
        assert!(read_rows("x", &b"1,2\n"[..], &[Column::Index(2)]).is_err());
    }
}
