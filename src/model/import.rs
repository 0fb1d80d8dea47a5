//! `starling model import`: weights of another tool, checked against the task's network.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use starling_exchange::{Layout, read_safetensors};

use super::file::{read_bytes, refuse_release, write_weights};
use crate::report::{JsonArgs, Table, bytes as size};
use crate::task_input::TaskArgs;

/// Arguments of `starling model import`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    task: TaskArgs,
    /// The file to read (safetensors)
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// How it names and lays out tensors
    #[arg(long)]
    layout: LayoutChoice,
    /// Where the weights go (safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LayoutChoice {
    /// A PyTorch `state_dict`: matrices are [out, in]
    Torch,
    /// The names and shapes that `starling model inspect` shows
    Starling,
}

#[derive(Debug, Serialize)]
struct Imported {
    task: String,
    parameters: usize,
    bytes: u64,
}

pub(super) fn command(args: &Args) -> Result<()> {
    let input = args.task.read()?;
    let layout = match args.layout {
        LayoutChoice::Torch => Layout::Torch,
        LayoutChoice::Starling => Layout::Starling,
    };
    let bytes = read_bytes(&args.weights)?;
    refuse_release(&args.weights, &bytes, "import reads the float weights of another tool (safetensors)")?;
    let parameters = read_safetensors(&bytes, &input.plan.manifest()?, layout)
        .with_context(|| format!("{} cannot be read for task {:?}", args.weights.display(), input.task.name))?;
    let bytes = write_weights(&args.out, &input.plan, &parameters, None)?;
    let imported = Imported { task: input.task.name.clone(), parameters: parameters.len(), bytes };
    let mut table = Table::default();
    table.note(format!("{}: {} parameters, {}", args.out.display(), imported.parameters, size(bytes)));
    args.json.finish(&imported, &table)
}
