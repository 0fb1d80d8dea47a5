//! The words for update and model codecs: `f32`, `f16`, `q2` … `q16`, and for updates alone `q2+ec` … `q8+ec`,
//! `eden:1` … `eden:4`, `topk:FRACTION`. `starling-compress` implements them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::SpecError;

/// What an unknown codec is answered with.
const EXPECTED: &str =
    "expected f32, f16, q2 to q16, q2+ec to q8+ec, eden:1 to eden:4, or topk:FRACTION (0.000001 to 0.5)";

/// How a flat vector of parameters is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CodecSpec {
    /// `f32`: IEEE binary32, little-endian: exact.
    F32,
    /// `f16`: IEEE binary16.
    F16,
    /// `qB`: signed integers of this many bits (2 to 16) with a power-of-two scale a block.
    Quantised(u8),
    /// `qB+ec`: the same of 2 to 8 bits, entropy coded. Updates only: its length depends on the values.
    Entropy(u8),
    /// `eden:B`: a randomised Hadamard rotation and a Lloyd-Max quantiser of this many bits (1 to 4), unbiased. Updates only.
    Eden(u8),
    /// `topk:FRACTION`: the largest magnitudes, each sent as plus or minus their mean; what is left out goes into a residual
    /// that the device keeps. The fraction in parts per million, 1 to 500,000. Updates only.
    TopK(u32),
}

impl CodecSpec {
    /// Whether model versions may travel in it: everybody has to decode the same values from bytes whose length the parameter
    /// count fixes, and an error that averages out over devices does not over the rounds of one model.
    pub fn encodes_versions(self) -> bool {
        match self {
            Self::F32 | Self::F16 | Self::Quantised(_) => true,
            Self::Entropy(_) | Self::Eden(_) | Self::TopK(_) => false,
        }
    }

    /// Whether a device keeps what an update could not say and adds it to its next one (error feedback: Seide et al. 2014;
    /// Karimireddy et al. 2019). Only a biased codec needs it.
    pub fn keeps_residual(self) -> bool {
        matches!(self, Self::TopK(_))
    }
}

impl FromStr for CodecSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text {
            "f32" => Some(Self::F32),
            "f16" => Some(Self::F16),
            _ => parametric(text),
        }
        .ok_or_else(|| SpecError::value("codec", format!("{text:?}"), EXPECTED))
    }
}

fn parametric(text: &str) -> Option<CodecSpec> {
    if let Some(bits) = text.strip_prefix("eden:") {
        return bits.parse().ok().filter(|bits| (1..=4).contains(bits)).map(CodecSpec::Eden);
    }
    if let Some(fraction) = text.strip_prefix("topk:") {
        let per_million = fraction.parse::<f64>().ok()? * 1e6;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, and in 1 to 500,000")]
        return (0.5..500_000.5).contains(&per_million).then(|| CodecSpec::TopK(per_million.round() as u32));
    }
    let bits = text.strip_prefix('q')?;
    match bits.strip_suffix("+ec") {
        Some(bits) => bits.parse().ok().filter(|bits| (2..=8).contains(bits)).map(CodecSpec::Entropy),
        None => bits.parse().ok().filter(|bits| (2..=16).contains(bits)).map(CodecSpec::Quantised),
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
            Self::Entropy(bits) => write!(f, "q{bits}+ec"),
            Self::Eden(bits) => write!(f, "eden:{bits}"),
            Self::TopK(per_million) => {
                let digits = format!("{per_million:06}");
                write!(f, "topk:0.{}", digits.trim_end_matches('0'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_reads_what_it_writes() {
        let words = ["f32", "f16", "q2", "q8", "q16", "q2+ec", "q8+ec", "eden:1", "eden:4", "topk:0.04", "topk:0.5"];
        for word in words.into_iter().chain(["topk:0.0025", "topk:0.000001", "topk:0.499999"]) {
            assert_eq!(word.parse::<CodecSpec>().expect("a codec").to_string(), word);
        }
        for per_million in 1..=500_000 {
            let codec = CodecSpec::TopK(per_million);
            assert_eq!(codec.to_string().parse::<CodecSpec>(), Ok(codec));
        }
        assert_eq!("topk:4e-2".parse::<CodecSpec>(), Ok(CodecSpec::TopK(40_000)));
    }

    #[test]
    fn an_unknown_codec_says_what_is_expected() {
        let error = "q1".parse::<CodecSpec>().expect_err("one bit has no zero");
        assert_eq!(error.to_string(), format!("codec = \"q1\": {EXPECTED}"));
        for word in ["q17", "q9+ec", "q1+ec", "eden:0", "eden:5", "eden", "topk:0", "topk:0.51", "topk:nan", "topk:-1"]
        {
            assert!(word.parse::<CodecSpec>().is_err(), "{word}");
        }
    }
}
