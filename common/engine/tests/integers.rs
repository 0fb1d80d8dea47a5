//! Integer layers, exactly: against a plain emulation with 64-bit sums, in every build and any batch.
//!
//! The emulation follows what the engine promises: inputs become `round(clamp(x · 1/scale + zero))`, sums are exact, and they
//! become floats by one factor and one offset, or the levels of the next integer layer where nothing but ReLUs, pools of the
//! largest and a change of shape lies between.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::unwrap_used,
    reason = "tests"
)]

#[path = "support/releases.rs"]
mod releases;

use releases::{integers, layers, preset_release, random_normals, release};
use starling_compress::{Compressed, InputRange, Release, Values};
use starling_engine::{Engine, Inference, Level, calibrate};
use starling_spec::TaskKind::Classification;
use starling_spec::shape::{Network, Node, Op};

const LEVELS: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

/// What flows between the layers of the emulation.
#[derive(Debug, Clone)]
enum Flow {
    Floats(Vec<f32>),
    Levels(Vec<u8>, InputRange),
}

struct Emulation<'a> {
    release: &'a Release,
    network: Network,
    parameters: Vec<f32>,
}

fn scale_and_zero(range: InputRange) -> (f32, u8) {
    let scale = (range.high - range.low) / 255.0;
    (scale, (-range.low / scale).round_ties_even().clamp(0.0, 255.0) as u8)
}

fn level(value: f32, low: f32) -> u8 {
    value.clamp(low, 255.0).round_ties_even() as u8
}

impl Emulation<'_> {
    fn values(&self, tensor: usize) -> Vec<f32> {
        self.parameters[self.network.manifest.tensors[tensor].range()].to_vec()
    }

    /// The range of an integer layer.
    fn range(&self, node: &Node) -> Option<InputRange> {
        match node.op {
            Op::Linear { weight, .. } | Op::Conv1d { weight, .. } | Op::Conv2d { weight, .. } => {
                self.release.inputs[weight]
            }
            _ => None,
        }
    }

    fn run(&self, nodes: &[Node], mut flow: Flow) -> Flow {
        for (at, node) in nodes.iter().enumerate() {
            flow = match (&node.op, flow) {
                (Op::Flatten | Op::Dropout { .. }, flow) => flow,
                (Op::Relu, Flow::Floats(x)) => Flow::Floats(x.iter().map(|x| x.max(0.0)).collect()),
                (Op::Relu, Flow::Levels(x, range)) => {
                    let zero = scale_and_zero(range).1;
                    Flow::Levels(x.iter().map(|x| *x.max(&zero)).collect(), range)
                }
                (Op::MaxPool { size, stride }, Flow::Floats(x)) => {
                    Flow::Floats(pool(node, &x, *size, *stride, f32::max))
                }
                (Op::MaxPool { size, stride }, Flow::Levels(x, range)) => {
                    Flow::Levels(pool(node, &x, *size, *stride, u8::max), range)
                }
                (Op::Tanh, Flow::Floats(x)) => Flow::Floats(x.iter().map(|x| x.tanh()).collect()),
                // Taken on by the layer before, in `weighted`.
                (Op::BatchNorm { .. }, flow) => flow,
                (Op::Residual(inner), Flow::Floats(x)) => match self.run(inner, Flow::Floats(x.clone())) {
                    Flow::Floats(y) => Flow::Floats(y.iter().zip(&x).map(|(y, x)| y + x).collect()),
                    Flow::Levels(..) => panic!("a residual gives floats"),
                },
                (_, flow) => self.weighted(nodes, at, flow),
            };
        }
        flow
    }

    fn weighted(&self, nodes: &[Node], at: usize, flow: Flow) -> Flow {
        let node = &nodes[at];
        let range = self.range(node).unwrap_or_else(|| panic!("{:?} is no integer layer", node.op));
        let (scale, zero) = scale_and_zero(range);
        let x: Vec<u8> = match flow {
            Flow::Floats(x) => x.iter().map(|x| level(x * scale.recip() + f32::from(zero), 0.0)).collect(),
            Flow::Levels(x, before) => {
                assert_eq!(before, range, "levels are those of this layer");
                x
            }
        };
        let sums = self.sums(node, &x, zero);
        let (Op::Linear { weight, bias, .. } | Op::Conv1d { weight, bias, .. } | Op::Conv2d { weight, bias, .. }) =
            node.op
        else {
            panic!("{:?} has no weights", node.op)
        };
        let linear = matches!(node.op, Op::Linear { .. });
        let outputs = if linear { *node.output.last().unwrap() } else { node.output[0] };
        let (levels_scale, bias) =
            (self.scales(weight, outputs), bias.map_or(vec![0.0; outputs], |bias| self.values(bias)));
        let (mut next, mut norm) = (at + 1, vec![(0.0, 1.0, 0.0); outputs]);
        if let Some(Op::BatchNorm { scale, shift, mean, variance }) = nodes.get(next).map(|node| &node.op) {
            next += 1;
            let [scale, shift, mean, variance] = [*scale, *shift, *mean, *variance].map(|tensor| self.values(tensor));
            for (channel, norm) in norm.iter_mut().enumerate() {
                let factor = f64::from(scale[channel]) / (f64::from(variance[channel]) + 1e-5).sqrt();
                *norm = (f64::from(mean[channel]), factor, f64::from(shift[channel]));
            }
        }
        let relu = nodes.get(next).is_some_and(|node| node.op == Op::Relu);
        let wanted = self.wanted(&nodes[next..]);
        let output = |index: usize| if linear { index % outputs } else { index / (sums.len() / outputs) };
        let affine = |index: usize| {
            let channel = output(index);
            let (mean, factor, shift) = norm[channel];
            let value = f64::from(scale) * f64::from(levels_scale[channel]) * factor;
            (value, (f64::from(bias[channel]) - mean) * factor + shift)
        };
        let sum = |index: usize| sums[index] as i32 as f32;
        match wanted {
            Some(wanted) => {
                let (step, next_zero) = scale_and_zero(wanted);
                let low = if relu { f32::from(next_zero) } else { 0.0 };
                let to_level = |index: usize| {
                    let (factor, offset) = affine(index);
                    let offset = offset / f64::from(step) + f64::from(next_zero);
                    level(sum(index) * (factor / f64::from(step)) as f32 + offset as f32, low)
                };
                Flow::Levels((0..sums.len()).map(to_level).collect(), wanted)
            }
            None => {
                let to_float = |index: usize| {
                    let (factor, offset) = affine(index);
                    let value = sum(index) * factor as f32 + offset as f32;
                    if relu { value.max(0.0) } else { value }
                };
                Flow::Floats((0..sums.len()).map(to_float).collect())
            }
        }
    }

    /// The range of the integer layer that comes next, where levels may go through what lies between.
    fn wanted(&self, nodes: &[Node]) -> Option<InputRange> {
        let through =
            |node: &&Node| matches!(node.op, Op::Relu | Op::MaxPool { .. } | Op::Flatten | Op::Dropout { .. });
        nodes.iter().find(|node| !through(node)).and_then(|node| self.range(node))
    }

    fn scales(&self, weight: usize, outputs: usize) -> Vec<f32> {
        match &self.release.tensors[weight].values {
            Values::Integer { scales, .. } if scales.len() == 1 => vec![scales[0]; outputs],
            Values::Integer { scales, .. } => scales.clone(),
            Values::Fixed { places, .. } => vec![2f32.powi(-i32::from(*places)); outputs],
            values => panic!("{} is no integer form", values.word()),
        }
    }

    /// The exact sums of an integer layer, channels first.
    fn sums(&self, node: &Node, x: &[u8], zero: u8) -> Vec<i64> {
        let (Op::Linear { weight, .. } | Op::Conv1d { weight, .. } | Op::Conv2d { weight, .. }) = node.op else {
            panic!("{:?} has no weights", node.op)
        };
        let shape = &self.network.manifest.tensors[weight].shape;
        let w: Vec<i64> = match &self.release.tensors[weight].values {
            Values::Integer { levels, .. } => levels.iter().map(|level| i64::from(*level)).collect(),
            Values::Fixed { levels, .. } => levels.iter().map(|level| i64::from(*level)).collect(),
            values => panic!("{} is no integer form", values.word()),
        };
        let centred = |place: usize| i64::from(x[place]) - i64::from(zero);
        let (stride, padding) = match node.op {
            Op::Conv1d { stride, padding, .. } => ((1, stride), (0, padding)),
            Op::Conv2d { stride, padding, .. } => ((stride, stride), (padding, padding)),
            _ => {
                let (inputs, outputs) = (shape[0], shape[1]);
                let dot = |row: usize, output: usize| {
                    (0..inputs).map(|input| centred(row * inputs + input) * w[input * outputs + output]).sum()
                };
                return (0..x.len() / inputs)
                    .flat_map(|row| (0..outputs).map(move |output| dot(row, output)))
                    .collect();
            }
        };
        let (down, across) = if shape.len() == 4 { (shape[2], shape[3]) } else { (1, shape[2]) };
        let (height, width) = sides(&node.input);
        let (out_height, out_width) = sides(&node.output);
        let mut sums = Vec::new();
        for output in 0..shape[0] {
            for (line, column) in (0..out_height).flat_map(|line| (0..out_width).map(move |column| (line, column))) {
                let mut sum = 0;
                for tap in 0..shape[1] * down * across {
                    let (channel, i, j) = (tap / (down * across), tap / across % down, tap % across);
                    let row = (line * stride.0 + i).checked_sub(padding.0).filter(|row| *row < height);
                    let place = (column * stride.1 + j).checked_sub(padding.1).filter(|place| *place < width);
                    if let (Some(row), Some(place)) = (row, place) {
                        sum += w[output * shape[1] * down * across + tap]
                            * centred((channel * height + row) * width + place);
                    }
                }
                sums.push(sum);
            }
        }
        sums
    }
}

fn sides(shape: &[usize]) -> (usize, usize) {
    if shape.len() == 3 { (shape[1], shape[2]) } else { (1, shape[1]) }
}

fn pool<T: Copy>(node: &Node, x: &[T], size: usize, stride: usize, join: fn(T, T) -> T) -> Vec<T> {
    let ((height, width), (out_height, out_width)) = (sides(&node.input), sides(&node.output));
    let down = if node.input.len() == 3 { size } else { 1 };
    let mut y = Vec::new();
    for plane in x.chunks(height * width) {
        for (line, column) in (0..out_height).flat_map(|line| (0..out_width).map(move |column| (line, column))) {
            let places = (0..down).flat_map(|i| (0..size).map(move |j| (i, j)));
            let values = places.map(|(i, j)| plane[(line * stride + i) * width + column * stride + j]);
            y.push(values.reduce(join).unwrap());
        }
    }
    y
}

fn exact(release: &Release, features: &[f32], what: &str) {
    let network = release.network().unwrap();
    let parameters = release.parameters(&network);
    let sample = network.input.iter().product();
    let emulation = Emulation { release, network, parameters };
    let expected: Vec<f32> = features
        .chunks(sample)
        .flat_map(|x| match emulation.run(&emulation.network.nodes, Flow::Floats(x.to_vec())) {
            Flow::Floats(y) => y,
            Flow::Levels(..) => panic!("a network gives floats"),
        })
        .collect();
    for level in LEVELS {
        let mut engine = Engine::with_level(release, level).unwrap();
        let mut together = Vec::new();
        engine.run_into(features, &mut together).unwrap();
        assert_eq!(together, expected, "{what}, {level:?}");
        let mut alone = Vec::new();
        features.chunks(sample).for_each(|x| engine.run_into(x, &mut alone).unwrap());
        assert_eq!(alone, expected, "{what}, {level:?}, one by one");
    }
}

const NETWORKS: [(&[usize], &str); 10] = [
    (&[33], r#"[{"linear": {"out": 30}}, "relu", {"linear": {"out": 17}}, "relu", {"linear": {"out": 10}}]"#),
    (
        &[5],
        r#"[{"linear": {"out": 9}}, "batch_norm", {"linear": {"out": 8, "bias": false}}, "tanh", {"linear": {"out": 2}}]"#,
    ),
    (
        &[1, 12, 12],
        r#"[{"conv2d": {"out": 6, "kernel": 5}}, {"max_pool2d": 2}, "relu", {"conv2d": {"out": 9, "kernel": 3}}, "relu", "flatten", {"linear": {"out": 20}}, "relu", {"linear": {"out": 4}}]"#,
    ),
    (
        &[3, 9, 7],
        r#"[{"conv2d": {"out": 20, "kernel": 3, "padding": "same"}}, "batch_norm", "relu", {"conv2d": {"out": 16, "kernel": 3, "stride": 2, "padding": "same"}}, "relu", {"max_pool2d": {"size": 3, "stride": 1}}, "flatten", {"dropout": 0.5}, {"linear": {"out": 3}}]"#,
    ),
    (
        &[4, 30],
        r#"[{"conv1d": {"out": 7, "kernel": 5, "padding": "same"}}, "relu", {"max_pool1d": 2}, {"conv1d": {"out": 5, "kernel": 2, "stride": 3}}, "flatten", {"linear": {"out": 3}}]"#,
    ),
    (&[6, 8], r#"[{"linear": {"out": 10}}, "relu", {"linear": {"out": 4}}, "flatten", {"linear": {"out": 3}}]"#),
    (&[6, 8], r#"[{"linear": {"out": 10}}, "relu", {"max_pool1d": 2}, "flatten", {"linear": {"out": 3}}]"#),
    (
        &[2, 6, 6],
        r#"[{"conv2d": {"out": 2, "kernel": 3, "padding": "same"}}, {"residual": {"layers": [{"conv2d": {"out": 2, "kernel": 3, "padding": "same"}}, "relu", {"conv2d": {"out": 2, "kernel": 1}}]}}, "relu", "flatten", {"linear": {"out": 3}}]"#,
    ),
    (
        &[2, 5, 5],
        r#"[{"conv2d": {"out": 3, "kernel": 2}}, "tanh", {"max_pool2d": 2}, "flatten", {"linear": {"out": 2}}]"#,
    ),
    (&[300], r#"[{"linear": {"out": 129}}, "relu", {"linear": {"out": 3}}]"#),
];

#[test]
fn integer_networks_give_exactly_what_plain_integers_give() {
    for (index, (shape, json)) in NETWORKS.iter().enumerate() {
        for bits in [8, 4, 2] {
            let float = release(Classification, shape, layers(json), index as u64);
            let features = random_normals(float.shape.iter().product::<usize>() * 5, 3);
            exact(&integers(float, bits, &features), &features, &format!("{bits} bits, {json}"));
        }
    }
}

#[test]
fn one_scale_a_tensor_and_fixed_point_are_integers_too() {
    for (index, (shape, json)) in NETWORKS.iter().enumerate() {
        let float = release(Classification, shape, layers(json), index as u64);
        let features = random_normals(float.shape.iter().product::<usize>() * 3, 4);
        let inputs = calibrate(&float, &features).unwrap();
        for form in 0..2 {
            let mut release = float.clone();
            release.inputs = inputs.clone();
            let weights = releases::weights(&release);
            releases::rewrite(&mut release, &weights, |_, values| {
                let values = if form == 0 {
                    let levels = values.iter().map(|value| (value * 60.0).round().clamp(-127.0, 127.0) as i8).collect();
                    Values::Integer { bits: 8, scales: vec![1.0 / 60.0], levels }
                } else {
                    let levels =
                        values.iter().map(|value| (value * 64.0).round().clamp(-128.0, 127.0) as i16).collect();
                    Values::Fixed { places: 6, bits: 8, levels }
                };
                Compressed { kept: None, values }
            });
            exact(&release, &features, json);
        }
    }
}

#[test]
fn extreme_levels_do_not_saturate() {
    let mut release = release(Classification, &[1000], layers(r#"[{"linear": {"out": 2, "bias": false}}]"#), 1);
    let levels = (0..2000).map(|index| if index % 2 == 0 { 127 } else { -127 }).collect();
    release.tensors[0] = Compressed { kept: None, values: Values::Integer { bits: 8, scales: vec![1.0], levels } };
    release.inputs[0] = Some(InputRange { low: 0.0, high: 255.0 });
    let features = vec![1e9; 2000];
    exact(&release, &features, "255 · 127, a thousand times");
}

#[test]
fn integer_networks_come_close_to_their_floats() {
    let features = releases::images(60, 0.4, 9);
    for name in ["lenet-300-100", "lenet-5", "fedavg-cnn"] {
        let float = preset_release(name, 7);
        let integer = integers(float.clone(), 8, &features);
        exact(&integer, &features[..784 * 2], name);
        let outputs = |release: &Release| {
            let mut outputs = Vec::new();
            Engine::new(release).unwrap().run_into(&features, &mut outputs).unwrap();
            outputs
        };
        let (float, integer) = (outputs(&float), outputs(&integer));
        let power = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
        let noise = power(&mut float.iter().zip(&integer).map(|(a, b)| a - b)) / power(&mut float.iter().copied());
        assert!(noise.sqrt() < 0.02, "{name}: relative error {}", noise.sqrt());
    }
}
