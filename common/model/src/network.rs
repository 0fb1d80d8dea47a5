//! A plan's network: trains and evaluates flat vectors of parameters.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Device, Tensor, TensorData};
use starling_spec::random::{Purpose, Random};
use starling_spec::shape::{self, Op, infer};
use starling_spec::{Backend, ParamRole, TaskKind, TaskPlan, TrainSettings};

use crate::backend::{choose, device};
use crate::error::ModelError;
use crate::forward::{MaskKey, Pass};
use crate::loss::{Scored, cross_entropy, squared_error};
use crate::optimise::Optimiser;
use crate::samples::Samples;
use crate::tensors::{Act, Leaf, values};

/// Samples that are evaluated at once. It is fixed, because the order of additions in a product may depend on it.
pub const EVALUATION_BATCH: usize = 64;

/// How fast the running statistics of batch normalisation follow a batch (PyTorch's default).
const STATISTICS_RATE: f32 = 0.1;

/// A network on one thread: built once, used for any number of parameter vectors. It keeps buffers, not parameters.
#[derive(Debug)]
pub struct Network {
    shape: shape::Network,
    settings: TrainSettings,
    seed: u64,
    backend: Backend,
    train_device: Device,
    evaluate_device: Device,
    buffers: Buffers,
}

/// What tells the randomness of one local training from all others of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainPath {
    /// The device's key ([`starling_spec::random::device_key`]).
    pub device: u64,
    /// The round.
    pub round: u64,
}

/// What a training did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainOutcome {
    /// Samples trained on, each counted once however many epochs there were: FedAvg's weight.
    pub examples: u32,
    /// Optimiser steps.
    pub steps: u32,
    /// The mean loss over all steps, before each step, a sample (a token for text).
    pub loss_mean: f32,
}

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

#[derive(Debug, Default)]
struct Buffers {
    order: Vec<u32>,
    features: Vec<f32>,
    classes: Vec<u32>,
    values: Vec<f32>,
    gradient: Vec<f32>,
}

/// What is summed over the steps of a training.
#[derive(Default)]
struct Sums {
    steps: u32,
    loss: f64,
    examples: u64,
}

impl Network {
    /// The network of `plan`.
    ///
    /// # Errors
    /// [`ModelError::Spec`] when its layers do not fit each other.
    pub fn new(plan: &TaskPlan) -> Result<Self, ModelError> {
        let shape = infer(plan.kind, &plan.shape, &plan.layers)?;
        let (train, evaluate) = choose(plan.backend, &shape.nodes);
        Ok(Self {
            shape,
            settings: plan.train.clone(),
            seed: plan.seed,
            backend: train,
            train_device: device(train),
            evaluate_device: device(evaluate),
            buffers: Buffers::default(),
        })
    }

    /// The backend that trains: never [`Backend::Auto`].
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// How many parameters the flat vector has.
    pub fn parameters(&self) -> usize {
        self.shape.manifest.len()
    }

    /// Trains `parameters` in place on `rows` of `data`, as the plan's `[train]` says, with a fresh optimiser.
    ///
    /// The order of the batches is a function of the plan's seed, `path` and the epoch; the last batch of an epoch may be
    /// smaller. No rows change nothing. Whenever it fails, `parameters` are as they were.
    ///
    /// # Errors
    /// [`ModelError::Stopped`] as soon as `stop` is seen set, which is looked at before each step; else what is wrong with
    /// the data or the parameters.
    pub fn train(
        &mut self,
        parameters: &mut [f32],
        data: &dyn Samples,
        rows: &[u32],
        path: TrainPath,
        stop: &AtomicBool,
    ) -> Result<TrainOutcome, ModelError> {
        let epochs = self.settings.epochs;
        self.train_epochs(parameters, data, rows, epochs, path, stop, &mut |_, _| {})
    }

    /// Trains as [`Network::train`] does, for `epochs` and with one optimiser throughout; `on_epoch` sees each epoch's
    /// number, from 1, and its parameters. To evaluate there, use a network of its own.
    ///
    /// # Errors
    /// As [`Network::train`].
    pub fn train_pooled(
        &mut self,
        parameters: &mut [f32],
        data: &dyn Samples,
        rows: &[u32],
        epochs: usize,
        path: TrainPath,
        on_epoch: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<TrainOutcome, ModelError> {
        self.train_epochs(parameters, data, rows, epochs, path, &AtomicBool::new(false), on_epoch)
    }

    #[allow(clippy::too_many_arguments, reason = "private; the two public forms above name what each takes")]
    fn train_epochs(
        &mut self,
        parameters: &mut [f32],
        data: &dyn Samples,
        rows: &[u32],
        epochs: usize,
        path: TrainPath,
        stop: &AtomicBool,
        on_epoch: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<TrainOutcome, ModelError> {
        self.check(parameters, data, rows)?;
        let examples = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let mut weights: Vec<Vec<f32>> =
            self.shape.manifest.tensors.iter().map(|tensor| parameters[tensor.range()].to_vec()).collect();
        let mut optimiser = Optimiser::new(&self.settings, weights.len());
        let batch = if self.settings.batch == 0 { rows.len().max(1) } else { self.settings.batch };
        let mut order = std::mem::take(&mut self.buffers.order);
        let mut flat = parameters.to_vec();
        let mut sums = Sums::default();
        for epoch in 1..=epochs {
            order.clear();
            order.extend_from_slice(rows);
            Random::new(self.seed, Purpose::Shuffle, &[path.device, path.round, epoch as u64]).shuffle(&mut order);
            for rows in order.chunks(batch) {
                if stop.load(Ordering::Relaxed) {
                    return Err(ModelError::Stopped);
                }
                self.step(&mut weights, &mut optimiser, data, rows, path, &mut sums)?;
            }
            for (tensor, values) in self.shape.manifest.tensors.iter().zip(&weights) {
                flat[tensor.range()].copy_from_slice(values);
            }
            on_epoch(epoch, &flat);
        }
        self.buffers.order = order;
        parameters.copy_from_slice(&flat);
        #[allow(clippy::cast_possible_truncation, reason = "a metric at the precision that travels")]
        let loss_mean = (sums.loss / sums.examples.max(1) as f64) as f32;
        Ok(TrainOutcome { examples, steps: sums.steps, loss_mean })
    }

    /// One optimiser step on one batch.
    fn step(
        &mut self,
        weights: &mut [Vec<f32>],
        optimiser: &mut Optimiser,
        data: &dyn Samples,
        rows: &[u32],
        path: TrainPath,
        sums: &mut Sums,
    ) -> Result<(), ModelError> {
        self.read(data, rows)?;
        let manifest = &self.shape.manifest;
        let leaves: Vec<Leaf> = weights
            .iter_mut()
            .zip(&manifest.tensors)
            .map(|(values, tensor)| {
                let leaf = Leaf::new(std::mem::take(values), tensor, &self.train_device);
                if tensor.role == ParamRole::Trainable { leaf.tracked() } else { leaf }
            })
            .collect();
        let masks = MaskKey { seed: self.seed, device: path.device, round: path.round, step: sums.steps.into() };
        let features = std::mem::take(&mut self.buffers.features);
        let x = Act::new(features, rows.len(), &self.shape.input, &self.train_device);
        let mut pass = Pass {
            leaves: &leaves,
            device: &self.train_device,
            batch: rows.len(),
            masks: Some(masks),
            moments: Vec::new(),
        };
        let outputs = pass.run(&self.shape.nodes, x);
        let moments = pass.moments;
        let len = self.shape.output.iter().product::<usize>();
        let outputs = outputs.flat(rows.len(), len);
        let logits = values(outputs.clone().without_autodiff());
        let scored =
            score(&self.shape, &self.buffers.classes, &self.buffers.values, &logits, Some(&mut self.buffers.gradient))?;
        sums.steps += 1;
        sums.loss += scored.loss_sum;
        sums.examples += (rows.len() * len_of_targets(&self.shape)) as u64;
        if !scored.loss_sum.is_finite() {
            return Err(ModelError::Diverged { step: sums.steps });
        }
        // d(outputs · constant)/d(outputs) is the constant: the loss's gradient enters the graph this way.
        let slope = std::mem::take(&mut self.buffers.gradient);
        let slope: Tensor<2> = Tensor::from_data(TensorData::new(slope, [rows.len(), len]), &self.train_device);
        let mut gradients = (outputs * slope).sum().backward();
        optimiser.begin_step();
        for (index, (leaf, values)) in leaves.into_iter().zip(weights.iter_mut()).enumerate() {
            let gradient = leaf.gradient(&mut gradients);
            *values = leaf.into_values();
            if let Some(gradient) = gradient {
                optimiser.update(index, values, &gradient);
            }
        }
        for batch in moments {
            for (index, moment) in [batch.mean, batch.variance] {
                for (running, now) in weights[index].iter_mut().zip(values(moment)) {
                    *running += STATISTICS_RATE * (now - *running);
                }
            }
        }
        Ok(())
    }

    /// Evaluates `parameters` on `rows` of `data`.
    ///
    /// # Errors
    /// What is wrong with the data or the parameters.
    pub fn evaluate(&mut self, parameters: &[f32], data: &dyn Samples, rows: &[u32]) -> Result<Evaluated, ModelError> {
        self.check(parameters, data, rows)?;
        let leaves = self.leaves(parameters);
        let mut found = Evaluated::default();
        for rows in rows.chunks(EVALUATION_BATCH) {
            self.read(data, rows)?;
            let features = std::mem::take(&mut self.buffers.features);
            let logits = self.outputs(&leaves, features, rows.len());
            let scored = score(&self.shape, &self.buffers.classes, &self.buffers.values, &logits, None)?;
            found.loss_sum += scored.loss_sum;
            found.correct += scored.correct;
            found.examples += (rows.len() * len_of_targets(&self.shape)) as u64;
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
        let leaves = self.leaves(parameters);
        self.predict_with(&leaves, features)
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
        let leaves = self.leaves(parameters);
        Ok(move |features: &[f32]| self.predict_with(&leaves, features))
    }

    fn predict_with(&self, leaves: &[Leaf], features: &[f32]) -> Result<Vec<f32>, ModelError> {
        let expected_len = self.shape.input.iter().product::<usize>();
        if !features.len().is_multiple_of(expected_len) {
            let kind = self.shape.kind;
            return Err(ModelError::Data { expected: kind, expected_len, got: kind, got_len: features.len() });
        }
        self.check_tokens(features)?;
        Ok(self.outputs(leaves, features.to_vec(), features.len() / expected_len))
    }

    fn leaves(&self, parameters: &[f32]) -> Vec<Leaf> {
        let tensors = self.shape.manifest.tensors.iter();
        tensors.map(|tensor| Leaf::new(parameters[tensor.range()].to_vec(), tensor, &self.evaluate_device)).collect()
    }

    fn outputs(&self, leaves: &[Leaf], features: Vec<f32>, batch: usize) -> Vec<f32> {
        let x = Act::new(features, batch, &self.shape.input, &self.evaluate_device);
        let mut pass = Pass { leaves, device: &self.evaluate_device, batch, masks: None, moments: Vec::new() };
        values(pass.run(&self.shape.nodes, x).flat(batch, self.shape.output.iter().product()))
    }

    /// Reads the batch `rows` into the buffers.
    fn read(&mut self, data: &dyn Samples, rows: &[u32]) -> Result<(), ModelError> {
        data.features_into(rows, &mut self.buffers.features);
        self.check_tokens(&self.buffers.features)?;
        match self.shape.kind {
            TaskKind::Classification | TaskKind::NextToken => data.classes_into(rows, &mut self.buffers.classes),
            TaskKind::Regression => data.values_into(rows, &mut self.buffers.values),
        }
        Ok(())
    }

    fn check(&self, parameters: &[f32], data: &dyn Samples, rows: &[u32]) -> Result<(), ModelError> {
        self.check_parameters(parameters)?;
        let expected_len = self.shape.input.iter().product::<usize>();
        if data.kind() != self.shape.kind || data.sample_len() != expected_len {
            return Err(ModelError::Data {
                expected: self.shape.kind,
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

    fn check_parameters(&self, parameters: &[f32]) -> Result<(), ModelError> {
        let (expected, got) = (self.parameters(), parameters.len());
        if expected == got { Ok(()) } else { Err(ModelError::Parameters { expected, got }) }
    }

    /// A token outside the table would be a panic, or worse, in the backend.
    fn check_tokens(&self, features: &[f32]) -> Result<(), ModelError> {
        let Some(Op::Embedding { tokens, .. }) = self.shape.nodes.first().map(|node| &node.op) else { return Ok(()) };
        let outside = |token: &&f32| !(**token >= 0.0 && f64::from(**token) < *tokens as f64);
        match features.iter().find(outside) {
            Some(token) => Err(ModelError::Token { token: *token, tokens: *tokens }),
            None => Ok(()),
        }
    }
}

/// Targets a sample: positions for text, else 1.
fn len_of_targets(shape: &shape::Network) -> usize {
    if shape.kind == TaskKind::NextToken { shape.output[0] } else { 1 }
}

fn score(
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
