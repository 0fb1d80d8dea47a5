//! Layers that compute with integer levels.

use super::Step;
use crate::buffers::{Buffers, Nonzero, SLACK, room};
use crate::isa::Isa;
use crate::kernel::integer::{self, Panels, Places, Quantiser, Rows};
use crate::kernel::window::Window;

/// Rows whose sums are held at once: they stay in the nearest cache. A multiple of what every build takes together.
const ROWS: usize = 48;

/// Floats to levels.
#[derive(Debug)]
pub(crate) struct Quantise {
    pub(crate) isa: Isa,
    pub(crate) quantiser: Quantiser,
    /// Channels that move from first to last; 1 leaves the order as it is.
    pub(crate) channels: usize,
    /// Values of a channel.
    pub(crate) values: usize,
    /// Scratch.
    pub(crate) line: Vec<u8>,
}

impl Step for Quantise {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let len = self.channels * self.values;
        let x = &buffers.x.floats[..batch * len];
        let y = room(&mut buffers.y.levels, x.len());
        if self.channels == 1 {
            integer::levels_of(self.isa, self.quantiser, x, &mut y[..x.len()]);
        } else {
            let line = &mut room(&mut self.line, self.values)[..self.values];
            for (x, y) in x.chunks_exact(len).zip(y.chunks_exact_mut(len)) {
                for (channel, x) in x.chunks_exact(self.values).enumerate() {
                    integer::levels_of(self.isa, self.quantiser, x, line);
                    y[channel..].iter_mut().step_by(self.channels).zip(&*line).for_each(|(y, level)| *y = *level);
                }
            }
        }
        buffers.turn();
    }
}

/// What becomes of the sums of a layer.
#[derive(Debug, Clone)]
pub(crate) struct Finish {
    /// A factor and an offset for each output; those of [`Target::Levels`] lead to the levels of the next layer.
    pub(crate) factor: Vec<f32>,
    pub(crate) offset: Vec<f32>,
    pub(crate) target: Target,
}

/// In what form they leave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    /// Levels from `low` on: the level of 0 behind a ReLU.
    Levels {
        /// The lowest.
        low: f32,
    },
    /// Floats.
    Floats {
        /// Not below 0.
        relu: bool,
    },
}

impl Finish {
    fn affine(&self) -> (&[f32], &[f32]) {
        (&self.factor, &self.offset)
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.factor[..]) + size_of_val(&self.offset[..])
    }
}

/// A linear layer over `rows` rows a sample.
#[derive(Debug)]
pub(crate) struct IntegerLinear {
    pub(crate) isa: Isa,
    pub(crate) panels: Panels,
    pub(crate) inputs: usize,
    pub(crate) rows: usize,
    pub(crate) finish: Finish,
    pub(crate) scratch: Scratch,
}

/// What is kept between calls.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) nonzero: Nonzero,
    pub(crate) starts: Vec<u32>,
    pub(crate) sums: Vec<i32>,
}

impl Step for IntegerLinear {
    #[allow(clippy::cast_possible_truncation, reason = "starts of a chunk of rows: at most 48 times 2^16 inputs")]
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let Self { isa, panels, inputs, finish, .. } = self;
        let (isa, inputs, rows) = (*isa, *inputs, batch * self.rows);
        let (outputs, padded) = (panels.outputs(), panels.padded());
        let Scratch { nonzero, starts, sums } = &mut self.scratch;
        let x = room(&mut buffers.x.levels, rows * inputs);
        for first in (0..rows).step_by(ROWS) {
            let count = ROWS.min(rows - first);
            let x = &x[first * inputs..];
            let sums = &mut room(sums, count * padded)[..count * padded];
            if rows == 1 {
                integer::vector(panels, x, inputs, nonzero, sums);
            } else {
                starts.clear();
                starts.extend((0..count).map(|row| (row * inputs) as u32));
                integer::product(panels, Rows { data: x, starts, run_stride: 0 }, sums);
            }
            let values = first * outputs..(first + count) * outputs;
            match finish.target {
                Target::Levels { low } => {
                    let y = &mut room(&mut buffers.y.levels, rows * outputs)[values];
                    integer::sums_to_levels(isa, sums, finish.affine(), low, outputs, y);
                }
                Target::Floats { relu } => {
                    let y = &mut room(&mut buffers.y.floats, rows * outputs)[values];
                    let places = Places { count: outputs, row: outputs, output: 1 };
                    integer::sums_to_floats(isa, sums, finish.affine(), relu, places, y);
                }
            }
        }
        buffers.turn();
    }

    fn weight_bytes(&self) -> usize {
        self.panels.bytes() + self.finish.bytes()
    }
}

/// A convolution over images with channels last. Floats leave it with channels first.
#[derive(Debug)]
pub(crate) struct IntegerConvolution {
    pub(crate) isa: Isa,
    pub(crate) panels: Panels,
    pub(crate) window: Window,
    /// The level of the padding.
    pub(crate) zero: u8,
    /// Where the window of each position begins in a padded image.
    pub(crate) starts: Vec<u32>,
    pub(crate) finish: Finish,
    /// Scratch: a padded image, when there is padding.
    pub(crate) padded: Vec<u8>,
    pub(crate) sums: Vec<i32>,
}

impl IntegerConvolution {
    /// Where windows begin.
    #[allow(clippy::cast_possible_truncation, reason = "the window was checked to have at most 2^26 values")]
    pub(crate) fn starts(window: &Window) -> Vec<u32> {
        let width = window.padded().1;
        let places = (0..window.out_height).flat_map(|line| (0..window.out_width).map(move |column| (line, column)));
        let start = |(line, column): (usize, usize)| {
            (line * window.stride.0 * width + column * window.stride.1) * window.channels
        };
        places.map(|place| start(place) as u32).collect()
    }
}

impl Step for IntegerConvolution {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let Self { isa, panels, window, starts, finish, padded, sums, .. } = self;
        let (isa, inputs, positions, outputs) = (*isa, window.input_len(), window.positions(), panels.outputs());
        let total = batch * positions * outputs;
        let run_stride = window.padded().1 * window.channels;
        let sums = room(sums, ROWS * panels.padded());
        let levels = room(&mut buffers.x.levels, batch * inputs);
        for sample in 0..batch {
            let image = &levels[sample * inputs..];
            let data = if window.padding == (0, 0) { image } else { pad(window, self.zero, image, padded) };
            for (index, starts) in starts.chunks(ROWS).enumerate() {
                let sums = &mut sums[..starts.len() * panels.padded()];
                integer::product(panels, Rows { data, starts, run_stride }, sums);
                let first = sample * positions * outputs;
                match finish.target {
                    Target::Levels { low } => {
                        let y = &mut room(&mut buffers.y.levels, total)[first + index * ROWS * outputs..];
                        integer::sums_to_levels(isa, sums, finish.affine(), low, outputs, y);
                    }
                    Target::Floats { relu } => {
                        let y = &mut room(&mut buffers.y.floats, total)[first + index * ROWS..];
                        let places = Places { count: outputs, row: 1, output: positions };
                        integer::sums_to_floats(isa, sums, finish.affine(), relu, places, y);
                    }
                }
            }
        }
        buffers.turn();
    }

    fn weight_bytes(&self) -> usize {
        self.panels.bytes() + self.finish.bytes() + size_of_val(&self.starts[..])
    }
}

/// Copies an image into one with the padding of `window` around it.
fn pad<'a>(window: &Window, zero: u8, image: &[u8], padded: &'a mut Vec<u8>) -> &'a [u8] {
    let (height, width) = window.padded();
    let (line, padded_line) = (window.width * window.channels, width * window.channels);
    let len = height * padded_line + SLACK;
    if padded.len() < len {
        // The padding is never written afterwards.
        padded.resize(len, zero);
    }
    let first = window.padding.0 * padded_line + window.padding.1 * window.channels;
    for (from, to) in image.chunks_exact(line).take(window.height).zip(padded[first..].chunks_mut(padded_line)) {
        to[..line].copy_from_slice(from);
    }
    padded
}
