//! The removals are checked against a plain forward pass that knows nothing of them.

use starling_spec::random::{Purpose, Random};

use super::*;

mod without;

use without::without;

/// Activations in f64: one sample through the layers of `nodes`, by the definitions of the spec.
fn forward(network: &Network, nodes: &[Node], parameters: &[f32], input: Vec<f64>) -> Vec<f64> {
    let values = |tensor: usize| -> Vec<f64> {
        parameters[network.manifest.tensors[tensor].range()].iter().map(|value| f64::from(*value)).collect()
    };
    let mut x = input;
    for node in nodes {
        let channels = node.input[0];
        let inner = x.len() / channels;
        x = match &node.op {
            Op::Relu => x.into_iter().map(|value| value.max(0.0)).collect(),
            Op::Tanh => x.into_iter().map(f64::tanh).collect(),
            Op::Sigmoid => x.into_iter().map(|value| 1.0 / (1.0 + (-value).exp())).collect(),
            Op::Flatten | Op::Dropout { .. } => x,
            Op::Residual(nodes) => {
                let branch = forward(network, nodes, parameters, x.clone());
                x.iter().zip(&branch).map(|(x, branch)| x + branch).collect()
            }
            Op::BatchNorm { scale, shift, mean, variance } => {
                let [scale, shift, mean, variance] = [scale, shift, mean, variance].map(|tensor| values(*tensor));
                let normal = |(index, value): (usize, f64)| {
                    let channel = index / inner;
                    (value - mean[channel]) / (variance[channel] + 1e-5).sqrt() * scale[channel] + shift[channel]
                };
                x.into_iter().enumerate().map(normal).collect()
            }
            Op::GlobalAvgPool => x.chunks(inner).map(|channel| channel.iter().sum::<f64>() / inner as f64).collect(),
            Op::MaxPool { size, stride } | Op::AvgPool { size, stride } => {
                let (width, out) = (node.input[2], &node.output);
                let mut pooled = Vec::new();
                for (c, y, z) in places(out) {
                    let window = (0..size * size)
                        .map(|at| x[c * inner + (y * stride + at / size) * width + z * stride + at % size]);
                    pooled.push(match node.op {
                        Op::MaxPool { .. } => window.fold(f64::MIN, f64::max),
                        _ => window.sum::<f64>() / (size * size) as f64,
                    });
                }
                pooled
            }
            Op::Linear { weight, bias, .. } => {
                let (inputs, outputs) = (*node.input.last().expect("a shape"), *node.output.last().expect("a shape"));
                let (weight, bias) = (values(*weight), bias.map(values));
                let row = |x: &[f64], output: usize| {
                    let sum: f64 = (0..inputs).map(|input| x[input] * weight[input * outputs + output]).sum();
                    sum + bias.as_ref().map_or(0.0, |bias| bias[output])
                };
                x.chunks(inputs).flat_map(|x| (0..outputs).map(|output| row(x, output)).collect::<Vec<_>>()).collect()
            }
            Op::Conv2d { weight, bias, stride, padding, groups, .. } => {
                let shape = &network.manifest.tensors[*weight].shape;
                let (fan, kernel) = (shape[1], shape[2]);
                let (weight, bias) = (values(*weight), bias.map(values));
                let (height, width) = (node.input[1], node.input[2]);
                let mut out = Vec::new();
                for (o, y, z) in places(&node.output) {
                    let mut sum = bias.as_ref().map_or(0.0, |bias| bias[o]);
                    for (i, ky, kx) in places(&[fan, kernel, kernel]) {
                        let channel = if *groups > 1 { o } else { i };
                        let at = |step: usize, k: usize| (step * stride + k).checked_sub(*padding);
                        if let (Some(row), Some(column)) = (at(y, ky), at(z, kx))
                            && row < height
                            && column < width
                        {
                            sum += x[(channel * height + row) * width + column]
                                * weight[((o * fan + i) * kernel + ky) * kernel + kx];
                        }
                    }
                    out.push(sum);
                }
                out
            }
            other => panic!("the reference has no {other:?}"),
        };
    }
    x
}

fn places(shape: &[usize]) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
    let (a, b, c) = (shape[0], shape[1], shape[2]);
    (0..a * b * c).map(move |index| (index / (b * c), index / c % b, index % c))
}

struct Model {
    shape: Vec<usize>,
    layers: Vec<Layer>,
    parameters: Vec<f32>,
}

const KIND: TaskKind = TaskKind::Classification;

fn model(shape: &[usize], layers: &str, seed: u64) -> Model {
    let layers: Vec<Layer> = serde_json::from_str(layers).expect("layers");
    let network = infer(KIND, shape, &layers).expect("a network");
    let mut random = Random::new(seed, Purpose::Noise, &[]);
    // Above zero where a variance has to be.
    #[allow(clippy::cast_possible_truncation, reason = "a float for a test")]
    let parameters = network
        .manifest
        .tensors
        .iter()
        .flat_map(|tensor| vec![tensor.name.ends_with("variance"); tensor.len()])
        .map(|positive| if positive { 0.5 + random.unit_f32() } else { random.normal() as f32 * 0.4 })
        .collect();
    Model { shape: shape.into(), layers, parameters }
}

impl Model {
    fn network(&self) -> Network {
        infer(KIND, &self.shape, &self.layers).expect("a network")
    }

    fn outputs(&self) -> Vec<f64> {
        let network = self.network();
        let mut random = Random::new(99, Purpose::Noise, &[]);
        let size: usize = self.shape.iter().product();
        (0..3)
            .flat_map(|_| {
                let input = (0..size).map(|_| random.normal()).collect();
                forward(&network, &network.nodes, &self.parameters, input)
            })
            .collect()
    }

    fn remove(&self, removal: &Removal) -> Result<Self, StructureError> {
        let (layers, parameters) = remove(KIND, &self.shape, &self.layers, &self.parameters, removal)?;
        Ok(Self { shape: self.shape.clone(), layers, parameters })
    }

    fn without(&self, removal: &Removal) -> Self {
        let parameters = without(KIND, &self.shape, &self.layers, &self.parameters, removal);
        Self { shape: self.shape.clone(), layers: self.layers.clone(), parameters }
    }

    fn tensor(&mut self, name: &str) -> (&mut [f32], Vec<usize>) {
        let network = self.network();
        let tensor = network.manifest.tensors.iter().find(|tensor| tensor.name == name).expect("a tensor");
        (&mut self.parameters[tensor.range()], tensor.shape.clone())
    }
}

fn assert_close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    for (index, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "output {index}: {a} and {b}");
    }
}

const CONVOLUTIONS: &str = r#"[{"conv2d":{"out":4,"kernel":3,"padding":"same"}},"batch_norm","relu",{"depthwise_conv2d":{"kernel":3}},
    {"conv2d":{"out":6,"kernel":3}},{"max_pool2d":2},"flatten",{"dropout":0.2},"batch_norm",{"linear":{"out":7}},"tanh",
    {"linear":{"out":3}}]"#;

const RESIDUALS: &str = r#"[{"conv2d":{"out":3,"kernel":3,"padding":"same"}},"relu",
    {"residual":{"layers":[{"conv2d":{"out":5,"kernel":3,"padding":"same"}},"batch_norm","relu",
        {"conv2d":{"out":3,"kernel":3,"padding":"same"}},"batch_norm"]}},
    {"residual":{"layers":["relu",{"conv2d":{"out":3,"kernel":3,"padding":"same","bias":false}},"relu"]}},
    {"conv2d":{"out":3,"kernel":1}},"global_avg_pool",{"linear":{"out":3}},{"linear":{"out":3}}]"#;

#[test]
fn a_network_without_units_is_the_one_that_does_not_hear_them() {
    let models = [
        model(&[2, 9, 9], CONVOLUTIONS, 1),
        model(&[2, 6, 6], RESIDUALS, 2),
        model(&[5, 4], r#"[{"linear":{"out":6}},"relu","flatten",{"linear":{"out":3}}]"#, 3),
    ];
    let mut tried = 0;
    for model in &models {
        for (layer, units) in layers_with_units(KIND, &model.shape, &model.layers) {
            for step in 2..4 {
                let keep = (0..units).map(|unit| unit % step != 1).collect();
                let removal = Removal::Units { layer: layer.clone(), keep };
                let smaller = model.remove(&removal).expect("it applies");
                assert!(smaller.parameters.len() < model.parameters.len());
                assert_close(&smaller.outputs(), &model.without(&removal).outputs());
                tried += 1;
            }
        }
    }
    assert_eq!(
        tried,
        2 * (3 + 3 + 1),
        "both convolutions and a linear layer; a branch's convolution, one before a pool, a linear layer"
    );
}

#[test]
fn a_network_without_a_block_is_the_one_in_which_it_does_nothing() {
    let model = model(&[2, 6, 6], RESIDUALS, 4);
    let paths = blocks(KIND, &model.shape, &model.layers);
    assert_eq!(paths, [vec![2], vec![3], vec![3, 1], vec![4], vec![6], vec![7]]);
    for path in paths {
        let removal = Removal::Block(path);
        let smaller = model.remove(&removal).expect("it applies");
        assert!(smaller.layers != model.layers);
        assert_close(&smaller.outputs(), &model.without(&removal).outputs());
    }
}

#[test]
fn dead_units_leave_without_a_trace() {
    let mut model = model(&[2, 9, 9], CONVOLUTIONS, 5);
    // No weight leads to channel 1 of the second convolution, none to the units 0 and 4; none leads from unit 2.
    let (weight, shape) = model.tensor("4.conv2d.weight");
    weight[shape[1] * 9..2 * shape[1] * 9].fill(0.0);
    let (weight, shape) = model.tensor("9.linear.weight");
    for row in weight.chunks_mut(shape[1]) {
        (row[0], row[4]) = (0.0, 0.0);
    }
    let (weight, shape) = model.tensor("11.linear.weight");
    weight[2 * shape[1]..3 * shape[1]].fill(0.0);
    let before = model.outputs();
    let removals = dead_units(KIND, &model.shape, &model.layers, &model.parameters);
    let dead = |layer: usize| {
        removals.iter().find_map(|removal| match removal {
            Removal::Units { layer: path, keep } if path[..] == [layer] => {
                Some(keep.iter().enumerate().filter(|(_, keep)| !**keep).map(|(unit, _)| unit).collect::<Vec<_>>())
            }
            _ => None,
        })
    };
    assert_eq!((dead(0), dead(4), dead(9)), (None, Some(vec![1]), Some(vec![0, 2, 4])));
    let mut smaller = model;
    for removal in &removals {
        smaller = smaller.remove(removal).expect("it applies");
    }
    assert_eq!(smaller.network().output, [3]);
    assert_close(&smaller.outputs(), &before);
    assert_eq!(dead_units(KIND, &smaller.shape, &smaller.layers, &smaller.parameters), [], "none is left");
}

#[test]
fn a_constant_that_padding_hides_is_not_dead() {
    let layers = r#"[{"conv2d":{"out":2,"kernel":3}},"relu",{"conv2d":{"out":2,"kernel":3,"padding":"same"}},"global_avg_pool"]"#;
    let mut model = model(&[1, 6, 6], layers, 6);
    model.tensor("0.conv2d.weight").0[..9].fill(0.0);
    model.tensor("0.conv2d.bias").0.copy_from_slice(&[0.7, 0.1]);
    assert_eq!(dead_units(KIND, &model.shape, &model.layers, &model.parameters), []);
    model.tensor("0.conv2d.bias").0[0] = -0.7;
    let before = model.outputs();
    let removals = dead_units(KIND, &model.shape, &model.layers, &model.parameters);
    assert_eq!(removals, [Removal::Units { layer: vec![0], keep: vec![false, true] }], "its ReLU says nothing");
    assert_close(&model.remove(&removals[0]).expect("it applies").outputs(), &before);
}

#[test]
fn what_does_not_apply_is_said_in_words() {
    let model = model(&[2, 6, 6], RESIDUALS, 7);
    let error = |removal: &Removal| model.remove(removal).err().expect("it does not apply").to_string();
    let units = |layer: &[usize], units| {
        error(&Removal::Units { layer: layer.into(), keep: (0..units).map(|unit| unit > 0).collect() })
    };
    assert!(units(&[0], 3).contains("model.layers[2] (residual): its shortcut needs every unit"), "{}", units(&[0], 3));
    assert!(units(&[2, 3], 3).contains("model.layers[2.3] (conv2d): its outputs are added to its residual's shortcut"));
    assert!(units(&[7], 3).contains("its outputs are the network's"));
    assert!(units(&[1], 3).contains("it has no units"));
    assert!(units(&[2, 0], 4).contains("it has 5 units, and 4 were named"));
    assert!(units(&[2, 0, 1], 4).contains("model.layers[2.0.1]: there is no such layer"));
    assert!(
        error(&Removal::Units { layer: vec![6], keep: vec![false; 3] }).contains("at least one of its units must stay")
    );
    assert!(error(&Removal::Block(vec![0])).contains("it turns [2, 6, 6] into [3, 6, 6]"));
    assert!(error(&Removal::Block(vec![1])).contains("no weights of its own"));
    assert!(error(&Removal::Block(vec![9])).contains("no such layer"));
    let gru: Vec<Layer> = serde_json::from_str(
        r#"[{"embedding":{"tokens":9,"out":4}},{"gru":{"out":4}},{"linear":{"out":6}},"layer_norm",{"linear":{"out":9}}]"#,
    )
    .expect("layers");
    let kind = TaskKind::NextToken;
    let network = infer(kind, &[5], &gru).expect("a network");
    let parameters = vec![0.5; network.manifest.len()];
    let removal = Removal::Units { layer: vec![1], keep: vec![true, false, true, true] };
    let error = remove(kind, &[5], &gru, &parameters, &removal).expect_err("a state").to_string();
    assert!(error.contains("model.layers[1] (gru): its features cannot be removed one by one"), "{error}");
    assert_eq!(blocks(kind, &[5], &gru), [[1]]);
    assert_eq!(layers_with_units(kind, &[5], &gru), [(vec![2], 6)]);
    let removal = Removal::Units { layer: vec![2], keep: vec![true, false, true, true, true, true] };
    let (smaller, left) = remove(kind, &[5], &gru, &parameters, &removal).expect("it applies");
    assert_eq!(left.len(), infer(kind, &[5], &smaller).expect("a network").manifest.len());
    assert_eq!(dead_units(kind, &[5], &gru, &vec![0.0; parameters.len()]), [], "a norm mixes them");
}

#[test]
fn a_units_saliency_is_the_sum_of_its_weights_by_their_gradients() {
    let model = model(&[2], r#"[{"linear":{"out":2}},"relu",{"linear":{"out":2}}]"#, 9);
    let gradient: Vec<f32> = (0u8..12).map(f32::from).collect();
    let found = unit_saliency(KIND, &model.shape, &model.layers, &model.parameters, &gradient, &[0]).expect("units");
    let p = &model.parameters;
    for (unit, found) in found.iter().enumerate() {
        let expected: f32 = [unit, 2 + unit, 4 + unit].iter().map(|index| p[*index] * gradient[*index]).sum();
        assert!((found - f64::from(expected.abs())).abs() < 1e-5);
    }
}

fn binary(layers: &str) -> Result<String, String> {
    let layers: Vec<Layer> = serde_json::from_str(layers).expect("layers");
    let binary = to_binary(&layers).map_err(|error| error.to_string())?;
    Ok(serde_json::to_string(&binary).expect("JSON").replace("\"bias\":true,", "").replace(",\"bias\":true", ""))
}

#[test]
fn networks_become_binary_where_it_applies() {
    assert_eq!(
        binary(r#"["flatten",{"linear":{"out":300}},"relu",{"linear":{"out":100}},"relu",{"linear":{"out":10}}]"#)
            .expect("it applies"),
        r#"["flatten","batch_norm","sign",{"linear":{"out":300,"binary":true}},"batch_norm","sign",{"linear":{"out":100,"binary":true}},"batch_norm","relu",{"linear":{"out":10}}]"#
    );
    let conv = |more: &str| format!(r#"{{"conv2d":{{"out":8,"kernel":3,"stride":1,"padding":"valid"{more}}}}}"#);
    let pool = r#"{"max_pool2d":{"size":2,"stride":2}}"#;
    let lenet = format!(
        r#"[{0},"relu",{pool},{0},"relu",{{"dropout":0.5}},{pool},"flatten",{{"linear":{{"out":50}}}},"batch_norm","relu",{{"linear":{{"out":10}}}}]"#,
        conv("")
    );
    let expected = format!(
        r#"[{},{pool},"batch_norm","sign",{},{pool},"flatten","batch_norm","sign",{{"linear":{{"out":50,"binary":true}}}},"batch_norm","relu",{{"linear":{{"out":10}}}}]"#,
        conv(""),
        conv(r#","binary":true"#)
    );
    assert_eq!(binary(&lenet).expect("it applies"), expected);
    let residual =
        format!(r#"[{0},{{"residual":{{"layers":["relu",{0}]}}}},"flatten",{{"linear":{{"out":10}}}}]"#, conv(""));
    let residual = binary(&residual).expect("it applies");
    assert!(residual.contains(r#"{"residual":{"layers":["batch_norm","sign",{"conv2d""#), "{residual}");
    let error = binary(r#"[{"embedding":{"tokens":9,"out":4}},{"linear":{"out":4}},{"linear":{"out":9}}]"#)
        .expect_err("a table");
    assert!(error.contains("model.layers[0] (embedding)"), "{error}");
    let error = binary(r#"["flatten",{"linear":{"out":10}}]"#).expect_err("one layer");
    assert!(error.contains("a hidden layer more"), "{error}");
    assert!(binary(r#"["flatten","relu"]"#).expect_err("none").contains("no linear layer"));
}
