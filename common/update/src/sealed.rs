//! What a device sends: sealed once, then only bytes.
//!
//! ```text
//! 0   4  length of the report, little-endian (13)
//! 4  13  the report as the body of a control frame: weight u32, train_loss f32, steps u32, within_clip u8
//! 17  …  the delta, encoded
//! ```

use bytes::Bytes;
use starling_compress::{CodecSpec, EncodeError, Rounding, codec_id, decode_into, encode_into, encoded_len_bounds};
use starling_secagg::{Restored, Unsent};
use starling_spec::random::{Purpose, Random};
use starling_wire::{Address, BlobHeader, BlobKind, DeviceId, Digest, FrameError, UpdateReport};

use crate::residual::Residual;

/// Bytes of a [`UpdateReport`] in the frame codec: three 32-bit fields and a bit in a byte.
const REPORT_BYTES: usize = 13;

/// Bytes in front of the payload: the report and its length.
pub(crate) const PREAMBLE_BYTES: usize = starling_wire::frame::FRAME_LENGTH_BYTES + REPORT_BYTES;

const _: () = assert!(PREAMBLE_BYTES <= starling_wire::limits::PREAMBLE_BYTES_MAX, "a preamble stays below its limit");

/// Why a delta cannot become an update.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// An update of no examples says nothing.
    #[error("an update needs a weight of at least 1 example")]
    NoWeight,
    /// The mean loss is no number.
    #[error("the training loss is {0}; the training has diverged: lower the learning rate")]
    Loss(f32),
    /// The delta cannot be encoded.
    #[error("the update cannot be encoded")]
    Encode(#[from] EncodeError),
    /// Noise that cannot be drawn.
    #[error("the update's noise cannot be drawn")]
    Noise(#[source] starling_privacy::noise::DeviationError),
    /// A residual of another model.
    #[error("a residual of {got} parameters came with a delta of {expected}; start from an empty one")]
    Residual {
        /// The delta's parameters.
        expected: usize,
        /// The residual's.
        got: usize,
    },
    /// The report cannot be encoded.
    #[error("the update's report cannot be encoded")]
    Report(#[from] FrameError),
}

/// An update, ready to leave the device. Only [`seal`], [`seal_with_feedback`], [`seal_masked`] and [`seal_restored`] make one (invariant 3).
#[derive(Debug, Clone)]
pub struct Sealed {
    kind: BlobKind,
    codec: CodecSpec,
    bytes: Bytes,
    digest: Digest,
}

/// The key of an update's stochastic rounding: a function of the run's seed, the device and the round, so that a
/// simulation and the real processes round alike.
pub fn rounding_key(seed: u64, device: DeviceId, round: u32) -> u64 {
    let mut first = [0u8; 8];
    first.copy_from_slice(&device.0[..8]);
    Random::new(seed, Purpose::Round, &[u64::from_le_bytes(first), u64::from(round)]).key()
}

/// Encodes `delta` (the parameters after training less the decoded version that training started from) and seals it.
///
/// # Errors
/// [`SealError`] when the training has diverged or the report is empty.
pub fn seal(report: &UpdateReport, delta: &[f32], codec: CodecSpec, rounding_key: u64) -> Result<Sealed, SealError> {
    if report.weight == 0 {
        return Err(SealError::NoWeight);
    }
    if !report.train_loss.is_finite() {
        return Err(SealError::Loss(report.train_loss));
    }
    let mut bytes = Vec::with_capacity(PREAMBLE_BYTES + encoded_len_bounds(codec, delta.len()).end());
    bytes.extend_from_slice(&starling_wire::encode(report)?);
    debug_assert_eq!(bytes.len(), PREAMBLE_BYTES, "a report has fixed-size fields only");
    encode_into(codec, delta, Rounding::Stochastic { key: rounding_key }, &mut bytes)?;
    let digest = Digest::of(&bytes);
    Ok(Sealed { kind: BlobKind::Update, codec, bytes: Bytes::from(bytes), digest })
}

/// Seals what a device's part in a secure sum has masked, once the journal holds it. `codec` is the plan's.
pub fn seal_masked(masked: Unsent, codec: CodecSpec) -> Sealed {
    let bytes = masked.persisted();
    let digest = Digest::of(&bytes);
    Sealed { kind: BlobKind::Masked, codec, bytes: Bytes::from(bytes), digest }
}

/// Seals again what a process that is gone had masked and sealed: the same bytes. None where it had masked nothing.
pub fn seal_restored(before: &Restored, codec: CodecSpec) -> Option<Sealed> {
    let bytes = Bytes::copy_from_slice(before.masked()?);
    Some(Sealed { kind: BlobKind::Masked, codec, digest: Digest::of(&bytes), bytes })
}

/// Seals `delta + residual` and gives what that leaves owed: in units of 2⁻⁴⁰, what `Sealed` decodes to and the new residual
/// are together exactly `delta + residual`. For codecs that [`CodecSpec::keeps_residual`]; others may have it too.
///
/// The caller puts the new residual in the old one's place when the update is committed, and keeps the old one otherwise.
///
/// # Errors
/// [`SealError`] as [`seal`], and for a residual of another length or one that has grown beyond all bounds.
///
/// # Panics
/// Never: what is decoded was encoded here.
pub fn seal_with_feedback(
    report: &UpdateReport,
    delta: &[f32],
    codec: CodecSpec,
    rounding_key: u64,
    residual: &Residual,
) -> Result<(Sealed, Residual), SealError> {
    if residual.len() != delta.len() {
        return Err(SealError::Residual { expected: delta.len(), got: residual.len() });
    }
    let owed = residual.clone().owed(delta, codec)?;
    let mut values = owed.rounded();
    let sealed = seal(report, &values, codec, rounding_key)?;
    decode_into(codec, &sealed.bytes[PREAMBLE_BYTES..], &mut values).expect("the bytes were encoded here");
    Ok((sealed, owed.less(&values, codec)?))
}

impl Sealed {
    /// The body of the blob.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// SHA-256 of the body.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The header under which the body travels, from its start.
    pub fn header(&self, address: &Address) -> BlobHeader {
        BlobHeader {
            kind: self.kind,
            codec: codec_id(self.codec),
            run: address.run,
            round: address.round,
            attempt: address.attempt,
            offset: 0,
            length: self.bytes.len() as u64,
            digest: self.digest,
        }
    }
}
