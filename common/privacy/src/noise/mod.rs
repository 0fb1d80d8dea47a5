//! Noise on integers, as pure functions over a source of random words.
//!
//! [`DiscreteGaussian`] is exact: `P(k) ∝ e^(−k² / 2σ²)` for a rational σ, with no error at all. [`SumNoise`] is one of it on every coordinate of
//! a sum, as wide as the sum's sensitivity asks for; [`ShareNoise`] is one device's share of that.
//!
//! No floating-point noise is ever added to a sum: its low bits would tell values apart that the noise should hide (Mironov 2012, "On
//! significance of the least significant bits for differential privacy"). How long a draw takes depends on what is drawn; whoever can time single
//! draws on the machine that makes them is not guarded against.
//!
//! The privacy of noise is that of its source. In earnest that is a cryptographic one; [`Simulated`] is reproducible and has no secret,
//! so it belongs in simulations and tests and nowhere else.

mod gaussian;
mod share;
mod sum;
mod uniform;

pub use gaussian::{DeviationError, DiscreteGaussian};
pub use share::{ShareError, ShareNoise};
pub use sum::SumNoise;

use starling_spec::random::{Purpose, Random};

/// Where random words come from.
pub trait Source {
    /// The next 64 bits, independent of all before and uniform.
    fn next_u64(&mut self) -> u64;

    /// The next value of `0..bound`, uniform without bias (Lemire 2019, "Fast random integer generation in an interval").
    ///
    /// # Panics
    /// If `bound` is 0.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the two halves of a 128-bit product are taken on purpose")]
    fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "an empty range has no values");
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            let low = product as u64;
            // Only products below the bound can be among those that have to be left out: the division is rarely needed.
            if low >= bound || low >= bound.wrapping_neg() % bound {
                return (product >> 64) as u64;
            }
        }
    }
}

/// A closure that gives words is a source: a daemon's, of the system's entropy.
impl<F: FnMut() -> u64> Source for F {
    #[inline]
    fn next_u64(&mut self) -> u64 {
        self()
    }
}

/// A source that anybody can repeat: for simulations, whose results say so.
#[derive(Debug, Clone)]
pub struct Simulated(Random);

impl Simulated {
    /// The source of `path` (run, round, device …) under `seed`.
    pub fn new(seed: u64, path: &[u64]) -> Self {
        Self(Random::new(seed, Purpose::Privacy, path))
    }
}

impl Source for Simulated {
    #[inline]
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}
