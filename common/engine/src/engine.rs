//! The engine: a release, ready to run.

use std::fmt;

use starling_compress::Release;
use starling_spec::shape::{Network, Node, Op};

use crate::buffers::{Buffers, room};
use crate::calibrate::Seen;
use crate::check::check;
use crate::error::{EngineError, InferenceError};
use crate::inference::Inference;
use crate::isa::{Isa, Level};
use crate::kernel::value::finite;
use crate::lower::{lower, lower_observed};
use crate::step::Step;

/// Samples that go through the layers together, at most: weights are read once for all of them.
const BATCH_MAX: usize = 64;

/// Values of the largest activation of such a batch, unless one sample alone has more.
const BATCH_VALUES_MAX: usize = 1 << 20;

/// A release, ready to run on one thread.
pub struct Engine {
    input_len: usize,
    output_len: usize,
    /// Rows of the embedding, where the features are tokens.
    tokens: Option<usize>,
    batch_max: usize,
    steps: Vec<Box<dyn Step>>,
    buffers: Buffers,
    isa: Isa,
}

impl Engine {
    /// An engine for `release` that uses the best instructions of this processor.
    ///
    /// # Errors
    /// [`EngineError`] names the tensor that is not what the layers or its own form ask for.
    pub fn new(release: &Release) -> Result<Self, EngineError> {
        Self::with_level(release, Level::Avx512)
    }

    /// The same, with instructions up to `limit` only: for comparing kernels.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn with_level(release: &Release, limit: Level) -> Result<Self, EngineError> {
        let network = check(release)?;
        let isa = Isa::up_to(limit);
        let steps = lower(release, &network, isa)?;
        Ok(Self::of_steps(&network, steps, isa, Buffers::default()))
    }

    /// An engine in floats throughout that notes what it multiplies the tensors of `seen` with.
    pub(crate) fn observing(
        release: &Release,
        network: &Network,
        seen: Vec<Option<Seen>>,
    ) -> Result<Self, EngineError> {
        let isa = Isa::up_to(Level::Avx512);
        let steps = lower_observed(release, network, isa)?;
        Ok(Self::of_steps(network, steps, isa, Buffers::observing(seen)))
    }

    /// What was noted.
    pub(crate) fn seen(&mut self) -> &mut [Option<Seen>] {
        &mut self.buffers.seen
    }

    fn of_steps(network: &Network, steps: Vec<Box<dyn Step>>, isa: Isa, buffers: Buffers) -> Self {
        let tokens = match network.nodes.first().map(|node| &node.op) {
            Some(Op::Embedding { tokens, .. }) => Some(*tokens),
            _ => None,
        };
        Self {
            input_len: network.input.iter().product(),
            output_len: network.output.iter().product(),
            tokens,
            batch_max: batch_max(network),
            steps,
            buffers,
            isa,
        }
    }

    /// Bytes of weights, biases and tables that it keeps in memory. Activations come on top: a few times the largest one.
    pub fn weight_bytes(&self) -> usize {
        self.steps.iter().map(|step| step.weight_bytes()).sum()
    }

    /// The instructions that it uses.
    pub fn level(&self) -> Level {
        self.isa.level()
    }

    fn check(&self, features: &[f32]) -> Result<(), InferenceError> {
        if !features.len().is_multiple_of(self.input_len) {
            return Err(InferenceError::Length { found: features.len(), sample: self.input_len });
        }
        if !finite(self.isa, features) {
            let index = features.iter().position(|value| !value.is_finite()).unwrap_or(0);
            return Err(InferenceError::Feature { index, value: features[index] });
        }
        let Some(tokens) = self.tokens else { return Ok(()) };
        match features.iter().position(|value| !(*value >= 0.0 && f64::from(*value) < tokens as f64)) {
            Some(index) => Err(InferenceError::Token { index, value: features[index], tokens }),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Engine {
    /// Sizes: its weights would fill pages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("input_len", &self.input_len)
            .field("output_len", &self.output_len)
            .field("weight_bytes", &self.weight_bytes())
            .field("level", &self.level())
            .finish_non_exhaustive()
    }
}

impl Inference for Engine {
    fn input_len(&self) -> usize {
        self.input_len
    }

    fn output_len(&self) -> usize {
        self.output_len
    }

    fn run_into(&mut self, features: &[f32], outputs: &mut Vec<f32>) -> Result<(), InferenceError> {
        self.check(features)?;
        for features in features.chunks(self.batch_max * self.input_len) {
            let batch = features.len() / self.input_len;
            self.buffers.rewind();
            room(&mut self.buffers.x.floats, features.len())[..features.len()].copy_from_slice(features);
            for step in &mut self.steps {
                step.run(batch, &mut self.buffers);
            }
            outputs.extend_from_slice(&self.buffers.x.floats[..batch * self.output_len]);
        }
        Ok(())
    }
}

fn batch_max(network: &Network) -> usize {
    let largest = largest(&network.nodes).max(network.input.iter().product());
    (BATCH_VALUES_MAX / largest.max(1)).clamp(1, BATCH_MAX)
}

/// Values of the largest output of a sample.
fn largest(nodes: &[Node]) -> usize {
    let inner = |node: &Node| match &node.op {
        Op::Residual(nodes) => largest(nodes),
        _ => 0,
    };
    nodes.iter().map(|node| node.output.iter().product::<usize>().max(inner(node))).max().unwrap_or(0)
}
