//! Layers that compute with signs.

use starling_spec::shape::Op;

use super::float::{Convolution, biases, narrow};
use super::follow::{Follow, Image, bits_wanted};
use super::{Domain, Walk};
use crate::error::EngineError;
use crate::kernel::binary::{BITS, Limit, Panels, Threshold, Thresholds};
use crate::step::binary::{BinaryConvolution, BinaryLinear, Finish, Layout, Pack};

impl Walk<'_> {
    /// A linear layer or a convolution over signs. A sign that follows closely is taken on: its outputs are signs again.
    pub(super) fn binary(&mut self, at: usize, follow: &Follow) -> Result<usize, EngineError> {
        let (tensors, node, isa) = (self.lowering.tensors, self.nodes[at], self.lowering.isa);
        let convolution = Convolution::of(tensors, node)?;
        let image = self.packed(at, convolution.is_some());
        let (weight, bias) = match (&convolution, &node.op) {
            (Some(convolution), _) => (convolution.weight, convolution.bias),
            (None, Op::Linear { weight, bias, .. }) => (*weight, *bias),
            (None, op) => unreachable!("{op:?} has no binary form"),
        };
        let weights = tensors.weights(weight);
        let positive = weights.positive();
        let bits = !follow.relu && bits_wanted(tensors, &self.nodes, at, follow.next);
        let biases = biases(tensors, bias, &follow.norm);
        let factors = weights.scales().into_iter().zip(&follow.norm.factor);
        let factors: Vec<f64> = factors.map(|(scale, factor)| f64::from(scale) * factor).collect();
        let fan_in = i32::try_from(weights.fan_in()).unwrap_or(i32::MAX / 2);
        let finish = if bits {
            let value = |(factor, bias): (&f64, &f64)| {
                let (factor, bias) = (*factor, *bias);
                Limit::of_monotone(fan_in, move |dot| f64::from(dot) * factor + bias)
            };
            Finish::Bits(factors.iter().zip(&biases).map(value).collect())
        } else {
            let factor = factors.iter().map(|factor| narrow(*factor)).collect();
            let offset = biases.iter().map(|bias| narrow(*bias)).collect();
            Finish::Floats { factor, offset, relu: follow.relu }
        };
        let output = match (bits, &convolution) {
            (true, Some(_)) => Domain::Bits { image: Some(Image::of(&node.output)) },
            (true, None) => Domain::Bits { image: None },
            (false, _) => Domain::Floats { signs: false },
        };
        let counts = Vec::new();
        if let Some(convolution) = convolution {
            let (window, each) = (convolution.window, convolution.window.channels.div_ceil(BITS));
            let mut panels = Panels::new(factors.len(), window.kernel.0 * window.kernel.1 * each);
            for index in (0..positive.len()).filter(|index| positive[*index]) {
                let (unit, channel, down, across) = convolution.place(index);
                panels.set(unit, (down * window.kernel.1 + across) * each + channel / BITS, channel % BITS);
            }
            self.push(BinaryConvolution { isa, panels, window, finish, runs: Vec::new(), counts }, output);
        } else {
            let (inputs, units) = (weights.shape()[0], weights.shape()[1]);
            // The inputs of an image come in whole words a position.
            let place = |input: usize| match image {
                Some(image) => {
                    let (channel, position) = (input / image.positions, input % image.positions);
                    (position * image.channels.div_ceil(BITS) + channel / BITS, channel % BITS)
                }
                None => (input / BITS, input % BITS),
            };
            let words = image.map_or(inputs.div_ceil(BITS), |image| image.positions * image.channels.div_ceil(BITS));
            let mut panels = Panels::new(units, words);
            for index in (0..positive.len()).filter(|index| positive[*index]) {
                let (word, bit) = place(index / units);
                panels.set(index % units, word, bit);
            }
            let rows = node.input.iter().product::<usize>() / inputs;
            self.push(BinaryLinear { isa, panels, inputs: fan_in, rows, finish, counts }, output);
        }
        // The sign went into the limits.
        Ok(follow.next + usize::from(bits))
    }

    /// Packs floats that are signs, unless they come packed; gives the image whose positions come in whole words to a linear
    /// layer.
    fn packed(&mut self, at: usize, convolution: bool) -> Option<Image> {
        if let Domain::Bits { image } = self.domain {
            return image;
        }
        let (isa, input) = (self.lowering.isa, &self.nodes[at].input);
        let signs = |count| Thresholds::new(std::iter::repeat_n(Threshold::SIGN, count));
        if convolution {
            let image = Image::of(input);
            let layout = Layout::Image { positions: image.positions };
            self.push(Pack { isa, thresholds: signs(image.channels), layout }, Domain::Bits { image: Some(image) });
        } else {
            let row = input[input.len() - 1];
            let layout = Layout::Rows { rows: input.iter().product::<usize>() / row };
            self.push(Pack { isa, thresholds: signs(row), layout }, Domain::Bits { image: None });
        }
        None
    }
}
