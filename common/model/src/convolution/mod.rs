//! Convolutions and their gradients on plain slices, for networks whose convolutions stand in a row.
//!
//! Activations are channels-last here, `[height, width, channels]` a sample: a position's window is then a run of
//! `kernel_width · channels` neighbouring values in each of `kernel_height` rows, and the channels that come out fill vectors. All
//! three products (outputs, gradient of the weights, gradient of the inputs) read the activations where they lie
//! ([`kernel`]); only weights are laid out anew, once a batch. A signal `[channels, length]` is an image of width 1.

pub(crate) mod kernel;
#[cfg(test)]
mod tests;

use std::ops::Range;

use kernel::{Build, Outer, PAD, Product};

/// Rows of weights that a pass over the positions of a sample uses: with up to 64 columns they fit into the first cache.
const ROWS_AT_ONCE: usize = 160;

/// A convolution without groups; sizes in positions and channels.
#[derive(Debug, Clone)]
pub(crate) struct Convolution {
    pub(crate) size: Size,
    /// Where windows begin in a padded sample, and where their outputs go: row by row.
    by_rows: [Vec<usize>; 2],
    /// The same column by column: neighbours in it have windows in different rows.
    by_columns: [Vec<usize>; 2],
}

/// The sizes of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) out: usize,
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: usize,
    /// Zeros above and below, left and right.
    pub(crate) padding: [usize; 2],
}

/// The weights of a convolution as its products read them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packed {
    /// `[kernel_height, kernel_width, channels]` rows of `out` columns.
    forward: Vec<f32>,
    bias: Vec<f32>,
    /// For each row of the kernel: `out` rows of `kernel_width · channels` columns.
    backward: Vec<f32>,
}

impl Size {
    /// Height and width of what comes out.
    pub(crate) fn output(&self) -> [usize; 2] {
        let side = |size: usize, padding: usize, kernel: usize| (size + 2 * padding - kernel) / self.stride + 1;
        [side(self.height, self.padding[0], self.kernel[0]), side(self.width, self.padding[1], self.kernel[1])]
    }

    /// Positions of what comes out.
    pub(crate) fn positions(&self) -> usize {
        self.output().iter().product()
    }

    /// Values of a padded row.
    fn row(&self) -> usize {
        (self.width + 2 * self.padding[1]) * self.channels
    }

    /// Values of a padded sample.
    pub(crate) fn padded(&self) -> usize {
        (self.height + 2 * self.padding[0]) * self.row()
    }

    /// Copies a sample into the middle of a padded one.
    pub(crate) fn pad(&self, x: &[f32], padded: &mut [f32]) {
        for (x, range) in x.chunks_exact(self.width * self.channels).zip(self.inner_rows()) {
            padded[range].copy_from_slice(x);
        }
    }

    /// Appends the middle of a padded sample to `x`.
    pub(crate) fn crop(&self, padded: &[f32], x: &mut Vec<f32>) {
        for range in self.inner_rows() {
            x.extend_from_slice(&padded[range]);
        }
    }

    /// The rows of a sample in a padded one.
    fn inner_rows(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let size = *self;
        (0..size.height).map(move |y| {
            let start = (y + size.padding[0]) * size.row() + size.padding[1] * size.channels;
            start..start + size.width * size.channels
        })
    }

    /// Neighbouring values in a row of a window.
    fn run(&self) -> usize {
        self.kernel[1] * self.channels
    }

    fn rows(&self) -> usize {
        self.kernel[0] * self.run()
    }

    /// Values between two rows of packed weights.
    fn step(&self) -> usize {
        self.out.next_multiple_of(PAD)
    }

    fn back_step(&self) -> usize {
        self.run().next_multiple_of(PAD)
    }

    /// The index of each weight of `[out, channels, kernel_height, kernel_width]` in packed ones.
    fn packed_indices(&self) -> impl Iterator<Item = usize> + '_ {
        let [height, width] = self.kernel;
        (0..self.out).flat_map(move |out| {
            (0..self.channels).flat_map(move |channel| {
                (0..height * width).map(move |at| {
                    let (y, x) = (at / width, at % width);
                    (y * self.run() + x * self.channels + channel) * self.step() + out
                })
            })
        })
    }
}

impl Convolution {
    pub(crate) fn new(size: Size) -> Self {
        let [height, width] = size.output();
        let place = |y: usize, x: usize| {
            let window = y * size.stride * size.row() + x * size.stride * size.channels;
            (window, (y * width + x) * size.out)
        };
        let by_rows = (0..height).flat_map(|y| (0..width).map(move |x| place(y, x))).unzip();
        let by_columns = (0..width).flat_map(|x| (0..height).map(move |y| place(y, x))).unzip();
        Self { size, by_rows: [by_rows.0, by_rows.1], by_columns: [by_columns.0, by_columns.1] }
    }

    /// Values of one sample's outputs.
    pub(crate) fn output_len(&self) -> usize {
        self.size.positions() * self.size.out
    }

    /// Lays out `weight`, `[out, channels, kernel_height, kernel_width]`; for training, the way back too.
    pub(crate) fn pack(&self, weight: &[f32], bias: Option<&[f32]>, train: bool, packed: &mut Packed) {
        let size = &self.size;
        packed.forward.clear();
        packed.forward.resize(size.rows() * size.step(), 0.0);
        for (index, value) in size.packed_indices().zip(weight) {
            packed.forward[index] = *value;
        }
        packed.bias.clear();
        packed.bias.extend_from_slice(bias.unwrap_or_default());
        packed.bias.resize(size.step(), 0.0);
        if train {
            packed.backward.clear();
            packed.backward.resize(size.kernel[0] * size.out * size.back_step(), 0.0);
            for (row, values) in packed.forward.chunks_exact(size.step()).enumerate() {
                let (y, t) = (row / size.run(), row % size.run());
                for (out, value) in values[..size.out].iter().enumerate() {
                    packed.backward[(y * size.out + out) * size.back_step() + t] = *value;
                }
            }
        }
    }

    /// The outputs of a padded sample.
    pub(crate) fn forward(&self, build: Build, packed: &Packed, x: &[f32], y: &mut [f32]) {
        let size = &self.size;
        let at_once = (ROWS_AT_ONCE / size.run()).max(1);
        for first in (0..size.kernel[0]).step_by(at_once) {
            let job = Product {
                x: &x[first * size.row()..],
                bases: &self.by_rows[0],
                rows: at_once.min(size.kernel[0] - first),
                row_step: size.row(),
                run: size.run(),
                w: &packed.forward[first * size.run() * size.step()..],
                w_step: size.step(),
                columns: size.out,
                targets: &self.by_rows[1],
                group: self.by_rows[0].len(),
                start: (first == 0).then_some(packed.bias.as_slice()),
            };
            build.product(&job, y);
        }
    }

    /// Adds a padded sample's part to the gradient of the weights, which is laid out as the packed ones are ([`Self::gradient`]
    /// reads it), and to that of the biases. `dy` is readable [`PAD`] values beyond the sample's.
    pub(crate) fn backward_weights(&self, build: Build, x: &[f32], dy: &[f32], dw: &mut [f32], db: &mut [f32]) {
        let size = &self.size;
        let [height, width] = size.output();
        let job = Outer {
            x,
            rows: size.kernel[0],
            row_step: size.row(),
            run: size.run(),
            height,
            width,
            step_y: size.stride * size.row(),
            step_x: size.stride * size.channels,
            dy,
            columns: size.out,
            w_step: size.step(),
        };
        build.outer(&job, dw);
        for slopes in dy[..self.output_len()].chunks_exact(size.out) {
            for (sum, slope) in db.iter_mut().zip(slopes) {
                *sum += slope;
            }
        }
    }

    /// Adds the gradient by a padded sample to `dx`.
    pub(crate) fn backward_inputs(&self, build: Build, packed: &Packed, dy: &[f32], dx: &mut [f32]) {
        let size = &self.size;
        let row = size.out * size.back_step();
        for y in 0..size.kernel[0] {
            let job = Product {
                x: dy,
                bases: &self.by_columns[1],
                rows: 1,
                row_step: 0,
                run: size.out,
                w: &packed.backward[y * row..][..row],
                w_step: size.back_step(),
                columns: size.run(),
                targets: &self.by_columns[0],
                group: size.output()[0],
                start: None,
            };
            build.product(&job, &mut dx[y * size.row()..]);
        }
    }

    /// Values of a gradient that [`Self::backward_weights`] adds to.
    pub(crate) fn gradient_len(&self) -> usize {
        self.size.rows() * self.size.step()
    }

    /// The gradient of the weights in their own order.
    pub(crate) fn gradient(&self, dw: &[f32]) -> Vec<f32> {
        self.size.packed_indices().map(|index| dw[index]).collect()
    }
}
