//! Normalisations, in place. All use the biased variance and ε = 10⁻⁵ inside the root.

use super::Step;
use crate::buffers::Buffers;
use crate::isa::Isa;
use crate::kernel::value;

/// Added to each variance.
pub(crate) const EPSILON: f64 = 1e-5;

/// `factor · x + offset` a channel: batch normalisation by its running statistics (Ioffe and Szegedy 2015, algorithm 2).
#[derive(Debug)]
pub(crate) struct Affine {
    pub(crate) isa: Isa,
    /// Values of a channel.
    pub(crate) values: usize,
    pub(crate) factor: Vec<f32>,
    pub(crate) offset: Vec<f32>,
}

impl Step for Affine {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let len = batch * self.factor.len() * self.values;
        for sample in buffers.x.floats[..len].chunks_exact_mut(self.factor.len() * self.values) {
            if self.values == 1 {
                for ((x, factor), offset) in sample.iter_mut().zip(&self.factor).zip(&self.offset) {
                    *x = *x * factor + offset;
                }
                continue;
            }
            let channels = sample.chunks_exact_mut(self.values).zip(&self.factor).zip(&self.offset);
            channels.for_each(|((x, factor), offset)| value::affine(self.isa, x, *factor, *offset));
        }
    }

    fn weight_bytes(&self) -> usize {
        size_of_val(&self.factor[..]) + size_of_val(&self.offset[..])
    }
}

/// Each group of `len` values by its own mean and variance, then scaled and shifted: layer normalisation over the last axis
/// (Ba, Kiros, Hinton 2016) or group normalisation (Wu and He 2018, eq. 7).
#[derive(Debug)]
pub(crate) struct Normalise {
    /// Groups a sample.
    pub(crate) groups: usize,
    /// Values of a group.
    pub(crate) len: usize,
    /// Values that share a scale and a shift; these repeat when a group is through with them.
    pub(crate) values: usize,
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
}

impl Step for Normalise {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let groups = buffers.x.floats[..batch * self.groups * self.len].chunks_exact_mut(self.len);
        // Scales of one group: all of them for a layer, a part for each group of channels.
        let each = self.len / self.values;
        for (index, group) in groups.enumerate() {
            let first = index * each % self.scale.len();
            let (mean, deviation) = moments(group);
            let affine = self.scale[first..].iter().zip(&self.shift[first..]);
            for (x, (scale, shift)) in group.chunks_exact_mut(self.values).zip(affine) {
                x.iter_mut().for_each(|x| *x = (*x - mean) / deviation * scale + shift);
            }
        }
    }

    fn weight_bytes(&self) -> usize {
        size_of_val(&self.scale[..]) + size_of_val(&self.shift[..])
    }
}

/// The mean of `x` and the root of its variance and ε.
#[allow(clippy::cast_possible_truncation, reason = "moments are rounded to f32 once, at the end, on purpose")]
fn moments(x: &[f32]) -> (f32, f32) {
    let mean = lanes_sum(x, |x| x) / x.len() as f64;
    let variance = lanes_sum(x, |x| (x - mean) * (x - mean)) / x.len() as f64;
    (mean as f32, (variance + EPSILON).sqrt() as f32)
}

/// The sum of `f` over `x`, in eight parts that a processor can hold side by side.
fn lanes_sum(x: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let (eights, rest) = x.as_chunks::<8>();
    let mut sums = [0f64; 8];
    for eight in eights {
        for (sum, x) in sums.iter_mut().zip(eight) {
            *sum += f(f64::from(*x));
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|x| f(f64::from(*x))).sum::<f64>()
}
