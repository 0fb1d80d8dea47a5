//! Finds how to compress a trained model for a device's limits.
//!
//! ```text
//!  weights ─▶ recipes ─▶ releases ─▶ figures ─▶ front ─▶ choice, in words
//!                │ ▲         (bytes, multiply-accumulates, latency here; accuracy from the tuner)
//!      fine-tune │ │ calibrate, evaluate
//!                ▼ │
//!              Tuner: rows in this process ([`LocalTuner`]), or devices in ordinary rounds
//! ```
//!
//! What it is: recipes that turn a full model into candidates ([`search`]), the Pareto front over accuracy, bytes,
//! multiply-accumulates and latency ([`front`]), and the choice by limits ([`choose`]). The decisions are pure functions of
//! figures; what needs data goes through [`Tuner`], what needs a clock through [`Stopwatch`].
//!
//! What it is not: it knows neither tasks' files nor test data. Accuracies are those of validation rows that no fit has seen.
//!
//! Everything random comes from the seed (invariant 11): on one machine the same search makes the same files. Latencies differ
//! from run to run, and with them the choice of a search that limits latency.

mod candidate;
mod choice;
mod clustered;
mod error;
mod figures;
mod front;
mod html;
mod latency;
mod local;
mod method;
mod paired;
mod pruning;
mod recipe;
mod search;
mod session;
mod surgery;
mod teachers;
mod tuner;

pub use candidate::Candidate;
pub use choice::{Choice, choose, describe};
pub use clustered::Clustered;
pub use error::SearchError;
pub use figures::{Figures, Limit, Limits, POINTS_LOST_DEFAULT};
pub use front::front;
pub use html::report_html;
pub use latency::{Latency, Runs, measure};
pub use local::{LocalTuner, VALIDATION_SHARE, validation_split};
pub use method::{Effort, Granularity, Method};
pub use pruning::{PruneBy, PrunePace, PruneScope, Pruning, Worth};
pub use search::{Observer, Outcome, Settings, Stopwatch, search, synthetic_inputs};
pub use surgery::Surgery;
pub use teachers::train_teachers;
pub use tuner::{Constraint, FineTune, Model, Tuner};
