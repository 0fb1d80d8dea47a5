//! Pools: the largest value or the mean of windows, over floats with channels first or levels with channels last.

use super::Step;
use crate::buffers::{Buffers, room};
use crate::isa::Isa;
use crate::kernel::pool;
use crate::kernel::window::Window;

/// What is made of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Its largest value.
    Max,
    /// Its mean.
    Mean,
}

/// A pool over floats.
#[derive(Debug)]
pub(crate) struct FloatPool {
    pub(crate) isa: Isa,
    pub(crate) kind: Kind,
    pub(crate) window: Window,
    /// Scratch: a line of windows before it is taken together across.
    pub(crate) line: Vec<f32>,
}

impl Step for FloatPool {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let (channels, plane) = (batch * self.window.channels, self.window.height * self.window.width);
        let outputs = channels * self.window.positions();
        let y = &mut room(&mut buffers.y.floats, outputs)[..outputs];
        let line = &mut room(&mut self.line, self.window.width)[..self.window.width];
        let x = &buffers.x.floats[..channels * plane];
        match self.kind {
            Kind::Max => pool::max(self.isa, &self.window, x, line, y),
            Kind::Mean => pool::mean(self.isa, &self.window, x, line, y),
        }
        buffers.turn();
    }
}

/// The largest level of each window; a larger level stands for a larger value.
#[derive(Debug)]
pub(crate) struct LevelPool {
    pub(crate) isa: Isa,
    pub(crate) window: Window,
}

impl Step for LevelPool {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let inputs = self.window.input_len();
        let outputs = self.window.channels * self.window.positions();
        let y = room(&mut buffers.y.levels, batch * outputs)[..batch * outputs].chunks_exact_mut(outputs);
        for (x, y) in buffers.x.levels[..batch * inputs].chunks_exact(inputs).zip(y) {
            pool::max_levels(self.isa, &self.window, x, y);
        }
        buffers.turn();
    }
}

/// The mean of each of `channels` of `values` floats.
#[derive(Debug)]
pub(crate) struct GlobalMean {
    pub(crate) channels: usize,
    pub(crate) values: usize,
}

impl Step for GlobalMean {
    #[allow(clippy::cast_possible_truncation, reason = "the mean is rounded to f32 once, at the end, on purpose")]
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let channels = batch * self.channels;
        let y = &mut room(&mut buffers.y.floats, channels)[..channels];
        for (x, y) in buffers.x.floats.chunks_exact(self.values).zip(y) {
            *y = (x.iter().map(|x| f64::from(*x)).sum::<f64>() / self.values as f64) as f32;
        }
        buffers.turn();
    }
}
