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
//! Floats are rounded as `f32`, products of integers and signs are exact, and no output depends on how samples are batched.
//! Nothing here reads a clock, entropy, a file or a socket (invariant 7), and it never trains.

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
