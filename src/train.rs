//! `starling train`: one model on the pooled data, the baseline that a federation is measured against.

use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde::Serialize;
use starling_data::Loaded;
use starling_model::{Network, TrainPath};
use starling_spec::{FederationSection, TaskKind};

use crate::report::{JsonArgs, Table, figure, percent, progress};
use crate::task_input::{TaskArgs, TaskInput};
use crate::world::all_rows;

/// Arguments of `starling train`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    task: TaskArgs,
    /// Passes over the data; as many as the federated run makes when not given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    #[command(flatten)]
    json: JsonArgs,
}

/// What pooled training found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Trained {
    /// The task's name.
    pub(crate) task: String,
    /// The seed.
    pub(crate) seed: u64,
    /// Parameters of the model.
    pub(crate) parameters: usize,
    /// Examples that it was trained on.
    pub(crate) examples: usize,
    /// Pass by pass.
    pub(crate) epochs: Vec<Epoch>,
    /// The time that training and evaluation took.
    pub(crate) wall_s: f64,
}

/// One pass over the data.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Epoch {
    /// The pass, from 1.
    pub(crate) epoch: usize,
    /// Accuracy on the test set.
    pub(crate) test_accuracy: Option<f64>,
    /// Loss on the test set.
    pub(crate) test_loss: Option<f64>,
}

/// Runs the command.
pub(crate) fn command(args: &Args) -> Result<()> {
    let input = args.task.read()?;
    let epochs =
        args.epochs.map_or_else(|| passes(&input.task.federation, input.task.train.epochs), |epochs| epochs as usize);
    let bar = progress(epochs as u64, "train");
    let result = train(&input, epochs, &bar);
    bar.finish_and_clear();
    let result = result?;
    args.json.finish(&result, &pass_table(&result))
}

/// The passes as a table.
pub(crate) fn pass_table(result: &Trained) -> Table {
    let mut table = Table::new(&["epoch", "test loss", "test accuracy"]);
    for epoch in &result.epochs {
        table.row(vec![epoch.epoch.to_string(), figure(epoch.test_loss, 4), percent(epoch.test_accuracy)]);
    }
    table.note(format!("{} parameters, {} examples, {:.1} s", result.parameters, result.examples, result.wall_s));
    table
}

/// How often a federated run goes over all the data: rounds × local epochs × fraction, at least once.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the product is clamped to 1 … 2^32 before it becomes an integer"
)]
pub(crate) fn passes(federation: &FederationSection, epochs: usize) -> usize {
    let passes = f64::from(federation.rounds) * epochs as f64 * federation.fraction;
    passes.round().clamp(1.0, f64::from(u32::MAX)) as usize
}

/// Trains the model of `input` on all its data for `epochs` passes and evaluates it after each.
pub(crate) fn train(input: &TaskInput, epochs: usize, bar: &ProgressBar) -> Result<Trained> {
    let data = input.load()?;
    let rows = all_rows(&data.train)?;
    train_rows(input, &data, &rows, epochs, bar).map(|(trained, _)| trained)
}

/// Trains the model of `input` on the training `rows` of `data` as [`train`] does, and gives its weights too.
pub(crate) fn train_rows(
    input: &TaskInput,
    data: &Loaded,
    rows: &[u32],
    epochs: usize,
    bar: &ProgressBar,
) -> Result<(Trained, Vec<f32>)> {
    let started = Instant::now();
    let manifest = input.plan.manifest()?;
    let mut parameters = starling_spec::init::initial_parameters(&manifest, input.plan.seed);
    let mut network = Network::new(&input.plan)?;
    let mut judge = Network::new(&input.plan)?;
    let test_rows = data.test.as_ref().map(all_rows).transpose()?;
    let counts = input.task.kind != TaskKind::Regression;
    let mut passed: Vec<Epoch> = Vec::new();
    let mut failed = None;
    let mut on_epoch = |_, parameters: &[f32]| {
        let figures =
            data.test.as_ref().zip(test_rows.as_deref()).map(|(test, rows)| judge.evaluate(parameters, test, rows));
        let figures = match figures.transpose() {
            Ok(figures) => figures,
            Err(error) => {
                failed.get_or_insert(error);
                None
            }
        };
        let test_accuracy = figures.as_ref().filter(|_| counts).map(starling_model::Evaluated::accuracy);
        let test_loss = figures.as_ref().map(starling_model::Evaluated::loss);
        passed.push(Epoch { epoch: passed.len() + 1, test_accuracy, test_loss });
        bar.inc(1);
        bar.set_message(percent(test_accuracy));
    };
    let path = TrainPath { device: POOLED, round: 0 };
    network.train_pooled(&mut parameters, &data.train, rows, epochs, path, &mut on_epoch).context("training failed")?;
    if let Some(error) = failed {
        return Err(error).context("evaluation failed");
    }
    let trained = Trained {
        task: input.task.name.clone(),
        seed: input.seed,
        parameters: manifest.len(),
        examples: rows.len(),
        epochs: passed,
        wall_s: started.elapsed().as_secs_f64(),
    };
    Ok((trained, parameters))
}

/// The key under which pooled training draws its batches: no device's, since those are digests.
const POOLED: u64 = 0;
