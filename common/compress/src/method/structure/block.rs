//! Whole layers and residual blocks.

use starling_spec::shape::{Network, Op, infer};
use starling_spec::{Layer, TaskKind};

use super::{StructureError, dotted, find, list_mut, tensors};

/// The paths of what can be removed whole: residuals, and layers with weights that keep the shape, inside residuals too. Nothing of
/// layers that describe no network.
pub fn blocks(kind: TaskKind, shape: &[usize], layers: &[Layer]) -> Vec<Vec<usize>> {
    let Ok(network) = infer(kind, shape, layers) else { return Vec::new() };
    let mut paths = Vec::new();
    walk(layers, &mut Vec::new(), &mut paths);
    paths
        .into_iter()
        .filter(|path| check(&network, layers, path).is_ok())
        // What is left must be a network: an embedding, say, has to stay the first layer.
        .filter(|path| without_layer(layers, path).is_some_and(|rest| infer(kind, shape, &rest).is_ok()))
        .collect()
}

fn walk(layers: &[Layer], path: &mut Vec<usize>, paths: &mut Vec<Vec<usize>>) {
    for (position, layer) in layers.iter().enumerate() {
        path.push(position);
        paths.push(path.clone());
        if let Layer::Residual(residual) = layer {
            walk(&residual.layers, path, paths);
        }
        path.pop();
    }
}

/// Whether the layer at `path` can go, and why not.
pub(super) fn check(network: &Network, layers: &[Layer], path: &[usize]) -> Result<(), StructureError> {
    let found = find(network, layers, path)?;
    let weighty = matches!(
        found.node.op,
        Op::Residual(_)
            | Op::Linear { .. }
            | Op::Conv1d { .. }
            | Op::Conv2d { .. }
            | Op::Gru { .. }
            | Op::SelfAttention { .. }
    );
    if !weighty {
        return Err(found.error(path, "it has no weights of its own to save; remove the layer or residual around it"));
    }
    if found.node.input != found.node.output {
        let (input, output) = (&found.node.input, &found.node.output);
        return Err(found.error(
            path,
            format!("it turns {input:?} into {output:?}, and what follows needs that shape; remove some of its units instead"),
        ));
    }
    if path.len() > 1 && found.layers.len() == 1 {
        return Err(found.error(path, "it is all that its residual has; remove the residual"));
    }
    Ok(())
}

fn without_layer(layers: &[Layer], path: &[usize]) -> Option<Vec<Layer>> {
    let mut rest = layers.to_vec();
    let (last, outer) = path.split_last()?;
    let list = list_mut(&mut rest, outer)?;
    (*last < list.len()).then(|| list.remove(*last))?;
    Some(rest)
}

pub(super) fn remove(
    network: &Network,
    layers: &[Layer],
    parameters: &[f32],
    path: &[usize],
) -> Result<(Vec<Layer>, Vec<f32>), StructureError> {
    check(network, layers, path)?;
    let found = find(network, layers, path)?;
    let mut gone = Vec::new();
    tensors(&found.node.op, &mut gone);
    let rest = without_layer(layers, path).ok_or_else(|| StructureError::Path(dotted(path)))?;
    let mut left = Vec::with_capacity(parameters.len());
    for (index, tensor) in network.manifest.tensors.iter().enumerate() {
        if !gone.contains(&index) {
            left.extend(&parameters[tensor.range()]);
        }
    }
    Ok((rest, left))
}
