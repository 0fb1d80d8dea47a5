//! Normalisations. All use the biased variance and ε = 10⁻⁵ inside the root.

use burn::tensor::Tensor;
use burn::tensor::module::{batch_norm as with_statistics, batch_norm_train, layer_norm};

use crate::tensors::{Act, each};

const EPSILON: f64 = 1e-5;

/// The mean and the unbiased variance of a batch, a value a channel.
pub(crate) type Batch = (Tensor<1>, Tensor<1>);

/// Batch normalisation (Ioffe and Szegedy 2015, algorithms 1 and 2). While training it also gives the batch's mean and its
/// unbiased variance, for the running statistics; `count` is how many values a channel has in the batch.
pub(crate) fn batch_norm(
    x: Act,
    (scale, shift): (Tensor<1>, Tensor<1>),
    (mean, variance): (Tensor<1>, Tensor<1>),
    train: bool,
    count: usize,
) -> (Act, Option<Batch>) {
    if !train {
        // A running variance that came through a coarse codec may lie a little below zero.
        let variance = variance.clamp_min(0.0);
        return (each!(x, x => with_statistics(x, scale, shift, mean, variance, EPSILON)), None);
    }
    let (output, mean, variance) = match x {
        Act::D2(x) => {
            let trained = batch_norm_train(x, scale, shift, EPSILON);
            (Act::D2(trained.output), trained.mean, trained.variance)
        }
        Act::D3(x) => {
            let trained = batch_norm_train(x, scale, shift, EPSILON);
            (Act::D3(trained.output), trained.mean, trained.variance)
        }
        Act::D4(x) => {
            let trained = batch_norm_train(x, scale, shift, EPSILON);
            (Act::D4(trained.output), trained.mean, trained.variance)
        }
    };
    let unbiased = count as f64 / (count.max(2) - 1) as f64;
    (output, Some((mean.without_autodiff(), variance.without_autodiff().mul_scalar(unbiased))))
}

/// Layer normalisation over the last axis (Ba, Kiros, Hinton 2016).
pub(crate) fn norm_last<const D: usize>(x: Tensor<D>, scale: Tensor<1>, shift: Tensor<1>) -> Tensor<D> {
    layer_norm(x, scale, Some(shift), EPSILON)
}

/// Group normalisation (Wu and He 2018, eq. 7); `shape` is a sample's, channels first.
pub(crate) fn group_norm(
    x: Act,
    batch: usize,
    shape: &[usize],
    groups: usize,
    scale: Tensor<1>,
    shift: Tensor<1>,
) -> Act {
    let (channels, values) = (shape[0], shape.iter().product::<usize>());
    let Act::D3(x) = x.shaped(batch, &[groups, values / groups]) else {
        unreachable!("two axes a sample were asked for");
    };
    let centred = x.clone() - x.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    let normal = centred / variance.add_scalar(EPSILON).sqrt();
    let normal = normal.reshape([batch, channels, values / channels]);
    let scaled = normal * scale.reshape([1, channels, 1]) + shift.reshape([1, channels, 1]);
    Act::D3(scaled).shaped(batch, shape)
}
