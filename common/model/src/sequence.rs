//! Layers over `[batch, positions, features]`.

use burn::tensor::activation::{sigmoid, softmax, tanh};
use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor};

use crate::forward::constant;

/// A gated recurrent unit; gives its state at each position, beginning from zeros:
///
/// `r = σ(x Wr + br + h Ur + cr)`, `z = σ(x Wz + bz + h Uz + cz)`, `n = tanh(x Wn + bn + r ∘ (h Un + cn))`,
/// `h' = n + z ∘ (h − n)`.
///
/// The reset gate acts after the product (Cho et al. 2014, arXiv 1406.1078v1; cuDNN's and PyTorch's form).
pub(crate) fn gru(
    x: Tensor<3>,
    (input_weight, input_bias): (Tensor<2>, Tensor<1>),
    (state_weight, state_bias): (Tensor<2>, Tensor<1>),
    state: usize,
    device: &Device,
) -> Tensor<3> {
    let [batch, positions, _] = x.dims();
    // The products with the inputs need no order: one for all positions.
    let inputs = linear(x, input_weight, Some(input_bias));
    let mut h: Tensor<2> = constant(vec![0.0; batch * state], [batch, state], device);
    let mut states = Vec::with_capacity(positions);
    for position in 0..positions {
        let input = inputs.clone().narrow(1, position, 1).reshape([batch, 3 * state]);
        let recurrent = linear(h.clone(), state_weight.clone(), Some(state_bias.clone()));
        let gates = sigmoid(input.clone().narrow(1, 0, 2 * state) + recurrent.clone().narrow(1, 0, 2 * state));
        let reset = gates.clone().narrow(1, 0, state);
        let update = gates.narrow(1, state, state);
        let candidate = tanh(input.narrow(1, 2 * state, state) + reset * recurrent.narrow(1, 2 * state, state));
        h = candidate.clone() + update * (h - candidate);
        states.push(h.clone().reshape([batch, 1, state]));
    }
    Tensor::cat(states, 1)
}

/// Multi-head scaled dot-product attention of a sequence to itself (Vaswani et al. 2017, §3.2):
/// `softmax(Q Kᵀ / √d) V` a head, heads joined and projected.
pub(crate) fn attention(
    x: Tensor<3>,
    (weight, bias): (Tensor<2>, Tensor<1>),
    (out_weight, out_bias): (Tensor<2>, Tensor<1>),
    heads: usize,
    causal: bool,
    device: &Device,
) -> Tensor<3> {
    let [batch, positions, features] = x.dims();
    let width = features / heads;
    let projected = linear(x, weight, Some(bias));
    let head = |third: usize| {
        let part = projected.clone().narrow(2, third * features, features);
        part.reshape([batch, positions, heads, width]).swap_dims(1, 2)
    };
    let (query, key, value) = (head(0), head(1), head(2));
    let mut scores = query.matmul(key.swap_dims(2, 3)).mul_scalar(1.0 / (width as f64).sqrt());
    if causal {
        // Added rather than put in place: the gradient of what is seen stays untouched, and e^-1e9 is 0 in f32.
        let unseen = (0..positions * positions)
            .map(|index| if index % positions > index / positions { -1e9 } else { 0.0 })
            .collect();
        scores = scores + constant(unseen, [1, 1, positions, positions], device);
    }
    let seen = softmax(scores, 3).matmul(value);
    let joined = seen.swap_dims(1, 2).reshape([batch, positions, features]);
    linear(joined, out_weight, Some(out_bias))
}
