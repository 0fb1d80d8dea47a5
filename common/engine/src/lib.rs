//! Runs a [`Release`](starling_compress::Release) without burn, in microseconds.
//!
//! An [`Engine`] is built once from a release: it checks everything in it (a release may come from anywhere), picks a kernel
//! for each layer by the form of its weights, and fuses what follows a layer into it. Running it afterwards allocates nothing
//! once it has seen its largest batch.
//!
//! | weights | inputs | kernel |
//! | --- | --- | --- |
//! | floats, code books, fixed point, weight-only integers | floats | dense float product, or sparse where few weights are kept |
//! | integers of up to 8 bits with an input range | 256 levels | integer product, exact in 32 bits; consecutive layers hand each other levels |
//! | binary | signs | XNOR and popcount; batch normalisation and a sign become a threshold a unit |
//! | binary | floats | as floats |
//!
//! Which form a layer takes hangs on the release alone, never on the processor. Floats are rounded as `f32`, and a processor
//! that fuses products with additions rounds a little differently from one that does not; products of integers and signs are
//! exact, so that integer layers give the same levels everywhere. No output depends on how samples are batched.
//!
//! Every layer of the specification runs. Limits: a padded copy of a convolution's input has at most 2²⁶ values a sample, and
//! an integer layer at most 65,792 inputs an output (more run in floats). Memory is the weights in the kernel's form
//! ([`Engine::weight_bytes`]: a byte an integer, four a float, eight a sparse weight, a bit a sign) and a few times the largest
//! activation of a batch of up to 64 samples. Nothing here reads a clock, entropy, a file or a socket (invariant 7), and it
//! never trains.
//!
//! ```
//! use starling_compress::{Compressed, Release};
//! use starling_engine::{Engine, Inference, calibrate, multiply_accumulates};
//! use starling_spec::layer::Linear;
//! use starling_spec::{Layer, Scale, TaskKind};
//!
//! let release = Release {
//!     name: "sum and difference".into(),
//!     kind: TaskKind::Classification,
//!     shape: vec![2],
//!     scale: Scale::None,
//!     standardise: None,
//!     layers: vec![Layer::Linear(Linear { out: 2, bias: false, binary: false })],
//!     tensors: vec![Compressed::dense(vec![1.0, 1.0, 1.0, -1.0])],
//!     inputs: vec![None],
//! };
//! let mut engine = Engine::new(&release)?;
//! let mut outputs = Vec::new();
//! engine.run_into(&[3.0, 1.0, 5.0, 5.0], &mut outputs)?;
//! assert_eq!(outputs, [4.0, 2.0, 10.0, 0.0]);
//! assert_eq!(multiply_accumulates(&release)?, 4);
//! assert_eq!(calibrate(&release, &[3.0, 1.0])?[0].map(|range| (range.low, range.high)), Some((0.0, 3.0)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod buffers;
mod calibrate;
mod check;
mod count;
mod engine;
mod error;
mod inference;
mod isa;
mod kernel;
mod lower;
mod step;
mod weights;

pub use calibrate::calibrate;
pub use count::multiply_accumulates;
pub use engine::Engine;
pub use error::{EngineError, InferenceError};
pub use inference::Inference;
pub use isa::Level;
