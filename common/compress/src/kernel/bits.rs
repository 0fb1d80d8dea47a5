//! A bit stream like that of [`super::pack`]: bit k is bit k mod 8 of byte ⌊k/8⌋, numbers start with their lowest bit.

/// Writes bits at the end of a buffer.
#[derive(Debug)]
pub(crate) struct BitWriter<'out> {
    out: &'out mut Vec<u8>,
    register: u64,
    filled: u32,
}

impl<'out> BitWriter<'out> {
    pub(crate) fn new(out: &'out mut Vec<u8>) -> Self {
        Self { out, register: 0, filled: 0 }
    }

    /// Appends the low `count` bits of `value`, at most 32; the others are zero.
    #[inline]
    pub(crate) fn put(&mut self, value: u32, count: u32) {
        debug_assert!(count <= 32 && u64::from(value) >> count == 0, "{count} bits for {value}");
        self.register |= u64::from(value) << self.filled;
        self.filled += count;
        if self.filled >= 32 {
            self.out.extend_from_slice(&self.register.to_le_bytes()[..4]);
            self.register >>= 32;
            self.filled -= 32;
        }
    }

    /// Appends `count` ones and a zero.
    #[inline]
    pub(crate) fn put_unary(&mut self, mut count: u32) {
        while count >= 31 {
            self.put(0x7fff_ffff, 31);
            count -= 31;
        }
        self.put((1 << count) - 1, count + 1);
    }

    /// Fills the last byte with zeros.
    pub(crate) fn finish(self) {
        self.out.extend_from_slice(&self.register.to_le_bytes()[..self.filled.div_ceil(8) as usize]);
    }
}

/// Reads bits; past the end there are none.
#[derive(Debug, Clone)]
pub(crate) struct BitReader<'bytes> {
    rest: &'bytes [u8],
    register: u64,
    filled: u32,
}

impl<'bytes> BitReader<'bytes> {
    pub(crate) fn new(bytes: &'bytes [u8]) -> Self {
        Self { rest: bytes, register: 0, filled: 0 }
    }

    #[inline]
    fn refill(&mut self) {
        if self.filled > 32 {
            return;
        }
        if let Some((word, rest)) = self.rest.split_first_chunk::<4>() {
            self.register |= u64::from(u32::from_le_bytes(*word)) << self.filled;
            self.filled += 32;
            self.rest = rest;
        } else {
            for byte in std::mem::take(&mut self.rest) {
                self.register |= u64::from(*byte) << self.filled;
                self.filled += 8;
            }
        }
    }

    /// The next `count` bits, at most 32.
    #[inline]
    pub(crate) fn take(&mut self, count: u32) -> Option<u32> {
        self.refill();
        let low = self.register & ((1u64 << count) - 1);
        self.skip(count)?;
        u32::try_from(low).ok()
    }

    /// The number of ones before the next zero, which is taken too.
    #[inline]
    pub(crate) fn take_unary(&mut self) -> Option<u32> {
        let mut ones = 0u32;
        loop {
            self.refill();
            let run = self.register.trailing_ones().min(self.filled);
            ones = ones.checked_add(run)?;
            if run < self.filled {
                self.skip(run + 1)?;
                return Some(ones);
            }
            if run == 0 {
                return None;
            }
            self.skip(run)?;
        }
    }

    #[inline]
    fn skip(&mut self, count: u32) -> Option<()> {
        self.filled = self.filled.checked_sub(count)?;
        self.register = self.register.unbounded_shr(count);
        Some(())
    }

    /// Whether what is left is the padding of one byte, and zero.
    pub(crate) fn at_end(mut self) -> bool {
        self.refill();
        self.rest.is_empty() && self.filled < 8 && self.register == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_width_and_unary_runs_come_back() {
        let mut bytes = Vec::new();
        let mut writer = BitWriter::new(&mut bytes);
        let numbers: Vec<(u32, u32)> = (0..=32u32)
            .chain((0..=32).rev())
            .map(|bits| (0xdead_beefu32 & 1u32.unbounded_shl(bits).wrapping_sub(1), bits))
            .collect();
        for (index, (value, bits)) in (0..).zip(&numbers) {
            writer.put(*value, *bits);
            writer.put_unary(index * 3);
        }
        writer.finish();
        let mut reader = BitReader::new(&bytes);
        for (index, (value, bits)) in (0..).zip(&numbers) {
            assert_eq!(reader.take(*bits), Some(*value));
            assert_eq!(reader.take_unary(), Some(index * 3));
        }
        assert!(reader.clone().at_end());
        assert_eq!(reader.take(9), None);
        assert_eq!(BitReader::new(&[0xff; 9]).take_unary(), None);
        assert!(!BitReader::new(&[0, 0]).at_end());
        assert!(!BitReader::new(&[1]).at_end());
    }
}
