//! Samples in memory, as narrow as they were found, scaled when they are read.

use std::sync::Arc;

use starling_spec::TaskKind;

use crate::scale::Scaling;

/// The samples of one set and their labels.
///
/// Reading takes row numbers below [`Dataset::len`] and panics at any other: rows come from this crate's own partitions.
#[derive(Debug, Clone)]
pub struct Dataset {
    pub(crate) kind: TaskKind,
    pub(crate) sample_len: usize,
    pub(crate) features: Features,
    pub(crate) labels: Labels,
    pub(crate) scaling: Scaling,
}

/// Features, row after row.
#[derive(Debug, Clone)]
pub(crate) enum Features {
    /// Integers from 0 to 255.
    Bytes(Vec<u8>),
    /// Anything else.
    Floats(Vec<f32>),
    /// Windows into text: `sample_len` inputs and the token after each start at `starts[row]`.
    Windows {
        /// The text of all clients, one after the other.
        tokens: Arc<[u8]>,
        /// Where each window starts.
        starts: Vec<u32>,
    },
}

/// Labels, one a row; windows carry their own.
#[derive(Debug, Clone)]
pub(crate) enum Labels {
    /// The next token of every position is in the window.
    Next,
    /// Classes from 0 to 255.
    Bytes(Vec<u8>),
    /// Larger classes.
    Classes(Vec<u32>),
    /// Values to predict.
    Values(Vec<f32>),
}

impl Dataset {
    /// How many samples there are.
    pub fn len(&self) -> usize {
        match &self.labels {
            Labels::Bytes(labels) => labels.len(),
            Labels::Classes(labels) => labels.len(),
            Labels::Values(labels) => labels.len(),
            Labels::Next => match &self.features {
                Features::Windows { starts, .. } => starts.len(),
                Features::Bytes(_) | Features::Floats(_) => 0,
            },
        }
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values a sample: the product of `data.shape`, or the tokens of context.
    pub fn sample_len(&self) -> usize {
        self.sample_len
    }

    /// What is learnt from it.
    pub fn kind(&self) -> TaskKind {
        self.kind
    }

    /// One more than the largest class or token that occurs; none for a regression. Costs a pass over the labels.
    pub fn classes(&self) -> Option<usize> {
        let largest = match (&self.labels, &self.features) {
            (Labels::Bytes(labels), _) => labels.iter().max().map(|label| usize::from(*label)),
            (Labels::Classes(labels), _) => labels.iter().max().map(|label| index(*label)),
            (Labels::Next, Features::Windows { tokens, .. }) => tokens.iter().max().map(|token| usize::from(*token)),
            (Labels::Next | Labels::Values(_), _) => return None,
        };
        Some(largest.map_or(0, |largest| largest + 1))
    }

    /// Replaces `out` by the scaled features of `rows`, [`Dataset::sample_len`] values each; for text, the token numbers.
    ///
    /// # Panics
    /// If a row is not below [`Dataset::len`].
    pub fn features_into(&self, rows: &[u32], out: &mut Vec<f32>) {
        out.clear();
        out.reserve(rows.len() * self.sample_len);
        for row in rows {
            match &self.features {
                Features::Bytes(values) => {
                    let values = &values[index(*row) * self.sample_len..][..self.sample_len];
                    self.scaling.extend(out, values.iter().map(|value| f32::from(*value)));
                }
                Features::Floats(values) => {
                    let values = &values[index(*row) * self.sample_len..][..self.sample_len];
                    self.scaling.extend(out, values.iter().copied());
                }
                Features::Windows { tokens, starts } => {
                    let window = &tokens[index(starts[index(*row)])..][..self.sample_len];
                    out.extend(window.iter().map(|token| f32::from(*token)));
                }
            }
        }
    }

    /// Replaces `out` by the classes of `rows`: one a row for a classification, the next token of each of the
    /// [`Dataset::sample_len`] positions for text, nothing for a regression.
    ///
    /// # Panics
    /// If a row is not below [`Dataset::len`].
    pub fn classes_into(&self, rows: &[u32], out: &mut Vec<u32>) {
        out.clear();
        match (&self.labels, &self.features) {
            (Labels::Bytes(labels), _) => out.extend(rows.iter().map(|row| u32::from(labels[index(*row)]))),
            (Labels::Classes(labels), _) => out.extend(rows.iter().map(|row| labels[index(*row)])),
            (Labels::Next, Features::Windows { tokens, starts }) => {
                out.reserve(rows.len() * self.sample_len);
                for row in rows {
                    let next = &tokens[index(starts[index(*row)]) + 1..][..self.sample_len];
                    out.extend(next.iter().map(|token| u32::from(*token)));
                }
            }
            (Labels::Next | Labels::Values(_), _) => {}
        }
    }

    /// Replaces `out` by the values of `rows`, one a row, in the label's own units; nothing unless it is a regression.
    ///
    /// # Panics
    /// If a row is not below [`Dataset::len`].
    pub fn values_into(&self, rows: &[u32], out: &mut Vec<f32>) {
        out.clear();
        if let Labels::Values(values) = &self.labels {
            out.extend(rows.iter().map(|row| values[index(*row)]));
        }
    }

    /// A set of these rows alone, in this order and under the same scaling: what a device keeps of a file that it shares
    /// with others. Text is shared, not copied.
    ///
    /// # Panics
    /// If a row is not below [`Dataset::len`].
    #[must_use]
    pub fn select(&self, rows: &[u32]) -> Self {
        fn pick<T: Copy>(values: &[T], rows: &[u32], len: usize) -> Vec<T> {
            let mut picked = Vec::with_capacity(rows.len() * len);
            for row in rows {
                picked.extend_from_slice(&values[index(*row) * len..][..len]);
            }
            picked
        }
        let features = match &self.features {
            Features::Bytes(values) => Features::Bytes(pick(values, rows, self.sample_len)),
            Features::Floats(values) => Features::Floats(pick(values, rows, self.sample_len)),
            Features::Windows { tokens, starts } => {
                Features::Windows { tokens: Arc::clone(tokens), starts: pick(starts, rows, 1) }
            }
        };
        let labels = match &self.labels {
            Labels::Next => Labels::Next,
            Labels::Bytes(labels) => Labels::Bytes(pick(labels, rows, 1)),
            Labels::Classes(labels) => Labels::Classes(pick(labels, rows, 1)),
            Labels::Values(values) => Labels::Values(pick(values, rows, 1)),
        };
        Self { kind: self.kind, sample_len: self.sample_len, features, labels, scaling: self.scaling.clone() }
    }

    /// The number of rows as a row number; every constructor keeps it in range.
    pub(crate) fn rows(&self) -> u32 {
        u32::try_from(self.len()).expect("readers refuse more rows than a row number can tell apart")
    }
}

/// A row number or offset as an index.
pub(crate) fn index(row: u32) -> usize {
    usize::try_from(row).expect("an index has at least 32 bits on every platform that std's collections support here")
}
