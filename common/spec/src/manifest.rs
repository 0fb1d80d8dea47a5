//! The parameters of a network in one flat `f32` vector: where each tensor lies, and what it is.

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

/// What a parameter tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParamRole {
    /// Gradients change it.
    Trainable,
    /// A running statistic of the data (batch normalisation): it moves with training, never by a gradient.
    Statistic,
    /// It stays as it is.
    Frozen,
}

/// How a tensor begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    /// All values equal.
    Constant(f32),
    /// Uniform in `[−bound, bound)`.
    Uniform(f32),
}

/// One tensor of the flat vector.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamTensor {
    /// Its name: the layer's position, the layer's key and the tensor's word, dotted (`0.conv2d.weight`).
    pub name: String,
    /// Its shape; values are row-major.
    pub shape: Vec<usize>,
    /// The index of its first value in the flat vector.
    pub offset: usize,
    /// What it is for.
    pub role: ParamRole,
    /// How it begins.
    pub start: Start,
}

/// All tensors of a network, in the order of the flat vector and without gaps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ParamManifest {
    /// The tensors.
    pub tensors: Vec<ParamTensor>,
}

impl ParamTensor {
    /// How many values it has.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no values: never, in an inferred manifest.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its place in the flat vector.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }
}

impl ParamManifest {
    /// How many values the flat vector has.
    pub fn len(&self) -> usize {
        self.tensors.last().map_or(0, |last| last.offset + last.len())
    }

    /// Whether the network has no parameters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The SHA-256 of names, shapes and roles: two networks with the same digest can exchange flat vectors.
    ///
    /// Each tensor adds its name's length and bytes, its rank, its sizes (64-bit, little-endian) and its role's byte.
    pub fn digest(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        context.update(b"starling manifest 1");
        for tensor in &self.tensors {
            context.update(&(tensor.name.len() as u64).to_le_bytes());
            context.update(tensor.name.as_bytes());
            context.update(&(tensor.shape.len() as u64).to_le_bytes());
            for size in &tensor.shape {
                context.update(&(*size as u64).to_le_bytes());
            }
            context.update(&[match tensor.role {
                ParamRole::Trainable => 0,
                ParamRole::Statistic => 1,
                ParamRole::Frozen => 2,
            }]);
        }
        let mut digest = [0u8; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    /// Appends a tensor and gives its index.
    pub(crate) fn push(&mut self, name: String, shape: Vec<usize>, role: ParamRole, start: Start) -> usize {
        let offset = self.len();
        self.tensors.push(ParamTensor { name, shape, offset, role, start });
        self.tensors.len() - 1
    }
}
