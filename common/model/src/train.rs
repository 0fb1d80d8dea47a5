//! Training: plain, pooled, and tuning with maps, schedules and a teacher. All three are one loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use starling_compress::WeightMap;
use starling_spec::random::{Purpose, Random};
use starling_spec::shape;
use starling_spec::{TaskKind, TrainSettings, WeightForm};

use crate::error::ModelError;
use crate::forms::{Forms, held};
use crate::forward::MaskKey;
use crate::loss::{distil_classes, distil_values};
use crate::network::{Buffers, Network, len_of_targets, score};
use crate::optimise::{Optimiser, rate_factor};
use crate::samples::Samples;
use crate::weights::Weights;

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

/// A training beside the plan's own: how [`Network::tune`] goes about it.
pub struct Tuning<'a> {
    /// Instead of the plan's.
    pub settings: TrainSettings,
    /// Where its randomness comes from.
    pub path: TrainPath,
    /// What leads from the free parameters to those that the network computes with: applied before each step, its way back to
    /// each gradient. When it is given, `settings.weights` says nothing; binary layers take the signs of what it gives.
    pub map: Option<&'a dyn WeightMap>,
    /// Whom the network learns from beside the labels.
    pub teacher: Option<Teacher<'a>>,
    /// Looked at before each step.
    pub stop: &'a AtomicBool,
    /// Sees each epoch's number, from 1, and the free parameters after it.
    pub on_epoch: &'a mut dyn FnMut(usize, &[f32]),
}

/// A function from the values of a batch to values of a batch: what a teacher is to the one who asks.
pub type Answers<'a> = dyn FnMut(&[f32]) -> Result<Vec<f32>, ModelError> + 'a;

/// Distillation (Hinton et al. 2015, §2): with share `s` and temperature `T` the loss is
/// `s · T² · KL(softmax(teacher / T) ‖ softmax(student / T)) + (1 − s) · cross-entropy`. In a regression there is nothing to
/// soften: `s · (ŷ − teacher)² + (1 − s) · (ŷ − y)²`.
pub struct Teacher<'a> {
    /// From a batch's features to the teacher's outputs: as many a sample as the student's, sample by sample.
    pub outputs: &'a mut Answers<'a>,
    /// `T`, above 0.
    pub temperature: f32,
    /// `s`, from 0 to 1.
    pub share: f32,
}

/// What is summed over the steps of a training.
#[derive(Default)]
struct Sums {
    steps: u32,
    loss: f64,
    examples: u64,
}

impl Network {
    /// Trains `parameters` in place on `rows` of `data`, as the plan's `[train]` says, with a fresh optimiser.
    ///
    /// The order of the batches is a function of the plan's seed, `path` and the epoch; the last batch of an epoch may be
    /// smaller. No rows change nothing. Whenever it fails, `parameters` are as they were.
    ///
    /// What is trained are free parameters: real weights behind the plan's integers and behind the signs of binary layers, so
    /// that small steps add up. With `weights = "pruned"`, weights of linear layers and
    /// convolutions that are 0 before are 0 after.
    ///
    /// # Errors
    /// [`ModelError::Stopped`] as soon as `stop` is seen set, which is looked at before each step; [`ModelError::Noise`] where the
    /// plan asks for DP-SGD ([`Network::train_private`]); else what is wrong with the data or the parameters.
    pub fn train(
        &mut self,
        parameters: &mut [f32],
        data: &dyn Samples,
        rows: &[u32],
        path: TrainPath,
        stop: &AtomicBool,
    ) -> Result<TrainOutcome, ModelError> {
        let settings = self.settings.clone();
        if settings.dp_sgd.is_some() {
            return Err(ModelError::Noise(
                "the plan asks for train.dp_sgd: training without its noise is not what it says",
            ));
        }
        let tuning = Tuning { settings, path, map: None, teacher: None, stop, on_epoch: &mut |_, _| {} };
        self.tune(parameters, data, rows, tuning)
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
        let settings = TrainSettings { epochs, ..self.settings.clone() };
        let stop = &AtomicBool::new(false);
        self.tune(parameters, data, rows, Tuning { settings, path, map: None, teacher: None, stop, on_epoch })
    }

    /// Trains the `free` parameters in place as `tuning` says; what is trained is what its map makes of them. Otherwise as
    /// [`Network::train`].
    ///
    /// # Errors
    /// As [`Network::train`], and what the teacher says.
    pub fn tune(
        &mut self,
        free: &mut [f32],
        data: &dyn Samples,
        rows: &[u32],
        mut tuning: Tuning<'_>,
    ) -> Result<TrainOutcome, ModelError> {
        self.check(free, data, rows)?;
        if let Some(teacher) = &tuning.teacher {
            teacher.check()?;
        }
        // The manifest is read while the buffers are written.
        let shape = Arc::clone(&self.executor.shape);
        let settings = tuning.settings.clone();
        let examples = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let batch = if settings.batch == 0 { rows.len().max(1) } else { settings.batch };
        let steps_max = if settings.steps_max == 0 { usize::MAX } else { settings.steps_max };
        let steps_total = settings.epochs.saturating_mul(rows.len().div_ceil(batch)).min(steps_max);
        let forms = Forms::new(&shape, if tuning.map.is_some() { WeightForm::Free } else { settings.weights });
        let held = if tuning.map.is_some() { Vec::new() } else { held(&shape, settings.weights, free) };
        let maps = tuning.map.into_iter().chain(held.iter().map(AsRef::as_ref)).chain(forms.maps());
        let mut weights = Weights::new(&shape.manifest, free, maps.collect());
        let mut optimiser = Optimiser::new(&settings, shape.manifest.tensors.len());
        let mut order = std::mem::take(&mut self.buffers.order);
        let mut flat = free.to_vec();
        let mut sums = Sums::default();
        for epoch in 1..=settings.epochs {
            order.clear();
            order.extend_from_slice(rows);
            let path = [tuning.path.device, tuning.path.round, epoch as u64];
            Random::new(self.seed, Purpose::Shuffle, &path).shuffle(&mut order);
            for rows in order.chunks(batch).take(steps_max - sums.steps as usize) {
                if tuning.stop.load(Ordering::Relaxed) {
                    return Err(ModelError::Stopped);
                }
                optimiser.begin_step(rate_factor(settings.schedule, sums.steps as usize, steps_total));
                self.step(&mut weights, &mut optimiser, data, rows, &mut tuning, &mut sums)?;
            }
            weights.free_into(&mut flat);
            (tuning.on_epoch)(epoch, &flat);
        }
        self.buffers.order = order;
        free.copy_from_slice(&flat);
        #[allow(clippy::cast_possible_truncation, reason = "a metric at the precision that travels")]
        let loss_mean = (sums.loss / sums.examples.max(1) as f64) as f32;
        Ok(TrainOutcome { examples, steps: sums.steps, loss_mean })
    }

    /// One optimiser step on one batch.
    fn step(
        &mut self,
        weights: &mut Weights<'_>,
        optimiser: &mut Optimiser,
        data: &dyn Samples,
        rows: &[u32],
        tuning: &mut Tuning<'_>,
        sums: &mut Sums,
    ) -> Result<(), ModelError> {
        self.read(data, rows)?;
        let features = std::mem::take(&mut self.buffers.features);
        let taught = match &mut tuning.teacher {
            Some(teacher) => {
                Some((teacher.teach(&features, rows.len(), self.shape())?, teacher.temperature, teacher.share))
            }
            None => None,
        };
        let path = tuning.path;
        let masks = MaskKey { seed: self.seed, device: path.device, round: path.round, step: sums.steps.into() };
        let shape = &self.executor.shape;
        let Buffers { classes, values, parts, .. } = &mut self.buffers;
        sums.steps += 1;
        let mut slope = |outputs: &[f32]| {
            let mut slope = Vec::new();
            let mut loss_sum = score(shape, classes, values, outputs, Some(&mut slope))?.loss_sum;
            if let Some((taught, temperature, share)) = &taught {
                let classes = shape.output.last().copied().unwrap_or(1);
                loss_sum = match shape.kind {
                    TaskKind::Regression => distil_values(outputs, taught, *share, loss_sum, &mut slope),
                    _ => distil_classes(outputs, taught, classes, (*temperature, *share), loss_sum, &mut slope),
                };
            }
            sums.loss += loss_sum;
            sums.examples += (rows.len() * len_of_targets(shape)) as u64;
            if loss_sum.is_finite() { Ok(slope) } else { Err(ModelError::Diverged { step: sums.steps }) }
        };
        let tensors = weights.computed();
        let batch = self.executor.backward(tensors, parts, features, rows.len(), Some(masks), &mut slope)?;
        weights.step(optimiser, batch);
        Ok(())
    }
}

impl Teacher<'_> {
    fn check(&self) -> Result<(), ModelError> {
        let wrong = |field, value, expected| Err(ModelError::Teacher { field, value, expected });
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return wrong("temperature", self.temperature, "a number above 0");
        }
        if !(0.0..=1.0).contains(&self.share) {
            return wrong("share", self.share, "a number from 0 to 1");
        }
        Ok(())
    }

    /// The teacher's outputs for a batch, as many as the student has.
    fn teach(&mut self, features: &[f32], batch: usize, shape: &shape::Network) -> Result<Vec<f32>, ModelError> {
        let outputs = (self.outputs)(features)?;
        let expected = batch * shape.output.iter().product::<usize>();
        if outputs.len() == expected {
            Ok(outputs)
        } else {
            Err(ModelError::TeacherOutputs { expected, got: outputs.len() })
        }
    }
}
