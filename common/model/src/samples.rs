//! Where samples come from: data sets of `starling-data`, or plain memory.

use starling_data::Dataset;
use starling_spec::TaskKind;

/// Samples by row number. A batch is asked for at once, into buffers that are used again.
pub trait Samples {
    /// How many there are.
    fn rows(&self) -> usize;
    /// Values a sample.
    fn sample_len(&self) -> usize;
    /// What is learnt from them.
    fn kind(&self) -> TaskKind;
    /// Replaces `out` by the features of `rows`, [`Samples::sample_len`] values each; for text, token numbers.
    fn features_into(&self, rows: &[u32], out: &mut Vec<f32>);
    /// Replaces `out` by the classes of `rows`: one each, or for text the next token at every position.
    fn classes_into(&self, rows: &[u32], out: &mut Vec<u32>);
    /// Replaces `out` by the values of `rows`, one each.
    fn values_into(&self, rows: &[u32], out: &mut Vec<f32>);
}

impl Samples for Dataset {
    fn rows(&self) -> usize {
        self.len()
    }

    fn sample_len(&self) -> usize {
        self.sample_len()
    }

    fn kind(&self) -> TaskKind {
        self.kind()
    }

    fn features_into(&self, rows: &[u32], out: &mut Vec<f32>) {
        self.features_into(rows, out);
    }

    fn classes_into(&self, rows: &[u32], out: &mut Vec<u32>) {
        self.classes_into(rows, out);
    }

    fn values_into(&self, rows: &[u32], out: &mut Vec<f32>) {
        self.values_into(rows, out);
    }
}

/// Samples in memory: synthetic data of benches and tests.
#[derive(Debug, Clone)]
pub struct Memory {
    kind: TaskKind,
    sample_len: usize,
    features: Vec<f32>,
    classes: Vec<u32>,
    values: Vec<f32>,
}

impl Memory {
    /// Samples of a classification; `features` holds `sample_len` values for each of `classes`.
    ///
    /// # Panics
    /// If the lengths do not agree.
    pub fn classes(sample_len: usize, features: Vec<f32>, classes: Vec<u32>) -> Self {
        assert_eq!(features.len(), sample_len * classes.len(), "sample_len features for each class");
        Self { kind: TaskKind::Classification, sample_len, features, classes, values: Vec::new() }
    }

    /// Samples of a regression; `features` holds `sample_len` values for each of `values`.
    ///
    /// # Panics
    /// If the lengths do not agree.
    pub fn values(sample_len: usize, features: Vec<f32>, values: Vec<f32>) -> Self {
        assert_eq!(features.len(), sample_len * values.len(), "sample_len features for each value");
        Self { kind: TaskKind::Regression, sample_len, features, classes: Vec::new(), values }
    }

    /// Texts of `context` tokens with the token that follows each of them.
    ///
    /// # Panics
    /// If the lengths do not agree.
    pub fn texts(context: usize, tokens: Vec<f32>, next: Vec<u32>) -> Self {
        assert_eq!(tokens.len(), next.len(), "a next token for each token");
        assert_eq!(tokens.len() % context, 0, "whole texts");
        Self { kind: TaskKind::NextToken, sample_len: context, features: tokens, classes: next, values: Vec::new() }
    }
}

impl Samples for Memory {
    fn rows(&self) -> usize {
        self.features.len() / self.sample_len
    }

    fn sample_len(&self) -> usize {
        self.sample_len
    }

    fn kind(&self) -> TaskKind {
        self.kind
    }

    fn features_into(&self, rows: &[u32], out: &mut Vec<f32>) {
        gather(&self.features, self.sample_len, rows, out);
    }

    fn classes_into(&self, rows: &[u32], out: &mut Vec<u32>) {
        gather(&self.classes, if self.kind == TaskKind::NextToken { self.sample_len } else { 1 }, rows, out);
    }

    fn values_into(&self, rows: &[u32], out: &mut Vec<f32>) {
        gather(&self.values, 1, rows, out);
    }
}

fn gather<T: Copy>(values: &[T], len: usize, rows: &[u32], out: &mut Vec<T>) {
    out.clear();
    for row in rows {
        let row = usize::try_from(*row).expect("a row number fits in usize");
        out.extend_from_slice(&values[row * len..][..len]);
    }
}
