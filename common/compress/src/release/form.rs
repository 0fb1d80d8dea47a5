//! How a tensor is written: the byte that says which form and coders it has, and the mapping of each form to signed levels.

use crate::coding::Malformed;
use crate::coding::levels::Level;
use crate::tensor::Values;

/// How positions are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Positions {
    /// Every weight is kept: there are none.
    All = 0,
    /// Relative indices, Huffman-coded.
    Relative = 1,
    /// Decided one by one, arithmetic-coded.
    Mixed = 2,
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// In as many bits as their form has.
    Packed = 0,
    /// Huffman-coded.
    Huffman = 1,
    /// Arithmetic-coded.
    Mixed = 2,
}

/// Which form the values have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    F32 = 0,
    F16 = 1,
    Fixed = 2,
    Integer = 3,
    Codebook = 4,
    Binary = 5,
}

/// The byte that begins a tensor: three bits of form, two of positions, two of values, and whether it has an input range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) form: Form,
    pub(super) positions: Positions,
    pub(super) values: Coding,
    pub(super) input: bool,
}

impl Tag {
    pub(super) fn to_bits(self) -> u32 {
        (self.form as u32) << 5 | (self.positions as u32) << 3 | (self.values as u32) << 1 | u32::from(self.input)
    }

    pub(super) fn from_bits(bits: u32) -> Result<Self, Malformed> {
        let form = match bits >> 5 {
            0 => Form::F32,
            1 => Form::F16,
            2 => Form::Fixed,
            3 => Form::Integer,
            4 => Form::Codebook,
            5 => Form::Binary,
            _ => return Err(Malformed("a form that does not exist")),
        };
        let positions = match bits >> 3 & 3 {
            0 => Positions::All,
            1 => Positions::Relative,
            2 => Positions::Mixed,
            _ => return Err(Malformed("a coder of positions that does not exist")),
        };
        let values = match bits >> 1 & 3 {
            0 => Coding::Packed,
            1 => Coding::Huffman,
            2 => Coding::Mixed,
            _ => return Err(Malformed("a coder of values that does not exist")),
        };
        if form == Form::Binary && positions != Positions::All {
            return Err(Malformed("binary weights of which some are left out"));
        }
        Ok(Self { form, positions, values, input: bits & 1 == 1 })
    }
}

/// A form whose values are small integers, and everything about it but the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Discrete {
    /// Signed levels of so many bits, the lowest being `−2^(bits−1)` or, for integers, one more.
    Levels {
        /// Bits of a level, sign included.
        bits: u32,
        /// The lowest and highest level.
        low: i32,
        /// See `low`.
        high: i32,
    },
    /// Codes of a book: how many centroids there are, and how many of them come before zero.
    Codes {
        /// Centroids.
        count: usize,
        /// Those below zero, if the book rises; otherwise none.
        negative: usize,
    },
    /// Signs.
    Signs,
}

/// How many centroids of a rising book are below zero; 0 of one that does not rise.
pub(super) fn negative(centroids: &[f32]) -> usize {
    if centroids.is_sorted() { centroids.partition_point(|centroid| *centroid < 0.0) } else { 0 }
}

impl Discrete {
    pub(super) fn fixed(bits: u8) -> Self {
        let half = 1 << (bits - 1);
        Self::Levels { bits: u32::from(bits), low: -half, high: half - 1 }
    }

    pub(super) fn integer(bits: u8) -> Self {
        let half = 1 << (bits - 1);
        Self::Levels { bits: u32::from(bits), low: 1 - half, high: half - 1 }
    }

    /// Bits of a packed value.
    pub(super) fn packed_bits(self) -> u32 {
        match self {
            Self::Levels { bits, .. } => bits,
            Self::Codes { count, .. } => usize::BITS - (count - 1).leading_zeros(),
            Self::Signs => 1,
        }
    }

    /// Symbols of its Huffman code, if it can have one.
    pub(super) fn symbols(self) -> Option<usize> {
        let bits = self.packed_bits();
        (bits <= 9).then_some(1 << bits)
    }

    /// A level as an unsigned number below `2^packed_bits`.
    #[allow(clippy::cast_sign_loss, reason = "a level is not below the lowest")]
    pub(super) fn symbol(self, level: i32) -> u32 {
        match self {
            Self::Levels { bits, .. } => (level + (1 << (bits - 1))) as u32,
            Self::Codes { negative, .. } => (level + signed(negative) - i32::from(level > 0)) as u32,
            Self::Signs => u32::from(level > 0),
        }
    }

    /// The level of a symbol.
    #[allow(clippy::cast_possible_wrap, reason = "a symbol has at most 16 bits")]
    pub(super) fn level(self, symbol: u32) -> i32 {
        let symbol = symbol as i32;
        match self {
            Self::Levels { bits, .. } => symbol - (1 << (bits - 1)),
            Self::Codes { negative, .. } => {
                let rank = symbol - signed(negative);
                rank + i32::from(rank >= 0)
            }
            Self::Signs => {
                if symbol > 0 {
                    1
                } else {
                    -1
                }
            }
        }
    }

    /// Refuses a level that the form does not have.
    pub(super) fn check(self, level: i32) -> Result<(), Malformed> {
        match self {
            Self::Levels { low, high, .. } if level < low || level > high => Err(Malformed("a level beyond its bits")),
            Self::Codes { count, negative }
                if level == 0 || !(-signed(negative)..=signed(count - negative)).contains(&level) =>
            {
                Err(Malformed("a code beyond its code book"))
            }
            Self::Signs if level.abs() != 1 => Err(Malformed("a sign that is none")),
            _ => Ok(()),
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "at most 256 centroids")]
fn signed(count: usize) -> i32 {
    count as i32
}

/// The form of `values`, and their levels if they are discrete.
pub(super) fn levels(values: &Values) -> Option<(Discrete, Vec<i32>)> {
    match values {
        Values::F32(_) | Values::F16(_) => None,
        Values::Fixed { bits, levels, .. } => {
            Some((Discrete::fixed(*bits), levels.iter().map(|level| i32::from(*level)).collect()))
        }
        Values::Integer { bits, levels, .. } => {
            Some((Discrete::integer(*bits), levels.iter().map(|level| i32::from(*level)).collect()))
        }
        Values::Codebook { centroids, codes } => {
            let form = Discrete::Codes { count: centroids.len().max(1), negative: negative(centroids) };
            Some((form, codes.iter().map(|code| form.level(u32::from(*code))).collect()))
        }
        Values::Binary { positive, .. } => {
            Some((Discrete::Signs, positive.iter().map(|positive| if *positive { 1 } else { -1 }).collect()))
        }
    }
}

/// Each value's flat index beside its level: the order of `kept`, or all.
#[allow(clippy::cast_possible_truncation, reason = "a tensor has at most 2^30 values")]
pub(super) fn placed(kept: Option<&[u32]>, levels: &[i32]) -> Vec<Level> {
    match kept {
        Some(kept) => kept.iter().copied().zip(levels.iter().copied()).collect(),
        None => levels.iter().enumerate().map(|(index, level)| (index as u32, *level)).collect(),
    }
}
