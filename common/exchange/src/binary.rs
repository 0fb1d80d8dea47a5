//! What binary layers compute with.

use starling_compress::tensor::{channel_of, channels};
use starling_spec::shape::{Network, Node, Op};

/// The parameters that `network` computes with: those of binary layers become `α sign(W)`, α the mean magnitude of an output
/// channel's weights and `sign(0) = 1` (XNOR-Net, Rastegari et al. 2016, §3.1); all others stay. For runtimes that know no binary
/// layers. Doing it twice changes nothing but roundings.
///
/// # Panics
/// If `parameters` are not as many as the network has.
pub fn computed_parameters(network: &Network, parameters: &[f32]) -> Vec<f32> {
    assert_eq!(parameters.len(), network.manifest.len(), "the parameters are this network's");
    let mut computed = parameters.to_vec();
    let mut weights = Vec::new();
    binary_weights(&network.nodes, &mut weights);
    for index in weights {
        let tensor = &network.manifest.tensors[index];
        binarise(&mut computed[tensor.range()], &tensor.shape);
    }
    computed
}

fn binary_weights(nodes: &[Node], weights: &mut Vec<usize>) {
    for node in nodes {
        match &node.op {
            Op::Linear { weight, binary: true, .. }
            | Op::Conv1d { weight, binary: true, .. }
            | Op::Conv2d { weight, binary: true, .. } => weights.push(*weight),
            Op::Residual(nodes) => binary_weights(nodes, weights),
            _ => {}
        }
    }
}

fn binarise(values: &mut [f32], shape: &[usize]) {
    let mut sums = vec![0f64; channels(shape)];
    for (index, value) in values.iter().enumerate() {
        sums[channel_of(shape, index)] += f64::from(value.abs());
    }
    let count = values.len() as f64 / sums.len() as f64;
    #[allow(clippy::cast_possible_truncation, reason = "a mean of f32 magnitudes is one")]
    for (index, value) in values.iter_mut().enumerate() {
        let scale = (sums[channel_of(shape, index)] / count) as f32;
        *value = if *value >= 0.0 { scale } else { -scale };
    }
}

#[cfg(test)]
mod tests {
    use starling_spec::layer::{Conv, Linear, Padding};
    use starling_spec::shape::infer;
    use starling_spec::{Layer, TaskKind};

    use super::*;

    #[test]
    fn only_binary_layers_change_and_each_channel_keeps_its_mean_magnitude() {
        let conv = Conv { out: 2, kernel: 1, stride: 1, padding: Padding::Valid, bias: false, binary: true };
        let linear = |binary| Layer::Linear(Linear { out: 2, bias: false, binary });
        let layers = [Layer::Conv1d(conv), Layer::Flatten, linear(true), linear(false)];
        let network = infer(TaskKind::Classification, &[2, 1], &layers).expect("a network");
        // A kernel's rows are channels, a matrix's columns.
        let parameters = [1.0, -3.0, 0.0, -0.5, 1.0, -2.0, -0.0, 4.0, 7.0, 8.0, 9.0, 10.0];
        let computed = computed_parameters(&network, &parameters);
        assert_eq!(computed, [2.0, -2.0, 0.25, -0.25, 0.5, -3.0, 0.5, 3.0, 7.0, 8.0, 9.0, 10.0]);
        assert_eq!(computed_parameters(&network, &computed), computed);
    }
}
