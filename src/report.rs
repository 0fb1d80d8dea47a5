//! What a command says at its end: a table for people, JSON for programs, a progress bar meanwhile.
//!
//! stdout is data, stderr is talk. JSON that was asked for without a file is the data, and the table then goes to stderr.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Where a command's JSON goes.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct JsonArgs {
    /// Write the result as JSON to FILE, or to stdout when no FILE is given
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
}

impl JsonArgs {
    /// The file that JSON was asked for in.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        self.json.as_ref().filter(|file| file.as_os_str() != "-")
    }

    /// Writes `value` where the arguments say and `table` for people.
    pub(crate) fn finish<T: Serialize>(&self, value: &T, table: &impl std::fmt::Display) -> Result<()> {
        let mut text = serde_json::to_string_pretty(value).context("the result could not be written as JSON")?;
        text.push('\n');
        let to_stdout = self.json.is_some() && self.file().is_none();
        if to_stdout {
            eprint!("{table}");
            std::io::stdout().write_all(text.as_bytes()).context("stdout could not be written")?;
        } else {
            std::io::stdout().write_all(table.to_string().as_bytes()).context("stdout could not be written")?;
        }
        match self.file() {
            Some(file) => {
                std::fs::write(file, text).with_context(|| format!("{} could not be written", file.display()))
            }
            None => Ok(()),
        }
    }
}

/// A table of right-aligned columns, or of names and values when it has no head.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Table {
    /// A table under `head`.
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|word| (*word).to_owned()).collect()], notes: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Adds a line below the table.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max())
            .map(Option::unwrap_or_default)
            .collect();
        for row in &self.rows {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(f, "{cell:<width$}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
            writeln!(f)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

/// A progress bar of `length` steps on stderr; nothing is drawn when that is no terminal.
pub(crate) fn progress(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{prefix} [{bar:32}] {pos}/{len} {msg} ({elapsed})")
        .expect("the template is a constant that indicatif understands");
    bar.set_style(style.progress_chars("=> "));
    bar.set_prefix(what);
    if std::io::stderr().is_terminal() {
        bar.enable_steady_tick(Duration::from_millis(250));
    }
    bar
}

/// A share as a percentage with two decimals, or a dash.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.2} %", share * 100.0))
}

/// A figure with `decimals` decimals, or a dash.
pub(crate) fn figure(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

/// Bytes in the unit that keeps them short (powers of 1,000).
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

/// The middle of `values` (the mean of the two middle ones of an even number), or 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_aligns_its_columns() {
        let mut table = Table::new(&["round", "accuracy"]);
        table.row(vec!["1".into(), "9.10 %".into()]);
        table.row(vec!["10".into(), "97.20 %".into()]);
        table.note("done");
        assert_eq!(table.to_string(), "round  accuracy\n1        9.10 %\n10      97.20 %\ndone\n");
    }

    #[test]
    fn a_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(vec![4.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn bytes_take_the_unit_that_keeps_them_short() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_663_370), "1.66 MB");
    }
}
