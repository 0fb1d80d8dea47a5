//! Linear layers in floats.

use super::Step;
use super::matrix::Matrix;
use crate::buffers::{Buffers, room};
use crate::isa::Isa;

/// `y = x W + b` for `rows` rows a sample.
#[derive(Debug)]
pub(crate) struct FloatLinear {
    pub(crate) isa: Isa,
    pub(crate) matrix: Matrix,
    pub(crate) rows: usize,
    pub(crate) relu: bool,
}

impl Step for FloatLinear {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let rows = batch * self.rows;
        let x = &buffers.x.floats[..rows * self.matrix.inputs()];
        let outputs = rows * self.matrix.outputs();
        let y = &mut room(&mut buffers.y.floats, outputs)[..outputs];
        self.matrix.apply(self.isa, self.relu, x, y);
        buffers.turn();
    }

    fn weight_bytes(&self) -> usize {
        self.matrix.bytes()
    }
}
