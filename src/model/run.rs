//! Which engine runs a model: ours, or burn with either backend.

use anyhow::{Context, Result};
use clap::ValueEnum;
use starling_compress::Release;
use starling_engine::{Engine, Inference, InferenceError};
use starling_model::BurnInference;
use starling_spec::{Backend, TaskPlan};

use super::file::{ModelFile, Weights};

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum EngineChoice {
    /// Starling's own kernels
    Starling,
    /// burn on its flex backend
    BurnFlex,
    /// burn on its ndarray backend
    BurnNdarray,
}

impl EngineChoice {
    /// The name that the command line knows it by.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Starling => "starling",
            Self::BurnFlex => "burn-flex",
            Self::BurnNdarray => "burn-ndarray",
        }
    }
}

/// A model ready to run, and what is known of it.
pub(super) struct Ready {
    /// The network's plan, or as much of it as a release knows.
    pub(super) inference: Box<dyn Inference>,
    /// What computes.
    pub(super) engine: EngineChoice,
    /// Bytes of weights that one run reads; known of our engine.
    pub(super) weight_bytes: Option<usize>,
    /// Multiply-accumulates a sample, kept weights only; unknown where our engine does not know the network.
    pub(super) macs: Option<u64>,
}

/// `model` on the engine asked for: by default a release on ours, weights on `weights_on`.
pub(super) fn ready(model: &ModelFile, asked: Option<EngineChoice>, weights_on: EngineChoice) -> Result<Ready> {
    match model {
        ModelFile::Release(release) => on(release, asked.unwrap_or(EngineChoice::Starling)),
        ModelFile::Weights(weights) => {
            let Weights { plan, parameters, .. } = &**weights;
            let engine = asked.unwrap_or(weights_on);
            match engine {
                EngineChoice::Starling => on(&Release::float(plan, parameters), engine),
                _ => on_burn(plan, parameters, engine),
            }
        }
    }
}

fn on(release: &Release, engine: EngineChoice) -> Result<Ready> {
    let macs = starling_engine::multiply_accumulates(release).ok();
    if engine == EngineChoice::Starling {
        let engine = Engine::new(release).context("the engine cannot run this model")?;
        let weight_bytes = Some(engine.weight_bytes());
        return Ok(Ready { inference: Box::new(engine), engine: EngineChoice::Starling, weight_bytes, macs });
    }
    let network = release.network()?;
    let ready = on_burn(&plan_of(release), &release.parameters(&network), engine)?;
    Ok(Ready { macs, ..ready })
}

fn on_burn(plan: &TaskPlan, parameters: &[f32], engine: EngineChoice) -> Result<Ready> {
    let backend = if engine == EngineChoice::BurnNdarray { Backend::Ndarray } else { Backend::Flex };
    let inference = BurnInference::new(plan, parameters, backend)?;
    let macs = starling_engine::multiply_accumulates(&Release::float(plan, parameters)).ok();
    Ok(Ready { inference: Box::new(inference), engine, weight_bytes: None, macs })
}

/// The plan of a release's network: what is not of the network has its defaults.
pub(super) fn plan_of(release: &Release) -> TaskPlan {
    let update = starling_spec::UpdateSettings {
        codec: starling_spec::CodecSpec::F32,
        down: starling_spec::CodecSpec::F32,
        value_max_log2: 4,
        weight_max: 1,
    };
    TaskPlan {
        name: release.name.clone(),
        kind: release.kind,
        shape: release.shape.clone(),
        scale: release.scale,
        standardise: release.standardise.clone(),
        moments: None,
        layers: release.layers.clone(),
        backend: Backend::Auto,
        train: starling_spec::TrainSettings::default(),
        update,
        holdout: 0.0,
        holdout_seed: None,
        seed: 0,
        privacy: None,
    }
}

/// An inference whose outputs are kept.
pub(super) struct Recorded<'a> {
    /// Who computes.
    pub(super) inner: &'a mut dyn Inference,
    /// All outputs so far.
    pub(super) outputs: Vec<f32>,
}

impl Inference for Recorded<'_> {
    fn input_len(&self) -> usize {
        self.inner.input_len()
    }

    fn output_len(&self) -> usize {
        self.inner.output_len()
    }

    fn run_into(&mut self, features: &[f32], outputs: &mut Vec<f32>) -> Result<(), InferenceError> {
        let from = outputs.len();
        self.inner.run_into(features, outputs)?;
        self.outputs.extend_from_slice(&outputs[from..]);
        Ok(())
    }
}
