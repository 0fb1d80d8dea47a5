//! Units of linear layers and channels of convolutions.

use starling_spec::Layer;
use starling_spec::TaskKind;
use starling_spec::shape::{Network, infer};

use super::follow::{Followed, follow};
use super::{StructureError, dotted, find, list_mut};
use crate::tensor::channel_of;

/// The paths of the layers of which units can be removed, and how many each has. Nothing of layers that describe no network.
pub fn layers_with_units(kind: TaskKind, shape: &[usize], layers: &[Layer]) -> Vec<(Vec<usize>, usize)> {
    fn walk(layers: &[Layer], path: &mut Vec<usize>, paths: &mut Vec<Vec<usize>>) {
        for (position, layer) in layers.iter().enumerate() {
            path.push(position);
            match layer {
                Layer::Residual(residual) => walk(&residual.layers, path, paths),
                _ => paths.push(path.clone()),
            }
            path.pop();
        }
    }
    let Ok(network) = infer(kind, shape, layers) else { return Vec::new() };
    let parameters = vec![0.0; network.manifest.len()];
    let mut paths = Vec::new();
    walk(layers, &mut Vec::new(), &mut paths);
    let followed =
        |path: Vec<usize>| follow(&network, layers, &parameters, &path).ok().map(|found| (path, found.units));
    paths.into_iter().filter_map(followed).collect()
}

/// Follows the units of a layer and checks what shall stay of them.
pub(super) fn followed(
    network: &Network,
    layers: &[Layer],
    parameters: &[f32],
    path: &[usize],
    keep: &[bool],
) -> Result<Followed, StructureError> {
    let followed = follow(network, layers, parameters, path)?;
    let found = find(network, layers, path)?;
    if keep.len() != followed.units {
        let problem = format!("it has {} units, and {} were named", followed.units, keep.len());
        return Err(found.error(path, problem));
    }
    if !keep.contains(&true) {
        return Err(found.error(path, "at least one of its units must stay; without it nothing would reach the output"));
    }
    Ok(followed)
}

pub(super) fn remove(
    network: &Network,
    layers: &[Layer],
    parameters: &[f32],
    path: &[usize],
    keep: &[bool],
) -> Result<(Vec<Layer>, Vec<f32>), StructureError> {
    let followed = followed(network, layers, parameters, path, keep)?;
    let mut values = parameters.to_vec();
    fold(network, &followed, keep, &mut values);
    let mut stays = vec![true; parameters.len()];
    for slices in followed.slices.iter().chain([&followed.consumer.slices]) {
        slices.each(network, |index, slice| stays[index] &= keep[slices.owners[slice]]);
    }
    let left = values.iter().zip(&stays).filter(|(_, stays)| **stays).map(|(value, _)| *value).collect();
    let mut smaller = layers.to_vec();
    let count = keep.iter().filter(|keep| **keep).count();
    let missing = || StructureError::Path(dotted(path));
    let (last, outer) = path.split_last().ok_or_else(missing)?;
    match list_mut(&mut smaller, outer).and_then(|list| list.get_mut(*last)).ok_or_else(missing)? {
        Layer::Linear(linear) => linear.out = count,
        Layer::Conv1d(conv) | Layer::Conv2d(conv) => conv.out = count,
        _ => return Err(missing()),
    }
    Ok((smaller, left))
}

/// Adds what the removed units would always have said to the bias of whoever listens to them.
#[allow(clippy::cast_possible_truncation, reason = "a bias is rounded to its precision")]
fn fold(network: &Network, followed: &Followed, keep: &[bool], values: &mut [f32]) {
    let consumer = &followed.consumer;
    let Some(bias) = consumer.bias.filter(|_| !consumer.binary) else { return };
    let shape = &network.manifest.tensors[consumer.slices.tensor].shape;
    let start = network.manifest.tensors[consumer.slices.tensor].offset;
    let bias = network.manifest.tensors[bias].range();
    let mut sums = vec![0f64; bias.len()];
    consumer.slices.each(network, |index, slice| {
        let owner = consumer.slices.owners[slice];
        if let Some(constant) = followed.constants[slice].filter(|_| !keep[owner]) {
            sums[channel_of(shape, index - start)] += constant * f64::from(values[index]);
        }
    });
    for (value, sum) in values[bias].iter_mut().zip(sums) {
        *value = (f64::from(*value) + sum) as f32;
    }
}
