//! Updates under differential privacy: clipped to an L2 norm on the device, or with noise of their own.
//!
//! The norm that counts is that of what the update *decodes* to, since that is what is summed. A lossy codec may raise it after the clip,
//! so the device decodes what it has encoded, and shrinks and encodes again until the bound holds; and the aggregator, which
//! decodes the same bytes to the same values, refuses what is beyond it ([`admit`](crate::admit)). Clipping on the aggregator instead would
//! hide a device's mistake from it, and scale by a factor that each device's rounding draws.

use starling_compress::{CodecSpec, decode_into};
use starling_privacy::noise::{DeviationError, Source, SumNoise};
use starling_spec::{DpMode, TaskPlan};
use starling_wire::UpdateReport;

use crate::sealed::{PREAMBLE_BYTES, SealError, Sealed, seal};

/// How often an update is encoded again before it is sent as zeros. Where rounding is most of the norm and scales are powers of two, the norm falls
/// only as the root of the values: each attempt aims a little lower than the one before.
const ATTEMPTS: u8 = 16;

/// How much lower.
const STEP: f64 = 0.01;

/// What is left free for the rounding of values that are encoded a little smaller.
const MARGIN: f64 = 1.0 - 1e-6;

/// Grid units of local noise in a clipping norm.
const UNITS: f64 = (1u64 << 40) as f64;

/// The bound that `plan` sets to the norm of what plain updates decode to: none without noise of the aggregator's.
pub fn norm_max(plan: &TaskPlan) -> Option<f64> {
    let asked = &plan.privacy.as_ref()?.asked;
    let central = asked.dp.as_ref().is_some_and(|dp| dp.mode == DpMode::Central);
    asked.clip().filter(|_| central && !asked.secure_aggregation)
}

/// Seals `delta` as the `[privacy]` of a round's `plan` asks for plain updates: clipped, with noise of its own from `source`, or as it is. Where
/// the clipping norm adapts, the report says whether the update was within it.
///
/// # Errors
/// As [`seal`]; [`SealError::Noise`] for a noise multiplier that cannot be drawn.
pub fn seal_private(
    plan: &TaskPlan,
    report: &UpdateReport,
    delta: &[f32],
    rounding_key: u64,
    source: &mut impl Source,
) -> Result<Sealed, SealError> {
    let codec = plan.update.codec;
    let dp = plan.privacy.as_ref().and_then(|privacy| privacy.asked.dp.as_ref());
    match dp {
        Some(dp) if dp.mode == DpMode::Local && dp.noise_multiplier > 0.0 => {
            let value_max = libm::ldexp(1.0, plan.update.value_max_log2.into());
            let local = LocalNoise { norm_max: dp.clip, noise_multiplier: dp.noise_multiplier, value_max };
            seal_local(report, delta, codec, rounding_key, local, source)
        }
        Some(dp) => {
            let within_clip = plan.adaptive_clip().is_some_and(|clip| norm(delta) <= clip);
            seal_bounded(&UpdateReport { within_clip, ..*report }, delta, codec, rounding_key, dp.clip)
        }
        None => seal(report, delta, codec, rounding_key),
    }
}

/// The L2 norm, summed in double precision from the first value to the last: the same on every machine.
pub fn norm(values: &[f32]) -> f64 {
    libm::sqrt(values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum())
}

#[allow(clippy::cast_possible_truncation, reason = "rounding to the precision of an update is meant")]
fn scaled(values: &[f32], factor: f64) -> Vec<f32> {
    values.iter().map(|value| (f64::from(*value) * factor) as f32).collect()
}

/// Scales `delta` to a norm of at most `norm_max` and seals it so that what it decodes to is within the bound too.
///
/// # Errors
/// As [`seal`].
///
/// # Panics
/// Never: what is decoded was encoded here.
pub fn seal_bounded(
    report: &UpdateReport,
    delta: &[f32],
    codec: CodecSpec,
    rounding_key: u64,
    norm_max: f64,
) -> Result<Sealed, SealError> {
    // What is not finite is the codec's to refuse.
    let whole = norm(delta);
    let mut factor = if whole <= norm_max || !whole.is_finite() { 1.0 } else { norm_max / whole * MARGIN };
    let mut decoded = vec![0.0; delta.len()];
    for attempt in 0..ATTEMPTS {
        let sealed = seal(report, &scaled(delta, factor), codec, rounding_key)?;
        decode_into(codec, &sealed.bytes()[PREAMBLE_BYTES..], &mut decoded).expect("the bytes were encoded here");
        let norm = norm(&decoded);
        if norm <= norm_max {
            return Ok(sealed);
        }
        factor *= norm_max / norm * (MARGIN - STEP * f64::from(attempt));
    }
    seal(report, &vec![0.0; delta.len()], codec, rounding_key)
}

/// Scales `delta` to a norm of at most `norm_max`, adds noise of `noise_multiplier` times that to every value, and seals it: the
/// update protects its device by itself. Values beyond `value_max` are cut to it.
///
/// The noise is drawn on a grid of 2⁻⁴⁰ of the norm; what follows, the rounding to single precision and the codec, are computations on what is
/// private already.
///
/// # Errors
/// As [`seal`]; [`SealError::Noise`] for a noise multiplier that cannot be drawn.
pub fn seal_local(
    report: &UpdateReport,
    delta: &[f32],
    codec: CodecSpec,
    rounding_key: u64,
    local: LocalNoise,
    source: &mut impl Source,
) -> Result<Sealed, SealError> {
    let LocalNoise { norm_max, noise_multiplier, value_max } = local;
    let whole = norm(delta);
    if !whole.is_finite() {
        return seal(report, delta, codec, rounding_key);
    }
    let factor = if whole <= norm_max { 1.0 } else { norm_max / whole };
    let unit = norm_max / UNITS;
    #[allow(clippy::cast_possible_truncation, reason = "within the norm: at most 2^40 units")]
    let mut values: Vec<i64> = delta.iter().map(|value| libm::rint(f64::from(*value) * factor / unit) as i64).collect();
    SumNoise::new(noise_multiplier, UNITS, values.len())?.add_to(&mut values, source);
    #[allow(clippy::cast_possible_truncation, reason = "rounding to the precision of an update is meant")]
    let noisy: Vec<f32> =
        values.iter().map(|value| (*value as f64 * unit).clamp(-value_max, value_max) as f32).collect();
    seal(report, &noisy, codec, rounding_key)
}

/// What local noise is drawn by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocalNoise {
    /// The L2 norm that an update is clipped to.
    pub norm_max: f64,
    /// The noise's deviation in such norms.
    pub noise_multiplier: f64,
    /// The largest magnitude of a value.
    pub value_max: f64,
}

impl From<DeviationError> for SealError {
    fn from(error: DeviationError) -> Self {
        Self::Noise(error)
    }
}
