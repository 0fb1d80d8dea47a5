//! One parameter tensor of a release, in whichever form it takes: which weights are kept, and how their values are written.

/// A compressed tensor. Values are in row-major order of the tensor's shape, kept ones only.
#[derive(Debug, Clone, PartialEq)]
pub struct Compressed {
    /// The flat indices of the kept weights, rising; all others are 0. `None` keeps all.
    pub kept: Option<Vec<u32>>,
    /// The values of the kept weights.
    pub values: Values,
}

/// How the values of a tensor are written.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// IEEE binary32.
    F32(Vec<f32>),
    /// IEEE binary16; the floats here are already rounded to it.
    F16(Vec<f32>),
    /// Power-of-two fixed point: `w = level · 2^-places`, levels of `bits` bits.
    Fixed {
        /// Binary places, −126 to 126.
        places: i8,
        /// Bits of a level, sign included, 2 to 16.
        bits: u8,
        /// `round(w · 2^places)`.
        levels: Vec<i16>,
    },
    /// Symmetric integers: `w = level · scale`, one scale for the tensor or one for each output channel (see
    /// [`channel_axis`]).
    Integer {
        /// Bits of a level, sign included, 2 to 8.
        bits: u8,
        /// One, or as many as there are output channels.
        scales: Vec<f32>,
        /// |level| ≤ 2^(bits−1) − 1.
        levels: Vec<i8>,
    },
    /// `w = centroids[code]` (Deep Compression, Han et al. 2016, §3).
    Codebook {
        /// 1 to 256 centroids, at binary16's precision.
        centroids: Vec<f32>,
        /// One a value.
        codes: Vec<u8>,
    },
    /// `w = ±scale of its output channel` (XNOR-Net). Only for dense tensors.
    Binary {
        /// As many as there are output channels.
        scales: Vec<f32>,
        /// Whether each value is `+scale`, in order.
        positive: Vec<bool>,
    },
}

/// The axis of a weight tensor that counts its output channels: the last of a matrix `[in, out]`, the first of a convolution's
/// `[out, in, …]`. Scales of channels follow it.
pub fn channel_axis(shape: &[usize]) -> usize {
    if shape.len() == 2 { 1 } else { 0 }
}

/// How many output channels a tensor of `shape` has.
pub fn channels(shape: &[usize]) -> usize {
    shape.get(channel_axis(shape)).copied().unwrap_or(1)
}

/// The output channel of the value at `index` of a tensor of `shape`.
pub fn channel_of(shape: &[usize], index: usize) -> usize {
    if shape.len() == 2 { index % shape[1] } else { index / shape[1..].iter().product::<usize>().max(1) }
}

impl Values {
    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) | Self::F16(values) => values.len(),
            Self::Fixed { levels, .. } => levels.len(),
            Self::Integer { levels, .. } => levels.len(),
            Self::Codebook { codes, .. } => codes.len(),
            Self::Binary { positive, .. } => positive.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The form in a word: `f32`, `f16`, `fixed8`, `int8`, `codebook16` (centroids), `binary`.
    pub fn word(&self) -> String {
        match self {
            Self::F32(_) => "f32".into(),
            Self::F16(_) => "f16".into(),
            Self::Fixed { bits, .. } => format!("fixed{bits}"),
            Self::Integer { bits, .. } => format!("int{bits}"),
            Self::Codebook { centroids, .. } => format!("codebook{}", centroids.len()),
            Self::Binary { .. } => "binary".into(),
        }
    }

    /// The value at `position` among the kept ones, whose flat index in a tensor of `shape` is `index`.
    ///
    /// # Panics
    /// If there is no such position, or no scale for the channel of `index`.
    pub fn value(&self, shape: &[usize], position: usize, index: usize) -> f32 {
        let of_channel = |scales: &[f32]| if scales.len() == 1 { scales[0] } else { scales[channel_of(shape, index)] };
        match self {
            Self::F32(values) | Self::F16(values) => values[position],
            Self::Fixed { places, levels, .. } => f32::from(levels[position]) * 2f32.powi(-i32::from(*places)),
            Self::Integer { scales, levels, .. } => f32::from(levels[position]) * of_channel(scales),
            Self::Codebook { centroids, codes } => centroids[usize::from(codes[position])],
            Self::Binary { scales, positive } => {
                let scale = of_channel(scales);
                if positive[position] { scale } else { -scale }
            }
        }
    }
}

impl Compressed {
    /// The tensor as plain floats, all kept.
    pub fn dense(values: Vec<f32>) -> Self {
        Self { kept: None, values: Values::F32(values) }
    }

    /// The tensor with only those of a whole tensor's values that `kept` marks; all of them when none is left out.
    ///
    /// # Panics
    /// If there is not one mark a value, or the values are binary and not all kept.
    #[allow(clippy::cast_possible_truncation, reason = "a tensor has at most 2^30 values")]
    pub fn sparse(values: Values, kept: &[bool]) -> Self {
        fn of<T: Copy>(values: &[T], kept: &[bool]) -> Vec<T> {
            values.iter().zip(kept).filter(|(_, kept)| **kept).map(|(value, _)| *value).collect()
        }
        assert_eq!(values.len(), kept.len(), "a mark for each value");
        if kept.iter().all(|kept| *kept) {
            return Self { kept: None, values };
        }
        let indices = (0..kept.len()).filter(|index| kept[*index]).map(|index| index as u32).collect();
        let values = match values {
            Values::F32(values) => Values::F32(of(&values, kept)),
            Values::F16(values) => Values::F16(of(&values, kept)),
            Values::Fixed { places, bits, levels } => Values::Fixed { places, bits, levels: of(&levels, kept) },
            Values::Integer { bits, scales, levels } => Values::Integer { bits, scales, levels: of(&levels, kept) },
            Values::Codebook { centroids, codes } => Values::Codebook { centroids, codes: of(&codes, kept) },
            Values::Binary { .. } => panic!("a binary tensor keeps every weight"),
        };
        Self { kept: Some(indices), values }
    }

    /// Fills `out`, the values of a tensor of `shape`.
    ///
    /// # Panics
    /// If the tensor was not made for `shape`.
    pub fn decompress_into(&self, shape: &[usize], out: &mut [f32]) {
        match &self.kept {
            None => {
                assert_eq!(self.values.len(), out.len(), "a dense tensor keeps every value");
                for (index, out) in out.iter_mut().enumerate() {
                    *out = self.values.value(shape, index, index);
                }
            }
            Some(kept) => {
                assert_eq!(self.values.len(), kept.len(), "a value for each kept weight");
                out.fill(0.0);
                for (position, index) in kept.iter().enumerate() {
                    let index = *index as usize;
                    out[index] = self.values.value(shape, position, index);
                }
            }
        }
    }
}
