//! Probabilities that learn from the decisions before them, and the mixing of several into one.
//!
//! A [`Slot`] is the running share of ones in one context. A [`Mixer`] adds the log-odds of several slots with learnt weights and
//! follows the gradient of the code length (Mahoney 2005, "Adaptive weighing of context models for lossless data compression",
//! §2: logistic mixing). All in integers: bytes do not depend on the processor.

use super::range::{Coder, ONE};

/// Log-odds are in units of 1/256.
const LOGIT_ONE: f64 = 256.0;

/// Log-odds end here: a probability of about 1/65,000.
const LOGIT_MAX: i32 = 2815;

/// Steps of the squashing table: each 1/8 of a unit of log-odds.
const SQUASH_STEP: u32 = 32;
const SQUASH_LEN: usize = 2 * LOGIT_MAX as usize / SQUASH_STEP as usize + 3;

/// The natural logarithm for the tables: only additions, multiplications and divisions, so every compiler gives the same.
const fn ln(value: f64) -> f64 {
    let (mut mantissa, mut exponent) = (value, 0.0);
    while mantissa > 1.5 {
        mantissa /= 2.0;
        exponent += 1.0;
    }
    while mantissa < 0.75 {
        mantissa *= 2.0;
        exponent -= 1.0;
    }
    // ln m = 2 artanh((m − 1) / (m + 1)).
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let (mut term, mut sum, mut odd) = (ratio, 0.0, 1.0);
    while odd < 40.0 {
        sum += term / odd;
        term *= ratio * ratio;
        odd += 2.0;
    }
    2.0 * sum + exponent * std::f64::consts::LN_2
}

/// e to the power of `value`, in the same way.
const fn exp(value: f64) -> f64 {
    let small = value / 1024.0;
    let (mut term, mut sum, mut order) = (1.0, 1.0, 1.0);
    while order < 20.0 {
        term *= small / order;
        sum += term;
        order += 1.0;
    }
    let mut doubled = 0;
    while doubled < 10 {
        sum *= sum;
        doubled += 1;
    }
    sum
}

/// Log-odds of (index + ½)/4096, for the middle of the range; the ends are finer.
const STRETCH_MIDDLE: [i16; 4096] = stretch_table(4096.0, 0.5);
/// Log-odds of index/65536, below 1/16.
const STRETCH_END: [i16; 4096] = stretch_table(65536.0, 0.0);

#[allow(clippy::cast_possible_truncation, reason = "log-odds are below 2816 in magnitude")]
const fn stretch_table(of: f64, middle: f64) -> [i16; 4096] {
    let mut table = [-LOGIT_MAX as i16; 4096];
    let mut index = 1;
    while index < 4096 {
        let share = (index as f64 + middle) / of;
        let logit = ln(share / (1.0 - share)) * LOGIT_ONE;
        table[index] = (if logit < 0.0 { logit - 0.5 } else { logit + 0.5 }) as i16;
        index += 1;
    }
    table
}

/// The probability of each multiple of [`SQUASH_STEP`], from −LOGIT_MAX.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a probability in 0 to 2^16")]
const SQUASH: [i32; SQUASH_LEN] = {
    let mut table = [0; SQUASH_LEN];
    let mut index = 0;
    while index < SQUASH_LEN {
        let logit = (index as f64 * SQUASH_STEP as f64 - LOGIT_MAX as f64) / LOGIT_ONE;
        table[index] = (65536.0 / (1.0 + exp(-logit)) + 0.5) as i32;
        index += 1;
    }
    table
};

/// The log-odds of a probability.
#[inline]
pub(crate) fn stretch(one: u32) -> i32 {
    let table = |table: &[i16; 4096], index: u32| i32::from(table[index as usize & 4095]);
    if one < ONE / 16 {
        table(&STRETCH_END, one)
    } else if one > ONE - ONE / 16 {
        -table(&STRETCH_END, ONE - one)
    } else {
        table(&STRETCH_MIDDLE, one >> 4)
    }
}

/// The probability of log-odds, inside 1 to [`ONE`] − 1.
#[inline]
#[allow(clippy::cast_sign_loss, reason = "log-odds are clamped to ±LOGIT_MAX, probabilities lie above 0")]
pub(crate) fn squash(logit: i32) -> u32 {
    let from_low = logit.clamp(-LOGIT_MAX, LOGIT_MAX).wrapping_add(LOGIT_MAX) as u32;
    let index = (from_low / SQUASH_STEP) as usize;
    let within = (from_low % SQUASH_STEP) as i32;
    let (below, above) = (SQUASH[index], SQUASH[index + 1]);
    let one = below.wrapping_add(above.wrapping_sub(below).wrapping_mul(within) >> 5);
    one.clamp(1, 65535) as u32
}

/// `(1 / (n + 1.5)) · 2^16`: how far the n-th decision moves a slot.
const RATES: [u32; 1024] = {
    let mut rates = [0; 1024];
    let mut count = 0;
    while count < 1024 {
        rates[count as usize] = 131_072 / (2 * count + 3);
        count += 1;
    }
    rates
};

/// The share of ones among the decisions of one context: a probability of 22 bits over a count of 10.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot(u32);

impl Slot {
    /// A slot that begins at `one` as though it had seen `seen` decisions.
    pub(crate) fn new(one: u32, seen: u32) -> Self {
        Self(one.clamp(1, ONE - 1) << 16 | seen.min(1023))
    }

    /// The probability of a one.
    #[inline]
    pub(crate) fn one(self) -> u32 {
        (self.0 >> 16).clamp(1, ONE - 1)
    }

    /// Learns a decision; from `limit` decisions on, the last ones count as much as the `limit`-th.
    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a probability stays inside its 22 bits"
    )]
    pub(crate) fn learn(&mut self, bit: bool, limit: u32) {
        let seen = self.0 & 1023;
        let one = i64::from(self.0 >> 10);
        let target = if bit { (1 << 22) - 1 } else { 0 };
        let step = (target - one).wrapping_mul(i64::from(RATES[seen as usize])) >> 16;
        self.0 = (one.wrapping_add(step) as u32) << 10 | seen.wrapping_add(1).min(limit);
    }
}

/// Codes a decision with one slot.
#[inline]
pub(crate) fn code_slot(coder: &mut impl Coder, slot: &mut Slot, bit: bool) -> bool {
    let bit = coder.code(bit, slot.one());
    slot.learn(bit, 1023);
    bit
}

/// Weights that add up N log-odds, a set of them for each of a few cases.
pub(crate) struct Mixer<const N: usize> {
    /// In units of 2^-16.
    weights: Vec<[i32; N]>,
    /// How fast weights follow.
    rate: i32,
}

impl<const N: usize> Mixer<N> {
    pub(crate) fn new(cases: usize, start: [i32; N], rate: i32) -> Self {
        Self { weights: vec![start; cases], rate }
    }

    /// Codes a decision with the mixed probability of `logits`, and learns from it.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "log-odds are clamped before they are narrowed")]
    pub(crate) fn code(&mut self, coder: &mut impl Coder, case: usize, logits: &[i32; N], bit: bool) -> bool {
        let weights = &mut self.weights[case];
        // Weights stay below 2^20 and log-odds below 2^12: nothing wraps.
        let product = |(weight, logit): (&i32, &i32)| i64::from(*weight).wrapping_mul(i64::from(*logit));
        let sum = weights.iter().zip(logits).map(product).fold(0i64, i64::wrapping_add);
        let logit = (sum >> 16).clamp(i64::from(-LOGIT_MAX), i64::from(LOGIT_MAX)) as i32;
        let one = squash(logit);
        let bit = coder.code(bit, one);
        let error = (if bit { 65535 } else { 0i32 }).wrapping_sub(one as i32);
        let rate = i64::from(self.rate);
        for (weight, logit) in weights.iter_mut().zip(logits) {
            // error · logit lies below 2^28; a rate is below 2^5.
            let step = i64::from(error).wrapping_mul(i64::from(*logit)).wrapping_mul(rate) >> 20;
            *weight = weight.wrapping_add(step as i32).clamp(-(1 << 20), 1 << 20);
        }
        bit
    }
}
