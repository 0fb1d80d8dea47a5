//! `topk:F` payloads: sparse ternary compression (Sattler, Wiedemann, Müller, Samek 2019, "Robust and communication-efficient
//! federated learning from non-IID data", Algorithms 1, 3 and 4).
//!
//! ```text
//! k  = max(1, round(F·n))            at most so many values are sent, the largest magnitudes; ties go to the first
//! μ  = their mean magnitude          each is sent as +μ or −μ
//! b* = 1 + ⌊log2(ln(φ−1) / ln(1−F))⌋ φ the golden ratio: the Golomb parameter that fits gaps between values drawn with
//!                                    probability F (ibid., eq. 15; Golomb 1966)
//! ```
//!
//! A gap g (positions skipped since the last value) is ⌊g/2^b*⌋ ones, a zero, and the low b* bits of g; a sign bit follows. b*
//! follows from k and n, so it is not sent.
//!
//! μ is rounded to a multiple of 2⁻⁴⁰: what the device keeps of an update is then exact in fixed point of that step, and what
//! is below it could not be seen in a fold.

use crate::codec::FoldSign;
use crate::error::{DecodeError, EncodeError};
use crate::kernel::bits::{BitReader, BitWriter};
use crate::kernel::float;

/// Count and mean magnitude.
const HEAD_BYTES: usize = 8;

/// 2⁴⁰.
const GRID: f64 = 1_099_511_627_776.0;

const ABS_MASK: u32 = 0x7fff_ffff;

/// How many of `count` values are sent at most.
pub(crate) fn kept_max(per_million: u32, count: usize) -> usize {
    let rounded = (count as u64 * u64::from(per_million) + 500_000) / 1_000_000;
    usize::try_from(rounded.max(1)).unwrap_or(usize::MAX).min(count)
}

/// b*: the smallest b with (1−p)^(2^b) < φ−1, which is the paper's formula without its logarithms: squares are rounded alike
/// on every processor.
fn golomb_bits(kept: usize, count: usize) -> u32 {
    const GOLDEN: f64 = 0.618_033_988_749_894_8;
    let mut survival = 1.0 - kept as f64 / count.max(1) as f64;
    let mut bits = 0;
    while survival >= GOLDEN && bits < 31 {
        survival *= survival;
        bits += 1;
    }
    bits
}

/// The bytes that no payload of `count` values is below, and none above.
pub(crate) fn encoded_len_bounds(per_million: u32, count: usize) -> std::ops::RangeInclusive<usize> {
    let kept = kept_max(per_million, count);
    let golomb = golomb_bits(kept, count);
    // Every value takes its low bits, the end of its run and its sign; all runs together skip no more than there is.
    let bits = kept * (golomb as usize + 2) + ((count - kept) >> golomb);
    HEAD_BYTES..=HEAD_BYTES + bits.div_ceil(8)
}

/// Appends `values` to `out`.
pub(crate) fn encode(per_million: u32, values: &[f32], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(EncodeError::NotFinite { index });
    }
    let kept = kept_max(per_million, values.len());
    let golomb = golomb_bits(kept, values.len());
    let threshold = Threshold::of(values, kept);
    let mean = on_grid(threshold.mean(values));
    let count = if mean > 0.0 { threshold.above + threshold.equal } else { 0 };
    out.extend_from_slice(&u32::try_from(count).expect("models have fewer than 2^32 parameters").to_le_bytes());
    out.extend_from_slice(&mean.to_le_bytes());
    let mut bits = BitWriter::new(out);
    if count > 0 {
        let mut next = 0;
        threshold.for_each(values, |index, value| {
            let gap = u32::try_from(index - next).expect("models have fewer than 2^32 parameters");
            bits.put_unary(gap.unbounded_shr(golomb));
            bits.put(gap & ((1 << golomb) - 1), golomb);
            bits.put(value.to_bits() >> 31, 1);
            next = index + 1;
        });
    }
    bits.finish();
    Ok(())
}

/// The nearest multiple of 2⁻⁴⁰. A mean from 2⁻¹⁶ on is one already; below, multiples are fewer than 2²⁴, so that each is a
/// float.
#[allow(clippy::cast_possible_truncation, reason = "the result is a float; infinity is what the caller looks for")]
fn on_grid(mean: f64) -> f32 {
    let mean = f64::from(mean as f32);
    if mean >= 1.0 { mean as f32 } else { ((mean * GRID).round_ties_even() / GRID) as f32 }
}

/// Which values are kept: magnitudes above a bound and the first of those equal to it. As bits, magnitudes have the order of
/// their values.
#[derive(Debug)]
struct Threshold {
    magnitude: u32,
    above: usize,
    equal: usize,
}

impl Threshold {
    /// The bound under which `kept` values remain, without zeros; by counting the upper and then the lower halves of the
    /// magnitudes' bits.
    fn of(values: &[f32], kept: usize) -> Self {
        let mut counts = vec![0u32; 1 << 16];
        for value in values {
            counts[((value.to_bits() & ABS_MASK) >> 16) as usize] += 1;
        }
        let (upper, above) = from_top(&counts, kept);
        counts.fill(0);
        for value in values {
            let magnitude = value.to_bits() & ABS_MASK;
            if magnitude >> 16 == upper {
                counts[(magnitude & 0xffff) as usize] += 1;
            }
        }
        let (lower, also_above) = from_top(&counts, kept - above);
        let magnitude = upper << 16 | lower;
        let above = above + also_above;
        Self { magnitude, above, equal: if magnitude == 0 { 0 } else { kept - above } }
    }

    /// Calls `each` with every kept value and its index, in order.
    #[inline]
    fn for_each(&self, values: &[f32], mut each: impl FnMut(usize, f32)) {
        let mut equal_left = self.equal;
        for (index, value) in values.iter().enumerate() {
            let magnitude = value.to_bits() & ABS_MASK;
            if magnitude < self.magnitude {
                continue;
            }
            if magnitude == self.magnitude {
                if equal_left == 0 {
                    continue;
                }
                equal_left -= 1;
            }
            each(index, *value);
        }
    }

    fn mean(&self, values: &[f32]) -> f64 {
        let mut sum = 0f64;
        self.for_each(values, |_, value| sum += f64::from(value.abs()));
        sum / (self.above + self.equal).max(1) as f64
    }
}

/// The last bin from the top that is needed to have `wanted` items, and the items in the bins above it.
fn from_top(counts: &[u32], wanted: usize) -> (u32, usize) {
    let mut above = 0;
    for (bin, count) in (0..1 << 16).zip(counts).rev() {
        if above + *count as usize >= wanted {
            return (bin, above);
        }
        above += *count as usize;
    }
    (0, above)
}

const TRUNCATED: DecodeError = DecodeError::Malformed("a sparse vector ends too early");

/// Calls `each` with the position and the negativity of every value, and gives their magnitude. Whatever the bytes are, the
/// positions rise and stay below `count`.
#[inline]
fn read(per_million: u32, bytes: &[u8], count: usize, mut each: impl FnMut(usize, bool)) -> Result<f32, DecodeError> {
    let (sent, rest) = bytes.split_first_chunk::<4>().ok_or(TRUNCATED)?;
    let (mean, rest) = rest.split_first_chunk::<4>().ok_or(TRUNCATED)?;
    let (sent, mean) = (u32::from_le_bytes(*sent) as usize, f32::from_le_bytes(*mean));
    let kept = kept_max(per_million, count);
    if sent > kept {
        return Err(DecodeError::Malformed("a sparse vector holds more values than its codec keeps"));
    }
    if !mean.is_finite() {
        return Err(DecodeError::NotFinite { index: 0 });
    }
    if mean.is_sign_negative() || (mean == 0.0) != (sent == 0) {
        return Err(DecodeError::Malformed("a sparse vector's magnitude is not above zero"));
    }
    let golomb = golomb_bits(kept, count);
    let mut bits = BitReader::new(rest);
    let mut next = 0usize;
    for _ in 0..sent {
        let runs = bits.take_unary().ok_or(TRUNCATED)?;
        let low = bits.take(golomb).ok_or(TRUNCATED)?;
        let negative = bits.take(1).ok_or(TRUNCATED)? == 1;
        let position = next as u64 + (u64::from(runs) << golomb) + u64::from(low);
        if position >= count as u64 {
            return Err(DecodeError::Malformed("a sparse vector's position is beyond its end"));
        }
        let position = usize::try_from(position).map_err(|_| TRUNCATED)?;
        each(position, negative);
        next = position + 1;
    }
    if bits.at_end() { Ok(mean) } else { Err(DecodeError::Malformed("bits follow a sparse vector's last value")) }
}

/// Refuses everything that no encoder writes, and a magnitude over `2^value_max_log2`.
pub(crate) fn check(per_million: u32, bytes: &[u8], count: usize, value_max_log2: i8) -> Result<(), DecodeError> {
    let mut first = None;
    let mean = read(per_million, bytes, count, |position, _| {
        first.get_or_insert(position);
    })?;
    match first {
        Some(index) if mean > 2f32.powi(value_max_log2.into()) => {
            Err(DecodeError::OutOfRange { index, value_max_log2 })
        }
        _ => Ok(()),
    }
}

/// Fills `out`.
pub(crate) fn decode(per_million: u32, bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError> {
    out.fill(0.0);
    // The magnitude stands in front of the positions; a payload too short for it is refused before it is used.
    let magnitude = bytes.get(4..8).and_then(|mean| mean.first_chunk()).map_or(0.0, |mean| f32::from_le_bytes(*mean));
    read(per_million, bytes, out.len(), |position, negative| {
        out[position] = if negative { -magnitude } else { magnitude };
    })?;
    Ok(())
}

/// `acc ± weight · round_half_even(±μ · scale)` at the positions that are sent: nothing else is touched.
pub(crate) fn fold(per_million: u32, bytes: &[u8], scale: f64, weight: u32, sign: FoldSign, acc: &mut [i64]) {
    let magnitude = bytes.get(4..8).and_then(|mean| mean.first_chunk()).map_or(0.0, |mean| f32::from_le_bytes(*mean));
    let step = float::weighted(magnitude, float::signed_scale(scale, sign), weight);
    let folded = read(per_million, bytes, acc.len(), |position, negative| {
        let step = if negative { step.wrapping_neg() } else { step };
        acc[position] = acc[position].wrapping_add(step);
    });
    debug_assert!(folded.is_ok(), "an update is folded only after its check");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golomb_parameter_is_the_papers() {
        let golden = (5f64.sqrt() + 1.0) / 2.0;
        for per_million in (1..1000).chain((1000..=500_000).step_by(97)) {
            let count = 1_000_000;
            let share = f64::from(per_million) / 1e6;
            let formula = 1.0 + ((golden - 1.0).ln() / (1.0 - share).ln()).log2().floor();
            assert_eq!(f64::from(golomb_bits(kept_max(per_million, count), count)), formula, "{share}");
        }
    }

    #[test]
    fn the_threshold_is_that_of_a_sort() {
        let mut random = starling_spec::random::Random::new(4, starling_spec::random::Purpose::Noise, &[]);
        for round in 0..200usize {
            let count = 1 + round * 7 % 400;
            // Few distinct magnitudes: many ties.
            let distinct = 1 + round as u64 % 50;
            #[allow(clippy::cast_precision_loss, reason = "small numbers")]
            let values: Vec<f32> = (0..count)
                .map(|_| (random.below(distinct) as f32 / 7.0) * if random.below(2) == 0 { 1.0 } else { -1.0 })
                .collect();
            let kept = kept_max(100_000, count);
            let mut order: Vec<usize> = (0..count).filter(|index| values[*index] != 0.0).collect();
            order.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()).then(a.cmp(b)));
            order.truncate(kept);
            order.sort_unstable();
            let threshold = Threshold::of(&values, kept);
            let mut got = Vec::new();
            threshold.for_each(&values, |index, _| got.push(index));
            assert_eq!(got, order);
            assert_eq!(threshold.above + threshold.equal, got.len());
        }
    }
}
