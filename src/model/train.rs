//! `starling model train`: pooled training that keeps the weights.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use starling_search::{VALIDATION_SHARE, validation_split};

use super::file::{TrainedOn, check_writable, write_weights};
use crate::report::{JsonArgs, percent, progress};
use crate::task_input::TaskArgs;
use crate::train::{Epoch, Trained, pass_table, passes, train_rows};
use crate::world::all_rows;

/// Arguments of `starling model train`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    task: TaskArgs,
    /// Where the weights go (safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Passes over the data; as many as the federated run makes when not given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// The share of the training rows that is kept from the fit, so that `compress` can judge on rows that the weights have
    /// never seen; 0 fits them all
    #[arg(long, value_name = "SHARE", default_value_t = VALIDATION_SHARE, value_parser = parse_share)]
    validation: f64,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Debug, Serialize)]
struct Kept {
    #[serde(flatten)]
    trained: Trained,
    /// Rows that were kept from the fit.
    validation_examples: usize,
    /// Accuracy on the test set after the last pass.
    test_accuracy: Option<f64>,
    /// Loss on the test set after the last pass.
    test_loss: Option<f64>,
    /// Bytes of the weights file.
    bytes: u64,
}

pub(super) fn command(args: &Args) -> Result<()> {
    let input = args.task.read()?;
    for path in [Some(&args.out), args.json.file()].into_iter().flatten() {
        check_writable(path)?;
    }
    let epochs =
        args.epochs.map_or_else(|| passes(&input.task.federation, input.task.train.epochs), |epochs| epochs as usize);
    let data = input.load()?;
    let (rows, validation) = if args.validation > 0.0 {
        validation_split(data.train.len(), args.validation, input.seed)?
    } else {
        (all_rows(&data.train)?, Vec::new())
    };
    let bar = progress(epochs as u64, "train");
    let result = train_rows(&input, &data, &rows, epochs, &bar);
    bar.finish_and_clear();
    let (trained, parameters) = result?;
    let mark = TrainedOn { seed: input.seed, validation_share: args.validation };
    let bytes = write_weights(&args.out, &input.plan, &parameters, Some(mark))?;
    let last = trained.epochs.last().cloned().context("at least one pass was made")?;
    let Epoch { test_accuracy, test_loss, .. } = last;
    let mut table = pass_table(&trained);
    if !validation.is_empty() {
        table.note(format!(
            "{} rows were kept from the fit, for `starling model compress` to judge on",
            validation.len()
        ));
    }
    table.note(format!("{}: test accuracy {}", args.out.display(), percent(test_accuracy)));
    let kept = Kept { trained, validation_examples: validation.len(), test_accuracy, test_loss, bytes };
    args.json.finish(&kept, &table)
}

/// Reads a share of at least 0 and below 1.
fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => Err("expected a share from 0 up to, but not, 1".to_owned()),
    }
}
