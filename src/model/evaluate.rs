//! `starling model evaluate`: accuracy of float weights or of a release on the task's test set, in this fresh process.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use starling_model::evaluate_with;
use starling_spec::TaskKind;

use super::file::{self, ModelFile};
use super::run::{EngineChoice, Recorded, ready};
use crate::report::{JsonArgs, Table, bytes as size, figure, percent};
use crate::task_input::TaskArgs;
use crate::world::all_rows;

/// Arguments of `starling model evaluate`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    task: TaskArgs,
    /// Float weights (safetensors) or a release
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Write the predictions here, one a line: a class, or a regression's value
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    /// What computes: a release runs on starling and weights on burn-flex when not given
    #[arg(long)]
    engine: Option<EngineChoice>,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Debug, Serialize)]
struct Judged {
    task: String,
    engine: &'static str,
    examples: u64,
    accuracy: Option<f64>,
    loss: f64,
    bytes: usize,
}

pub(super) fn command(args: &Args) -> Result<()> {
    let input = args.task.read()?;
    let (model, bytes) = file::read(&args.model, Some(&input.plan))?;
    if let ModelFile::Release(release) = &model {
        ensure!(
            release.kind == input.plan.kind && release.shape == input.plan.shape,
            "{} takes samples of {:?} for a {:?}; task {:?} has {:?} for a {:?}",
            args.model.display(),
            release.shape,
            release.kind,
            input.task.name,
            input.plan.shape,
            input.plan.kind
        );
        if (release.scale, &release.standardise) != (input.plan.scale, &input.plan.standardise) {
            eprintln!(
                "note: the release was made for features scaled by {:?}; the task says {:?}{}",
                release.scale,
                input.plan.scale,
                if release.scale == input.plan.scale { ", by other means and deviations" } else { "" }
            );
        }
    }
    if let ModelFile::Release(release) = &model
        && release.name != input.task.name
    {
        eprintln!("note: the release was made for the task {:?}; this one is {:?}", release.name, input.task.name);
    }
    let data = input.load()?;
    let test = data.test.as_ref().context("the task names no test set: give it data.test or data.test_fraction")?;
    let mut ready = ready(&model, args.engine, EngineChoice::BurnFlex)?;
    let network = match &model {
        ModelFile::Release(release) => release.network()?,
        ModelFile::Weights(weights) => {
            starling_spec::shape::infer(weights.plan.kind, &weights.plan.shape, &weights.plan.layers)?
        }
    };
    let mut recorded = Recorded { inner: ready.inference.as_mut(), outputs: Vec::new() };
    let found = evaluate_with(&mut recorded, &network, test, &all_rows(test)?)?;
    let width = if network.kind == TaskKind::Regression { 1 } else { network.output.last().copied().unwrap_or(1) };
    if let Some(path) = &args.predictions {
        file::write(path, predictions(&recorded.outputs, width).as_bytes())?;
    }
    let counts = network.kind != TaskKind::Regression;
    let judged = Judged {
        task: input.task.name.clone(),
        engine: ready.engine.word(),
        examples: found.examples,
        accuracy: counts.then(|| found.accuracy()),
        loss: found.loss(),
        bytes: bytes.len(),
    };
    let mut table = Table::new(&["model", "engine", "examples", "accuracy", "loss", "file"]);
    table.row(vec![
        args.model.display().to_string(),
        judged.engine.into(),
        judged.examples.to_string(),
        percent(judged.accuracy),
        figure(Some(judged.loss), 4),
        size(judged.bytes as u64),
    ]);
    args.json.finish(&judged, &table)
}

/// The class of the largest output of each `width`, or the value itself.
fn predictions(outputs: &[f32], width: usize) -> String {
    let mut text = String::new();
    for outputs in outputs.chunks_exact(width) {
        // A failed write to a String does not exist.
        let _ = match outputs {
            [value] => writeln!(text, "{value}"),
            _ => {
                let best = (1..width).fold(0, |best, class| if outputs[class] > outputs[best] { class } else { best });
                writeln!(text, "{best}")
            }
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_is_the_first_of_the_largest_outputs() {
        assert_eq!(predictions(&[0.1, 0.9, 0.9, -1.0, -2.0, -1.5], 3), "1\n0\n");
        assert_eq!(predictions(&[0.5, 2.0], 1), "0.5\n2\n");
    }
}
