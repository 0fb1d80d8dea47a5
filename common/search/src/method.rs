//! The ways to compress that a search may try.

use std::fmt;
use std::str::FromStr;

use crate::error::SearchError;

/// A family of candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// All that apply; binary networks only with [`crate::Effort::Thorough`], since they are trained from the start.
    Auto,
    /// Weights pruned step by step with fine-tuning, the kept ones in binary16.
    Prune,
    /// All weights kept, each tensor's values shared among a few trained centroids.
    Codebook,
    /// Pruned, then shared, then entropy-coded: Deep Compression (Han et al. 2016).
    Deep,
    /// Symmetric integers of 8 or 4 bits (see [`Granularity`]), activations calibrated; no training.
    Integer(u8),
    /// Power-of-two fixed point of so many bits; no training.
    Fixed(u8),
    /// binary16; no training.
    Half,
    /// Not compressed: what is left where nothing that was asked for applies.
    Float,
    /// Binary weights and activations (XNOR-Net), trained under the full model's guidance.
    Binary,
    /// Whole layers and residual blocks removed one by one.
    Layers,
    /// Neurons and channels removed.
    Units,
}

impl Method {
    /// Whether a search for `self` makes candidates of the family `part`.
    pub fn includes(self, part: Method) -> bool {
        self == part || self == Self::Auto
    }
}

impl FromStr for Method {
    type Err = SearchError;

    fn from_str(text: &str) -> Result<Self, SearchError> {
        Ok(match text {
            "auto" => Self::Auto,
            "prune" => Self::Prune,
            "codebook" => Self::Codebook,
            "deep" => Self::Deep,
            "int8" => Self::Integer(8),
            "int4" => Self::Integer(4),
            "f16" => Self::Half,
            "f32" => Self::Float,
            "binary" => Self::Binary,
            "layers" => Self::Layers,
            "units" => Self::Units,
            _ => match text.strip_prefix("fixed:").and_then(|bits| bits.parse().ok()) {
                Some(bits @ 2..=16) => Self::Fixed(bits),
                _ => return Err(SearchError::Method(text.to_owned())),
            },
        })
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Prune => "prune",
            Self::Codebook => "codebook",
            Self::Deep => "deep",
            Self::Integer(bits) => return write!(f, "int{bits}"),
            Self::Fixed(bits) => return write!(f, "fixed:{bits}"),
            Self::Half => "f16",
            Self::Float => "f32",
            Self::Binary => "binary",
            Self::Layers => "layers",
            Self::Units => "units",
        })
    }
}

/// What has a scale of its own where weights become integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Granularity {
    /// The whole tensor: two bytes fewer an output channel.
    Tensor,
    /// Each output channel (Krishnamoorthi 2018, §2.2).
    #[default]
    Channel,
}

/// How much time a search may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// A quarter of the fine-tuning.
    Quick,
    /// What the figures in `docs/BUDGETS.md` are made with.
    #[default]
    Normal,
    /// Twice the fine-tuning.
    Thorough,
}

impl Effort {
    /// `epochs` of a normal search under this effort, at least one.
    pub fn epochs(self, epochs: usize) -> usize {
        match self {
            Self::Quick => epochs.div_ceil(4),
            Self::Normal => epochs,
            Self::Thorough => epochs * 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_reads_as_it_is_written() {
        let words = "auto prune codebook deep int8 int4 fixed:6 f16 f32 binary layers units";
        for word in words.split(' ') {
            assert_eq!(word.parse::<Method>().expect(word).to_string(), word);
        }
    }

    #[test]
    fn an_unknown_method_is_told_the_known_ones() {
        for word in ["zip", "int7", "fixed:", "fixed:1", "fixed:17", "Deep", ""] {
            let error = word.parse::<Method>().expect_err(word).to_string();
            assert!(error.contains(&format!("{word:?}")) && error.contains("codebook"), "{error}");
        }
    }

    #[test]
    fn no_effort_skips_an_epoch_altogether() {
        assert_eq!((Effort::Quick.epochs(1), Effort::Quick.epochs(0), Effort::Thorough.epochs(3)), (1, 0, 6));
    }
}
