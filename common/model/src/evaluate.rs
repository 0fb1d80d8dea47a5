//! Evaluation and prediction: what a network says under given parameters.

use crate::error::ModelError;
use crate::executor::Prepared;
use crate::network::{Network, len_of_targets, score};
use crate::samples::Samples;

/// Samples that are evaluated at once. It is fixed, because the order of additions in a product may depend on it.
pub const EVALUATION_BATCH: usize = 64;

/// What an evaluation found.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Evaluated {
    /// Samples, or tokens for text.
    pub examples: u64,
    /// How many of them were classified right; 0 for a regression.
    pub correct: u64,
    /// Sum of the losses: cross-entropy in nats, or `(y − ŷ)²`.
    pub loss_sum: f64,
}

impl Evaluated {
    /// The share of examples that were classified right; 0 of none.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.examples.max(1) as f64
    }

    /// The mean loss; 0 of none.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.examples.max(1) as f64
    }
}

impl Network {
    /// Evaluates `parameters` on `rows` of `data`.
    ///
    /// # Errors
    /// What is wrong with the data or the parameters.
    pub fn evaluate(&mut self, parameters: &[f32], data: &dyn Samples, rows: &[u32]) -> Result<Evaluated, ModelError> {
        self.check(parameters, data, rows)?;
        let prepared = self.prepare(parameters);
        let mut found = Evaluated::default();
        for rows in rows.chunks(EVALUATION_BATCH) {
            self.read(data, rows)?;
            let features = std::mem::take(&mut self.buffers.features);
            let logits = self.executor.outputs(&prepared, features, rows.len());
            let scored = score(self.shape(), &self.buffers.classes, &self.buffers.values, &logits, None)?;
            found.loss_sum += scored.loss_sum;
            found.correct += scored.correct;
            found.examples += (rows.len() * len_of_targets(self.shape())) as u64;
        }
        Ok(found)
    }

    /// The network's outputs under `parameters` for `features`, a whole number of samples; row-major, one sample after the
    /// other.
    ///
    /// # Errors
    /// [`ModelError::Parameters`], [`ModelError::Data`] or [`ModelError::Token`].
    pub fn predict(&self, parameters: &[f32], features: &[f32]) -> Result<Vec<f32>, ModelError> {
        self.check_parameters(parameters)?;
        let prepared = self.prepare(parameters);
        self.predict_with(&prepared, features)
    }

    /// A function from features to outputs that holds `parameters` once: for many calls of [`Network::predict`].
    ///
    /// # Errors
    /// [`ModelError::Parameters`].
    pub fn predictor(
        &self,
        parameters: &[f32],
    ) -> Result<impl Fn(&[f32]) -> Result<Vec<f32>, ModelError> + use<'_>, ModelError> {
        self.check_parameters(parameters)?;
        let prepared = self.prepare(parameters);
        Ok(move |features: &[f32]| self.predict_with(&prepared, features))
    }

    /// `parameters`, checked by the caller, as the network computes with them.
    pub(crate) fn prepare(&self, parameters: &[f32]) -> Prepared {
        self.executor.prepare(&self.forms.computed(parameters))
    }

    pub(crate) fn predict_with(&self, prepared: &Prepared, features: &[f32]) -> Result<Vec<f32>, ModelError> {
        let expected_len = self.shape().input.iter().product::<usize>();
        if !features.len().is_multiple_of(expected_len) {
            let kind = self.shape().kind;
            return Err(ModelError::Data { expected: kind, expected_len, got: kind, got_len: features.len() });
        }
        self.check_tokens(features)?;
        Ok(self.executor.outputs(prepared, features.to_vec(), features.len() / expected_len))
    }
}
