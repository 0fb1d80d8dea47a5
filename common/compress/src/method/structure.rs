//! Structured removal: whole layers, residual blocks, units and channels. The layers shrink with their parameters.

use starling_spec::{Layer, SpecError, TaskKind};

/// What is taken out.
#[derive(Debug, Clone, PartialEq)]
pub enum Removal {
    /// A layer or residual that keeps the shape, by its path (positions, outermost first).
    Block(Vec<usize>),
    /// Units of a linear layer or channels of a convolution.
    Units {
        /// The layer's path.
        layer: Vec<usize>,
        /// Which outputs stay.
        keep: Vec<bool>,
    },
}

/// Why a structure cannot be changed so.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StructureError {
    /// The layers, before or after, describe no network.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The change does not apply.
    #[error("model.layers[{index}] ({layer}): {problem}")]
    Layer {
        /// The layer's path, dotted.
        index: String,
        /// The layer's key.
        layer: String,
        /// Why not.
        problem: String,
    },
}

/// What can be removed whole.
pub fn blocks(_kind: TaskKind, _shape: &[usize], _layers: &[Layer]) -> Vec<Vec<usize>> {
    Vec::new()
}

fn not_yet(layer: &str) -> StructureError {
    StructureError::Layer { index: String::new(), layer: layer.into(), problem: "not yet".into() }
}

/// The layers and parameters without `removal`.
///
/// # Errors
/// [`StructureError`].
pub fn remove(
    _kind: TaskKind,
    _shape: &[usize],
    _layers: &[Layer],
    _parameters: &[f32],
    _removal: &Removal,
) -> Result<(Vec<Layer>, Vec<f32>), StructureError> {
    Err(not_yet("remove"))
}

/// Units whose removal changes no output.
pub fn dead_units(_kind: TaskKind, _shape: &[usize], _layers: &[Layer], _parameters: &[f32]) -> Vec<Removal> {
    Vec::new()
}

/// The same network with binary layers.
///
/// # Errors
/// [`StructureError`].
pub fn to_binary(_layers: &[Layer]) -> Result<Vec<Layer>, StructureError> {
    Err(not_yet("to_binary"))
}
