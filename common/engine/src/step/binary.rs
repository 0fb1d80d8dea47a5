//! Layers that compute with signs.

use super::Step;
use crate::buffers::{Buffers, room};
use crate::isa::Isa;
use crate::kernel::binary::{self, BITS, Limit, Panels, Run, Thresholds};
use crate::kernel::window::Window;

/// Floats to packed signs.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) isa: Isa,
    pub(crate) thresholds: Thresholds,
    pub(crate) layout: Layout,
}

/// How signs lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Layout {
    /// Rows of whole words; a threshold for each value of a row.
    Rows {
        /// Rows a sample.
        rows: usize,
    },
    /// Whole words of channels at each position; a threshold for each channel.
    Image {
        /// Positions a sample.
        positions: usize,
    },
}

impl Step for Pack {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let (len, words) = (self.thresholds.bounds.len(), self.thresholds.flips.len());
        match self.layout {
            Layout::Rows { rows } => {
                let rows = batch * rows;
                let y = room(&mut buffers.y.bits, rows * words)[..rows * words].chunks_exact_mut(words);
                for (x, y) in buffers.x.floats[..rows * len].chunks_exact(len).zip(y) {
                    binary::pack_row(self.isa, x, &self.thresholds, y);
                }
            }
            Layout::Image { positions } => {
                let (len, words) = (len * positions, words * positions);
                let y = room(&mut buffers.y.bits, batch * words)[..batch * words].chunks_exact_mut(words);
                for (x, y) in buffers.x.floats[..batch * len].chunks_exact(len).zip(y) {
                    binary::pack_channels(self.isa, x, &self.thresholds, y);
                }
            }
        }
        buffers.turn();
    }

    fn weight_bytes(&self) -> usize {
        self.thresholds.bytes()
    }
}

/// What becomes of the dots of a layer.
#[derive(Debug)]
pub(crate) enum Finish {
    /// Signs for the next layer.
    Bits(Vec<Limit>),
    /// `dot · factor + offset`.
    Floats {
        /// A factor for each unit.
        factor: Vec<f32>,
        /// An offset for each unit.
        offset: Vec<f32>,
        /// Not below 0.
        relu: bool,
    },
}

impl Finish {
    fn bytes(&self) -> usize {
        match self {
            Self::Bits(limits) => size_of_val(&limits[..]),
            Self::Floats { factor, offset, .. } => size_of_val(&factor[..]) + size_of_val(&offset[..]),
        }
    }
}

/// A linear layer over `rows` rows of signs a sample.
#[derive(Debug)]
pub(crate) struct BinaryLinear {
    pub(crate) isa: Isa,
    pub(crate) panels: Panels,
    /// Signs of a row.
    pub(crate) inputs: i32,
    pub(crate) rows: usize,
    pub(crate) finish: Finish,
    /// Scratch.
    pub(crate) counts: Vec<u32>,
}

impl Step for BinaryLinear {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let rows = batch * self.rows;
        let (words, units) = (self.panels.words(), self.panels.units());
        let counts = &mut room(&mut self.counts, self.panels.padded())[..self.panels.padded()];
        let out_words = units.div_ceil(BITS);
        for (row, x) in buffers.x.bits[..rows * words].chunks_exact(words).enumerate() {
            binary::mismatches(self.isa, &self.panels, x, &[Run { x: 0, weight: 0, words }], counts);
            match &self.finish {
                Finish::Bits(limits) => {
                    let y = room(&mut buffers.y.bits, rows * out_words);
                    binary::counts_to_bits(counts, self.inputs, limits, &mut y[row * out_words..][..out_words]);
                }
                Finish::Floats { factor, offset, relu } => {
                    let y = &mut room(&mut buffers.y.floats, rows * units)[row * units..][..units];
                    binary::counts_to_floats(self.isa, counts, self.inputs, (factor, offset), *relu, 1, y);
                }
            }
        }
        buffers.turn();
    }

    fn weight_bytes(&self) -> usize {
        self.panels.bytes() + self.finish.bytes()
    }
}

/// A convolution over images of signs. Padding adds nothing: taps outside the image are left out.
#[derive(Debug)]
pub(crate) struct BinaryConvolution {
    pub(crate) isa: Isa,
    pub(crate) panels: Panels,
    pub(crate) window: Window,
    pub(crate) finish: Finish,
    /// Scratch: the runs of a window, counts.
    pub(crate) runs: Vec<Run>,
    pub(crate) counts: Vec<u32>,
}

impl BinaryConvolution {
    /// Fills `runs` with the words that the window of a position covers, and gives how many signs those are.
    fn cover(window: &Window, each: usize, line: usize, column: usize, runs: &mut Vec<Run>) -> usize {
        runs.clear();
        // Taps from `first` to before `last` lie in the image.
        let inside = |start: usize, padding: usize, kernel: usize, side: usize| {
            let first = padding.saturating_sub(start).min(kernel);
            (first, kernel.min((side + padding).saturating_sub(start)).max(first))
        };
        let (top, left) = (line * window.stride.0, column * window.stride.1);
        let (first_down, last_down) = inside(top, window.padding.0, window.kernel.0, window.height);
        let (first, last) = inside(left, window.padding.1, window.kernel.1, window.width);
        for down in first_down..last_down {
            let place = (top + down - window.padding.0) * window.width + left + first - window.padding.1;
            let weight = (down * window.kernel.1 + first) * each;
            runs.push(Run { x: place * each, weight, words: (last - first) * each });
        }
        (last_down - first_down) * (last - first) * window.channels
    }
}

impl Step for BinaryConvolution {
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a unit has at most 2^30 weights")]
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let Self { isa, panels, window, finish, runs, counts } = self;
        let (units, positions) = (panels.units(), window.positions());
        let each = window.channels.div_ceil(BITS);
        let (words, out_words) = (window.height * window.width * each, units.div_ceil(BITS));
        let counts = &mut room(counts, panels.padded())[..panels.padded()];
        for (sample, x) in buffers.x.bits[..batch * words].chunks_exact(words).enumerate() {
            for position in 0..positions {
                let (line, column) = (position / window.out_width, position % window.out_width);
                let signs = Self::cover(window, each, line, column, runs) as i32;
                binary::mismatches(*isa, panels, x, runs, counts);
                match finish {
                    Finish::Bits(limits) => {
                        let y = room(&mut buffers.y.bits, batch * positions * out_words);
                        let y = &mut y[(sample * positions + position) * out_words..][..out_words];
                        binary::counts_to_bits(counts, signs, limits, y);
                    }
                    Finish::Floats { factor, offset, relu } => {
                        let y = room(&mut buffers.y.floats, batch * positions * units);
                        let y = &mut y[sample * positions * units..][..positions * units][position..];
                        binary::counts_to_floats(*isa, counts, signs, (factor, offset), *relu, positions, y);
                    }
                }
            }
        }
        buffers.turn();
    }

    fn weight_bytes(&self) -> usize {
        self.panels.bytes() + self.finish.bytes()
    }
}
