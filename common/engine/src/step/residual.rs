//! `x + f(x)`.

use super::Step;
use crate::buffers::{Buffers, room};

/// The steps beside a shortcut, over `len` floats a sample.
#[derive(Debug)]
pub(crate) struct Residual {
    pub(crate) steps: Vec<Box<dyn Step>>,
    pub(crate) len: usize,
    /// The input, while the steps run.
    pub(crate) saved: Vec<f32>,
}

impl Step for Residual {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let len = batch * self.len;
        room(&mut self.saved, len)[..len].copy_from_slice(&buffers.x.floats[..len]);
        for step in &mut self.steps {
            step.run(batch, buffers);
        }
        for (y, x) in buffers.x.floats[..len].iter_mut().zip(&self.saved) {
            *y += x;
        }
    }

    fn weight_bytes(&self) -> usize {
        self.steps.iter().map(|step| step.weight_bytes()).sum()
    }
}
