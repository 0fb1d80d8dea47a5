//! Linear layers in floats.

use super::Step;
use crate::buffers::{Buffers, room};
use crate::isa::Isa;
use crate::kernel::dense::{self, Panels};

/// `y = x W + b` for `rows` rows a sample, with dense weights.
#[derive(Debug)]
pub(crate) struct DenseLinear {
    pub(crate) isa: Isa,
    pub(crate) panels: Panels,
    pub(crate) rows: usize,
    pub(crate) relu: bool,
}

impl Step for DenseLinear {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let rows = batch * self.rows;
        let x = &buffers.x.floats[..rows * self.panels.inputs()];
        let outputs = rows * self.panels.outputs();
        let y = &mut room(&mut buffers.y.floats, outputs)[..outputs];
        dense::product(self.isa, &self.panels, self.relu, x, &mut buffers.nonzero, y);
        buffers.turn();
    }

    fn weight_bytes(&self) -> usize {
        self.panels.bytes()
    }
}
