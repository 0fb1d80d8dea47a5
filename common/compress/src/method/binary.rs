//! Binary weights: `W ≈ α sign(W)`, α the mean magnitude of an output channel's weights, which is the pair of least squared error
//! (Rastegari et al. 2016, "XNOR-Net", §3.1, eq. 6). The sign of 0 is +1.

use starling_spec::shape::Network;

use super::weights;
use crate::map::WeightMap;
use crate::tensor::{Values, channel_of, channels};

/// `α sign(w)` for a whole tensor of `shape`.
///
/// # Panics
/// If the values are not a whole tensor of `shape`.
pub fn binary(values: &[f32], shape: &[usize]) -> Values {
    assert_eq!(values.len(), shape.iter().product::<usize>(), "a whole tensor");
    Values::Binary { scales: scales(values, shape), positive: values.iter().map(|value| *value >= 0.0).collect() }
}

/// The mean magnitude of each output channel's weights.
#[allow(clippy::cast_possible_truncation, reason = "a mean is rounded to the precision of the weights")]
fn scales(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let mut sums = vec![0f64; channels(shape)];
    for (index, value) in values.iter().enumerate() {
        sums[channel_of(shape, index)] += f64::from(value.abs());
    }
    let members = (values.len() / sums.len().max(1)).max(1) as f64;
    sums.iter().map(|sum| (sum / members) as f32).collect()
}

/// Computes with `α sign(W)` for the layers that are marked binary, while training moves the real weights.
///
/// The way back is the derivative of `α sign(W)` with the sign's taken as 1 where `|w| ≤ 1` (XNOR-Net, §3.1, "Training
/// binary-weights-networks"): for a channel of n weights,
///
/// ```text
/// ∂L/∂wᵢ = sign(wᵢ)/n · Σⱼ gⱼ sign(wⱼ)  +  α gᵢ [|wᵢ| ≤ 1]
/// ```
///
/// The first term is α's own derivative, with its sum over the channel written out; the paper's equation keeps of that sum only the
/// weight's own part, `gᵢ/n`.
#[derive(Debug, Clone)]
pub struct Binarised {
    /// Offset and shape of each binary tensor.
    tensors: Vec<(usize, Vec<usize>)>,
}

impl Binarised {
    /// For the layers of `network` that are marked binary.
    pub fn new(network: &Network) -> Self {
        let tensors = weights(network)
            .into_iter()
            .filter(|weight| weight.binary)
            .map(|weight| &network.manifest.tensors[weight.tensor])
            .map(|tensor| (tensor.offset, tensor.shape.clone()))
            .collect();
        Self { tensors }
    }
}

fn sign(value: f32) -> f32 {
    if value >= 0.0 { 1.0 } else { -1.0 }
}

impl WeightMap for Binarised {
    fn forward(&self, free: &[f32], computed: &mut [f32]) {
        computed.copy_from_slice(free);
        for (offset, shape) in &self.tensors {
            let range = *offset..offset + shape.iter().product::<usize>();
            let scales = scales(&free[range.clone()], shape);
            for (index, value) in computed[range].iter_mut().enumerate() {
                *value = scales[channel_of(shape, index)] * sign(*value);
            }
        }
    }

    fn backward(&self, free: &[f32], gradient: &mut [f32]) {
        for (offset, shape) in &self.tensors {
            let range = *offset..offset + shape.iter().product::<usize>();
            let (free, gradient) = (&free[range.clone()], &mut gradient[range]);
            let scales = scales(free, shape);
            let mut sums = vec![0f64; scales.len()];
            for (index, (value, gradient)) in free.iter().zip(gradient.iter()).enumerate() {
                sums[channel_of(shape, index)] += f64::from(sign(*value) * gradient);
            }
            let members = (free.len() / scales.len().max(1)).max(1) as f64;
            for (index, (value, gradient)) in free.iter().zip(gradient.iter_mut()).enumerate() {
                let channel = channel_of(shape, index);
                #[allow(clippy::cast_possible_truncation, reason = "a mean is rounded to the precision of a gradient")]
                let mean = (sums[channel] / members) as f32;
                let through = if value.abs() <= 1.0 { scales[channel] * *gradient } else { 0.0 };
                *gradient = sign(*value) * mean + through;
            }
        }
    }
}
