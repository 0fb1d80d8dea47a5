//! A network's layers in parts: graphs of burn's, and between them the chains that need none.
//!
//! A batch passes from part to part as plain values. On the way back each part takes the gradient of the loss by its outputs as a
//! constant, `d(outputs · constant)/d(outputs)` being the constant: the loss enters the last graph this way, and every
//! chain the graph before it.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use starling_spec::shape::{self, Node};
use starling_spec::{Backend, ParamRole};

use crate::backend::{choose, device};
use crate::chain::{Chain, ChainBuffers, ChainWeights};
use crate::error::ModelError;
use crate::forward::{MaskKey, Pass};
use crate::tensors::{Act, Leaf, values};
use crate::train::Answers;

/// The layers of a network and what computes them.
#[derive(Debug)]
pub(crate) struct Executor {
    pub(crate) shape: Arc<shape::Network>,
    parts: Vec<Part>,
    /// For each tensor of the manifest, whether a chain computes with it.
    chained: Vec<bool>,
    /// What trains the graphs.
    pub(crate) backend: Backend,
    train_device: Device,
    evaluate_device: Device,
}

#[derive(Debug)]
enum Part {
    /// The nodes that burn computes.
    Graph(Range<usize>),
    Chain(Box<Chain>),
}

/// What is used again from batch to batch, for each part.
#[derive(Debug, Default)]
pub(crate) struct PartBuffers(Vec<(ChainWeights, ChainBuffers)>);

/// Parameters as the parts compute with them in an evaluation.
#[derive(Debug)]
pub(crate) struct Prepared {
    leaves: Vec<Leaf>,
    chains: Vec<ChainWeights>,
}

/// What a batch teaches.
pub(crate) struct Backward {
    /// The gradient of each tensor of the manifest; `None` where it is not trainable or the outputs do not depend on it.
    pub(crate) gradients: Vec<Option<Vec<f32>>>,
    /// While training: tensors of running statistics, and what this batch says of them.
    pub(crate) statistics: Vec<(usize, Vec<f32>)>,
}

/// A graph between two parts: what went in, if anything before it wants a gradient, and what came out.
type Graph = (Option<Act>, Tensor<2>);

impl Executor {
    /// The parts of `shape` for the backend that was asked for: with [`Backend::Auto`] chains where there are any.
    pub(crate) fn new(shape: shape::Network, asked: Backend) -> Self {
        let (train, evaluate) = choose(asked, &shape.nodes);
        let mut parts: Vec<Part> = Vec::new();
        let mut chained = vec![false; shape.manifest.tensors.len()];
        let mut at = 0;
        while at < shape.nodes.len() {
            let chain = Chain::of(&shape.nodes[at..], &shape.manifest).filter(|_| asked == Backend::Auto);
            if let Some((chain, count)) = chain {
                chain.tensors().for_each(|index| chained[index] = true);
                parts.push(Part::Chain(Box::new(chain)));
                at += count;
                continue;
            }
            match parts.last_mut() {
                Some(Part::Graph(nodes)) => nodes.end += 1,
                _ => parts.push(Part::Graph(at..at + 1)),
            }
            at += 1;
        }
        let (train_device, evaluate_device) = (device(train), device(evaluate));
        Self { shape: Arc::new(shape), parts, chained, backend: train, train_device, evaluate_device }
    }

    /// The gradients of a batch. `tensors` are the parameters, tensor by tensor: graphs take them and give them back, without a
    /// copy where nobody else holds them; after an error they are gone. With `masks` the pass is one of training. `slope`
    /// takes the outputs and gives the gradient of the loss by them.
    pub(crate) fn backward(
        &self,
        tensors: &mut [Vec<f32>],
        buffers: &mut PartBuffers,
        features: Vec<f32>,
        batch: usize,
        masks: Option<MaskKey>,
        slope: &mut Answers<'_>,
    ) -> Result<Backward, ModelError> {
        let device = &self.train_device;
        let leaves = self.leaves(device, |index, tensor| {
            let leaf = Leaf::new(std::mem::take(&mut tensors[index]), tensor, device);
            if tensor.role == ParamRole::Trainable { leaf.tracked() } else { leaf }
        });
        buffers.0.resize_with(self.parts.len(), Default::default);
        let mut pass = Pass { leaves: &leaves, device, batch, masks, moments: Vec::new() };
        let mut graphs: Vec<Option<Graph>> = Vec::with_capacity(self.parts.len());
        let mut x = features;
        for (index, part) in self.parts.iter().enumerate() {
            match part {
                Part::Graph(range) => {
                    let nodes = &self.shape.nodes[range.clone()];
                    let input = Act::new(x, batch, &nodes[0].input, device);
                    let input = if index > 0 { input.tracked() } else { input };
                    let outputs = pass.run(nodes, input.clone()).flat(batch, output_len(nodes));
                    x = values(outputs.clone().without_autodiff());
                    graphs.push(Some(((index > 0).then_some(input), outputs)));
                }
                Part::Chain(chain) => {
                    let (weights, buffers) = &mut buffers.0[index];
                    chain.pack(|tensor| &tensors[tensor], true, weights);
                    x = chain.forward(weights, buffers, &x, batch, true);
                    graphs.push(None);
                }
            }
        }
        let moments = pass.moments;
        let mut slope = slope(&x)?;
        let mut gradients: Vec<Option<Vec<f32>>> = vec![None; tensors.len()];
        for (index, (part, graph)) in self.parts.iter().zip(graphs).enumerate().rev() {
            match (part, graph) {
                (Part::Chain(chain), _) => {
                    let (weights, buffers) = &mut buffers.0[index];
                    let mut found = |tensor: usize, gradient| gradients[tensor] = Some(gradient);
                    slope = chain.backward(weights, buffers, &slope, index > 0, &mut found).unwrap_or_default();
                }
                (Part::Graph(_), Some((input, outputs))) => {
                    let shape = outputs.dims();
                    let constant: Tensor<2> = Tensor::from_data(TensorData::new(slope, shape), device);
                    let outputs = outputs * constant;
                    slope = Vec::new();
                    // A first part without parameters, such as a flattening before a pool.
                    if !outputs.is_autodiff() {
                        continue;
                    }
                    let mut found = outputs.sum().backward();
                    for (gradient, leaf) in gradients.iter_mut().zip(&leaves) {
                        *gradient = gradient.take().or_else(|| leaf.gradient(&mut found));
                    }
                    if let Some(input) = input {
                        slope = input.gradient(&mut found).unwrap_or_else(|| vec![0.0; input.len()]);
                    }
                }
                (Part::Graph(_), None) => unreachable!("the forward pass made a graph for each"),
            }
        }
        for ((leaf, tensor), chained) in leaves.into_iter().zip(tensors).zip(&self.chained) {
            if !chained {
                *tensor = leaf.into_values();
            }
        }
        let moments = moments.into_iter().flat_map(|batch| [batch.mean, batch.variance]);
        let statistics = moments.map(|(index, moment)| (index, values(moment))).collect();
        Ok(Backward { gradients, statistics })
    }

    /// Flat parameters, made ready for [`Executor::outputs`].
    pub(crate) fn prepare(&self, parameters: &[f32]) -> Prepared {
        let device = &self.evaluate_device;
        let leaves = self.leaves(device, |_, tensor| Leaf::new(parameters[tensor.range()].to_vec(), tensor, device));
        let manifest = &self.shape.manifest;
        let pack = |part: &Part| {
            let mut weights = ChainWeights::default();
            if let Part::Chain(chain) = part {
                chain.pack(|tensor| &parameters[manifest.tensors[tensor].range()], false, &mut weights);
            }
            weights
        };
        Prepared { leaves, chains: self.parts.iter().map(pack).collect() }
    }

    /// The outputs for `features`, `batch` samples.
    pub(crate) fn outputs(&self, prepared: &Prepared, features: Vec<f32>, batch: usize) -> Vec<f32> {
        let device = &self.evaluate_device;
        let mut pass = Pass { leaves: &prepared.leaves, device, batch, masks: None, moments: Vec::new() };
        self.parts.iter().zip(&prepared.chains).fold(features, |x, (part, weights)| match part {
            Part::Graph(range) => {
                let nodes = &self.shape.nodes[range.clone()];
                let x = Act::new(x, batch, &nodes[0].input, device);
                values(pass.run(nodes, x).flat(batch, output_len(nodes)))
            }
            Part::Chain(chain) => chain.forward(weights, &mut ChainBuffers::default(), &x, batch, false),
        })
    }

    /// A leaf for each tensor; `make` is asked for those that graphs compute with.
    fn leaves(&self, device: &Device, mut make: impl FnMut(usize, &starling_spec::ParamTensor) -> Leaf) -> Vec<Leaf> {
        let tensors = self.shape.manifest.tensors.iter().zip(&self.chained).enumerate();
        tensors
            .map(|(index, (tensor, chained))| if *chained { Leaf::absent(device) } else { make(index, tensor) })
            .collect()
    }
}

/// Values of a sample behind `nodes`.
fn output_len(nodes: &[Node]) -> usize {
    nodes.last().map_or(0, |node| node.output.iter().product())
}
