//! Differential privacy: noise for sums, and what a sequence of noisy sums reveals about one unit.
//!
//! The unit (a device, an example), the neighbouring relation (one unit added or removed) and the adversary (who sees every noisy
//! sum) belong to every figure: [`Accountant::statement`] prints them with it.
//!
//! | accountant | composes | how tight |
//! | --- | --- | --- |
//! | [`pld`] | the distribution of the privacy loss, by Fourier transform | within its grid, an upper bound |
//! | [`rdp`] | Rényi divergences at a fixed list of orders | some per cent above; no transform, any number of steps |
//! | [`gaussian`] | Gaussian releases that were not sampled, in closed form | exact |
//! | [`concentrated`] | those, and sums of noise that devices add in shares | some per cent above |
//!
//! All are upper bounds. [`spent`] asks them about a run's rounds; a [`Past`] is what ledgers add up. [`noise`] is what they account for, on integers and exact; where its
//! words come from is the caller's business. [`dp_sgd`] is DP-SGD, where the unit is one example.
//!
//! What this crate is not: it keeps no ledger. It reads no clock, entropy, file or socket (invariant 7).
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
pub mod dp_sgd;
mod logarithm;
pub mod noise;
pub mod statement;
mod transform;

pub use accountant::{
    Accountant, Charge, Mechanism, Past, PrivacyError, SampledGaussian, Sampling, Statement, Tree, concentrated,
    gaussian, noise_multiplier, pld, rdp, rounds_within, spent,
};
