//! The release: a compressed model in one file, as devices download and run it.

use starling_spec::shape::{Network, infer};
use starling_spec::{Layer, Scale, SpecError, TaskKind, TaskPlan};

use crate::tensor::Compressed;

/// A compressed model, in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// The task's name.
    pub name: String,
    /// What it has learnt.
    pub kind: TaskKind,
    /// The shape of one sample.
    pub shape: Vec<usize>,
    /// How the features that it takes are scaled.
    pub scale: Scale,
    /// Its layers; structural pruning has already made them fewer or smaller.
    pub layers: Vec<Layer>,
    /// One for each tensor of the layers' manifest, in its order.
    pub tensors: Vec<Compressed>,
    /// For each tensor of the manifest: the calibrated range of the values that it is multiplied with, where it is a weight of
    /// a layer that computes in integers.
    pub inputs: Vec<Option<InputRange>>,
}

/// The range that a layer's inputs had on the calibration data: what integer arithmetic spreads its 256 levels over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputRange {
    /// The smallest, at most 0.
    pub low: f32,
    /// The largest, at least 0 and above `low`.
    pub high: f32,
}

impl Release {
    /// The release of a model that is not compressed: every tensor in floats.
    ///
    /// # Panics
    /// If `parameters` are not the plan's, or the plan was not checked.
    pub fn float(plan: &TaskPlan, parameters: &[f32]) -> Self {
        let manifest = plan.manifest().expect("a plan whose layers fit");
        assert_eq!(parameters.len(), manifest.len(), "the plan's parameters");
        let tensors = manifest.tensors.iter().map(|tensor| Compressed::dense(parameters[tensor.range()].to_vec()));
        Self {
            name: plan.name.clone(),
            kind: plan.kind,
            shape: plan.shape.clone(),
            scale: plan.scale,
            layers: plan.layers.clone(),
            tensors: tensors.collect(),
            inputs: vec![None; manifest.tensors.len()],
        }
    }

    /// The network that its layers describe.
    ///
    /// # Errors
    /// [`SpecError`] when they describe none.
    pub fn network(&self) -> Result<Network, SpecError> {
        infer(self.kind, &self.shape, &self.layers)
    }

    /// The flat parameters that it computes with: what burn's forward pass of the same layers takes.
    ///
    /// # Panics
    /// If `network` is another release's.
    pub fn parameters(&self, network: &Network) -> Vec<f32> {
        let mut flat = vec![0f32; network.manifest.len()];
        for (tensor, compressed) in network.manifest.tensors.iter().zip(&self.tensors) {
            compressed.decompress_into(&tensor.shape, &mut flat[tensor.range()]);
        }
        flat
    }
}
