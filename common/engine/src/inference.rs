//! The interface that every way to run a network has: the engine here, burn in `starling-model`.

use crate::error::InferenceError;

/// A network that is ready to run.
pub trait Inference: Send {
    /// Values of one sample.
    fn input_len(&self) -> usize;

    /// Values of its outputs.
    fn output_len(&self) -> usize;

    /// Appends the outputs of a whole number of samples to `outputs`, [`Inference::output_len`] values each, in order. A
    /// classification's outputs are logits.
    ///
    /// # Errors
    /// [`InferenceError`] when `features` are no whole samples or not finite, or a token is unknown; `outputs` is then as
    /// it was.
    fn run_into(&mut self, features: &[f32], outputs: &mut Vec<f32>) -> Result<(), InferenceError>;
}
