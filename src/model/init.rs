//! `starling model init`: the weights that a run of the task begins with.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use starling_spec::init::initial_parameters;

use super::file::write_weights;
use crate::report::{JsonArgs, Table, bytes as size};
use crate::task_input::TaskArgs;

/// Arguments of `starling model init`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    task: TaskArgs,
    /// Where the weights go (safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Debug, Serialize)]
struct Written {
    task: String,
    seed: u64,
    parameters: usize,
    bytes: u64,
}

pub(super) fn command(args: &Args) -> Result<()> {
    let input = args.task.read()?;
    let manifest = input.plan.manifest()?;
    let parameters = initial_parameters(&manifest, input.plan.seed);
    let bytes = write_weights(&args.out, &input.plan, &parameters, None)?;
    let written = Written { task: input.task.name.clone(), seed: input.seed, parameters: manifest.len(), bytes };
    let mut table = Table::default();
    table.note(format!("{}: {} parameters, {}", args.out.display(), written.parameters, size(bytes)));
    args.json.finish(&written, &table)
}
