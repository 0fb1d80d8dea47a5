//! A binary arithmetic coder: each decision is coded with the probability that a model gives it, at 16 bits of precision.
//!
//! It is the range coder of G. N. N. Martin (1979) for two symbols, with carries resolved as LZMA does (Pavlov, `LzmaSpec`):
//! 32 bits of range, renormalised a byte at a time. Everything is integer arithmetic, so bytes are the same on every processor.
//!
//! The stream ends with the shortest bytes that still lie inside the last interval; the reader supplies zeros behind its end.

/// Probabilities are shares of this.
pub(crate) const ONE: u32 = 1 << 16;

/// The range is at least this after each decision.
const RENORMALISE: u32 = 1 << 24;

/// What codes decisions: an [`Encoder`], a [`Decoder`] or a [`Cost`]. A model written against it runs in both directions and cannot
/// disagree with itself.
pub(crate) trait Coder {
    /// Codes one decision, `one` being the probability of `true`, 1 to [`ONE`] − 1. A decoder ignores `bit`; all return the decision.
    fn code(&mut self, bit: bool, one: u32) -> bool;

    /// Codes eight bits or fewer without a model.
    fn code_raw(&mut self, bits: u32, count: u32) -> u32;

    /// Codes the lowest `count` bits of `bits`, most significant first, without a model.
    fn code_bits(&mut self, bits: u32, count: u32) -> u32 {
        let (mut left, mut value) = (count, 0);
        while left > 0 {
            let some = left.min(8);
            left -= some;
            value = value << some | self.code_raw(bits >> left & ((1 << some) - 1), some);
        }
        value
    }
}

/// Writes decisions.
pub(crate) struct Encoder {
    bytes: Vec<u8>,
    /// The lower end of the interval; bit 32 is a carry into `held`.
    low: u64,
    range: u32,
    /// The last byte that a carry may still change, and how many 0xff follow it.
    held: Option<u8>,
    full: usize,
    cost: Cost,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), low: 0, range: u32::MAX, held: None, full: 0, cost: Cost::default() }
    }

    /// What the decisions so far are worth, in bits.
    pub(crate) fn bits(&self) -> f64 {
        self.cost.bits
    }

    /// Moves the top byte out of `low`.
    #[allow(clippy::cast_possible_truncation, reason = "bytes are cut out of an integer on purpose")]
    fn shift(&mut self) {
        let carry = self.low >> 32 != 0;
        let top = (self.low >> 24) as u8;
        if carry || top != 0xff {
            if let Some(held) = self.held.replace(top) {
                self.bytes.push(held.wrapping_add(u8::from(carry)));
            }
            let filler = if carry { 0 } else { 0xff };
            self.bytes.extend(std::iter::repeat_n(filler, self.full));
            self.full = 0;
        } else {
            self.full += 1;
        }
        self.low = (self.low & 0x00ff_ffff) << 8;
    }

    #[inline]
    fn renormalise(&mut self) {
        while self.range < RENORMALISE {
            self.range <<= 8;
            self.shift();
        }
    }

    /// The bytes of all decisions.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        // The value in the interval with the most zeros at its end: those need not be written.
        let end = self.low + u64::from(self.range) - 1;
        let value = (0..=32).rev().map(|zeros| end >> zeros << zeros).find(|value| *value >= self.low);
        self.low = value.unwrap_or(end);
        for _ in 0..5 {
            self.shift();
        }
        while self.bytes.last() == Some(&0) {
            self.bytes.pop();
        }
        self.bytes
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a part of a 32-bit range")]
fn split(range: u32, one: u32) -> u32 {
    debug_assert!(one > 0 && one < ONE, "a probability of 0 or 1");
    ((u64::from(range) * u64::from(one)) >> 16) as u32
}

impl Coder for Encoder {
    #[inline]
    fn code(&mut self, bit: bool, one: u32) -> bool {
        self.cost.code(bit, one);
        let bound = split(self.range, one);
        if bit {
            self.range = bound;
        } else {
            self.low += u64::from(bound);
            self.range -= bound;
        }
        self.renormalise();
        bit
    }

    fn code_raw(&mut self, bits: u32, count: u32) -> u32 {
        self.cost.code_raw(bits, count);
        self.range >>= count;
        self.low += u64::from(self.range) * u64::from(bits);
        self.renormalise();
        bits
    }
}

/// Reads decisions.
pub(crate) struct Decoder<'a> {
    bytes: &'a [u8],
    /// The next byte; beyond the end it counts the zeros that were supplied.
    next: usize,
    value: u32,
    range: u32,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self { bytes, next: 0, value: 0, range: u32::MAX };
        for _ in 0..4 {
            decoder.value = decoder.value << 8 | decoder.byte();
        }
        decoder
    }

    fn byte(&mut self) -> u32 {
        let byte = self.bytes.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        u32::from(byte)
    }

    #[inline]
    fn renormalise(&mut self) {
        while self.range < RENORMALISE {
            self.range <<= 8;
            self.value = self.value << 8 | self.byte();
        }
    }

    /// Whether more bytes were asked for than an honest stream leaves out.
    pub(crate) fn overran(&self) -> bool {
        self.next > self.bytes.len() + 4 + 4
    }

    /// Whether bytes are left that no decision needed.
    pub(crate) fn left_over(&self) -> bool {
        self.next < self.bytes.len()
    }
}

impl Coder for Decoder<'_> {
    #[inline]
    fn code(&mut self, _bit: bool, one: u32) -> bool {
        let bound = split(self.range, one);
        let bit = self.value < bound;
        if bit {
            self.range = bound;
        } else {
            self.value -= bound;
            self.range -= bound;
        }
        self.renormalise();
        bit
    }

    fn code_raw(&mut self, _bits: u32, count: u32) -> u32 {
        self.range >>= count;
        // What lies beyond the last share is no encoder's; it reads as the last.
        let bits = (self.value / self.range).min((1 << count) - 1);
        self.value -= bits * self.range;
        self.renormalise();
        bits
    }
}

/// Counts what decisions would take, in bits.
#[derive(Default)]
pub(crate) struct Cost {
    bits: f64,
}

impl Cost {
    pub(crate) fn bits(&self) -> f64 {
        self.bits
    }
}

impl Coder for Cost {
    fn code(&mut self, bit: bool, one: u32) -> bool {
        let share = if bit { one } else { ONE - one };
        self.bits -= (f64::from(share) / f64::from(ONE)).log2();
        bit
    }

    fn code_raw(&mut self, bits: u32, count: u32) -> u32 {
        self.bits += f64::from(count);
        bits
    }
}
