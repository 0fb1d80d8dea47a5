//! What does not fit a ring.

use starling_compress::CodecSpec;
use starling_privacy::noise::ShareError;

/// Why settings have no ring, or a delta no place in it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RingError {
    /// The codec's values cannot be added up under masks.
    #[error("{codec} cannot go through a secure sum: {reason}; use q2 to q16")]
    Codec {
        /// The codec.
        codec: CodecSpec,
        /// Why.
        reason: &'static str,
    },
    /// A setting outside its range.
    #[error("{name} = {got} of a secure sum: expected {expected}")]
    Setting {
        /// Which.
        name: &'static str,
        /// What it is.
        got: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Sums of more than 64 bits.
    #[error("the sums of {cohort_max} devices need more than 64 bits; lower privacy.dp.noise_multiplier")]
    TooWide {
        /// Devices.
        cohort_max: u32,
    },
    /// A delta or a sum of another model.
    #[error("{got} values came where {expected} were expected")]
    Length {
        /// What there have to be.
        expected: usize,
        /// What there are.
        got: usize,
    },
    /// A delta that is no number.
    #[error("value {index} of the delta is not finite; the training has diverged: lower the learning rate")]
    NotFinite {
        /// Where.
        index: usize,
    },
    /// An update of no examples.
    #[error("an update needs at least 1 example")]
    NoExamples,
    /// Noise that cannot be drawn in shares.
    #[error(
        "the noise of privacy.dp cannot be drawn in shares of {honest} devices; raise privacy.dp.noise_multiplier or the bits of update.codec"
    )]
    Noise {
        /// Devices whose shares have to be enough.
        honest: u32,
        /// Why.
        #[source]
        reason: ShareError,
    },
    /// A tally beyond its bound.
    #[error("{what} of {got} is beyond its bound of {bound}")]
    Bound {
        /// What.
        what: &'static str,
        /// Its value.
        got: u64,
        /// The bound.
        bound: u64,
    },
}
