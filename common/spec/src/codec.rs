//! The words for update and model codecs: `f32`, `f16`, `q2` … `q16`. `starling-compress` implements them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::SpecError;

/// How a flat vector of parameters is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CodecSpec {
    /// IEEE binary32, little-endian: exact.
    F32,
    /// IEEE binary16.
    F16,
    /// Signed integers of this many bits (2 to 16) with a power-of-two scale a block.
    Quantised(u8),
}

impl FromStr for CodecSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let wrong = || SpecError::value("codec", format!("{text:?}"), "expected f32, f16, or q2 to q16");
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            _ => match text.strip_prefix('q').and_then(|bits| bits.parse().ok()) {
                Some(bits @ 2..=16) => Ok(Self::Quantised(bits)),
                _ => Err(wrong()),
            },
        }
    }
}

impl TryFrom<String> for CodecSpec {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl From<CodecSpec> for String {
    fn from(codec: CodecSpec) -> Self {
        codec.to_string()
    }
}

impl fmt::Display for CodecSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32 => f.write_str("f32"),
            Self::F16 => f.write_str("f16"),
            Self::Quantised(bits) => write!(f, "q{bits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_reads_what_it_writes() {
        for word in ["f32", "f16", "q2", "q8", "q16"] {
            assert_eq!(word.parse::<CodecSpec>().expect("a codec").to_string(), word);
        }
    }

    #[test]
    fn an_unknown_codec_says_what_is_expected() {
        let error = "q1".parse::<CodecSpec>().expect_err("one bit has no zero");
        assert_eq!(error.to_string(), "codec = \"q1\": expected f32, f16, or q2 to q16");
    }
}
