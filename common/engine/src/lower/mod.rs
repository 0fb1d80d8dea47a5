//! From layers to steps: which kernel runs a layer, and what is fused into it.

use starling_compress::Release;
use starling_spec::SpecError;
use starling_spec::shape::{Network, Node, Op};

use crate::error::EngineError;
use crate::isa::Isa;
use crate::kernel::dense::Panels;
use crate::step::Step;
use crate::step::activation::{Apply, Function};
use crate::step::linear::DenseLinear;
use crate::weights::Weights;

/// The steps of a checked release.
pub(crate) fn lower(release: &Release, network: &Network, isa: Isa) -> Result<Vec<Box<dyn Step>>, EngineError> {
    Lowering { release, network, isa }.nodes(&network.nodes)
}

struct Lowering<'a> {
    release: &'a Release,
    network: &'a Network,
    isa: Isa,
}

impl<'a> Lowering<'a> {
    fn weights(&self, tensor: usize) -> Weights<'a> {
        Weights::new(&self.network.manifest.tensors[tensor], &self.release.tensors[tensor])
    }

    fn nodes(&self, nodes: &[Node]) -> Result<Vec<Box<dyn Step>>, EngineError> {
        let mut steps: Vec<Box<dyn Step>> = Vec::new();
        for node in nodes {
            let len = node.output.iter().product();
            match &node.op {
                Op::Linear { weight, bias, .. } => steps.push(self.linear(node, *weight, *bias)),
                Op::Relu => steps.push(Box::new(Apply { function: Function::Relu, len })),
                Op::Flatten | Op::Dropout { .. } => {}
                op => {
                    let problem = format!("{op:?} cannot be run yet");
                    return Err(SpecError::value("model.layers", "…", problem).into());
                }
            }
        }
        Ok(steps)
    }

    fn linear(&self, node: &Node, weight: usize, bias: Option<usize>) -> Box<dyn Step> {
        let weights = self.weights(weight);
        let (inputs, outputs) = (weights.shape()[0], weights.shape()[1]);
        let bias = bias.map_or_else(|| vec![0.0; outputs], |bias| self.weights(bias).dense());
        let mut panels = Panels::new(inputs, &bias);
        weights.each(|index, value| *panels.weight_mut(index / outputs, index % outputs) = value);
        let rows = node.input.iter().product::<usize>() / inputs;
        Box::new(DenseLinear { isa: self.isa, panels, rows, relu: false })
    }
}
