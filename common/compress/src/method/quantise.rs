//! Weight quantisation after or during training: power-of-two fixed point, symmetric integers, halves.
//!
//! Weights are spread symmetrically around zero, so that zero stays zero (a pruned weight survives quantisation) and integer
//! products need no correction for a weight's offset (Jacob et al. 2018, "Quantization and training of neural networks for
//! efficient integer-arithmetic-only inference", §2; Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient
//! inference", §2.2 on one scale an output channel). `docs/decisions/0014` has what a zero point would win, and cost.

use half::f16;
use starling_spec::shape::Network;

use super::weights;
use crate::map::WeightMap;
use crate::tensor::{Values, channel_axis, channel_of, channels};

/// What a clipped scale may be of the one that reaches the largest weight. Fewer bits profit from clipping; at 8 it gains nothing.
const CLIPS: [f32; 14] = [1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35];

/// Power-of-two fixed point: `round(w · 2^places)` in levels of `bits` bits. `places` is chosen for the tensor, normalised by its largest
/// magnitude: the largest at which that still fits, or up to two more where clipping it costs less squared error than the coarser grid.
///
/// # Panics
/// If `bits` is not 2 to 16.
pub fn fixed_point(values: &[f32], bits: u8) -> Values {
    assert!((2..=16).contains(&bits), "levels of 2 to 16 bits");
    let limit = level_max(bits);
    let largest = magnitude(values.iter().copied());
    let fitting = if largest > 0.0 { ((limit + 0.499) / largest).log2().floor().clamp(-126.0, 126.0) } else { 0.0 };
    #[allow(clippy::cast_possible_truncation, reason = "clamped to an i8's range")]
    let fitting = fitting as i8;
    let candidates = fitting..=fitting.saturating_add(2).min(126);
    let places = candidates
        .map(|places| (squared_error(values.iter().copied(), 2f32.powi(-i32::from(places)), limit), places))
        .reduce(|best, other| if other.0 < best.0 { other } else { best })
        .map_or(fitting, |(_, places)| places);
    let step = 2f32.powi(-i32::from(places));
    #[allow(clippy::cast_possible_truncation, reason = "a level is clamped to its bits")]
    let levels = values.iter().map(|value| level(*value, step, limit) as i16).collect();
    Values::Fixed { places, bits, levels }
}

/// Symmetric integers: `w = level · scale`, one scale for the tensor or one for each output channel of a tensor of `shape`.
/// A scale is the one of least squared error among clipped ones, rounded to 8 significant bits (two bytes in a release).
///
/// # Panics
/// If `bits` is not 2 to 8, or the values are not a whole tensor of `shape`.
pub fn integer(values: &[f32], shape: &[usize], bits: u8, per_channel: bool) -> Values {
    assert_eq!(values.len(), shape.iter().product::<usize>(), "a whole tensor");
    let scales = integer_scales(values, shape, bits, per_channel);
    let limit = level_max(bits);
    let scale_of = |index| if scales.len() == 1 { scales[0] } else { scales[channel_of(shape, index)] };
    #[allow(clippy::cast_possible_truncation, reason = "a level is clamped to its bits")]
    let levels = values.iter().enumerate().map(|(index, value)| level(*value, scale_of(index), limit) as i8).collect();
    Values::Integer { bits, scales, levels }
}

/// IEEE binary16, rounded half-even; what is beyond its range becomes its largest value.
pub fn half(values: &[f32]) -> Values {
    Values::F16(values.iter().map(|value| to_half(*value)).collect())
}

/// The nearest finite binary16.
pub(crate) fn to_half(value: f32) -> f32 {
    f16::from_f32(value.clamp(-65504.0, 65504.0)).to_f32()
}

/// Scales that [`integer`] uses, one or one a channel; all finite and above 0.
pub(crate) fn integer_scales(values: &[f32], shape: &[usize], bits: u8, per_channel: bool) -> Vec<f32> {
    assert!((2..=8).contains(&bits), "levels of 2 to 8 bits");
    if !per_channel {
        return vec![scale(values.iter().copied(), bits)];
    }
    let count = channels(shape);
    let inner: usize = shape.get(1..).map_or(1, |rest| rest.iter().product());
    if bits == 8 && channel_axis(shape) == 1 {
        // Every step of a training comes here: row by row, since a column's values lie far apart.
        let mut largest = vec![0f32; count];
        for row in values.chunks_exact(count) {
            for (largest, value) in largest.iter_mut().zip(row) {
                *largest = if value.is_finite() { largest.max(value.abs()) } else { *largest };
            }
        }
        return largest.into_iter().map(|largest| scale_for(largest, bits)).collect();
    }
    (0..count)
        .map(|channel| {
            if channel_axis(shape) == 1 {
                scale(values.iter().skip(channel).step_by(count).copied(), bits)
            } else {
                scale(values[channel * inner..(channel + 1) * inner].iter().copied(), bits)
            }
        })
        .collect()
}

/// The scale whose last level is `largest`.
fn scale_for(largest: f32, bits: u8) -> f32 {
    let limit = level_max(bits);
    if largest < f32::MIN_POSITIVE * limit * 256.0 { 1.0 } else { round_up_to_bf16(largest * CLIPS[0] / limit) }
}

/// The scale of least squared error for `values`; with 8 bits nothing is gained by clipping.
fn scale(values: impl Iterator<Item = f32> + Clone, bits: u8) -> f32 {
    let limit = level_max(bits);
    let largest = magnitude(values.clone());
    if bits == 8 || largest < f32::MIN_POSITIVE * limit * 256.0 {
        return scale_for(largest, bits);
    }
    CLIPS
        .iter()
        .map(|clip| {
            let scale = round_up_to_bf16(largest * clip / limit);
            (squared_error(values.clone(), scale, limit), scale)
        })
        .reduce(|best, other| if other.0 < best.0 { other } else { best })
        .map_or(1.0, |(_, scale)| scale)
}

/// The next value of 8 significant bits (bfloat16) that is no smaller: the largest weight is then not clipped.
fn round_up_to_bf16(value: f32) -> f32 {
    f32::from_bits((value.to_bits() + 0xffff) & 0xffff_0000).min(f32::from_bits(0x7f7f_0000))
}

/// The largest level of `bits` bits.
fn level_max(bits: u8) -> f32 {
    ((1u32 << (bits - 1)) - 1) as f32
}

/// `round(value / step)`, half away from zero, within ±limit; 0 for NaN.
fn level(value: f32, step: f32, limit: f32) -> f32 {
    let level = (value / step).round();
    if level.is_nan() { 0.0 } else { level.clamp(-limit, limit) }
}

/// The largest finite magnitude.
fn magnitude(values: impl Iterator<Item = f32>) -> f32 {
    values.map(f32::abs).filter(|value| value.is_finite()).fold(0.0, f32::max)
}

fn squared_error(values: impl Iterator<Item = f32>, step: f32, limit: f32) -> f64 {
    values.map(|value| f64::from(value - level(value, step, limit) * step).powi(2)).sum()
}

/// Computes with the integers that [`integer`] would give, one scale an output channel, while training moves the real weights;
/// gradients pass straight through (Bengio, Léonard, Courville 2013; Jacob et al. 2018, §3), except where a weight lies beyond the
/// last level and the gradient would push it further out. Quantises what [`super::prune::prunable`] lists.
#[derive(Debug, Clone)]
pub struct FakeQuantised {
    bits: u8,
    /// Offset and shape of each quantised tensor.
    tensors: Vec<(usize, Vec<usize>)>,
}

impl FakeQuantised {
    /// For the weights of `network`'s linear layers and convolutions.
    ///
    /// # Panics
    /// If `bits` is not 2 to 8.
    pub fn new(network: &Network, bits: u8) -> Self {
        assert!((2..=8).contains(&bits), "levels of 2 to 8 bits");
        let tensors = weights(network)
            .into_iter()
            .filter(|weight| !weight.binary)
            .map(|weight| &network.manifest.tensors[weight.tensor])
            .map(|tensor| (tensor.offset, tensor.shape.clone()))
            .collect();
        Self { bits, tensors }
    }
}

impl WeightMap for FakeQuantised {
    fn forward(&self, free: &[f32], computed: &mut [f32]) {
        computed.copy_from_slice(free);
        let limit = level_max(self.bits);
        for (offset, shape) in &self.tensors {
            let range = *offset..offset + shape.iter().product::<usize>();
            let scales = integer_scales(&free[range.clone()], shape, self.bits, true);
            for (index, value) in computed[range].iter_mut().enumerate() {
                let scale = scales[channel_of(shape, index)];
                *value = level(*value, scale, limit) * scale;
            }
        }
    }

    fn backward(&self, free: &[f32], gradient: &mut [f32]) {
        if self.bits == 8 {
            return; // No weight lies beyond the last of its 8-bit levels.
        }
        let limit = level_max(self.bits) + 0.5;
        for (offset, shape) in &self.tensors {
            let range = *offset..offset + shape.iter().product::<usize>();
            let scales = integer_scales(&free[range.clone()], shape, self.bits, true);
            for (index, (value, gradient)) in free[range.clone()].iter().zip(&mut gradient[range]).enumerate() {
                // A step goes against the gradient: outwards where their signs differ.
                let beyond = value.abs() > limit * scales[channel_of(shape, index)];
                if beyond && value * *gradient < 0.0 {
                    *gradient = 0.0;
                }
            }
        }
    }
}
