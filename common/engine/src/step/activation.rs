//! Functions of single values, in place.

use super::Step;
use crate::buffers::Buffers;

/// Which function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Function {
    /// `max(x, 0)`.
    Relu,
}

/// A function of each of `len` values a sample.
#[derive(Debug)]
pub(crate) struct Apply {
    pub(crate) function: Function,
    pub(crate) len: usize,
}

impl Step for Apply {
    fn run(&mut self, batch: usize, buffers: &mut Buffers) {
        let values = &mut buffers.x.floats[..batch * self.len];
        match self.function {
            Function::Relu => values.iter_mut().for_each(|value| *value = if *value < 0.0 { 0.0 } else { *value }),
        }
    }
}
