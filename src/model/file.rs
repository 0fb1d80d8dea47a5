//! Files of weights and releases: which of the two a file is, and what a weights file says of itself.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use starling_compress::Release;
use starling_daemon::read_at_most;
use starling_exchange::{Layout, PLAN_METADATA, read_metadata, read_safetensors, write_safetensors};
use starling_spec::TaskPlan;

/// The key that says how the weights were trained.
const TRAINED: &str = "starling.trained";

/// The largest model file that is read: the protocol's 2³⁰ parameters as floats, and a header.
const FILE_BYTES_MAX: u64 = (4 << 30) + (128 << 20);

/// How weights were trained, as far as later verbs must know.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrainedOn {
    /// The seed of the task.
    pub(crate) seed: u64,
    /// The share of the training rows that was kept from the fit: the validation rows of `compress`.
    pub(crate) validation_share: f64,
}

/// A model in a file.
pub(crate) enum ModelFile {
    /// Float weights.
    Weights(Box<Weights>),
    /// A release.
    Release(Box<Release>),
}

/// Float weights and what their file says of them.
pub(crate) struct Weights {
    /// The task's plan when they were written.
    pub(crate) plan: TaskPlan,
    /// The flat parameters.
    pub(crate) parameters: Vec<f32>,
    /// How they were trained; `None` for initial or imported ones.
    pub(crate) trained: Option<TrainedOn>,
}

/// The bytes of `path`, up to the largest model.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    Ok(read_at_most(path, "a model", FILE_BYTES_MAX)?)
}

/// The model in `path`, weights or release by the file's own first bytes. `plan` stands in for weights that do not carry theirs.
pub(crate) fn read(path: &Path, plan: Option<&TaskPlan>) -> Result<(ModelFile, Vec<u8>)> {
    let bytes = read_bytes(path)?;
    let model = if is_safetensors(&bytes) {
        let weights = read_weights(path, &bytes, plan)?;
        if weights.plan.moments.is_some() {
            bail!(
                "{} holds no weights but the moments of features: `starling model moments` shows them",
                path.display()
            );
        }
        ModelFile::Weights(Box::new(weights))
    } else {
        let what = if is_release(&bytes) {
            "is a release that cannot be read"
        } else {
            "is neither a safetensors file of weights nor a release"
        };
        let release = Release::from_bytes(&bytes).with_context(|| format!("{} {what}", path.display()))?;
        ModelFile::Release(Box::new(release))
    };
    Ok((model, bytes))
}

/// The task and the bytes of the release in `path`.
pub(crate) fn read_release(path: &Path) -> Result<(String, Vec<u8>)> {
    match read(path, None)? {
        (ModelFile::Release(release), bytes) => Ok((release.name, bytes)),
        (ModelFile::Weights(_), _) => bail!("{} holds float weights; a release is needed here", path.display()),
    }
}

/// What a run for moments has left in `path`, by the plan that the file carries.
pub(crate) fn read_moments(path: &Path) -> Result<Weights> {
    let bytes = read_bytes(path)?;
    refuse_release(path, &bytes, "the export of a run for moments is needed here")?;
    read_weights(path, &bytes, None)
}

/// The weights in `path` for the network of `plan`.
pub(crate) fn read_weights_for(path: &Path, plan: &TaskPlan) -> Result<Weights> {
    let bytes = read_bytes(path)?;
    refuse_release(path, &bytes, "float weights are needed here, as `starling model train` writes them")?;
    if !is_safetensors(&bytes) {
        bail!(
            "{} is no safetensors file; float weights are needed here, as `starling model train` writes them",
            path.display()
        );
    }
    let mut weights = read_weights(path, &bytes, Some(plan))?;
    weights.plan = plan.clone();
    Ok(weights)
}

/// Says so where `bytes` are a release, and what is wanted instead.
pub(crate) fn refuse_release(path: &Path, bytes: &[u8], wanted: &str) -> Result<()> {
    if is_release(bytes) {
        bail!(
            "{} is a release, whose weights are compressed; {wanted}. `starling model export` writes what a release computes with",
            path.display()
        );
    }
    Ok(())
}

/// A release begins with its magic, whole or damaged.
fn is_release(bytes: &[u8]) -> bool {
    bytes.starts_with(starling_compress::release::MAGIC)
}

/// A safetensors file begins with the length of its header, which is JSON. A release may have any byte there.
fn is_safetensors(bytes: &[u8]) -> bool {
    !is_release(bytes) && bytes.get(8) == Some(&b'{')
}

fn read_weights(path: &Path, bytes: &[u8], plan: Option<&TaskPlan>) -> Result<Weights> {
    let wrong = || format!("{} cannot be read as weights", path.display());
    let metadata = read_metadata(bytes).with_context(wrong)?;
    let own =
        metadata.get(PLAN_METADATA).map(|json| TaskPlan::from_json(json.as_bytes())).transpose().with_context(wrong)?;
    let plan = match (plan, own) {
        (Some(plan), _) => plan.clone(),
        (None, Some(own)) => own,
        (None, None) => bail!(
            "{} does not carry its task's plan; `starling model import TASK` writes weights that do",
            path.display()
        ),
    };
    let parameters = read_safetensors(bytes, &plan.manifest()?, Layout::Starling)
        .with_context(|| format!("{} holds no weights of the network of task {:?}", path.display(), plan.name))?;
    let trained = metadata.get(TRAINED).map(|json| serde_json::from_str(json)).transpose().with_context(wrong)?;
    Ok(Weights { plan, parameters, trained })
}

/// Writes `parameters` of `plan`'s network to `path`.
pub(crate) fn write_weights(
    path: &Path,
    plan: &TaskPlan,
    parameters: &[f32],
    trained: Option<TrainedOn>,
) -> Result<u64> {
    let plan_json = String::from_utf8(plan.to_json()).context("a plan is text")?;
    let mut metadata = BTreeMap::from([(PLAN_METADATA.to_owned(), plan_json)]);
    if let Some(trained) = trained {
        metadata.insert(TRAINED.to_owned(), serde_json::to_string(&trained).context("two numbers are JSON")?);
    }
    write(path, &write_safetensors(&plan.manifest()?, parameters, &metadata))
}

/// Whether a file can be written at `path`, without changing what is there: before hours of work for it.
pub(crate) fn check_writable(path: &Path) -> Result<()> {
    let is_new = !path.exists();
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.with_context(|| format!("{} cannot be written", path.display()))?;
    if is_new {
        std::fs::remove_file(path).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// Writes `bytes` to `path` and gives their number.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<u64> {
    std::fs::write(path, bytes).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(bytes.len() as u64)
}
