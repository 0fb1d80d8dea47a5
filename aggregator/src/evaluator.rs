//! The seam through which a model is tested on the aggregator's side. This crate does not link burn; the `starling`
//! command brings an evaluator along, the lean daemon has none.

use starling_spec::TaskPlan;

/// Figures on a test set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TestFigures {
    /// Share classified rightly; none in regression.
    pub accuracy: Option<f64>,
    /// Mean loss.
    pub loss: f64,
}

/// Tests model versions.
pub trait Evaluator: Send + Sync {
    /// The figures of `parameters` under `plan`; none where it has no test set for the task. Called on the worker thread,
    /// between a round and the next; an error is logged and stops no run.
    ///
    /// # Errors
    /// In words, for the operator.
    fn evaluate(&self, plan: &TaskPlan, parameters: &[f32]) -> Result<Option<TestFigures>, String>;
}
