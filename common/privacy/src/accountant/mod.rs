//! The accountants, and what they are asked about.

mod calibrate;
pub mod charge;
pub mod concentrated;
pub mod gaussian;
pub mod past;
pub mod pld;
pub mod rdp;
mod tree;

use std::fmt;
use std::str::FromStr;

pub use calibrate::noise_multiplier;
pub use charge::{Charge, Mechanism, Sampling, Statement, rounds_within, spent};
pub use past::Past;
pub use tree::Tree;

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PrivacyError {
    /// A number outside its range.
    #[error("{name} is {value}; expected {expected}")]
    Value {
        /// Which one.
        name: &'static str,
        /// What was given.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// An accountant that does not exist.
    #[error("there is no accountant {0:?}; expected pld or rdp")]
    Accountant(String),
    /// The composed loss spans more than memory should hold.
    #[error(
        "the privacy loss spans {0:.0} units, more than the pld accountant holds; raise the noise, or ask the rdp accountant"
    )]
    Span(f64),
    /// No noise is enough, or none is needed.
    #[error("no noise multiplier between {low} and {high} gives an epsilon of {epsilon}")]
    Unreachable {
        /// The smallest that was tried.
        low: f64,
        /// The largest.
        high: f64,
        /// What was asked.
        epsilon: f64,
    },
}

/// A number of steps, each a sum of clipped contributions of a Poisson sample, plus Gaussian noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampledGaussian {
    sampling_rate: f64,
    noise_multiplier: f64,
    steps: u32,
}

impl SampledGaussian {
    /// Steps in which each unit takes part by a coin of its own of `sampling_rate` (0 to 1; 1: always), and whose noise has a
    /// standard deviation of `noise_multiplier` clipping norms.
    ///
    /// # Errors
    /// [`PrivacyError::Value`] outside these ranges.
    pub fn new(sampling_rate: f64, noise_multiplier: f64, steps: u32) -> Result<Self, PrivacyError> {
        if !(0.0..=1.0).contains(&sampling_rate) {
            return Err(PrivacyError::Value {
                name: "the sampling rate",
                value: sampling_rate,
                expected: "a share from 0 to 1",
            });
        }
        if !(noise_multiplier.is_finite() && noise_multiplier > 0.0) {
            return Err(PrivacyError::Value {
                name: "the noise multiplier",
                value: noise_multiplier,
                expected: "a number above 0",
            });
        }
        Ok(Self { sampling_rate, noise_multiplier, steps })
    }

    /// The probability with which a unit takes part in a step.
    pub fn sampling_rate(&self) -> f64 {
        self.sampling_rate
    }

    /// The noise's standard deviation in clipping norms.
    pub fn noise_multiplier(&self) -> f64 {
        self.noise_multiplier
    }

    /// How many steps.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Whether it reveals nothing at all.
    fn is_void(&self) -> bool {
        self.steps == 0 || self.sampling_rate == 0.0
    }
}

/// How losses are composed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accountant {
    /// See [`pld`].
    #[default]
    Pld,
    /// See [`rdp`].
    Rdp,
}

impl Accountant {
    /// The least ε for which all of `steps` together are (ε, `delta`)-differentially private, as an upper bound.
    ///
    /// # Errors
    /// [`PrivacyError`] when δ is not between 0 and 1, or the loss is too wide to hold.
    pub fn epsilon(self, steps: &[SampledGaussian], delta: f64) -> Result<f64, PrivacyError> {
        if !(delta > 0.0 && delta < 1.0) {
            return Err(PrivacyError::Value { name: "delta", value: delta, expected: "a probability between 0 and 1" });
        }
        match self {
            Self::Pld => pld::epsilon(steps, delta),
            Self::Rdp => Ok(rdp::epsilon(steps, delta)),
        }
    }

    /// What an ε of `unit` means: the sentence that goes with the figure.
    pub fn statement(self, unit: &str) -> String {
        format!(
            "unit: one {unit}; neighbours: one {unit} added or removed; sampling: every {unit} takes part by a coin of its own \
             (Poisson); adversary: sees every noisy sum and everything else but that {unit}'s data; composed by {self}"
        )
    }
}

impl fmt::Display for Accountant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pld => "pld",
            Self::Rdp => "rdp",
        })
    }
}

impl FromStr for Accountant {
    type Err = PrivacyError;

    fn from_str(text: &str) -> Result<Self, PrivacyError> {
        match text {
            "pld" => Ok(Self::Pld),
            "rdp" => Ok(Self::Rdp),
            _ => Err(PrivacyError::Accountant(text.to_owned())),
        }
    }
}
