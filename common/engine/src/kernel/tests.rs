//! What the conformance tests of the kernels share: they compare each build with its definition, for tails of every length,
//! zeros and extremes.
//!
//! Floats are drawn as small whole numbers where an order of additions should not matter: every sum is then exact, whatever
//! the build fuses, and builds can be compared bit by bit.

use starling_spec::random::{Purpose, Random};

/// Seeded values.
pub(crate) struct Draw(Random);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Random::new(seed, Purpose::Noise, &[]))
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.below(bound as u64)).expect("small")
    }

    /// A float of the standard normal distribution.
    #[allow(clippy::cast_possible_truncation, reason = "test values are rounded on purpose")]
    pub(crate) fn normal(&mut self) -> f32 {
        self.0.normal() as f32
    }

    pub(crate) fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }

    /// A whole number from −40 to 40.
    pub(crate) fn whole(&mut self) -> f32 {
        self.below(81) as f32 - 40.0
    }

    pub(crate) fn wholes(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.whole()).collect()
    }

    /// Whole numbers, half of them zeros.
    pub(crate) fn sparse_wholes(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| if self.below(2) == 0 { 0.0 } else { self.whole() }).collect()
    }
}
