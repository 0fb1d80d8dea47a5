//! Layers that compute with integer levels.

use starling_spec::shape::{Node, Op};

use super::float::{Convolution, biases, narrow};
use super::follow::{Follow, Image, levels_wanted};
use super::{Domain, Walk};
use crate::error::EngineError;
use crate::kernel::integer::{Panels, Quantiser};
use crate::step::integer::{Finish, IntegerConvolution, IntegerLinear, Quantise, Scratch, Target};

impl Walk<'_> {
    /// A linear layer or a convolution over levels of `quantiser`. It gives the levels of the next integer layer where that
    /// follows closely, and floats otherwise.
    pub(super) fn integer(&mut self, at: usize, quantiser: Quantiser, follow: &Follow) -> Result<usize, EngineError> {
        let (tensors, node, isa) = (self.lowering.tensors, self.nodes[at], self.lowering.isa);
        let wanted = levels_wanted(tensors, &self.nodes, at, follow.next);
        let convolution = Convolution::of(tensors, node)?;
        let (weight, bias) = match (&convolution, &node.op) {
            (Some(convolution), _) => (convolution.weight, convolution.bias),
            (None, Op::Linear { weight, bias, .. }) => (*weight, *bias),
            (None, op) => unreachable!("{op:?} has no integer form"),
        };
        let weights = tensors.weights(weight);
        let levels = weights.levels().expect("an integer form was found for it");
        let finish = finish(&weights.scales(), &biases(tensors, bias, &follow.norm), quantiser, wanted, follow);
        let image = self.quantised(quantiser, convolution.is_some(), node);
        let output = match wanted {
            Some(quantiser) => {
                let image = convolution.as_ref().map(|_| Image::of(&node.output));
                Domain::Levels { quantiser, image }
            }
            None => Domain::Floats { signs: false },
        };
        if let Some(convolution) = convolution {
            let window = convolution.window;
            let mut panels = Panels::new(isa, window.kernel.0, window.kernel.1 * window.channels, finish.factor.len());
            weights.each_level(levels, |index, level| {
                let (output, channel, down, across) = convolution.place(index);
                *panels.weight_mut(down, across * window.channels + channel, output) = level;
            });
            panels.centre(quantiser.zero);
            let finish = finish.padded(panels.padded());
            let starts = IntegerConvolution::starts(&window);
            let (zero, padded, sums) = (quantiser.zero, Vec::new(), Vec::new());
            self.push(IntegerConvolution { isa, panels, window, zero, starts, finish, padded, sums }, output);
        } else {
            let (inputs, outputs) = (weights.shape()[0], weights.shape()[1]);
            let mut panels = Panels::new(isa, 1, inputs, outputs);
            weights.each_level(levels, |index, level| {
                let (input, output) = (index / outputs, index % outputs);
                // The inputs of an image come with its channels last.
                let place =
                    image.map_or(input, |image| input % image.positions * image.channels + input / image.positions);
                *panels.weight_mut(0, place, output) = level;
            });
            panels.centre(quantiser.zero);
            let finish = finish.padded(panels.padded());
            let rows = node.input.iter().product::<usize>() / inputs;
            self.push(IntegerLinear { isa, panels, inputs, rows, finish, scratch: Scratch::default() }, output);
        }
        Ok(follow.next)
    }

    /// Makes levels of floats, unless they come as such already; gives the image whose channels come last in the inputs of a
    /// linear layer.
    fn quantised(&mut self, quantiser: Quantiser, convolution: bool, node: &Node) -> Option<Image> {
        match self.domain {
            Domain::Levels { image, .. } => image,
            _ => {
                let isa = self.lowering.isa;
                let Image { channels, positions } = if convolution {
                    Image::of(&node.input)
                } else {
                    Image { channels: 1, positions: node.input.iter().product() }
                };
                let step = Quantise { isa, quantiser, channels, values: positions, line: Vec::new() };
                self.push(step, Domain::Levels { quantiser, image: None });
                None
            }
        }
    }
}

/// From sums to values, `sum · scale of the inputs · scale of the weights`, normalised; or further to the levels that are
/// wanted.
fn finish(scales: &[f32], biases: &[f64], quantiser: Quantiser, wanted: Option<Quantiser>, follow: &Follow) -> Finish {
    let factors = scales.iter().zip(&follow.norm.factor);
    let factor: Vec<f64> =
        factors.map(|(scale, factor)| f64::from(quantiser.scale) * f64::from(*scale) * factor).collect();
    match wanted {
        None => Finish {
            factor: factor.into_iter().map(narrow).collect(),
            offset: biases.iter().map(|bias| narrow(*bias)).collect(),
            target: Target::Floats { relu: follow.relu },
        },
        Some(next) => {
            let (step, zero) = (f64::from(next.scale), f64::from(next.zero));
            let low = if follow.relu { f32::from(next.zero) } else { 0.0 };
            Finish {
                factor: factor.into_iter().map(|factor| narrow(factor / step)).collect(),
                offset: biases.iter().map(|bias| narrow(bias / step + zero)).collect(),
                target: Target::Levels { low },
            }
        }
    }
}

impl Finish {
    /// Filled up to whole panels.
    fn padded(mut self, len: usize) -> Self {
        self.factor.resize(len, 0.0);
        self.offset.resize(len, 0.0);
        self
    }
}
