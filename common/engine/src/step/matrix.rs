//! A float weight matrix in whichever form its kernel takes.

use crate::buffers::Nonzero;
use crate::isa::Isa;
use crate::kernel::dense::{self, Panels};
use crate::kernel::sparse::{self, Scratch, Sparse};

/// `y = x W + b` for rows.
#[derive(Debug)]
pub(crate) enum Matrix {
    /// Most weights are there.
    Dense {
        /// The weights and biases.
        panels: Panels,
        /// Scratch.
        nonzero: Nonzero,
    },
    /// Few are.
    Sparse {
        /// The weights and biases.
        sparse: Sparse,
        /// Scratch.
        scratch: Scratch,
    },
}

impl Matrix {
    pub(crate) fn inputs(&self) -> usize {
        match self {
            Self::Dense { panels, .. } => panels.inputs(),
            Self::Sparse { sparse, .. } => sparse.inputs(),
        }
    }

    pub(crate) fn outputs(&self) -> usize {
        match self {
            Self::Dense { panels, .. } => panels.outputs(),
            Self::Sparse { sparse, .. } => sparse.outputs(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Dense { panels, .. } => panels.bytes(),
            Self::Sparse { sparse, .. } => sparse.bytes(),
        }
    }

    /// Whole rows of `x` into as many of `y`.
    pub(crate) fn apply(&mut self, isa: Isa, relu: bool, x: &[f32], y: &mut [f32]) {
        match self {
            Self::Dense { panels, nonzero } => dense::product(isa, panels, relu, x, nonzero, y),
            Self::Sparse { sparse, scratch } => sparse::product(isa, sparse, relu, x, scratch, y),
        }
    }
}
