//! Ways to run a network behind one interface: burn here, releases in `starling-engine`, and how either is evaluated.

use starling_engine::{Inference, InferenceError};
use starling_spec::shape;
use starling_spec::{Backend, TaskKind, TaskPlan};

use crate::error::ModelError;
use crate::evaluate::{EVALUATION_BATCH, Evaluated};
use crate::executor::Prepared;
use crate::network::{Network, len_of_targets, score};
use crate::samples::Samples;

/// A plan's network with its parameters, run by burn.
#[derive(Debug)]
pub struct BurnInference {
    network: Network,
    prepared: Prepared,
}

impl BurnInference {
    /// The network of `plan` under `parameters`, on `backend`.
    ///
    /// # Errors
    /// [`ModelError::Spec`] or [`ModelError::Parameters`].
    pub fn new(plan: &TaskPlan, parameters: &[f32], backend: Backend) -> Result<Self, ModelError> {
        let network = Network::new(&TaskPlan { backend, ..plan.clone() })?;
        network.check_parameters(parameters)?;
        let prepared = network.prepare(parameters);
        Ok(Self { network, prepared })
    }
}

impl Inference for BurnInference {
    fn input_len(&self) -> usize {
        self.network.shape().input.iter().product()
    }

    fn output_len(&self) -> usize {
        self.network.shape().output.iter().product()
    }

    fn run_into(&mut self, features: &[f32], outputs: &mut Vec<f32>) -> Result<(), InferenceError> {
        if let Some(index) = features.iter().position(|value| !value.is_finite()) {
            return Err(InferenceError::Feature { index, value: features[index] });
        }
        let given = self.network.predict_with(&self.prepared, features);
        outputs.extend(given.map_err(|error| InferenceError::Failed(error.to_string()))?);
        Ok(())
    }
}

/// Evaluates `inference`, which runs `network`, on `rows` of `data`.
///
/// # Errors
/// [`ModelError::Data`] or [`ModelError::Row`] when the data are another network's, [`ModelError::Label`] when a label is,
/// and [`ModelError::Inference`].
pub fn evaluate_with(
    inference: &mut dyn Inference,
    network: &shape::Network,
    data: &dyn Samples,
    rows: &[u32],
) -> Result<Evaluated, ModelError> {
    let expected_len = inference.input_len();
    if data.kind() != network.kind || data.sample_len() != expected_len {
        let (got, got_len) = (data.kind(), data.sample_len());
        return Err(ModelError::Data { expected: network.kind, expected_len, got, got_len });
    }
    if let Some(row) = rows.iter().find(|row| usize::try_from(**row).map_or(true, |row| row >= data.rows())) {
        return Err(ModelError::Row { row: *row, rows: data.rows() });
    }
    let mut found = Evaluated::default();
    let (mut features, mut classes, mut targets, mut outputs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for rows in rows.chunks(EVALUATION_BATCH) {
        data.features_into(rows, &mut features);
        match network.kind {
            TaskKind::Classification | TaskKind::NextToken => data.classes_into(rows, &mut classes),
            TaskKind::Regression => data.values_into(rows, &mut targets),
        }
        outputs.clear();
        inference.run_into(&features, &mut outputs)?;
        let scored = score(network, &classes, &targets, &outputs, None)?;
        found.loss_sum += scored.loss_sum;
        found.correct += scored.correct;
        found.examples += (rows.len() * len_of_targets(network)) as u64;
    }
    Ok(found)
}
