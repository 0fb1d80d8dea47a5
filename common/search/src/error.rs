//! Why a search ends without an answer.

use starling_model::ModelError;
use starling_spec::SpecError;

/// What ends a search. A method that does not apply to a model ends nothing: it becomes a note.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// No such method.
    #[error(
        "no compression method is called {0:?}; expected auto, prune, codebook, deep, int8, int4, fixed:B (B from 2 to 16), f16, f32, \
         binary, layers or units"
    )]
    Method(String),
    /// A way of pruning that there is not.
    #[error("{0}")]
    Pruning(String),
    /// The weights are another network's.
    #[error("{got} weights came with a task whose network has {expected}")]
    Weights {
        /// What the task's network has.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// Nothing to validate on.
    #[error(
        "{rows} training rows cannot be parted into rows to fit and rows to validate on; at least {least} are needed"
    )]
    Rows {
        /// How many there are.
        rows: usize,
        /// How many it takes.
        least: usize,
    },
    /// Every method was refused.
    #[error("no candidate could be made: {0}")]
    Nothing(String),
    /// The layers do not fit.
    #[error("the network cannot be built")]
    Spec(#[from] SpecError),
    /// Training or evaluation failed.
    #[error("{doing} failed")]
    Model {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: ModelError,
    },
    /// The side that has the data has no way to do something: what asks for it does not apply there.
    #[error("{0}")]
    Unavailable(&'static str),
    /// The side that has the data (devices, say) could not do its part.
    #[error("{doing} failed")]
    Tuner {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl SearchError {
    /// Wraps what the network says about `doing`.
    pub fn model(doing: &'static str) -> impl Fn(ModelError) -> Self {
        move |source| Self::Model { doing, source }
    }
}
