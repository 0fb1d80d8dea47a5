//! `starling model moments`: what a run for moments has found, as the part of a task file that scales by it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use starling_spec::Standardisation;

use super::file;
use crate::report::JsonArgs;

/// Arguments of `starling model moments`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// What `run export` or `simulate --out` wrote of a run with `federation.goal = "moments"`
    file: PathBuf,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Debug, Serialize)]
struct Found {
    task: String,
    standardise: Standardisation,
}

pub(super) fn command(args: &Args) -> Result<()> {
    let weights = file::read_moments(&args.file)?;
    let moments = weights.plan.moments();
    let moments = moments.with_context(|| {
        format!(
            "{} holds weights; moments are what a run of a task with `federation.goal = \"moments\"` finds",
            args.file.display()
        )
    })?;
    let standardise = moments.standardisation(&weights.parameters);
    let text = format!(
        "# Means and deviations of the features of task {:?}: what `data.scale = \"standardise\"` scales by.\n{}",
        weights.plan.name,
        standardise.to_toml()
    );
    args.json.finish(&Found { task: weights.plan.name.clone(), standardise }, &text)
}
