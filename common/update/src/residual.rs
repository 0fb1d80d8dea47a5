//! What updates could not say so far: a biased codec sends the rest with a later update (error feedback: Seide, Fu, Droppo, Li,
//! Yu 2014, "1-bit stochastic gradient descent", §3; Sattler et al. 2019, Algorithm 2).
//!
//! ```text
//! owed      = delta + residual
//! sent      = decode(encode(owed))
//! residual' = owed − sent
//! ```
//!
//! so after any number of rounds Σ sent + residual = Σ deltas. In floats that would be so to a rounding error each round. Here
//! it is so to the last bit: deltas, what is sent and residuals are 64-bit integers in steps of 2⁻⁴⁰. A delta with finer bits
//! is first rounded to that step, and `topk` sends multiples of it.
//!
//! Why 2⁻⁴⁰ and not a round's fixed point: that one depends on the cohort, which a device does not know, and changes with the
//! plan, which a residual may outlive. Two floats from 2⁻¹⁷ on differ by a multiple of 2⁻⁴⁰, so the difference of all but the
//! smallest weights is said exactly, and the bound that the other end leaves, 2²², is above every value that a plan allows.
//!
//! A residual belongs to one device and one run. The new one takes the old one's place when the update that made it is
//! committed. An update that is lost or refused takes its delta with it, and the old residual stays.

use starling_compress::{CodecSpec, EncodeError};
use starling_wire::Digest;

/// Binary places of a residual.
pub const RESIDUAL_FRACTION_BITS: u8 = 40;

/// 2⁴⁰.
const SCALE: f64 = 1_099_511_627_776.0;

/// Deltas stay below 2²¹ and what is owed below 2²²; a plan's values stay below 2²⁰.
const DELTA_MAX: f32 = 2_097_152.0;
const OWED_MAX: i64 = 1 << 62;

const MAGIC: [u8; 4] = *b"StRs";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 48;
const DIGEST_AT: usize = 16;

/// What a device still owes the model, one value a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residual {
    values: Vec<i64>,
}

/// Bytes that are no residual of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResidualError {
    /// Not written by [`Residual::to_bytes`], or by a later version of it.
    #[error("the bytes are no residual that this build reads; start from an empty one")]
    Format,
    /// Of another model.
    #[error("a residual of {got} parameters was found where the model has {expected}; start from an empty one")]
    Parameters {
        /// The model's parameters.
        expected: usize,
        /// The residual's.
        got: u64,
    },
    /// Cut off, or longer than it says.
    #[error("a residual of {got} bytes was found where {expected} were expected; start from an empty one")]
    Length {
        /// What its header says.
        expected: u64,
        /// What there is.
        got: usize,
    },
    /// Changed since it was written.
    #[error("a residual's bytes do not have their digest; start from an empty one")]
    Digest,
}

impl Residual {
    /// The residual before the first update of a model of `parameters` parameters.
    pub fn zero(parameters: usize) -> Self {
        Self { values: vec![0; parameters] }
    }

    /// The parameters of its model.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether its model has no parameters.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values in units of 2⁻⁴⁰.
    pub fn units(&self) -> &[i64] {
        &self.values
    }

    /// Its bytes, for a file:
    ///
    /// ```text
    ///  0  4  "StRs"
    ///  4  1  version, 1
    ///  5  1  binary places, 40
    ///  6  1  width W: bytes a value, 1 to 8, as many as the largest takes
    ///  7  1  reserved, zero
    ///  8  8  parameters n
    /// 16 32  SHA-256 of the first 16 bytes and of the values
    /// 48  …  n values of W bytes, little-endian, two's complement
    /// ```
    pub fn to_bytes(&self) -> Vec<u8> {
        let magnitude = self.values.iter().fold(0, |all, value| all | value.unsigned_abs() << 1 | 1);
        let width = (64 - magnitude.leading_zeros()).div_ceil(8).max(1) as usize;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + width * self.values.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, RESIDUAL_FRACTION_BITS, width.to_le_bytes()[0], 0]);
        bytes.extend_from_slice(&(self.values.len() as u64).to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        for value in &self.values {
            bytes.extend_from_slice(&value.to_le_bytes()[..width]);
        }
        let digest = digest(&bytes);
        bytes[DIGEST_AT..HEADER_BYTES].copy_from_slice(&digest.0);
        bytes
    }

    /// The residual in `bytes`, of a model of `parameters` parameters. Nothing is allocated before the lengths agree.
    ///
    /// # Errors
    /// [`ResidualError`]: whatever it is, a device may go on from [`Residual::zero`]; it then forgets what it owed.
    pub fn from_bytes(bytes: &[u8], parameters: usize) -> Result<Self, ResidualError> {
        let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(ResidualError::Format)?;
        let width = usize::from(header[6]);
        let known = header[..4] == MAGIC
            && header[4] == VERSION
            && header[5] == RESIDUAL_FRACTION_BITS
            && (1..=8).contains(&width)
            && header[7] == 0;
        if !known {
            return Err(ResidualError::Format);
        }
        let mut count = [0u8; 8];
        count.copy_from_slice(&header[8..16]);
        let got = u64::from_le_bytes(count);
        if got != parameters as u64 {
            return Err(ResidualError::Parameters { expected: parameters, got });
        }
        let expected = (width as u64).saturating_mul(got).saturating_add(HEADER_BYTES as u64);
        if bytes.len() as u64 != expected {
            return Err(ResidualError::Length { expected, got: bytes.len() });
        }
        if digest(bytes).0 != header[DIGEST_AT..] {
            return Err(ResidualError::Digest);
        }
        let values: Vec<i64> = body.chunks_exact(width).map(signed).collect();
        let fits = values.iter().all(|value| value.unsigned_abs() < OWED_MAX.unsigned_abs());
        if fits { Ok(Self { values }) } else { Err(ResidualError::Format) }
    }

    /// `delta + residual`, in units.
    pub(crate) fn owed(mut self, delta: &[f32], codec: CodecSpec) -> Result<Self, EncodeError> {
        for (index, (value, delta)) in self.values.iter_mut().zip(delta).enumerate() {
            if !delta.is_finite() {
                return Err(EncodeError::NotFinite { index });
            }
            let owed = if delta.abs() < DELTA_MAX { value.checked_add(units(*delta)) } else { None };
            *value = owed
                .filter(|owed| owed.unsigned_abs() < OWED_MAX.unsigned_abs())
                .ok_or(EncodeError::TooLarge { index, codec })?;
        }
        Ok(self)
    }

    /// The values as floats, for an encoder.
    #[allow(clippy::cast_possible_truncation, reason = "what rounding leaves out stays owed")]
    pub(crate) fn rounded(&self) -> Vec<f32> {
        self.values.iter().map(|value| (*value as f64 / SCALE) as f32).collect()
    }

    /// What is left when the values at `sent` have been sent whole.
    pub(crate) fn without(mut self, sent: impl Iterator<Item = usize>) -> Self {
        sent.for_each(|index| self.values[index] = 0);
        self
    }

    /// What is left when `sent` has been sent.
    pub(crate) fn less(mut self, sent: &[f32], codec: CodecSpec) -> Result<Self, EncodeError> {
        for (index, (value, sent)) in self.values.iter_mut().zip(sent).enumerate() {
            let left = value.checked_sub(units(*sent)).filter(|left| left.unsigned_abs() < OWED_MAX.unsigned_abs());
            *value = left.ok_or(EncodeError::TooLarge { index, codec })?;
        }
        Ok(self)
    }
}

/// `round_half_even(value · 2^40)`. Exact for every multiple of 2⁻⁴⁰, which is what `topk` sends.
#[allow(
    clippy::cast_possible_truncation,
    reason = "beyond 64 bits the cast saturates, and the caller's bound refuses it"
)]
fn units(value: f32) -> i64 {
    (f64::from(value) * SCALE).round_ties_even() as i64
}

/// The digest over everything but itself.
fn digest(bytes: &[u8]) -> Digest {
    Digest::of_parts(&[&bytes[..DIGEST_AT], &bytes[HEADER_BYTES..]])
}

/// A little-endian two's complement of 1 to 8 bytes.
fn signed(bytes: &[u8]) -> i64 {
    let fill = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
    let mut value = [fill; 8];
    value[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(value)
}
