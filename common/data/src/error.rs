//! One error for everything that a data file or its binding can get wrong.

use std::io;

/// What is wrong with data, in the terms of the person who bound them. Lines count from 1; columns from 0, as in
/// `data.label`.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file that cannot be opened or read, or whose compression is broken.
    #[error("{file}: cannot be read")]
    Io {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A cell of a table.
    #[error("{file}: line {line}, column {column}: {problem}")]
    Cell {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// The column, from 0, and its name where there is a header row.
        column: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// A line as a whole.
    #[error("{file}: line {line}: {problem}")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// What was found and what was expected.
        problem: String,
    },
    /// A file as a whole.
    #[error("{file}: {problem}")]
    File {
        /// The file.
        file: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// A setting that the data do not bear out.
    #[error("{key}: {problem}")]
    Setting {
        /// The key, dotted from the top of the task file.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl DataError {
    pub(crate) fn setting(key: &'static str, problem: impl Into<String>) -> Self {
        Self::Setting { key, problem: problem.into() }
    }

    pub(crate) fn file(file: &str, problem: impl Into<String>) -> Self {
        Self::File { file: file.to_owned(), problem: problem.into() }
    }

    pub(crate) fn line(file: &str, line: u64, problem: impl Into<String>) -> Self {
        Self::Line { file: file.to_owned(), line, problem: problem.into() }
    }

    pub(crate) fn io(file: &str, source: io::Error) -> Self {
        Self::Io { file: file.to_owned(), source }
    }
}
