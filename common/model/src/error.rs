//! What can go wrong between a plan, its data and a vector of parameters.

use starling_spec::{SpecError, TaskKind};

/// Why a network cannot be built, trained or evaluated.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The plan's layers do not fit each other.
    #[error("the plan describes no network")]
    Spec(#[from] SpecError),
    /// The flat vector is another network's.
    #[error("{got} parameters; the plan's network has {expected}")]
    Parameters {
        /// How many the manifest counts.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// The data are of another task.
    #[error(
        "the data are for {got:?} with {got_len} values a sample; the plan expects {expected:?} with {expected_len}"
    )]
    Data {
        /// The plan's kind.
        expected: TaskKind,
        /// The plan's values a sample.
        expected_len: usize,
        /// The data's kind.
        got: TaskKind,
        /// The data's values a sample.
        got_len: usize,
    },
    /// A row number at or above the number of samples.
    #[error("row {row} of a data set of {rows}")]
    Row {
        /// The row.
        row: u32,
        /// How many there are.
        rows: usize,
    },
    /// A label that the network has no output for.
    #[error("label {label} where the network tells {classes} classes apart (0 to {}); check data.label or the last layer's out", classes - 1)]
    Label {
        /// The label.
        label: u32,
        /// How many outputs there are.
        classes: usize,
    },
    /// A token that the embedding has no row for.
    #[error("token {token} where the embedding has {tokens} rows; check embedding.tokens")]
    Token {
        /// The token, as it was read.
        token: f32,
        /// How many rows there are.
        tokens: usize,
    },
    /// Training left the finite numbers.
    #[error("the loss is not finite at step {step}; a lower train.lr, or data.scale, keeps it finite")]
    Diverged {
        /// The step, from 1.
        step: u32,
    },
    /// A setting of the distillation that means nothing.
    #[error("the teacher's {field} is {value}; expected {expected}")]
    Teacher {
        /// Which one.
        field: &'static str,
        /// What it is.
        value: f32,
        /// What it should be.
        expected: &'static str,
    },
    /// The teacher knows another task.
    #[error("the teacher gives {got} outputs for a batch where the network gives {expected}")]
    TeacherOutputs {
        /// The network's outputs for the batch.
        expected: usize,
        /// The teacher's.
        got: usize,
    },
    /// The plan asks for noise that this way of training does not add, or for none where it does.
    #[error("{0}")]
    Noise(&'static str),
    /// The noise does not fit its grid.
    #[error("the noise of train.dp_sgd cannot be drawn")]
    Deviation(#[from] starling_privacy::noise::DeviationError),
    /// The network could not be run.
    #[error(transparent)]
    Inference(#[from] starling_engine::InferenceError),
    /// The caller asked to stop.
    #[error("training was stopped")]
    Stopped,
}
