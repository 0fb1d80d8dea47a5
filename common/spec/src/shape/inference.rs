//! The walk over the layers that [`super::infer`] makes.

use crate::error::SpecError;
use crate::layer::{Layer, Padding};
use crate::manifest::{ParamManifest, ParamRole, Start};

use super::{ACTIVATION_MAX, DEPTH_MAX, LAYERS_MAX, Node, Op, PARAMETERS_MAX};

#[derive(Default)]
pub(super) struct Inference {
    pub(super) manifest: ParamManifest,
    layers: usize,
    dropouts: u64,
}

/// The place of a layer, for messages and tensor names.
struct Place<'a> {
    index: String,
    layer: &'a Layer,
    /// What follows squares its input's second moment by about a half: ReLU or GELU.
    rectified: bool,
}

impl Inference {
    /// The nodes of a whole network.
    pub(super) fn list(&mut self, input: &[usize], layers: &[Layer]) -> Result<Vec<Node>, SpecError> {
        self.nested(input, layers, "", 0)
    }

    fn nested(
        &mut self,
        input: &[usize],
        layers: &[Layer],
        prefix: &str,
        depth: usize,
    ) -> Result<Vec<Node>, SpecError> {
        let mut shape = input.to_vec();
        let mut nodes = Vec::with_capacity(layers.len().min(LAYERS_MAX));
        for (position, layer) in layers.iter().enumerate() {
            let place =
                Place { index: format!("{prefix}{position}"), layer, rectified: rectified(&layers[position + 1..]) };
            self.layers += 1;
            if self.layers > LAYERS_MAX || depth > DEPTH_MAX {
                return Err(
                    place.error(format!("more than {LAYERS_MAX} layers, or {DEPTH_MAX} residuals inside each other"))
                );
            }
            let first = depth == 0 && position == 0;
            let node = self.node(shape, &place, depth, first)?;
            shape = node.output.clone();
            nodes.push(node);
        }
        Ok(nodes)
    }

    fn node(&mut self, input: Vec<usize>, place: &Place<'_>, depth: usize, first: bool) -> Result<Node, SpecError> {
        let (op, output) = self.op(&input, place, depth, first)?;
        match product(&output) {
            Some(values) if (1..=ACTIVATION_MAX).contains(&values) => Ok(Node { op, input, output }),
            _ => Err(place.error(format!("an output of {output:?} is empty or has more than {ACTIVATION_MAX} values"))),
        }
    }

    fn op(
        &mut self,
        input: &[usize],
        place: &Place<'_>,
        depth: usize,
        first: bool,
    ) -> Result<(Op, Vec<usize>), SpecError> {
        let last = *input.last().expect("shapes have at least one axis");
        let channels = input[0];
        let keep = |op| Ok((op, input.to_vec()));
        match place.layer {
            Layer::Linear(linear) => {
                let weight = self.weight(place, "weight", vec![last, linear.out], last)?;
                let bias = self.bias(place, linear.bias, linear.out)?;
                let mut output = input.to_vec();
                *output.last_mut().expect("shapes have at least one axis") = linear.out;
                Ok((Op::Linear { weight, bias, binary: linear.binary }, output))
            }
            Layer::Conv1d(conv) => {
                let length = match input {
                    [_, length] => window(place, input, &[*length], conv.kernel, conv.stride, conv.padding)?[0],
                    _ => return Err(place.rank("[channels, length]", input)),
                };
                let weight = self.conv_weight(place, vec![conv.out, channels, conv.kernel])?;
                let bias = self.bias(place, conv.bias, conv.out)?;
                let padding = side(conv.padding, conv.kernel);
                Ok((
                    Op::Conv1d { weight, bias, stride: conv.stride, padding, binary: conv.binary },
                    vec![conv.out, length],
                ))
            }
            Layer::Conv2d(conv) => {
                let sides = match input {
                    [_, sides @ ..] if sides.len() == 2 => {
                        window(place, input, sides, conv.kernel, conv.stride, conv.padding)?
                    }
                    _ => return Err(place.rank("[channels, height, width]", input)),
                };
                let weight = self.conv_weight(place, vec![conv.out, channels, conv.kernel, conv.kernel])?;
                let bias = self.bias(place, conv.bias, conv.out)?;
                let padding = side(conv.padding, conv.kernel);
                Ok((
                    Op::Conv2d { weight, bias, stride: conv.stride, padding, groups: 1, binary: conv.binary },
                    vec![conv.out, sides[0], sides[1]],
                ))
            }
            Layer::DepthwiseConv2d(conv) => {
                let sides = match input {
                    [_, sides @ ..] if sides.len() == 2 => {
                        window(place, input, sides, conv.kernel, conv.stride, conv.padding)?
                    }
                    _ => return Err(place.rank("[channels, height, width]", input)),
                };
                let weight = self.conv_weight(place, vec![channels, 1, conv.kernel, conv.kernel])?;
                let bias = self.bias(place, conv.bias, channels)?;
                let padding = side(conv.padding, conv.kernel);
                let op = Op::Conv2d { weight, bias, stride: conv.stride, padding, groups: channels, binary: false };
                Ok((op, vec![channels, sides[0], sides[1]]))
            }
            Layer::MaxPool1d(pool) | Layer::AvgPool1d(pool) | Layer::MaxPool2d(pool) | Layer::AvgPool2d(pool) => {
                let flat = matches!(place.layer, Layer::MaxPool1d(_) | Layer::AvgPool1d(_));
                let (rank, wanted) = if flat { (2, "[channels, length]") } else { (3, "[channels, height, width]") };
                if input.len() != rank {
                    return Err(place.rank(wanted, input));
                }
                let mut output = vec![channels];
                output.extend(window(place, input, &input[1..], pool.size, pool.stride, Padding::Valid)?);
                let (size, stride) = (pool.size, pool.stride);
                let max = matches!(place.layer, Layer::MaxPool1d(_) | Layer::MaxPool2d(_));
                Ok((if max { Op::MaxPool { size, stride } } else { Op::AvgPool { size, stride } }, output))
            }
            Layer::GlobalAvgPool if input.len() < 2 => Err(place.rank("[channels, …]", input)),
            Layer::GlobalAvgPool => Ok((Op::GlobalAvgPool, vec![channels])),
            Layer::BatchNorm => {
                let scale = self.tensor(place, "scale", vec![channels], ParamRole::Trainable, Start::Constant(1.0))?;
                let shift = self.tensor(place, "shift", vec![channels], ParamRole::Trainable, Start::Constant(0.0))?;
                let mean = self.tensor(place, "mean", vec![channels], ParamRole::Statistic, Start::Constant(0.0))?;
                let variance =
                    self.tensor(place, "variance", vec![channels], ParamRole::Statistic, Start::Constant(1.0))?;
                keep(Op::BatchNorm { scale, shift, mean, variance })
            }
            Layer::GroupNorm(norm) => {
                if norm.groups == 0 || !channels.is_multiple_of(norm.groups) {
                    return Err(place.error(format!("{} groups do not divide {channels} channels", norm.groups)));
                }
                let scale = self.tensor(place, "scale", vec![channels], ParamRole::Trainable, Start::Constant(1.0))?;
                let shift = self.tensor(place, "shift", vec![channels], ParamRole::Trainable, Start::Constant(0.0))?;
                keep(Op::GroupNorm { scale, shift, groups: norm.groups })
            }
            Layer::LayerNorm => {
                let scale = self.tensor(place, "scale", vec![last], ParamRole::Trainable, Start::Constant(1.0))?;
                let shift = self.tensor(place, "shift", vec![last], ParamRole::Trainable, Start::Constant(0.0))?;
                keep(Op::LayerNorm { scale, shift })
            }
            Layer::Relu => keep(Op::Relu),
            Layer::Gelu => keep(Op::Gelu),
            Layer::Tanh => keep(Op::Tanh),
            Layer::Sigmoid => keep(Op::Sigmoid),
            Layer::Sign => keep(Op::Sign),
            Layer::Dropout(probability) => {
                if !(0.0..1.0).contains(probability) {
                    return Err(place.error(format!("a probability of {probability}; expected at least 0 and below 1")));
                }
                let stream = self.dropouts;
                self.dropouts += 1;
                keep(Op::Dropout { probability: *probability, stream })
            }
            Layer::Flatten => Ok((Op::Flatten, vec![input.iter().product()])),
            Layer::Embedding(embedding) => {
                if !first || input.len() != 1 {
                    return Err(place.error(format!(
                        "an embedding is the first layer and takes the shape [positions], not {input:?}"
                    )));
                }
                if embedding.tokens > 1 << 24 {
                    return Err(place.error(format!("{} tokens; expected at most 2^24", embedding.tokens)));
                }
                // The variance of the table's entries is 1/features: tied to no later fan-in.
                let table = self.weight(place, "table", vec![embedding.tokens, embedding.out], embedding.out)?;
                let positions = match embedding.positions {
                    true => Some(self.weight(place, "positions", vec![channels, embedding.out], embedding.out)?),
                    false => None,
                };
                Ok((Op::Embedding { table, positions, tokens: embedding.tokens }, vec![channels, embedding.out]))
            }
            Layer::Gru(gru) => {
                let [positions, features] = *input else { return Err(place.rank("[positions, features]", input)) };
                let state = gru.out;
                let gates = state.checked_mul(3).ok_or_else(|| place.error("the state is too large".into()))?;
                let input_weight = self.weight(place, "input_weight", vec![features, gates], features)?;
                let input_bias =
                    self.tensor(place, "input_bias", vec![gates], ParamRole::Trainable, Start::Constant(0.0))?;
                let state_weight = self.weight(place, "state_weight", vec![state, gates], state)?;
                let state_bias =
                    self.tensor(place, "state_bias", vec![gates], ParamRole::Trainable, Start::Constant(0.0))?;
                Ok((Op::Gru { input_weight, input_bias, state_weight, state_bias, state }, vec![positions, state]))
            }
            Layer::SelfAttention(attention) => {
                let [_, features] = *input else { return Err(place.rank("[positions, features]", input)) };
                let (heads, causal) = (attention.heads, attention.causal);
                if heads == 0 || features % heads != 0 {
                    return Err(place.error(format!("{heads} heads do not divide {features} features")));
                }
                let weight = self.weight(place, "weight", vec![features, 3 * features], features)?;
                let bias =
                    self.tensor(place, "bias", vec![3 * features], ParamRole::Trainable, Start::Constant(0.0))?;
                let out_weight = self.weight(place, "out_weight", vec![features, features], features)?;
                let out_bias =
                    self.tensor(place, "out_bias", vec![features], ParamRole::Trainable, Start::Constant(0.0))?;
                keep(Op::SelfAttention { weight, bias, out_weight, out_bias, heads, causal })
            }
            Layer::Residual(residual) => {
                let nodes = self.nested(input, &residual.layers, &format!("{}.", place.index), depth + 1)?;
                let output = nodes.last().map_or(input, |node| &node.output);
                if output != input {
                    return Err(
                        place.error(format!("its layers turn {input:?} into {output:?}; they must keep the shape"))
                    );
                }
                keep(Op::Residual(nodes))
            }
        }
    }

    fn tensor(
        &mut self,
        place: &Place<'_>,
        word: &str,
        shape: Vec<usize>,
        role: ParamRole,
        start: Start,
    ) -> Result<usize, SpecError> {
        let total =
            product(&shape).filter(|values| *values > 0).and_then(|values| values.checked_add(self.manifest.len()));
        match total {
            Some(total) if total <= PARAMETERS_MAX => {
                let name = format!("{}.{}.{word}", place.index, place.layer.key());
                Ok(self.manifest.push(name, shape, role, start))
            }
            _ => Err(place.error(format!(
                "a {word} of {shape:?} is empty or takes the network above {PARAMETERS_MAX} parameters"
            ))),
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "a bound is rounded to the precision of the parameters")]
    fn weight(&mut self, place: &Place<'_>, word: &str, shape: Vec<usize>, fan_in: usize) -> Result<usize, SpecError> {
        let moment = if place.rectified { 6.0 } else { 3.0 };
        let bound = (moment / fan_in.max(1) as f64).sqrt() as f32;
        self.tensor(place, word, shape, ParamRole::Trainable, Start::Uniform(bound))
    }

    /// A convolution's weight: its fan-in is everything but its first axis.
    fn conv_weight(&mut self, place: &Place<'_>, shape: Vec<usize>) -> Result<usize, SpecError> {
        let fan_in = product(&shape[1..]).ok_or_else(|| place.error(format!("a weight of {shape:?} is too large")))?;
        self.weight(place, "weight", shape, fan_in)
    }

    fn bias(&mut self, place: &Place<'_>, wanted: bool, count: usize) -> Result<Option<usize>, SpecError> {
        if !wanted {
            return Ok(None);
        }
        self.tensor(place, "bias", vec![count], ParamRole::Trainable, Start::Constant(0.0)).map(Some)
    }
}

impl Place<'_> {
    fn error(&self, problem: String) -> SpecError {
        SpecError::Layer { index: self.index.clone(), layer: self.layer.key().into(), problem }
    }

    fn rank(&self, wanted: &str, input: &[usize]) -> SpecError {
        self.error(format!("it takes the shape {wanted}, and {input:?} reaches it"))
    }
}

/// Whether the next activation after a weight halves the second moment; pools, norms and dropout are looked through.
fn rectified(following: &[Layer]) -> bool {
    for layer in following {
        match layer {
            Layer::Relu | Layer::Gelu => return true,
            Layer::MaxPool1d(_) | Layer::MaxPool2d(_) | Layer::AvgPool1d(_) | Layer::AvgPool2d(_) => {}
            Layer::BatchNorm | Layer::GroupNorm(_) | Layer::LayerNorm | Layer::Dropout(_) => {}
            _ => return false,
        }
    }
    false
}

/// What a window of `size` leaves of each of `sides`.
fn window(
    place: &Place<'_>,
    input: &[usize],
    sides: &[usize],
    size: usize,
    stride: usize,
    padding: Padding,
) -> Result<Vec<usize>, SpecError> {
    if size == 0 || stride == 0 || size > ACTIVATION_MAX {
        return Err(place.error(format!("a window of {size} with a step of {stride}; expected both above 0")));
    }
    if padding == Padding::Same && size.is_multiple_of(2) {
        return Err(place.error(format!("padding \"same\" needs an odd kernel, not {size}")));
    }
    let around = 2 * side(padding, size);
    sides
        .iter()
        .map(|length| match (length + around).checked_sub(size) {
            Some(room) => Ok(room / stride + 1),
            None => Err(place.error(format!("a window of {size} does not fit into {input:?}"))),
        })
        .collect()
}

/// Zeros on each side.
fn side(padding: Padding, kernel: usize) -> usize {
    match padding {
        Padding::Valid => 0,
        Padding::Same => (kernel.max(1) - 1) / 2,
    }
}

/// The product, unless it overflows.
pub(super) fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size))
}
