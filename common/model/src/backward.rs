//! One batch forward and back: from parameters and features to the gradient of a loss that its caller knows.

use burn::tensor::{Device, Tensor, TensorData};
use starling_spec::ParamRole;
use starling_spec::shape;

use crate::error::ModelError;
use crate::forward::{MaskKey, Pass};
use crate::tensors::{Act, Leaf, values};
use crate::train::Answers;

/// What a batch teaches.
pub(crate) struct Backward {
    /// The gradient of each tensor of the manifest; `None` where it is not trainable or the outputs do not depend on it.
    pub(crate) gradients: Vec<Option<Vec<f32>>>,
    /// While training: tensors of running statistics, and what this batch says of them.
    pub(crate) statistics: Vec<(usize, Vec<f32>)>,
}

/// The gradients of a batch. `tensors` are the parameters, tensor by tensor: they are moved into the graph and back, without a
/// copy where nobody else holds them; after an error they are gone. With `masks` the pass is one of training. `slope` takes
/// the outputs and gives the gradient of the loss by them.
pub(crate) fn backward(
    shape: &shape::Network,
    device: &Device,
    tensors: &mut [Vec<f32>],
    features: Vec<f32>,
    batch: usize,
    masks: Option<MaskKey>,
    slope: &mut Answers<'_>,
) -> Result<Backward, ModelError> {
    let leaves: Vec<Leaf> = tensors
        .iter_mut()
        .zip(&shape.manifest.tensors)
        .map(|(values, tensor)| {
            let leaf = Leaf::new(std::mem::take(values), tensor, device);
            if tensor.role == ParamRole::Trainable { leaf.tracked() } else { leaf }
        })
        .collect();
    let x = Act::new(features, batch, &shape.input, device);
    let mut pass = Pass { leaves: &leaves, device, batch, masks, moments: Vec::new() };
    let outputs = pass.run(&shape.nodes, x);
    let moments = pass.moments;
    let len = shape.output.iter().product::<usize>();
    let outputs = outputs.flat(batch, len);
    let slope = slope(&values(outputs.clone().without_autodiff()))?;
    // d(outputs · constant)/d(outputs) is the constant: the loss's gradient enters the graph this way.
    let slope: Tensor<2> = Tensor::from_data(TensorData::new(slope, [batch, len]), device);
    let mut found = (outputs * slope).sum().backward();
    let mut gradients = Vec::with_capacity(leaves.len());
    for (leaf, tensor) in leaves.into_iter().zip(tensors) {
        gradients.push(leaf.gradient(&mut found));
        *tensor = leaf.into_values();
    }
    let moments = moments.into_iter().flat_map(|batch| [batch.mean, batch.variance]);
    let statistics = moments.map(|(index, moment)| (index, values(moment))).collect();
    Ok(Backward { gradients, statistics })
}
