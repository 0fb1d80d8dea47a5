//! The layers of a network, as a person writes them: a word (`"relu"`) or a table with one key (`{ linear = { out = 10 } }`).
//!
//! Input sizes are never written: [`crate::shape::infer`] finds them from the sample's shape. Shapes leave out the batch:
//! an image is `[channels, height, width]`, a signal `[channels, length]`, a text `[positions]` before its embedding and
//! `[positions, features]` after it.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// One layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// `y = W x + b` on the last axis.
    Linear(Linear),
    /// Convolution of a signal `[channels, length]`.
    Conv1d(Conv),
    /// Convolution of an image `[channels, height, width]` with a square kernel.
    Conv2d(Conv),
    /// Convolution of each channel of an image on its own.
    DepthwiseConv2d(DepthwiseConv),
    /// The largest value of each window of a signal.
    MaxPool1d(Pool),
    /// The largest value of each square window of an image.
    MaxPool2d(Pool),
    /// The mean of each window of a signal.
    AvgPool1d(Pool),
    /// The mean of each square window of an image.
    AvgPool2d(Pool),
    /// The mean of each channel: `[channels, …]` becomes `[channels]`.
    GlobalAvgPool,
    /// Each channel by its mean and variance over the batch while training, by their running values otherwise
    /// (Ioffe and Szegedy 2015). The running values are parameters of the role `statistic`.
    BatchNorm,
    /// Each group of channels by its own mean and variance (Wu and He 2018).
    GroupNorm(GroupNorm),
    /// The last axis by its mean and variance (Ba, Kiros, Hinton 2016).
    LayerNorm,
    /// `max(x, 0)`.
    Relu,
    /// `x Φ(x)`, with the exact normal distribution function.
    Gelu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// 1 where `x ≥ 0`, −1 elsewhere. Its gradient passes straight through where `|x| ≤ 1` (Hubara et al. 2016, eq. 4).
    Sign,
    /// Zeroes each value with this probability while training and scales the others by `1 / (1 − p)`.
    Dropout(f64),
    /// All axes in one.
    Flatten,
    /// A row of a table for each token id; the first layer of a text network.
    Embedding(Embedding),
    /// A gated recurrent unit over `[positions, features]` (Cho et al. 2014, with the reset gate after the product, as in
    /// cuDNN); gives its state at each position.
    Gru(Gru),
    /// Scaled dot-product attention of several heads over `[positions, features]` (Vaswani et al. 2017), with its four
    /// projections.
    SelfAttention(SelfAttention),
    /// `x + f(x)` for the layers `f`, which keep the shape.
    Residual(Residual),
}

/// The settings of `linear`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Values that come out.
    pub out: usize,
    /// Whether a bias is added; true when not given.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Whether it computes with `α sign(W)`, α the mean magnitude of an output's weights (XNOR-Net, Rastegari et al. 2016, §3.1);
    /// training keeps the real weights, and gradients pass straight through. False when not given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub binary: bool,
}

/// The settings of `conv1d` and `conv2d`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv {
    /// Channels that come out.
    pub out: usize,
    /// The length of a kernel's side.
    pub kernel: usize,
    /// The step between windows; 1 when not given.
    #[serde(default = "one")]
    pub stride: usize,
    /// What surrounds the input; `valid` when not given.
    #[serde(default)]
    pub padding: Padding,
    /// Whether a bias is added; true when not given.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Whether it computes with `α sign(W)`, α the mean magnitude of an output's weights (XNOR-Net, Rastegari et al. 2016, §3.1);
    /// training keeps the real weights, and gradients pass straight through. False when not given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub binary: bool,
}

/// The settings of `depthwise_conv2d`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DepthwiseConv {
    /// The length of a kernel's side.
    pub kernel: usize,
    /// The step between windows; 1 when not given.
    #[serde(default = "one")]
    pub stride: usize,
    /// What surrounds the input; `valid` when not given.
    #[serde(default)]
    pub padding: Padding,
    /// Whether a bias is added; true when not given.
    #[serde(default = "yes")]
    pub bias: bool,
}

/// What surrounds the input of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// Nothing: windows lie inside the input.
    #[default]
    Valid,
    /// Zeros, `(kernel − 1) / 2` on each side: with a stride of 1 the size stays. The kernel's side must be odd.
    Same,
}

/// The settings of the pools: `{ max_pool2d = 2 }` or `{ max_pool2d = { size = 3, stride = 2 } }`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pool {
    /// The length of a window's side.
    pub size: usize,
    /// The step between windows; the size when not given.
    pub stride: usize,
}

/// The settings of `group_norm`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupNorm {
    /// Groups; it divides the number of channels.
    pub groups: usize,
}

/// The settings of `embedding`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Rows of the table: token ids lie below it.
    pub tokens: usize,
    /// Features of a token.
    pub out: usize,
    /// Whether a learnt vector of each position is added; false when not given.
    #[serde(default)]
    pub positions: bool,
}

/// The settings of `gru`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gru {
    /// The size of the state.
    pub out: usize,
}

/// The settings of `self_attention`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfAttention {
    /// Heads; it divides the number of features.
    pub heads: usize,
    /// Whether a position sees only itself and what comes before it; true when not given.
    #[serde(default = "yes")]
    pub causal: bool,
}

/// The settings of `residual`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residual {
    /// The layers beside the shortcut.
    pub layers: Vec<Layer>,
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

impl Layer {
    /// The layer's key in a task file.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Linear(_) => "linear",
            Self::Conv1d(_) => "conv1d",
            Self::Conv2d(_) => "conv2d",
            Self::DepthwiseConv2d(_) => "depthwise_conv2d",
            Self::MaxPool1d(_) => "max_pool1d",
            Self::MaxPool2d(_) => "max_pool2d",
            Self::AvgPool1d(_) => "avg_pool1d",
            Self::AvgPool2d(_) => "avg_pool2d",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::BatchNorm => "batch_norm",
            Self::GroupNorm(_) => "group_norm",
            Self::LayerNorm => "layer_norm",
            Self::Relu => "relu",
            Self::Gelu => "gelu",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
            Self::Sign => "sign",
            Self::Dropout(_) => "dropout",
            Self::Flatten => "flatten",
            Self::Embedding(_) => "embedding",
            Self::Gru(_) => "gru",
            Self::SelfAttention(_) => "self_attention",
            Self::Residual(_) => "residual",
        }
    }
}

impl<'de> Deserialize<'de> for Pool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            size: usize,
            #[serde(default)]
            stride: Option<usize>,
        }
        struct NumberOrTable;
        impl<'de> Visitor<'de> for NumberOrTable {
            type Value = Pool;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the window's size, or a table of `size` and `stride`")
            }

            fn visit_u64<E: de::Error>(self, size: u64) -> Result<Pool, E> {
                let size = usize::try_from(size).map_err(|_| E::custom("the window's size is too large"))?;
                Ok(Pool { size, stride: size })
            }

            fn visit_i64<E: de::Error>(self, size: i64) -> Result<Pool, E> {
                let size = usize::try_from(size).map_err(|_| E::custom("expected a window's size above 0"))?;
                Ok(Pool { size, stride: size })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Pool, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Pool { size: table.size, stride: table.stride.unwrap_or(table.size) })
            }
        }
        deserializer.deserialize_any(NumberOrTable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Layers {
        layers: Vec<Layer>,
    }

    fn read(text: &str) -> Result<Vec<Layer>, toml::de::Error> {
        toml::from_str::<Layers>(text).map(|read| read.layers)
    }

    #[test]
    fn the_blueprints_example_reads() {
        let layers = read(
            r#"layers = [
                { conv2d = { out = 32, kernel = 5, stride = 1, padding = "same" } }, "relu", { max_pool2d = 2 },
                { residual = { layers = [ { linear = { out = 64 } }, "relu", { linear = { out = 64 } } ] } },
                "flatten", { dropout = 0.1 }, { linear = { out = 10 } },
            ]"#,
        )
        .expect("layers");
        let keys: Vec<_> = layers.iter().map(Layer::key).collect();
        assert_eq!(keys, ["conv2d", "relu", "max_pool2d", "residual", "flatten", "dropout", "linear"]);
        assert_eq!(layers[2], Layer::MaxPool2d(Pool { size: 2, stride: 2 }));
    }

    #[test]
    fn every_layer_survives_json_and_toml() {
        let text = r#"[
            {"linear":{"out":3,"bias":false}}, {"conv1d":{"out":2,"kernel":3}}, {"conv2d":{"out":2,"kernel":3}},
            {"depthwise_conv2d":{"kernel":3,"padding":"same"}}, {"max_pool1d":2}, {"max_pool2d":{"size":3,"stride":2}},
            {"avg_pool1d":2}, {"avg_pool2d":2}, "global_avg_pool", "batch_norm", {"group_norm":{"groups":2}}, "layer_norm",
            "relu", "gelu", "tanh", "sigmoid", "sign", {"dropout":0.5}, "flatten", {"embedding":{"tokens":256,"out":8}},
            {"gru":{"out":4}}, {"self_attention":{"heads":2}}, {"residual":{"layers":["relu"]}} ]"#;
        let layers: Vec<Layer> = serde_json::from_str(text).expect("layers");
        assert_eq!(layers.len(), 23, "one of each key");
        let json = serde_json::to_string(&layers).expect("JSON");
        assert_eq!(serde_json::from_str::<Vec<Layer>>(&json).expect("layers"), layers);
        let written = Layers { layers };
        assert_eq!(toml::from_str::<Layers>(&toml::to_string(&written).expect("TOML")).expect("layers"), written);
        for layer in &written.layers {
            assert!(json.contains(&format!("\"{}\"", layer.key())), "{}", layer.key());
        }
    }

    #[test]
    fn an_unknown_layer_or_setting_is_named() {
        let error = read(r#"layers = ["rellu"]"#).expect_err("unknown").to_string();
        assert!(error.contains("rellu") && error.contains("relu"), "{error}");
        let error = read("layers = [{ linear = { out = 3, outs = 4 } }]").expect_err("unknown").to_string();
        assert!(error.contains("outs"), "{error}");
        let error = read("layers = [{ max_pool2d = { size = 3, step = 4 } }]").expect_err("unknown").to_string();
        assert!(error.contains("step"), "{error}");
    }
}
