//! The parameters of one training: the free ones that the optimiser moves, and the computed ones that the network sees.

use starling_compress::WeightMap;
use starling_spec::{ParamManifest, ParamRole};

use crate::executor::Backward;
use crate::optimise::Optimiser;

/// How fast the running statistics of batch normalisation follow a batch (PyTorch's default).
const STATISTICS_RATE: f32 = 0.1;

/// Free parameters, the maps that lead from them to what the network computes with, and buffers for both.
pub(crate) struct Weights<'a> {
    manifest: &'a ParamManifest,
    maps: Vec<&'a dyn WeightMap>,
    /// What each map starts from, and last what the network computes with; empty without maps.
    stages: Vec<Vec<f32>>,
    /// What the network computes with, tensor by tensor. Without maps these are the free parameters, and no step copies them.
    tensors: Vec<Vec<f32>>,
    gradient: Vec<f32>,
}

impl<'a> Weights<'a> {
    /// Parameters that begin as `free`; the first of `maps` acts on them, the others on what the one before gave.
    pub(crate) fn new(manifest: &'a ParamManifest, free: &[f32], maps: Vec<&'a dyn WeightMap>) -> Self {
        let tensors = manifest.tensors.iter().map(|tensor| free[tensor.range()].to_vec()).collect();
        let (mut stages, mut gradient) = (Vec::new(), Vec::new());
        if !maps.is_empty() {
            stages = vec![free.to_vec(); maps.len() + 1];
            gradient = vec![0.0; free.len()];
        }
        Self { manifest, maps, stages, tensors, gradient }
    }

    /// What the network computes with now.
    pub(crate) fn computed(&mut self) -> &mut [Vec<f32>] {
        for (index, map) in self.maps.iter().enumerate() {
            let (from, to) = self.stages.split_at_mut(index + 1);
            map.forward(&from[index], &mut to[0]);
        }
        if let Some(computed) = self.stages.last() {
            for (values, tensor) in self.tensors.iter_mut().zip(&self.manifest.tensors) {
                values.copy_from_slice(&computed[tensor.range()]);
            }
        }
        &mut self.tensors
    }

    /// Moves the free parameters as `optimiser` says, and running statistics towards the batch's.
    pub(crate) fn step(&mut self, optimiser: &mut Optimiser, batch: Backward) {
        if self.maps.is_empty() {
            for (index, gradient) in batch.gradients.iter().enumerate() {
                if let Some(gradient) = gradient {
                    optimiser.update(index, &mut self.tensors[index], gradient);
                }
            }
        } else {
            gather(self.manifest, &batch.gradients, &mut self.gradient);
            for (map, free) in self.maps.iter().zip(&self.stages).rev() {
                map.backward(free, &mut self.gradient);
            }
            for (index, tensor) in self.manifest.tensors.iter().enumerate() {
                if tensor.role == ParamRole::Trainable {
                    let range = tensor.range();
                    optimiser.update(index, &mut self.stages[0][range.clone()], &self.gradient[range]);
                }
            }
        }
        for (index, moment) in batch.statistics {
            let running = match self.stages.first_mut() {
                Some(free) => &mut free[self.manifest.tensors[index].range()],
                None => &mut self.tensors[index],
            };
            for (running, now) in running.iter_mut().zip(moment) {
                *running += STATISTICS_RATE * (now - *running);
            }
        }
    }

    /// Writes the free parameters to `flat`.
    pub(crate) fn free_into(&self, flat: &mut [f32]) {
        match self.stages.first() {
            Some(free) => flat.copy_from_slice(free),
            None => {
                for (values, tensor) in self.tensors.iter().zip(&self.manifest.tensors) {
                    flat[tensor.range()].copy_from_slice(values);
                }
            }
        }
    }
}

/// Writes the gradients of tensors into one flat vector, 0 where a tensor has none.
pub(crate) fn gather(manifest: &ParamManifest, gradients: &[Option<Vec<f32>>], flat: &mut [f32]) {
    for (gradient, tensor) in gradients.iter().zip(&manifest.tensors) {
        match gradient {
            Some(gradient) => flat[tensor.range()].copy_from_slice(gradient),
            None => flat[tensor.range()].fill(0.0),
        }
    }
}
