//! What can be wrong with values to encode, and with bytes to decode.

use starling_spec::CodecSpec;
use starling_wire::Refusal;

/// Values that a codec cannot say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A NaN or an infinity.
    #[error("value {index} is not finite; the training has diverged: lower the learning rate")]
    NotFinite {
        /// The position of the first such value.
        index: usize,
    },
    /// A finite value beyond the codec's range.
    #[error("value {index} is too large for the codec {codec}; use f32, or lower the learning rate")]
    TooLarge {
        /// The position of a value of that size.
        index: usize,
        /// The codec.
        codec: CodecSpec,
    },
    /// A model version in a codec that is for updates only.
    #[error("model versions do not travel in {codec}; use f32, f16 or q2 to q16")]
    NotForVersions {
        /// The codec.
        codec: CodecSpec,
    },
}

/// Bytes that are no vector of the codec, or one that the round's plan does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The codec and the count fix the length.
    #[error("an encoded vector of {got} bytes came where {expected} were expected")]
    Length {
        /// What the codec and the count ask for.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// The codec and the count bound the length.
    #[error("an encoded vector of {got} bytes came where {min} to {max} were expected")]
    LengthBounds {
        /// The fewest bytes that there can be.
        min: usize,
        /// The most.
        max: usize,
        /// What came.
        got: usize,
    },
    /// A NaN or an infinity.
    #[error("value {index} of an encoded vector is not finite")]
    NotFinite {
        /// The position of the first such value.
        index: usize,
    },
    /// A magnitude over the plan's bound.
    #[error("value {index} of an encoded vector is beyond the bound of the plan (2^{value_max_log2})")]
    OutOfRange {
        /// The position of the first such value; for a block exponent, of the block's first value.
        index: usize,
        /// The bound.
        value_max_log2: i8,
    },
    /// Bytes that no encoder writes.
    #[error("malformed encoded bytes: {0}")]
    Malformed(&'static str),
}

impl DecodeError {
    /// The code under which a peer is refused for it.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Length { .. } | Self::LengthBounds { .. } => Refusal::LengthMismatch,
            Self::NotFinite { .. } => Refusal::NotFinite,
            Self::OutOfRange { .. } => Refusal::OutOfRange,
            Self::Malformed(_) => Refusal::MalformedUpdate,
        }
    }
}
