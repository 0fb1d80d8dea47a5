//! The same network with binary layers, as XNOR-Net arranges them (Rastegari et al. 2016, §3.2, figure 3): before each binary layer a
//! batch normalisation and a sign, pooling over real values.

use starling_spec::Layer;
use starling_spec::layer::Residual;

use super::{StructureError, dotted};

/// The layers of `layers` with batch normalisation, sign and binary weights wherever they apply:
///
/// - the last layer with weights stays real, and keeps the activation before it, with a normalisation under it;
/// - a first convolution stays real (it has few weights, and images lose most where they are binarised); a first linear layer
///   becomes binary, its inputs thresholded by a normalisation of their own;
/// - depthwise convolutions stay real: nine signs are too few;
/// - inside residuals every layer becomes binary, beside a real shortcut;
/// - activations and dropout before a sign go: they would only shift its threshold, or make zeros of its signs.
///
/// # Errors
/// [`StructureError`] says in words where it does not apply: embeddings, recurrent and attention layers, and networks with nothing
/// between a first and a last layer that stay real.
pub fn to_binary(layers: &[Layer]) -> Result<Vec<Layer>, StructureError> {
    refuse(layers, &mut Vec::new())?;
    let weighty: Vec<usize> = (0..layers.len()).filter(|position| has_weights(&layers[*position])).collect();
    let Some(&last) = weighty.last() else {
        return Err(StructureError::Network("the network has no linear layer and no convolution to binarise".into()));
    };
    let mut binary = Vec::new();
    let mut changed = false;
    for (position, layer) in layers.iter().enumerate() {
        let first = weighty.first() == Some(&position);
        match layer {
            _ if position == last && !matches!(layer, Layer::Residual(_)) => {
                if changed {
                    normalise_under_activation(&mut binary);
                }
                binary.push(layer.clone());
            }
            Layer::Conv1d(_) | Layer::Conv2d(_) if first => binary.push(layer.clone()),
            Layer::Linear(_) | Layer::Conv1d(_) | Layer::Conv2d(_) => {
                binarise(&mut binary, layer);
                changed = true;
            }
            Layer::Residual(residual) => {
                let mut inner = Vec::new();
                for layer in &residual.layers {
                    match layer {
                        Layer::Linear(_) | Layer::Conv1d(_) | Layer::Conv2d(_) => {
                            binarise(&mut inner, layer);
                            changed = true;
                        }
                        _ => inner.push(layer.clone()),
                    }
                }
                binary.push(Layer::Residual(Residual { layers: inner }));
            }
            _ => binary.push(layer.clone()),
        }
    }
    if !changed {
        return Err(StructureError::Network(
            "between the first and the last layer, which stay real, nothing is left to binarise; a network needs a hidden layer more"
                .into(),
        ));
    }
    Ok(binary)
}

/// Whether it is, or holds, a linear layer or a convolution that could be binary.
fn has_weights(layer: &Layer) -> bool {
    match layer {
        Layer::Linear(_) | Layer::Conv1d(_) | Layer::Conv2d(_) => true,
        Layer::Residual(residual) => residual.layers.iter().any(has_weights),
        _ => false,
    }
}

fn refuse(layers: &[Layer], path: &mut Vec<usize>) -> Result<(), StructureError> {
    for (position, layer) in layers.iter().enumerate() {
        path.push(position);
        let problem = match layer {
            Layer::Embedding(_) => {
                "a table of tokens has no products to make cheaper, and one bit a feature tells too little apart"
            }
            Layer::Gru(_) => {
                "a recurrent state adds up the errors of its signs over all positions; quantise it to integers"
            }
            Layer::SelfAttention(_) => {
                "attention weighs by small differences that signs do not have; quantise it to integers"
            }
            Layer::Residual(residual) if residual.layers.iter().any(|layer| matches!(layer, Layer::Residual(_))) => {
                "residuals inside residuals are not binarised"
            }
            _ => "",
        };
        if !problem.is_empty() {
            let (index, layer) = (dotted(path), layer.key().into());
            return Err(StructureError::Layer { index, layer, problem: problem.into() });
        }
        if let Layer::Residual(residual) = layer {
            refuse(&residual.layers, path)?;
        }
        path.pop();
    }
    Ok(())
}

fn is_activation(layer: &Layer) -> bool {
    matches!(layer, Layer::Relu | Layer::Gelu | Layer::Tanh | Layer::Sigmoid | Layer::Sign)
}

/// Appends a layer in its binary form, with a normalisation and a sign before it.
fn binarise(list: &mut Vec<Layer>, layer: &Layer) {
    // Activations and dropout of the stretch since the last weights; pools and shapes stay where they are.
    let stretch = list.iter().rposition(|layer| has_weights(layer) || matches!(layer, Layer::DepthwiseConv2d(_)));
    let start = stretch.map_or(0, |position| position + 1);
    let mut position = start;
    while position < list.len() {
        if is_activation(&list[position]) || matches!(list[position], Layer::Dropout(_)) {
            list.remove(position);
        } else {
            position += 1;
        }
    }
    if list.last() != Some(&Layer::BatchNorm) {
        list.push(Layer::BatchNorm);
    }
    list.push(Layer::Sign);
    let mut layer = layer.clone();
    match &mut layer {
        Layer::Linear(linear) => linear.binary = true,
        Layer::Conv1d(conv) | Layer::Conv2d(conv) => conv.binary = true,
        _ => {}
    }
    list.push(layer);
}

/// Puts a batch normalisation under the activation that ends `list`, unless one is there: sums of signs are large.
fn normalise_under_activation(list: &mut Vec<Layer>) {
    let weights = list.iter().rposition(has_weights).map_or(0, |position| position + 1);
    if list[weights..].contains(&Layer::BatchNorm) {
        return;
    }
    let place = list[weights..].iter().position(is_activation).map_or(list.len(), |position| weights + position);
    list.insert(place, Layer::BatchNorm);
}
