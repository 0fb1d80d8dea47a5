//! `starling model inspect`: weights or a release, tensor by tensor.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use starling_compress::release::TensorReport;
use starling_wire::Digest;

use super::file::{self, ModelFile};
use crate::report::{JsonArgs, Table, bytes as size};

/// Arguments of `starling model inspect`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Float weights (safetensors) or a release
    model: PathBuf,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Debug, Serialize)]
struct Inspected {
    kind: &'static str,
    name: String,
    digest: String,
    bytes: u64,
    bytes_f32: u64,
    ratio: f64,
    layers: Vec<LayerReport>,
}

/// One tensor.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LayerReport {
    name: String,
    shape: Vec<usize>,
    form: String,
    kept_share: f64,
    bits_per_weight: f64,
    bytes_before: usize,
    bytes_after: usize,
}

#[allow(clippy::cast_precision_loss, reason = "counts of weights stay far below 2^53")]
impl From<&TensorReport> for LayerReport {
    fn from(report: &TensorReport) -> Self {
        Self {
            name: report.name.clone(),
            shape: report.shape.clone(),
            form: report.form.clone(),
            kept_share: report.kept as f64 / report.weights.max(1) as f64,
            bits_per_weight: report.bits_per_weight,
            bytes_before: report.bytes_f32,
            bytes_after: report.bytes,
        }
    }
}

pub(super) fn command(args: &Args) -> Result<()> {
    let (model, bytes) = file::read(&args.model, None)?;
    let (kind, name, layers): (_, _, Vec<LayerReport>) = match &model {
        ModelFile::Release(release) => {
            ("release", release.name.clone(), release.inspect().iter().map(LayerReport::from).collect())
        }
        ModelFile::Weights(weights) => {
            let manifest = weights.plan.manifest()?;
            let layers = manifest.tensors.iter().map(|tensor| LayerReport {
                name: tensor.name.clone(),
                shape: tensor.shape.clone(),
                form: "f32".into(),
                kept_share: share_of_non_zero(&weights.parameters[tensor.range()]),
                bits_per_weight: 32.0,
                bytes_before: 4 * tensor.len(),
                bytes_after: 4 * tensor.len(),
            });
            ("weights", weights.plan.name.clone(), layers.collect())
        }
    };
    let bytes_f32 = layers.iter().map(|layer| layer.bytes_before as u64).sum::<u64>();
    #[allow(clippy::cast_precision_loss, reason = "sizes stay far below 2^53")]
    let ratio = bytes_f32 as f64 / bytes.len().max(1) as f64;
    let digest = Digest::of(&bytes).to_string();
    let inspected = Inspected { kind, name, digest, bytes: bytes.len() as u64, bytes_f32, ratio, layers };
    args.json.finish(&inspected, &table(&inspected))
}

fn table(inspected: &Inspected) -> Table {
    let mut table = Table::new(&["tensor", "shape", "form", "kept", "bits a weight", "before", "after"]);
    for layer in &inspected.layers {
        table.row(vec![
            layer.name.clone(),
            layer.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("×"),
            layer.form.clone(),
            format!("{:.2} %", layer.kept_share * 100.0),
            format!("{:.2}", layer.bits_per_weight),
            size(layer.bytes_before as u64),
            size(layer.bytes_after as u64),
        ]);
    }
    let tensors: u64 = inspected.layers.iter().map(|layer| layer.bytes_after as u64).sum();
    table.note(format!(
        "{} {:?}: {} bytes, {} of them beside the tensors; {:.1} times smaller than {} bytes of floats",
        inspected.kind,
        inspected.name,
        inspected.bytes,
        inspected.bytes.saturating_sub(tensors),
        inspected.ratio,
        inspected.bytes_f32
    ));
    table.note(format!("SHA-256 {}", inspected.digest));
    table
}

#[allow(clippy::cast_precision_loss, reason = "counts of weights stay far below 2^53")]
fn share_of_non_zero(values: &[f32]) -> f64 {
    values.iter().filter(|value| **value != 0.0).count() as f64 / values.len().max(1) as f64
}
