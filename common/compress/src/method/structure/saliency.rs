//! What a unit is worth, by the first order of the loss.

use starling_spec::shape::infer;
use starling_spec::{Layer, TaskKind};

use super::follow::follow;
use super::{StructureError, find, tensors};

/// The first-order estimate of what each unit of the layer at `path` is worth: `|Σ w · ∂L/∂w|` over its weights and its bias, with
/// the flat gradient of the loss.
///
/// # Errors
/// [`StructureError`] when its units cannot be removed.
///
/// # Panics
/// If `parameters` or `gradient` are not those of the layers.
pub fn unit_saliency(
    kind: TaskKind,
    shape: &[usize],
    layers: &[Layer],
    parameters: &[f32],
    gradient: &[f32],
    path: &[usize],
) -> Result<Vec<f64>, StructureError> {
    let network = infer(kind, shape, layers)?;
    assert_eq!(parameters.len(), network.manifest.len(), "the parameters of the layers");
    assert_eq!(gradient.len(), parameters.len(), "a gradient of all parameters");
    let followed = follow(&network, layers, parameters, path)?;
    let found = find(&network, layers, path)?;
    let mut own = Vec::new();
    tensors(&found.node.op, &mut own);
    let mut sums = vec![0f64; followed.units];
    for slices in followed.slices.iter().filter(|slices| own.contains(&slices.tensor)) {
        slices.each(&network, |index, slice| {
            sums[slices.owners[slice]] += f64::from(parameters[index]) * f64::from(gradient[index]);
        });
    }
    Ok(sums.into_iter().map(f64::abs).collect())
}
