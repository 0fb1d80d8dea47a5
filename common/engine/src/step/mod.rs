//! The steps that an engine takes: a layer each, or several fused.

pub(crate) mod activation;
pub(crate) mod binary;
pub(crate) mod convolution;
pub(crate) mod integer;
pub(crate) mod linear;
pub(crate) mod matrix;
pub(crate) mod norm;
pub(crate) mod observe;
pub(crate) mod pool;
pub(crate) mod residual;
pub(crate) mod sequence;

use std::fmt::Debug;

use crate::buffers::Buffers;

/// One step. It reads `buffers.x` and leaves its result there, in the form that the lowering arranged with the next step.
pub(crate) trait Step: Debug + Send {
    /// Runs it for `batch` samples.
    fn run(&mut self, batch: usize, buffers: &mut Buffers);

    /// Bytes of weights that it keeps.
    fn weight_bytes(&self) -> usize {
        0
    }
}
