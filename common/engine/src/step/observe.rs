//! Watching what a layer takes in.

use super::Step;
use crate::buffers::Buffers;

/// Notes the inputs of the weight `tensor`, `len` values a sample.
#[derive(Debug)]
pub(crate) struct Observe {
    pub(crate) tensor: usize,
    pub(crate) len: usize,
}

impl Step for Observe {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        if let Some(Some(seen)) = buffers.seen.get_mut(self.tensor) {
            seen.add(&buffers.x.floats[..batch * self.len]);
        }
    }
}
