//! Update and model codecs, and the integer fold that mirrors them.
//!
//! A codec turns a flat `f32` vector into bytes of a length that its count alone fixes ([`encoded_len`]) or bounds
//! ([`encoded_len_bounds`]), so a receiver refuses a wrong length before it reads a body. [`check`] finds everything that could make a fold go wrong; after it,
//! [`fold_into`] adds a weighted vector to 64-bit accumulators exactly:
//!
//! ```text
//! acc[i] += ± weight · round_half_even(x[i] · 2^F)        (mod 2^64)
//! ```
//!
//! so the sum depends neither on order nor on the processor (invariant 1), and taking a vector out again is exact.
//!
//! | codec | bytes for n values | value |
//! | --- | --- | --- |
//! | `f32` | 4n | IEEE binary32, little-endian |
//! | `f16` | 2n | IEEE binary16, little-endian, rounded half-even |
//! | `qB` | ⌈n/256⌉ + ⌈nB/8⌉ | `level · 2^exponent`: one signed exponent a block of 256, then the levels, B bits each |
//! | `qB+ec` | at most a byte a 65,536 values above `qB` | the same, its exponents and its levels entropy coded ([`rans`]) |
//! | `eden:B` | 8 + 4 a block + ⌈nB/8⌉ and padding below 16 | rotated by random signs and a Hadamard matrix in blocks of 4,096, quantised to B bits; unbiased |
//! | `topk:F` | about n·F·(b\*+2.5)/8 | ±μ at the k largest magnitudes, gaps Golomb coded; the rest goes into the device's residual |
//!
//! Models travel in the first three. The others are for updates: their errors average out over devices (`eden`), or the device
//! makes good for them in its next update (`topk`).
//!
//! Nothing here reads a clock, entropy, a file or a socket (invariant 7): stochastic rounding is a function of a key.
//! It never trains, and it does not know what a round is.
//!
//! ```
//! use starling_compress::{CodecSpec, Rounding, decode_into, encode_into, encoded_len};
//!
//! let codec = CodecSpec::Quantised(8);
//! let values = [0.5, -0.25, 0.125];
//! let mut bytes = Vec::new();
//! encode_into(codec, &values, Rounding::Nearest, &mut bytes)?;
//! assert_eq!(Some(bytes.len()), encoded_len(codec, values.len()));
//! let mut decoded = [0.0; 3];
//! decode_into(codec, &bytes, &mut decoded)?;
//! assert_eq!(decoded, values);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod codec;
mod coded;
mod coding;
pub mod difference;
mod error;
mod fixed;
#[macro_use]
mod kernel;
pub mod map;
pub mod method;
pub mod rans;
pub mod release;
pub mod rotation;
pub mod tensor;

pub use codec::{
    BLOCK, FoldSign, Rounding, check, codec_id, codec_spec, decode_into, encode_into, encoded_len, encoded_len_bounds,
    fold_into,
};
pub use error::{DecodeError, EncodeError};
pub use fixed::{FixedPoint, FixedPointError};
pub use map::WeightMap;
pub use release::{InputRange, Release, ReleaseError, TensorReport};
pub use starling_spec::CodecSpec;
pub use tensor::{Compressed, Values};
