//! A plan's network: what it holds, and what is asked of data and parameters before they reach a backend.

use starling_spec::shape::{self, Op, infer};
use starling_spec::{Backend, TaskKind, TaskPlan, TrainSettings};

use crate::error::ModelError;
use crate::executor::{Executor, PartBuffers};
use crate::forms::Forms;
use crate::loss::{Scored, cross_entropy, squared_error};
use crate::samples::Samples;

/// A network on one thread: built once, used for any number of parameter vectors. It keeps buffers, not parameters.
#[derive(Debug)]
pub struct Network {
    pub(crate) executor: Executor,
    pub(crate) forms: Forms,
    pub(crate) settings: TrainSettings,
    pub(crate) seed: u64,
    pub(crate) buffers: Buffers,
}

/// What is used again from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) order: Vec<u32>,
    pub(crate) features: Vec<f32>,
    pub(crate) classes: Vec<u32>,
    pub(crate) values: Vec<f32>,
    pub(crate) parts: PartBuffers,
}

impl Network {
    /// The network of `plan`.
    ///
    /// # Errors
    /// [`ModelError::Spec`] when its layers do not fit each other.
    pub fn new(plan: &TaskPlan) -> Result<Self, ModelError> {
        let shape = infer(plan.kind, &plan.shape, &plan.layers)?;
        Ok(Self {
            forms: Forms::new(&shape, plan.train.weights),
            executor: Executor::new(shape, plan.backend),
            settings: plan.train.clone(),
            seed: plan.seed,
            buffers: Buffers::default(),
        })
    }

    /// The network's sizes.
    pub(crate) fn shape(&self) -> &shape::Network {
        &self.executor.shape
    }

    /// The backend that trains what burn computes: never [`Backend::Auto`].
    pub fn backend(&self) -> Backend {
        self.executor.backend
    }

    /// How many parameters the flat vector has.
    pub fn parameters(&self) -> usize {
        self.shape().manifest.len()
    }

    /// Reads the batch `rows` into the buffers.
    pub(crate) fn read(&mut self, data: &dyn Samples, rows: &[u32]) -> Result<(), ModelError> {
        data.features_into(rows, &mut self.buffers.features);
        self.check_tokens(&self.buffers.features)?;
        match self.shape().kind {
            TaskKind::Classification | TaskKind::NextToken => data.classes_into(rows, &mut self.buffers.classes),
            TaskKind::Regression => data.values_into(rows, &mut self.buffers.values),
        }
        Ok(())
    }

    pub(crate) fn check(&self, parameters: &[f32], data: &dyn Samples, rows: &[u32]) -> Result<(), ModelError> {
        self.check_parameters(parameters)?;
        let expected_len = self.shape().input.iter().product::<usize>();
        if data.kind() != self.shape().kind || data.sample_len() != expected_len {
            return Err(ModelError::Data {
                expected: self.shape().kind,
                expected_len,
                got: data.kind(),
                got_len: data.sample_len(),
            });
        }
        let count = data.rows();
        match rows.iter().find(|row| usize::try_from(**row).map_or(true, |row| row >= count)) {
            Some(row) => Err(ModelError::Row { row: *row, rows: count }),
            None => Ok(()),
        }
    }

    pub(crate) fn check_parameters(&self, parameters: &[f32]) -> Result<(), ModelError> {
        let (expected, got) = (self.parameters(), parameters.len());
        if expected == got { Ok(()) } else { Err(ModelError::Parameters { expected, got }) }
    }

    /// A token outside the table would be a panic, or worse, in the backend.
    pub(crate) fn check_tokens(&self, features: &[f32]) -> Result<(), ModelError> {
        let Some(Op::Embedding { tokens, .. }) = self.shape().nodes.first().map(|node| &node.op) else { return Ok(()) };
        let outside = |token: &&f32| !(**token >= 0.0 && f64::from(**token) < *tokens as f64);
        match features.iter().find(outside) {
            Some(token) => Err(ModelError::Token { token: *token, tokens: *tokens }),
            None => Ok(()),
        }
    }
}

/// Targets a sample: positions for text, else 1.
pub(crate) fn len_of_targets(shape: &shape::Network) -> usize {
    if shape.kind == TaskKind::NextToken { shape.output[0] } else { 1 }
}

/// The loss of a batch, and its gradient by the outputs where `gradient` is given.
pub(crate) fn score(
    shape: &shape::Network,
    classes: &[u32],
    targets: &[f32],
    outputs: &[f32],
    gradient: Option<&mut Vec<f32>>,
) -> Result<Scored, ModelError> {
    match shape.kind {
        TaskKind::Classification | TaskKind::NextToken => {
            let last = shape.output.last().copied().expect("an output has at least one axis");
            cross_entropy(outputs, classes, last, gradient)
        }
        TaskKind::Regression => Ok(squared_error(outputs, targets, gradient)),
    }
}
