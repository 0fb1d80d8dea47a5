//! What compression asks of a network on data of its caller: a loss, its gradient, outputs.

use std::sync::Arc;

use crate::error::ModelError;
use crate::evaluate::EVALUATION_BATCH;
use crate::network::{Buffers, Network, len_of_targets, score};
use crate::samples::Samples;
use crate::weights::gather;

impl Network {
    /// The mean loss of `parameters` over `rows` of `data`, a sample (a token for text), and its gradient. The network
    /// computes as it evaluates: without dropout, and normalising by running statistics; those have a gradient of 0.
    /// It is the gradient by `parameters`, through the plan's integers and through the signs of binary layers.
    ///
    /// # Errors
    /// What is wrong with the data or the parameters.
    pub fn loss_gradient(
        &mut self,
        parameters: &[f32],
        data: &dyn Samples,
        rows: &[u32],
    ) -> Result<(f64, Vec<f32>), ModelError> {
        self.check(parameters, data, rows)?;
        let shape = Arc::clone(&self.executor.shape);
        let manifest = &shape.manifest;
        let computed = self.forms.computed(parameters);
        let mut tensors: Vec<Vec<f32>> =
            manifest.tensors.iter().map(|tensor| computed[tensor.range()].to_vec()).collect();
        let (mut total, mut part) = (vec![0f32; parameters.len()], vec![0f32; parameters.len()]);
        let mut loss_sum = 0f64;
        for batch in rows.chunks(EVALUATION_BATCH) {
            self.read(data, batch)?;
            let features = std::mem::take(&mut self.buffers.features);
            let Buffers { classes, values, parts, .. } = &mut self.buffers;
            let mut slope = |outputs: &[f32]| {
                let mut slope = Vec::new();
                loss_sum += score(&shape, classes, values, outputs, Some(&mut slope))?.loss_sum;
                Ok(slope)
            };
            let found = self.executor.backward(&mut tensors, parts, features, batch.len(), None, &mut slope)?;
            gather(manifest, &found.gradients, &mut part);
            // A batch's gradient is a mean over its rows; the whole one is a mean over all.
            #[allow(clippy::cast_possible_truncation, reason = "a share at the precision of the gradient")]
            let share = (batch.len() as f64 / rows.len() as f64) as f32;
            for (total, part) in total.iter_mut().zip(&part) {
                *total += share * part;
            }
        }
        self.forms.backward(parameters, &mut total);
        let examples = rows.len() * len_of_targets(&shape);
        Ok((loss_sum / examples.max(1) as f64, total))
    }

    /// The outputs for `rows` of `data`, sample by sample.
    ///
    /// # Errors
    /// What is wrong with the data or the parameters.
    pub fn outputs(&self, parameters: &[f32], data: &dyn Samples, rows: &[u32]) -> Result<Vec<f32>, ModelError> {
        let predict = self.predictor(parameters)?;
        let (mut features, mut outputs) = (Vec::new(), Vec::new());
        for rows in rows.chunks(EVALUATION_BATCH) {
            data.features_into(rows, &mut features);
            outputs.extend(predict(&features)?);
        }
        Ok(outputs)
    }
}
