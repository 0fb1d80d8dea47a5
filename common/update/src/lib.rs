//! The numeric path up, from a device's delta to the sealed bytes of its update, and its mirror, from admitted bytes to the
//! fold and the next model version.
//!
//! ```text
//! device:      delta ── seal ──► Sealed ──► bytes                         (nothing else may leave it)
//! aggregator:  header ── admit_header ──► body ── admit ──► Admitted ──► Fold ──► mean ──► Version
//! ```
//!
//! What holds here: the fold is a function of the *set* of admitted updates (invariant 1), a device is in it at most once
//! (invariant 2), and [`Sealed`] and [`Admitted`] can only be made by [`seal`] (or
//! [`seal_with_feedback`]) and [`admit`] (invariant 3). A body's length is
//! fixed or bounded by the plan and compared before the body is read (invariant 8). Nothing reads a clock, entropy, a file or a socket
//! (invariant 7).
//!
//! What it is not: it does not know which devices a round has selected or whether the round is open; the protocol does.
//!
//! ```
//! use starling_spec::{CodecSpec, UpdateSettings};
//! use starling_update::{Fold, Numerics, admit, seal};
//! use starling_wire::{Address, DeviceId, RunId, TaskId, UpdateReport};
//!
//! let codec = CodecSpec::Quantised(8);
//! let settings = UpdateSettings { codec, down: codec, value_max_log2: 4, weight_max: 1000 };
//! let numerics = Numerics::new(&settings, 3, 10)?;
//! let address = Address { task: TaskId([0; 16]), run: RunId(1), round: 1, attempt: 1 };
//!
//! let report = UpdateReport { weight: 20, train_loss: 0.7, steps: 2, within_clip: false };
//! let sealed = seal(&report, &[0.5, -0.25, 0.0], codec, 99)?;
//!
//! let header = sealed.header(&address);
//! let update = admit(DeviceId([1; 16]), &header, sealed.bytes().clone(), sealed.digest(), &numerics)?;
//! let mut fold = Fold::new(&numerics);
//! fold.add(&update)?;
//! let mut master = [1.0f32; 3];
//! fold.apply_mean(&mut master);
//! assert_eq!(master, [1.5, 0.75, 1.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod admitted;
mod bounded;
mod clipping;
mod fold;
mod noisy;
mod numerics;
mod residual;
pub mod ring;
mod round;
mod sealed;
mod secure;
mod version;

pub use admitted::{Admitted, admit, admit_header};
pub use bounded::{LocalNoise, norm, norm_max, seal_bounded, seal_local, seal_private};
pub use fold::{Fold, FoldError, Partial};
pub use noisy::{Node, NoisyMean, NoisyMeanError};
pub use numerics::{Numerics, NumericsError};
pub use residual::{RESIDUAL_FRACTION_BITS, Residual, ResidualError};
pub use round::{NumbersError, RoundNumbers};
pub use sealed::{SealError, Sealed, rounding_key, seal, seal_masked, seal_restored, seal_with_feedback};
pub use secure::{
    Local, LocalFigures, MaskError, SecurePart, SecureRound, SecureSums, Summed, SummedFigures, group_order,
};
pub use starling_compress::{
    CodecSpec, DecodeError, EncodeError, FixedPoint, codec_id, codec_spec, difference, encoded_len_bounds,
};
pub use version::{Version, VersionError, version_len};
