//! Float convolutions over [`Planes`]: each kept tap adds its run of the input, times its weight, to the outputs of its
//! channel. Dense ones take [`BLOCK`] output channels together, so that what is read of the input serves all of them; sparse
//! ones take each channel alone and only the taps that are left of it.

#[cfg(target_arch = "x86_64")]
mod tile;

use super::window::Planes;
use crate::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::isa::Level;

/// Output channels of a dense block.
pub(crate) const BLOCK: usize = 4;

/// Values behind the planes and behind a run of outputs that a tile may touch.
pub(crate) const TILE: usize = 192;

/// Every tap of every output channel.
#[derive(Debug)]
pub(crate) struct Dense {
    /// Where each tap begins in the planes.
    taps: Vec<u32>,
    /// `[block][tap][BLOCK]`.
    weights: Vec<[f32; BLOCK]>,
    bias: Vec<f32>,
}

impl Dense {
    /// Weights of 0 for the taps at `taps`, the same for each output channel.
    pub(crate) fn new(taps: Vec<u32>, bias: &[f32]) -> Self {
        let weights = vec![[0.0; BLOCK]; bias.len().div_ceil(BLOCK) * taps.len()];
        Self { taps, weights, bias: bias.to_vec() }
    }

    /// The weight of `channel` at `tap`, an index.
    pub(crate) fn weight_mut(&mut self, channel: usize, tap: usize) -> &mut f32 {
        &mut self.weights[channel / BLOCK * self.taps.len() + tap][channel % BLOCK]
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.taps[..]) + size_of_val(&self.weights[..]) + size_of_val(&self.bias[..])
    }
}

/// The taps that are left of each output channel.
#[derive(Debug)]
pub(crate) struct Sparse {
    starts: Vec<u32>,
    taps: Vec<(u32, f32)>,
    bias: Vec<f32>,
}

impl Sparse {
    /// No taps yet.
    pub(crate) fn new(bias: &[f32]) -> Self {
        Self { starts: vec![0], taps: Vec::new(), bias: bias.to_vec() }
    }

    /// Adds a tap to `channel`, which may not be below the one before.
    #[allow(clippy::cast_possible_truncation, reason = "a network has at most 2^30 parameters")]
    pub(crate) fn push(&mut self, channel: usize, tap: u32, weight: f32) {
        assert!(channel + 1 >= self.starts.len() && channel < self.bias.len(), "channels rise, and this one exists");
        self.starts.resize(channel + 1, self.taps.len() as u32);
        self.taps.push((tap, weight));
    }

    /// Ends the last channel.
    #[allow(clippy::cast_possible_truncation, reason = "a network has at most 2^30 parameters")]
    pub(crate) fn finish(mut self) -> Self {
        self.starts.resize(self.bias.len() + 1, self.taps.len() as u32);
        self
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.starts[..]) + size_of_val(&self.taps[..]) + size_of_val(&self.bias[..])
    }

    fn of_channel(&self, channel: usize) -> &[(u32, f32)] {
        &self.taps[self.starts[channel] as usize..self.starts[channel + 1] as usize]
    }
}

/// The outputs of a sample, `[channels, out_height, out_width]`, of a dense convolution; `runs` is kept between calls.
pub(crate) fn dense(
    isa: Isa,
    dense: &Dense,
    relu: bool,
    x: &[f32],
    planes: &mut Planes,
    runs: &mut Vec<f32>,
    y: &mut [f32],
) {
    let (run, pitch, width) = (planes.run(), planes.pitch(), planes.out_width());
    let planes_values = planes.fill(x, 2 * TILE);
    let stride = run + TILE;
    runs.resize(stride * BLOCK, 0.0);
    let positions = y.len() / dense.bias.len();
    let reach = dense.taps.iter().max().map_or(0, |tap| *tap as usize) + run + TILE;
    assert!(reach <= planes_values.len(), "every tap's run lies in the planes");
    let blocks = dense.weights.chunks_exact(dense.taps.len()).zip(dense.bias.chunks(BLOCK));
    for ((weights, bias), y) in blocks.zip(y.chunks_mut(BLOCK * positions)) {
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => tile::avx512::dense(isa, &dense.taps, weights, bias, planes_values, run, runs),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => tile::avx2::dense(isa, &dense.taps, weights, bias, planes_values, run, runs),
            _ => dense_portable(&dense.taps, weights, bias, planes_values, run, runs),
        }
        for (run, y) in runs.chunks(stride).zip(y.chunks_mut(positions)) {
            unpitch(isa, run, pitch, width, relu, y);
        }
    }
}

/// The same of a sparse convolution.
pub(crate) fn sparse(
    isa: Isa,
    sparse: &Sparse,
    relu: bool,
    x: &[f32],
    planes: &mut Planes,
    runs: &mut Vec<f32>,
    y: &mut [f32],
) {
    let (run, pitch, width) = (planes.run(), planes.pitch(), planes.out_width());
    let planes_values = planes.fill(x, 2 * TILE);
    runs.resize(run + TILE, 0.0);
    let positions = y.len() / sparse.bias.len();
    for (channel, y) in y.chunks_exact_mut(positions).enumerate() {
        let taps = sparse.of_channel(channel);
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => tile::avx512::sparse(isa, taps, sparse.bias[channel], planes_values, run, runs),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => tile::avx2::sparse(isa, taps, sparse.bias[channel], planes_values, run, runs),
            _ => sparse_portable(taps, sparse.bias[channel], planes_values, run, runs),
        }
        unpitch(isa, runs, pitch, width, relu, y);
    }
}

/// The definition of a block of a dense convolution.
fn dense_portable(taps: &[u32], weights: &[[f32; BLOCK]], bias: &[f32], planes: &[f32], run: usize, runs: &mut [f32]) {
    for (channel, (bias, runs)) in bias.iter().zip(runs.chunks_mut(run + TILE)).enumerate() {
        runs[..run].fill(*bias);
        for (tap, weights) in taps.iter().zip(weights) {
            let weight = weights[channel];
            runs[..run].iter_mut().zip(&planes[*tap as usize..]).for_each(|(y, x)| *y += x * weight);
        }
    }
}

/// The definition of a channel of a sparse convolution.
fn sparse_portable(taps: &[(u32, f32)], bias: f32, planes: &[f32], run: usize, runs: &mut [f32]) {
    runs[..run].fill(bias);
    for (tap, weight) in taps {
        runs[..run].iter_mut().zip(&planes[*tap as usize..]).for_each(|(y, x)| *y += x * weight);
    }
}

compiled_twice!(
    /// Copies the lines of a run without the waste between them; with `relu`, negative values become 0.
    unpitch / unpitch_body(run: &[f32], pitch: usize, width: usize, relu: bool, y: &mut [f32])
);

#[inline(always)]
fn unpitch_body(run: &[f32], pitch: usize, width: usize, relu: bool, y: &mut [f32]) {
    for (y, run) in y.chunks_exact_mut(width).zip(run.chunks(pitch)) {
        for (y, value) in y.iter_mut().zip(run) {
            *y = if relu && *value < 0.0 { 0.0 } else { *value };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::Draw;
    use crate::kernel::window::Window;

    #[test]
    fn every_build_gives_the_sums_of_the_windows() {
        let mut draw = Draw::new(51);
        for (sides, kernel, stride, padding) in [
            ((1, 1), 1, 1, 0),
            ((5, 6), 3, 1, 1),
            ((12, 12), 5, 1, 0),
            ((14, 14), 5, 1, 2),
            ((28, 28), 5, 1, 0),
            ((9, 17), 3, 2, 1),
            ((11, 40), 4, 3, 0),
        ] {
            for (channels, outputs, keep_one_in) in [(1, 1, 1), (3, 5, 2), (2, 8, 9)] {
                let out = |side: usize| (side + 2 * padding - kernel) / stride + 1;
                let shape = [outputs, out(sides.0), out(sides.1)];
                let window = Window::new("conv2d", &[channels, sides.0, sides.1], &shape, kernel, stride, padding);
                let mut planes = Planes::new(window.expect("small"));
                let places: Vec<(usize, usize, usize)> = (0..channels * kernel * kernel)
                    .map(|tap| (tap / kernel / kernel, tap / kernel % kernel, tap % kernel))
                    .collect();
                let taps: Vec<u32> = places.iter().map(|(c, down, across)| planes.tap(*c, *down, *across)).collect();
                let (x, bias) = (draw.wholes(channels * sides.0 * sides.1), draw.wholes(outputs));
                let (mut dense_form, mut sparse_form) = (Dense::new(taps.clone(), &bias), Sparse::new(&bias));
                let mut expected = vec![0.0; shape.iter().product()];
                let positions = shape[1] * shape[2];
                for (output, expected) in expected.chunks_mut(positions).enumerate() {
                    expected.fill(bias[output]);
                    for (index, (channel, down, across)) in places.iter().enumerate() {
                        if draw.below(keep_one_in) > 0 {
                            continue;
                        }
                        let weight = draw.whole();
                        *dense_form.weight_mut(output, index) = weight;
                        sparse_form.push(output, taps[index], weight);
                        for (position, sum) in expected.iter_mut().enumerate() {
                            let place = |at: usize, offset: usize, side: usize| {
                                (at * stride + offset).checked_sub(padding).filter(|at| *at < side)
                            };
                            let line = place(position / shape[2], *down, sides.0);
                            let column = place(position % shape[2], *across, sides.1);
                            if let Some((line, column)) = line.zip(column) {
                                *sum += weight * x[(channel * sides.0 + line) * sides.1 + column];
                            }
                        }
                    }
                    expected.iter_mut().for_each(|value| *value = value.max(0.0));
                }
                let sparse_form = sparse_form.finish();
                for isa in Isa::all() {
                    let (mut y, mut runs) = (vec![f32::NAN; expected.len()], vec![f32::NAN; 7]);
                    dense(isa, &dense_form, true, &x, &mut planes, &mut runs, &mut y);
                    assert_eq!(y, expected, "{isa:?} dense {sides:?} {kernel} {stride} {padding}");
                    y.fill(f32::NAN);
                    sparse(isa, &sparse_form, true, &x, &mut planes, &mut runs, &mut y);
                    assert_eq!(y, expected, "{isa:?} sparse {sides:?} {kernel} {stride} {padding}");
                }
            }
        }
    }
}
