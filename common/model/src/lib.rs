//! Networks at run time: a plan's layers become tensors that train and evaluate. The only crate that knows burn.
//!
//! What it is: [`Network`] holds the sizes of a plan's network and the backend that computes it; parameters live with the
//! caller, as one flat vector in the order of the plan's manifest. What it is not: it never touches files, sockets or
//! clocks, and it decides nothing about rounds or updates.
//!
//! burn computes the layers, except where `backend = "auto"` meets convolutions and largest-value pools in a row: kernels of our
//! own train those at several times the speed (`docs/decisions/0002-burn-backends.md`).
//!
//! Invariant 11: everything random (batch order, dropout masks) comes from [`starling_spec::random`], keyed by the plan's
//! seed and a [`TrainPath`]; burn's process-wide generator is never used. Each network computes on its caller's thread
//! alone, so results do not depend on how many others run beside it.
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//! use starling_model::{Memory, Network, TrainPath};
//! use starling_spec::{TaskFile, TaskKind, TaskPlan, init::initial_parameters};
//!
//! let task = TaskFile::parse(r#"
//!     name = "xor"
//!     kind = "classification"
//!     [data]
//!     format = "csv"
//!     train = "xor.csv"
//!     shape = [2]
//!     [model]
//!     layers = [{ linear = { out = 16 } }, "tanh", { linear = { out = 2 } }]
//!     [train]
//!     lr = 0.5
//!     batch = 0
//!     epochs = 300
//! "#, &[])?;
//! let plan = TaskPlan::new(&task, 1)?;
//! let data = Memory::classes(2, vec![0., 0., 0., 1., 1., 0., 1., 1.], vec![0, 1, 1, 0]);
//! let mut network = Network::new(&plan)?;
//! let mut parameters = initial_parameters(&plan.manifest()?, plan.seed);
//! let path = TrainPath { device: 0, round: 1 };
//! network.train(&mut parameters, &data, &[0, 1, 2, 3], path, &AtomicBool::new(false))?;
//! assert_eq!(network.evaluate(&parameters, &data, &[0, 1, 2, 3])?.correct, 4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backend;
mod chain;
mod convolution;
mod dp_sgd;
mod error;
mod evaluate;
mod executor;
mod forms;
mod forward;
mod inference;
mod loss;
mod network;
mod norm;
mod optimise;
mod pool;
mod probe;
mod samples;
mod sequence;
mod tensors;
mod train;
mod weights;

pub use error::ModelError;
pub use evaluate::{EVALUATION_BATCH, Evaluated};
pub use inference::{BurnInference, evaluate_with};
pub use network::Network;
pub use samples::{Memory, Samples};
pub use train::{Answers, Teacher, TrainOutcome, TrainPath, Tuning};
