//! Differential privacy: what a sequence of noisy sums reveals about one unit, accounted for.
//!
//! The unit (a device, an example), the neighbouring relation (one unit added or removed) and the adversary (who sees every noisy
//! sum) belong to every figure: [`Accountant::statement`] prints them with it.
//!
//! | accountant | composes | how tight |
//! | --- | --- | --- |
//! | [`pld`] | the distribution of the privacy loss, by Fourier transform | within its grid, an upper bound |
//! | [`rdp`] | Rényi divergences at a fixed list of orders | some per cent above; no transform, any number of steps |
//!
//! Both are upper bounds. Neither knows about rounding in a sampler: that is the sampler's own error, stated there.
//!
//! What this crate is not: it draws no noise and keeps no ledger. It reads no clock, entropy, file or socket (invariant 7).
//!
//! ```
//! use starling_privacy::{Accountant, SampledGaussian};
//!
//! // 100 rounds; each device flips a coin of 0.1; the noise's deviation is the clipping norm.
//! let rounds = SampledGaussian::new(0.1, 1.0, 100)?;
//! let epsilon = Accountant::Pld.epsilon(&[rounds], 1e-4)?;
//! assert!((epsilon - 5.97).abs() < 0.01);
//! # Ok::<(), starling_privacy::PrivacyError>(())
//! ```

pub mod accountant;
mod logarithm;
mod transform;

pub use accountant::{
    Accountant, Charge, Mechanism, PrivacyError, SampledGaussian, Sampling, Statement, Tree, noise_multiplier, pld,
    rdp, rounds_within, spent,
};
