//! Floats: signs and exponents with adaptive probabilities, and of the mantissa as many bits as any of the values uses. Their first
//! bits learn, the others are near enough to random.

use super::adaptive::{Slot, code_slot};
use super::range::{Coder, ONE};

/// A binary format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    exponent: u32,
    mantissa: u32,
}

impl Format {
    /// Bits of a value.
    pub(crate) fn bits(self) -> u32 {
        1 + self.exponent + self.mantissa
    }
}

/// IEEE binary16.
pub(crate) const HALF: Format = Format { exponent: 5, mantissa: 10 };
/// IEEE binary32.
pub(crate) const SINGLE: Format = Format { exponent: 8, mantissa: 23 };

/// Mantissa bits that learn.
const LEARNT: u32 = 3;

/// Codes the bit patterns of `values` in `format`. A decoder fills them.
pub(crate) fn code(coder: &mut impl Coder, format: Format, values: &mut [u32]) {
    // Bits at the end of all mantissas that are zero are left out.
    let used = values.iter().fold(0, |used, bits| used | bits & ((1 << format.mantissa) - 1));
    let spare = if used == 0 { format.mantissa } else { used.trailing_zeros() };
    let spare = coder.code_bits(spare, 5).min(format.mantissa);
    let fresh = Slot::new(ONE / 2, 0);
    let mut signs = [fresh; 3];
    let mut exponents = vec![fresh; 1 << format.exponent];
    let mut mantissas = [fresh; 1 << LEARNT];
    let mut before = 2;
    for value in values {
        let sign = code_slot(coder, &mut signs[before], *value >> (format.exponent + format.mantissa) & 1 == 1);
        before = usize::from(sign);
        let exponent = code_tree(coder, &mut exponents, format.exponent, *value >> format.mantissa);
        let stored = format.mantissa - spare;
        let learnt = stored.min(LEARNT);
        let raw = stored - learnt;
        let first = code_tree(coder, &mut mantissas, learnt, *value >> (spare + raw));
        let rest = coder.code_bits(*value >> spare, raw);
        *value = (u32::from(sign) << format.exponent | exponent) << format.mantissa | (first << raw | rest) << spare;
    }
}

/// Codes the lowest `bits` bits of `value`, first the highest, each under those before it. `slots` are at least 2^bits.
pub(crate) fn code_tree(coder: &mut impl Coder, slots: &mut [Slot], bits: u32, value: u32) -> u32 {
    let mut node = 1;
    for place in (0..bits).rev() {
        node = node << 1 | usize::from(code_slot(coder, &mut slots[node], value >> place & 1 == 1));
    }
    #[allow(clippy::cast_possible_truncation, reason = "at most 2^16 slots")]
    let value = node as u32 - (1 << bits);
    value
}
