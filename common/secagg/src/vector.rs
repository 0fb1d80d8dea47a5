//! Vectors over the ring Z/2^w, w from 1 to 64: packed to w bits a coordinate on the wire, in whole lanes in memory.
//!
//! A lane is the smallest of 16, 32 and 64 bits that holds w. The mask of coordinate `i` is lane `i` of a keystream, little-endian, mod 2^w:
//! lanes are added with wrap-around and cut to w bits when they are packed, which is the same, since 2^w divides the lane's modulus.

use zeroize::{Zeroize, Zeroizing};

use crate::keystream::Keystream;

/// Bytes of keystream that are expanded and added at a time: with the values that they meet they stay in the first-level cache.
const TILE_BYTES: usize = 8192;

/// The ring Z/2^w.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    width: u8,
}

impl Ring {
    /// The ring of integers modulo 2^`width`; `None` unless `width` is 1 to 64.
    pub fn new(width: u8) -> Option<Self> {
        (1..=64).contains(&width).then_some(Self { width })
    }

    /// The smallest ring in which a sum of magnitude at most `sum_max` is itself: 2 · sum_max + 1 ≤ 2^w. `None` when 64 bits are not
    /// enough.
    pub fn for_sum(sum_max: u64) -> Option<Self> {
        let values = 2 * u128::from(sum_max) + 1;
        // The smallest w with values ≤ 2^w.
        let width = u128::BITS - (values - 1).leading_zeros();
        Self::new(u8::try_from(width.max(1)).ok()?)
    }

    /// w.
    pub fn width(self) -> u8 {
        self.width
    }

    /// Bytes of a packed vector of `count` coordinates.
    pub fn packed_len(self, count: usize) -> usize {
        (count as u64 * u64::from(self.width))
            .div_ceil(8)
            .try_into()
            .expect("a vector within VALUES_MAX fits in memory")
    }

    fn modulus_mask(self) -> u64 {
        u64::MAX >> (64 - u32::from(self.width))
    }
}

/// A packed vector that is none of its ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackedError {
    /// Too short or too long.
    #[error("a packed vector of {got} bytes came where {expected} were expected")]
    Length {
        /// Bytes of the ring and count.
        expected: usize,
        /// Bytes there are.
        got: usize,
    },
    /// The bits after the last coordinate are not zero.
    #[error("a packed vector ends in bits that belong to no coordinate")]
    Padding,
}

/// Whether a mask is added or taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    Add,
    Subtract,
}

/// A mask on its way into a vector.
pub(crate) struct Mask {
    stream: Keystream,
    sign: Sign,
}

impl Mask {
    pub(crate) fn new(key: &[u8; 32], sign: Sign) -> Self {
        Self { stream: Keystream::new(key), sign }
    }

    /// The same mask with the other sign.
    pub(crate) fn reversed(self) -> Self {
        let sign = match self.sign {
            Sign::Add => Sign::Subtract,
            Sign::Subtract => Sign::Add,
        };
        Self { sign, ..self }
    }
}

/// A vector over a ring. What it holds may be secret: it is wiped on drop.
#[derive(Clone)]
pub struct RingVector {
    ring: Ring,
    lanes: Lanes,
}

#[derive(Clone)]
enum Lanes {
    Two(Zeroizing<Vec<u16>>),
    Four(Zeroizing<Vec<u32>>),
    Eight(Zeroizing<Vec<u64>>),
}

trait Lane: Copy + Zeroize {
    const BYTES: usize;
    fn accumulate(tile: &mut [Self], bytes: &[u8], sign: Sign);
    fn wide(self) -> u64;
    fn narrow(value: u64) -> Self;
    fn plus(self, other: Self) -> Self;
}

macro_rules! lane {
    ($type:ty) => {
        impl Lane for $type {
            const BYTES: usize = size_of::<$type>();

            fn accumulate(tile: &mut [Self], bytes: &[u8], sign: Sign) {
                let lanes = bytes.chunks_exact(Self::BYTES);
                let lanes = lanes.map(|lane| <$type>::from_le_bytes(lane.try_into().expect("a whole lane")));
                match sign {
                    Sign::Add => tile.iter_mut().zip(lanes).for_each(|(value, lane)| *value = value.wrapping_add(lane)),
                    Sign::Subtract => {
                        tile.iter_mut().zip(lanes).for_each(|(value, lane)| *value = value.wrapping_sub(lane));
                    }
                }
            }

            fn wide(self) -> u64 {
                u64::from(self)
            }

            #[allow(clippy::cast_possible_truncation, reason = "a ring of at most the lane's width")]
            fn narrow(value: u64) -> Self {
                value as $type
            }

            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
        }
    };
}

lane!(u16);
lane!(u32);
lane!(u64);

macro_rules! each_lane {
    ($lanes:expr, $values:ident => $body:expr) => {
        match $lanes {
            Lanes::Two($values) => $body,
            Lanes::Four($values) => $body,
            Lanes::Eight($values) => $body,
        }
    };
}

impl RingVector {
    /// `count` zeros.
    pub fn zero(ring: Ring, count: usize) -> Self {
        let lanes = match ring.width {
            0..=16 => Lanes::Two(Zeroizing::new(vec![0; count])),
            17..=32 => Lanes::Four(Zeroizing::new(vec![0; count])),
            _ => Lanes::Eight(Zeroizing::new(vec![0; count])),
        };
        Self { ring, lanes }
    }

    /// The integers `values` mod 2^w.
    pub fn from_signed(ring: Ring, values: &[i64]) -> Self {
        let mut vector = Self::zero(ring, values.len());
        each_lane!(&mut vector.lanes, lanes => {
            lanes.iter_mut().zip(values).for_each(|(lane, value)| *lane = Lane::narrow(value.cast_unsigned()));
        });
        vector
    }

    /// The vector packed in `bytes`, of `count` coordinates.
    ///
    /// # Errors
    /// [`PackedError`]; nothing is allocated before the length has been compared (invariant 8).
    pub fn from_packed(ring: Ring, count: usize, bytes: &[u8]) -> Result<Self, PackedError> {
        check_packed(ring, count, bytes)?;
        let mut vector = Self::zero(ring, count);
        each_lane!(&mut vector.lanes, lanes => add_packed(lanes, ring, bytes));
        Ok(vector)
    }

    /// Adds a packed vector of the same ring and length.
    ///
    /// # Errors
    /// [`PackedError`]; the vector is then as it was.
    pub fn add_packed(&mut self, bytes: &[u8]) -> Result<(), PackedError> {
        check_packed(self.ring, self.len(), bytes)?;
        let ring = self.ring;
        each_lane!(&mut self.lanes, lanes => add_packed(lanes, ring, bytes));
        Ok(())
    }

    /// Appends the packed vector: coordinate `i` in bits `i·w` to `i·w + w − 1`, the lowest bit of a byte first, zeros after the last.
    pub fn pack_into(&self, out: &mut Vec<u8>) {
        out.reserve(self.ring.packed_len(self.len()));
        each_lane!(&self.lanes, lanes => pack(lanes, self.ring, out));
    }

    /// Coordinates.
    pub fn len(&self) -> usize {
        each_lane!(&self.lanes, lanes => lanes.len())
    }

    /// Whether it has no coordinates.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its ring.
    pub fn ring(&self) -> Ring {
        self.ring
    }

    /// The representatives from 0 to 2^w − 1.
    pub fn to_unsigned(&self) -> Vec<u64> {
        let mask = self.ring.modulus_mask();
        each_lane!(&self.lanes, lanes => lanes.iter().map(|lane| lane.wide() & mask).collect())
    }

    /// The representatives from −2^(w−1) to 2^(w−1) − 1.
    pub fn to_signed(&self) -> Vec<i64> {
        let unused = 64 - u32::from(self.ring.width);
        let signed = |value: u64| (value << unused).cast_signed() >> unused;
        each_lane!(&self.lanes, lanes => lanes.iter().map(|lane| signed(lane.wide())).collect())
    }

    /// Adds or subtracts all `masks`, tile by tile: no mask is ever in memory as a whole.
    pub(crate) fn apply(&mut self, masks: &mut [Mask]) {
        each_lane!(&mut self.lanes, lanes => apply(lanes, masks));
    }
}

fn apply<L: Lane>(values: &mut [L], masks: &mut [Mask]) {
    let mut buffer = Zeroizing::new([0u8; TILE_BYTES]);
    for tile in values.chunks_mut(TILE_BYTES / L::BYTES) {
        let bytes = &mut buffer[..tile.len() * L::BYTES];
        for mask in masks.iter_mut() {
            mask.stream.fill(bytes);
            L::accumulate(tile, bytes, mask.sign);
        }
    }
}

fn check_packed(ring: Ring, count: usize, bytes: &[u8]) -> Result<(), PackedError> {
    let expected = ring.packed_len(count);
    if bytes.len() != expected {
        return Err(PackedError::Length { expected, got: bytes.len() });
    }
    let used = count as u64 * u64::from(ring.width) % 8;
    if used != 0 && bytes.last().is_some_and(|last| last >> used != 0) {
        return Err(PackedError::Padding);
    }
    Ok(())
}

fn pack<L: Lane>(lanes: &[L], ring: Ring, out: &mut Vec<u8>) {
    let (mask, width) = (ring.modulus_mask(), u32::from(ring.width));
    let (mut waiting, mut bits) = (0u128, 0u32);
    for lane in lanes {
        waiting |= u128::from(lane.wide() & mask) << bits;
        bits += width;
        if bits >= 64 {
            out.extend_from_slice(&low(waiting).to_le_bytes());
            waiting >>= 64;
            bits -= 64;
        }
    }
    out.extend_from_slice(&low(waiting).to_le_bytes()[..bits.div_ceil(8) as usize]);
}

fn add_packed<L: Lane>(lanes: &mut [L], ring: Ring, bytes: &[u8]) {
    let (mask, width) = (ring.modulus_mask(), u32::from(ring.width));
    let (words, tail) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    let mut words = words.iter().chain([&last]);
    let (mut waiting, mut bits) = (0u128, 0u32);
    for lane in lanes {
        if bits < width {
            let word = words.next().map_or(0, |word| u64::from_le_bytes(*word));
            waiting |= u128::from(word) << bits;
            bits += 64;
        }
        *lane = lane.plus(L::narrow(low(waiting) & mask));
        waiting >>= width;
        bits -= width;
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half is taken on purpose")]
fn low(value: u128) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_smallest_ring_holds_the_sum() {
        for (terms, value_max, width) in [
            (100u64, 32_767, 23),
            (100, 7, 11),
            (3, 1, 3),
            (1, 1, 2),
            (1, 0, 1),
            (128, 1 << 40, 49),
            (1, (1 << 63) - 1, 64),
        ] {
            let ring = Ring::for_sum(terms * value_max).expect("64 bits are enough");
            assert_eq!(ring.width(), width, "{terms} × {value_max}");
            let extreme = i64::try_from(terms * value_max).expect("63 bits");
            let sum = RingVector::from_signed(ring, &[extreme, -extreme]);
            assert_eq!(sum.to_signed(), [extreme, -extreme]);
            if width > 1 {
                let narrower = RingVector::from_signed(Ring::new(width - 1).expect("a width"), &[extreme, -extreme]);
                assert_ne!(narrower.to_signed(), [extreme, -extreme]);
            }
        }
        assert_eq!(Ring::for_sum(1 << 63), None);
        assert_eq!((Ring::new(0), Ring::new(65)), (None, None));
    }

    proptest! {
        #[test]
        fn packing_is_w_bits_and_reads_back(width in 1u8..=64, values in prop::collection::vec(any::<u64>(), 0..70)) {
            let ring = Ring::new(width).expect("a width");
            let cut: Vec<u64> = values.iter().map(|value| value & ring.modulus_mask()).collect();
            let signed: Vec<i64> = values.iter().map(|value| value.cast_signed()).collect();
            let vector = RingVector::from_signed(ring, &signed);
            prop_assert_eq!(vector.to_unsigned(), cut.clone());
            let mut packed = Vec::new();
            vector.pack_into(&mut packed);
            prop_assert_eq!(packed.len(), (cut.len() * usize::from(width)).div_ceil(8));
            // Bit by bit, as the format says.
            for (index, value) in cut.iter().enumerate() {
                for bit in 0..usize::from(width) {
                    let at = index * usize::from(width) + bit;
                    prop_assert_eq!(packed[at / 8] >> (at % 8) & 1, (value >> bit & 1).to_le_bytes()[0]);
                }
            }
            let read = RingVector::from_packed(ring, cut.len(), &packed).expect("its own bytes");
            prop_assert_eq!(read.to_unsigned(), cut.clone());
            let mut sum = read;
            sum.add_packed(&packed).expect("the same ring");
            let doubled: Vec<u64> = cut.iter().map(|value| value.wrapping_mul(2) & ring.modulus_mask()).collect();
            prop_assert_eq!(sum.to_unsigned(), doubled);
        }

        #[test]
        fn masks_are_lanes_of_the_keystream(width in 1u8..=64, count in 0usize..5000) {
            let ring = Ring::new(width).expect("a width");
            let mut vector = RingVector::zero(ring, count);
            vector.apply(&mut [Mask::new(&[9; 32], Sign::Add)]);
            let lane = match width { 0..=16 => 2, 17..=32 => 4, _ => 8 };
            let mut stream = vec![0; lane * count];
            Keystream::new(&[9; 32]).fill(&mut stream);
            let expected: Vec<u64> = stream.chunks(lane).map(|bytes| {
                bytes.iter().rev().fold(0u64, |all, byte| all << 8 | u64::from(*byte)) & ring.modulus_mask()
            }).collect();
            prop_assert_eq!(vector.to_unsigned(), expected);
            vector.apply(&mut [Mask::new(&[8; 32], Sign::Add), Mask::new(&[9; 32], Sign::Subtract)]);
            vector.apply(&mut [Mask::new(&[8; 32], Sign::Subtract)]);
            prop_assert_eq!(vector.to_unsigned(), vec![0; count]);
        }
    }

    #[test]
    fn inv8_a_packed_vector_of_another_length_or_with_bits_to_spare_is_refused() {
        let ring = Ring::new(3).expect("a width");
        assert_eq!(ring.packed_len(3), 2);
        let error = RingVector::from_packed(ring, 3, &[0; 3]).err();
        assert_eq!(error, Some(PackedError::Length { expected: 2, got: 3 }));
        assert_eq!(RingVector::from_packed(ring, 3, &[0, 2]).err(), Some(PackedError::Padding));
        assert!(RingVector::from_packed(ring, 3, &[0, 1]).is_ok());
    }
}
