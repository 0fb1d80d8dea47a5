//! `starling model export`: weights, or the floats that a release computes with, for another tool.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use starling_exchange::{write_onnx, write_torch_safetensors};
use starling_spec::shape::infer;

use super::file::{self, ModelFile, write_weights};
use super::run::plan_of;
use crate::report::{JsonArgs, Table, bytes as size};
use crate::task_input::TaskArgs;

/// Arguments of `starling model export`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    task: TaskArgs,
    /// Float weights (safetensors) or a release; a release is written as the floats that it computes with
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// What to write
    #[arg(long)]
    format: Format,
    /// Where it goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// An ONNX model that any runtime can run
    Onnx,
    /// The names and shapes that `starling model inspect` shows
    Safetensors,
    /// A PyTorch `state_dict`
    SafetensorsTorch,
}

#[derive(Debug, Serialize)]
struct Exported {
    task: String,
    parameters: usize,
    bytes: u64,
}

pub(super) fn command(args: &Args) -> Result<()> {
    let input = args.task.read()?;
    let (plan, parameters, trained) = match file::read(&args.weights, Some(&input.plan))?.0 {
        ModelFile::Weights(weights) => (weights.plan, weights.parameters, weights.trained),
        ModelFile::Release(release) => (plan_of(&release), release.parameters(&release.network()?), None),
    };
    let network = infer(plan.kind, &plan.shape, &plan.layers)?;
    let cannot = || format!("{} cannot be written in this format", args.weights.display());
    let bytes = match args.format {
        Format::Safetensors => write_weights(&args.out, &plan, &parameters, trained)?,
        Format::SafetensorsTorch => {
            let bytes =
                write_torch_safetensors(&network.manifest, &parameters, &BTreeMap::new()).with_context(cannot)?;
            file::write(&args.out, &bytes)?
        }
        Format::Onnx => file::write(&args.out, &write_onnx(&network, &parameters, &plan.name).with_context(cannot)?)?,
    };
    let exported = Exported { task: input.task.name.clone(), parameters: parameters.len(), bytes };
    let mut table = Table::default();
    table.note(format!("{}: {} parameters, {}", args.out.display(), exported.parameters, size(bytes)));
    args.json.finish(&exported, &table)
}
