//! DP-SGD: a training in which each example moves each step by a bounded amount that noise hides (`train.dp_sgd`).
//!
//! Gradients are taken one example at a time, through the same forward and backward pass as a batch's: right for every layer that treats
//! examples apart, convolutions, attention and recurrence included, and as many passes as examples are drawn. Batch normalisation, which mixes
//! them, is refused with the plan.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use starling_privacy::dp_sgd::{GradientSum, sample};
use starling_privacy::noise::Source;
use starling_spec::{ParamManifest, ParamRole};

use crate::error::ModelError;
use crate::executor::Backward;
use crate::forms::{Forms, held};
use crate::forward::MaskKey;
use crate::network::{Buffers, Network, score};
use crate::optimise::{Optimiser, rate_factor};
use crate::samples::Samples;
use crate::train::{TrainOutcome, TrainPath};
use crate::weights::Weights;

impl Network {
    /// Trains `parameters` in place on `rows` of `data` with the plan's `train.dp_sgd`: [`TrainSettings::steps`] steps, each on the examples that
    /// coins of `source` draw, clipped each and with noise of `source` on their sum. What the optimiser, the schedule and the form of the weights do
    /// with that sum is a computation on it and costs nothing more.
    ///
    /// `path` keys dropout masks alone. The outcome's loss is that of the examples that were drawn, without noise: it must not leave the device.
    /// Whether training fails does not depend on the values of single examples, but for labels that the network has no output for.
    ///
    /// [`TrainSettings::steps`]: starling_spec::TrainSettings::steps
    ///
    /// # Errors
    /// [`ModelError::Noise`] where the plan asks for none; otherwise as [`Network::train`].
    pub fn train_private(
        &mut self,
        parameters: &mut [f32],
        data: &dyn Samples,
        rows: &[u32],
        path: TrainPath,
        stop: &AtomicBool,
        source: &mut impl Source,
    ) -> Result<TrainOutcome, ModelError> {
        self.check(parameters, data, rows)?;
        let settings = self.settings.clone();
        let dp = settings.dp_sgd.ok_or(ModelError::Noise("the plan asks for no train.dp_sgd"))?;
        let shape = Arc::clone(&self.executor.shape);
        let (steps, rate) = (settings.steps(rows.len()), settings.sampling_rate(rows.len()));
        let expected = rate * rows.len() as f64;
        let forms = Forms::new(&shape, settings.weights);
        let held = held(&shape, settings.weights, parameters);
        let maps = held.iter().map(|map| &**map).chain(forms.maps());
        let mut weights = Weights::new(&shape.manifest, parameters, maps.collect());
        let mut optimiser = Optimiser::new(&settings, shape.manifest.tensors.len());
        let mut gradient = vec![0.0; trainable(&shape.manifest)];
        let mut sum = GradientSum::new(&dp, gradient.len())?;
        let (mut drawn, mut passes, mut loss) = (Vec::new(), 0u64, 0.0);
        for step in 0..steps {
            if stop.load(Ordering::Relaxed) {
                return Err(ModelError::Stopped);
            }
            sample(rows, rate, source, &mut drawn);
            let tensors = weights.computed();
            for row in &drawn {
                // Each pass has masks of its own, as the examples of a batch have.
                let masks = MaskKey { seed: self.seed, device: path.device, round: path.round, step: passes };
                passes += 1;
                loss += self.example(tensors, data, *row, masks, &shape.manifest, &mut gradient)?;
                sum.add(&gradient);
            }
            sum.finish(expected, source, &mut gradient);
            optimiser.begin_step(rate_factor(settings.schedule, step, steps));
            let gradients = parts(&shape.manifest, &gradient);
            weights.step(&mut optimiser, Backward { gradients, statistics: Vec::new() });
        }
        weights.free_into(parameters);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        #[allow(clippy::cast_possible_truncation, reason = "a metric at the precision of others")]
        let loss_mean = (loss / passes.max(1) as f64) as f32;
        Ok(TrainOutcome { examples: count(rows.len()), steps: count(steps), loss_mean })
    }

    /// The gradient of one example's loss by the trainable parameters, tensor after tensor; the loss.
    fn example(
        &mut self,
        tensors: &mut [Vec<f32>],
        data: &dyn Samples,
        row: u32,
        masks: MaskKey,
        manifest: &ParamManifest,
        gradient: &mut [f32],
    ) -> Result<f64, ModelError> {
        self.read(data, &[row])?;
        let features = std::mem::take(&mut self.buffers.features);
        let Buffers { classes, values, parts, .. } = &mut self.buffers;
        let shape = &self.executor.shape;
        let mut loss = 0.0;
        let mut slope = |outputs: &[f32]| {
            let mut slope = Vec::new();
            loss = score(shape, classes, values, outputs, Some(&mut slope))?.loss_sum;
            Ok::<_, ModelError>(slope)
        };
        let taught = self.executor.backward(tensors, parts, features, 1, Some(masks), &mut slope)?;
        let mut at = 0;
        let trainable = manifest.tensors.iter().zip(&taught.gradients).filter(|(tensor, _)| is_trainable(tensor));
        for (tensor, found) in trainable {
            let place = &mut gradient[at..at + tensor.len()];
            match found {
                Some(found) => place.copy_from_slice(found),
                None => place.fill(0.0),
            }
            at += tensor.len();
        }
        Ok(loss)
    }
}

fn is_trainable(tensor: &starling_spec::ParamTensor) -> bool {
    tensor.role == ParamRole::Trainable
}

/// Parameters that a gradient is about.
fn trainable(manifest: &ParamManifest) -> usize {
    manifest.tensors.iter().filter(|tensor| is_trainable(tensor)).map(|tensor| tensor.len()).sum()
}

/// A gradient as one of tensors.
fn parts(manifest: &ParamManifest, gradient: &[f32]) -> Vec<Option<Vec<f32>>> {
    let mut left = gradient;
    let part = |tensor: &starling_spec::ParamTensor| {
        is_trainable(tensor).then(|| {
            let (part, rest) = left.split_at(tensor.len());
            left = rest;
            part.to_vec()
        })
    };
    manifest.tensors.iter().map(part).collect()
}
