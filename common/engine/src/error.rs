//! What can go wrong between a release, an engine and the features that it is given.

use starling_spec::SpecError;

/// Why a release cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The release's layers do not fit each other.
    #[error("the release describes no network")]
    Spec(#[from] SpecError),
    /// A list of the release is longer or shorter than its layers' manifest.
    #[error("the release has {found} {what}; its layers have {expected} tensors, and it needs one for each")]
    Count {
        /// `tensors` or `input ranges`.
        what: &'static str,
        /// How many tensors the manifest has.
        expected: usize,
        /// How many came.
        found: usize,
    },
    /// A tensor that is not what its layer needs.
    #[error("{tensor}: {problem}")]
    Tensor {
        /// Its name in the manifest.
        tensor: String,
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// A layer that would take more memory than this engine gives one.
    #[error("a {layer} layer needs {values} values of working memory for a sample; this engine gives it {limit}")]
    Memory {
        /// The layer's kind.
        layer: &'static str,
        /// Values asked for.
        values: usize,
        /// Values given.
        limit: usize,
    },
    /// The features of a calibration cannot be run.
    #[error("the calibration features cannot be run")]
    Features(#[from] InferenceError),
}

/// Why an inference gave no outputs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InferenceError {
    /// The features are no whole number of samples.
    #[error("{found} features; a sample has {sample}, and whole samples are needed")]
    Length {
        /// Values that came.
        found: usize,
        /// Values of one sample.
        sample: usize,
    },
    /// A feature is NaN or infinite.
    #[error("feature {index} of the batch is {value}; features have to be finite")]
    Feature {
        /// Its index in the batch.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// A token that the embedding has no row for.
    #[error("feature {index} of the batch is {value}, which is no token: the embedding has {tokens} rows")]
    Token {
        /// Its index in the batch.
        index: usize,
        /// What it is.
        value: f32,
        /// Rows of the table.
        tokens: usize,
    },
    /// Another implementation's own failure.
    #[error("the network cannot be run: {0}")]
    Failed(String),
}
