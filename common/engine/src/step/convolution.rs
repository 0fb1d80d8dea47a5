//! Convolutions in floats, channels first.

use super::Step;
use crate::buffers::{Buffers, room};
use crate::isa::Isa;
use crate::kernel::convolution::{self, Dense, Sparse};
use crate::kernel::window::{Planes, Window};

/// The weights of a convolution in whichever form its kernel takes.
#[derive(Debug)]
pub(crate) enum Taps {
    /// Every tap of every output channel.
    Dense(Dense),
    /// Those that are left; a depthwise convolution has only those of its own channel.
    Sparse(Sparse),
}

/// A convolution of each sample.
#[derive(Debug)]
pub(crate) struct FloatConvolution {
    pub(crate) isa: Isa,
    pub(crate) taps: Taps,
    pub(crate) window: Window,
    pub(crate) planes: Planes,
    pub(crate) output_len: usize,
    pub(crate) relu: bool,
    /// Scratch: outputs with the waste between lines.
    pub(crate) runs: Vec<f32>,
}

impl Step for FloatConvolution {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let (inputs, outputs) = (self.window.input_len(), batch * self.output_len);
        let x = buffers.x.floats[..batch * inputs].chunks_exact(inputs);
        let y = &mut room(&mut buffers.y.floats, outputs)[..outputs];
        for (x, y) in x.zip(y.chunks_exact_mut(self.output_len)) {
            match &self.taps {
                Taps::Dense(dense) => {
                    convolution::dense(self.isa, dense, self.relu, x, &mut self.planes, &mut self.runs, y);
                }
                Taps::Sparse(sparse) => {
                    convolution::sparse(self.isa, sparse, self.relu, x, &mut self.planes, &mut self.runs, y);
                }
            }
        }
        buffers.turn();
    }

    fn weight_bytes(&self) -> usize {
        match &self.taps {
            Taps::Dense(dense) => dense.bytes(),
            Taps::Sparse(sparse) => sparse.bytes(),
        }
    }
}
