//! A release that is ready to serve: decoded, known to run, with the scaling of its features.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use starling_compress::Release;
use starling_data::Scaler;
use starling_engine::{Engine, EngineError, Inference};
use starling_spec::{DataSection, TaskKind};
use starling_wire::{ReleaseOffer, ReleaseRefusal};

use super::codec::Shape;
use super::verified::Verified;
use crate::config::TaskBinding;
use crate::learner::with_causes;

/// Shared by all connections; each builds an [`Engine`] of its own from it.
#[derive(Debug)]
pub(crate) struct Model {
    offer: ReleaseOffer,
    release: Release,
    scaler: Scaler,
    input_len: usize,
    output_len: usize,
    width: usize,
}

impl Model {
    /// Builds an engine, runs a sample through it, and fits the scaling to the data of `binding`. Blocks: the data may have
    /// to be read.
    ///
    /// # Errors
    /// [`ReleaseRefusal::NotRunnable`] or [`ReleaseRefusal::NoScaling`]; the log says more.
    pub(crate) fn prepare(verified: Verified, binding: &TaskBinding) -> Result<Self, ReleaseRefusal> {
        let (offer, release) = verified.into_parts();
        let (task, version) = (offer.task.as_str(), offer.version);
        let width = catch_unwind(AssertUnwindSafe(|| try_out(&release))).unwrap_or_else(|_| Err("it panicked".into()));
        let width = width.map_err(|error| {
            tracing::warn!(task, version, error, "the engine cannot run a release");
            ReleaseRefusal::NotRunnable
        })?;
        let (input_len, output_len) = (width.0, width.1);
        let section = DataSection {
            scale: release.scale,
            standardise: release.standardise.clone(),
            shape: release.shape.clone(),
            context: (release.kind == TaskKind::NextToken).then(|| release.shape.first().copied()).flatten(),
            test: None,
            test_labels: None,
            ..binding.data.clone()
        };
        // A task's seed matters only to a test fraction, which a device has no use for.
        let scaler = Scaler::fit(&section, release.kind, &release.shape, Path::new(""), 0).map_err(|error| {
            let error = with_causes(&error);
            tracing::warn!(task, version, error, "the scaling of a release cannot be fitted to the device's data");
            ReleaseRefusal::NoScaling
        })?;
        Ok(Self { offer, release, scaler, input_len, output_len, width: width.2 })
    }

    /// What was announced of it.
    pub(crate) fn offer(&self) -> &ReleaseOffer {
        &self.offer
    }

    /// Values a sample.
    pub(crate) fn input_len(&self) -> usize {
        self.input_len
    }

    /// An engine for one thread.
    ///
    /// # Errors
    /// None that [`Model::prepare`] has not seen.
    pub(crate) fn engine(&self) -> Result<Engine, EngineError> {
        Engine::new(&self.release)
    }

    /// Raw features to inputs, where they are.
    pub(crate) fn scale(&self, features: &mut [f32]) {
        self.scaler.scale(features);
    }

    /// What an answer to `samples` samples says of its outputs; `None` when it has more than can be counted.
    pub(crate) fn shape(&self, samples: u32) -> Option<Shape> {
        let outputs = u32::try_from(self.output_len).ok()?;
        let width = u32::try_from(self.width).ok()?;
        Some(Shape { kind: self.release.kind, version: self.offer.version, samples, outputs, width })
    }
}

/// Values a sample in and out, and of one position, of a release that runs.
fn try_out(release: &Release) -> Result<(usize, usize, usize), String> {
    let mut engine = Engine::new(release).map_err(|error| with_causes(&error))?;
    let (input, output) = (engine.input_len(), engine.output_len());
    engine.run_into(&vec![0.0; input], &mut Vec::new()).map_err(|error| error.to_string())?;
    let network = release.network().map_err(|error| error.to_string())?;
    let width = if release.kind == TaskKind::Regression { 1 } else { network.output.last().copied().unwrap_or(1) };
    Ok((input, output, width.max(1)))
}

#[cfg(test)]
pub(crate) mod tests {
    use starling_compress::Compressed;
    use starling_compress::tensor::Values;
    use starling_spec::layer::Linear;
    use starling_spec::{Layer, Scale};
    use starling_wire::Digest;

    use super::*;
    use crate::serving::verified::{Basis, verify};

    /// A release of the task "digits": two outputs, the sum of the pixels times ±`weight`.
    pub(crate) fn release_bytes(weight: f32) -> Vec<u8> {
        let weights = (0..128).map(|index| if index % 2 == 0 { weight } else { -weight });
        let release = Release {
            name: "digits".into(),
            kind: TaskKind::Classification,
            shape: vec![64],
            scale: Scale::Unit,
            standardise: None,
            layers: vec![Layer::Linear(Linear { out: 2, bias: false, binary: false })],
            tensors: vec![Compressed::dense(weights.collect())],
            inputs: vec![None],
        };
        release.to_bytes()
    }

    /// A release that can be read, but asks for more working memory than the engine gives a layer.
    pub(crate) fn unrunnable_bytes() -> Vec<u8> {
        let conv = r#"{"conv2d": {"out": 1, "kernel": 1501, "padding": "same", "bias": false}}"#;
        let layers = format!(r#"[{conv}, "global_avg_pool", {{"linear": {{"out": 2, "bias": false}}}}]"#);
        let pruned = || Compressed { kept: Some(vec![]), values: Values::F32(vec![]) };
        let release = Release {
            name: "digits".into(),
            kind: TaskKind::Classification,
            shape: vec![1, 7000, 7000],
            scale: Scale::None,
            standardise: None,
            layers: serde_json::from_str(&layers).expect("layers"),
            tensors: vec![pruned(), pruned()],
            inputs: vec![None, None],
        };
        release.to_bytes()
    }

    pub(crate) fn offer(version: u64, bytes: &[u8]) -> ReleaseOffer {
        let digest = Digest::of(bytes);
        ReleaseOffer { task: "digits".into(), version, digest, length: bytes.len() as u64 }
    }

    pub(crate) fn binding(train: &str) -> TaskBinding {
        let text = format!("name = \"digits\"\n[data]\nformat = \"csv\"\ntrain = \"{train}\"\nlabel = -1");
        toml::from_str(&text).expect("a binding")
    }

    #[test]
    fn a_release_that_cannot_run_or_be_scaled_is_refused_with_the_reason() {
        let prepare = |bytes: Vec<u8>, train| {
            Model::prepare(verify(&offer(1, &bytes), &bytes, Basis::Offer).expect("verified"), &binding(train))
        };
        let model = prepare(release_bytes(1.0), "embedded:optdigits").expect("prepared");
        assert_eq!((model.input_len(), model.shape(3).map(|shape| (shape.outputs, shape.width))), (64, Some((2, 2))));
        let mut features = vec![8.0; 64];
        model.scale(&mut features);
        assert_eq!(features, [0.5; 64], "digits go from 0 to 16");
        assert_eq!(prepare(unrunnable_bytes(), "embedded:optdigits").expect_err("memory"), ReleaseRefusal::NotRunnable);
        assert_eq!(prepare(release_bytes(1.0), "/nowhere.csv").expect_err("no data"), ReleaseRefusal::NoScaling);
    }
}
