//! `starling simulate`: the run machine, the codecs and the fold of a real run in one process, without sockets and with
//! virtual time.
//!
//! The result is a function of task, seed and build (invariant 11): the JSON holds no times, so that two runs can be
//! compared byte by byte.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use starling_protocol::run::{Answer, HeldOut};
use starling_spec::TaskKind;

use crate::budget::Summary;
use crate::example_budget::ExampleSummary;
use crate::model::file;
use crate::report::{JsonArgs, Table, bytes as size, figure, percent, progress};
use crate::simulation::{Ran, simulate_from};
use crate::task_input::TaskArgs;

/// Arguments of `starling simulate`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    task: TaskArgs,
    /// Worker threads; the result does not depend on their number
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Start from these weights (safetensors) instead of the initialiser's
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Write the last version's weights, as devices decode them (safetensors)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    json: JsonArgs,
}

/// What a simulation found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Simulated {
    /// The task's name.
    pub(crate) task: String,
    /// The seed.
    pub(crate) seed: u64,
    /// Devices.
    pub(crate) devices: usize,
    /// Parameters of the model.
    pub(crate) parameters: usize,
    /// Round by round.
    pub(crate) rounds: Vec<Round>,
    /// What the figures of `epsilon` mean, where privacy is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) privacy: Option<Summary>,
    /// What the figures of `example_epsilon` mean, where `train.dp_sgd` is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) example_privacy: Option<ExampleSummary>,
    /// The accuracy at which the run was to stop.
    pub(crate) target: Option<f64>,
    /// The first round that reached it.
    pub(crate) rounds_to_target: Option<u32>,
    /// The last version's test accuracy.
    pub(crate) final_accuracy: Option<f64>,
    /// The last version's test loss.
    pub(crate) final_loss: Option<f64>,
    /// SHA-256 of the last version as it is sent to devices.
    pub(crate) model_digest: String,
}

/// One committed round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    /// The round, from 1.
    pub(crate) round: u32,
    /// Devices that were asked.
    pub(crate) cohort: usize,
    /// Devices whose updates the version contains.
    pub(crate) contributors: usize,
    /// Examples that those updates were trained on.
    pub(crate) weight: u64,
    /// Mean training loss, weighted by examples.
    pub(crate) train_loss: f64,
    /// Accuracy on the test set.
    pub(crate) test_accuracy: Option<f64>,
    /// Loss on the test set.
    pub(crate) test_loss: Option<f64>,
    /// Accuracy on the devices' own hold-outs.
    pub(crate) heldout_accuracy: Option<f64>,
    /// Loss on the devices' own hold-outs.
    pub(crate) heldout_loss: Option<f64>,
    /// Accuracy over the hold-outs of the tenth of the devices that does worst, where secure sums of a crowd tell it.
    pub(crate) heldout_worst_tenth: Option<f64>,
    /// Bytes of all updates, with their headers.
    pub(crate) bytes_up: u64,
    /// Bytes of all models sent, with their headers.
    pub(crate) bytes_down: u64,
    /// The clipping norm that the updates were held to; null where it does not adapt.
    pub(crate) clip: Option<f64>,
    /// Privacy spent so far; null where no differential privacy is asked for, and where updates are clipped and no noise is added.
    pub(crate) epsilon: Option<f64>,
    /// Privacy of one example spent so far, on the device on which most is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) example_epsilon: Option<f64>,
}

/// Runs the command.
pub(crate) fn command(args: &Args) -> Result<()> {
    let started = Instant::now();
    let input = args.task.read()?;
    let bar = progress(u64::from(input.task.federation.rounds), "simulate");
    let threads = args.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let start = args.weights.as_deref().map(|path| file::read_weights_for(path, &input.plan)).transpose()?;
    let start = start.map(|weights| weights.parameters);
    let result = simulate_from(&input, start, threads, &bar);
    bar.finish_and_clear();
    let Ran { simulated: result, parameters, answer } = result?;
    if let Some(path) = &args.out {
        file::write_weights(path, &input.plan, &parameters, None)?;
    }
    let mut table = table(&result, input.task.kind, started.elapsed().as_secs_f64());
    if let Some(answer) = answer {
        table.note(said(&answer));
    }
    args.json.finish(&result, &table)
}

/// A run's answer in words.
fn said(answer: &Answer) -> String {
    match answer {
        Answer::HeldOut(HeldOut { devices, examples, correct, loss_sum }) => {
            #[allow(clippy::cast_precision_loss, reason = "counts of examples stay far below 2^53")]
            let loss = loss_sum / (*examples).max(1) as f64;
            format!("held out by {devices} devices: {correct} of {examples} right, loss {loss:.4}")
        }
        Answer::Ranges(ranges) => {
            format!("input ranges over {} rows of {} devices", ranges.examples, ranges.devices)
        }
    }
}

fn table(result: &Simulated, kind: TaskKind, wall_s: f64) -> Table {
    let mut columns = vec!["round", "cohort", "train loss", "test loss", "test accuracy", "held-out", "up", "down"];
    columns.extend(result.privacy.as_ref().map(|_| "epsilon"));
    columns.extend(result.example_privacy.as_ref().map(|_| "of one example"));
    let mut table = Table::new(&columns);
    let accuracy = |share| if kind == TaskKind::Regression { "–".to_owned() } else { percent(share) };
    for round in &result.rounds {
        let mut row = vec![
            round.round.to_string(),
            format!("{}/{}", round.contributors, round.cohort),
            figure(Some(round.train_loss).filter(|loss| loss.is_finite()), 4),
            figure(round.test_loss, 4),
            accuracy(round.test_accuracy),
            if kind == TaskKind::Regression { figure(round.heldout_loss, 4) } else { percent(round.heldout_accuracy) },
            size(round.bytes_up),
            size(round.bytes_down),
        ];
        row.extend(result.privacy.as_ref().map(|_| figure(round.epsilon, 4)));
        row.extend(result.example_privacy.as_ref().map(|_| figure(round.example_epsilon, 4)));
        table.row(row);
    }
    if let Some(target) = result.target {
        table.note(match result.rounds_to_target {
            Some(round) => format!("target of {} reached in round {round}", percent(Some(target))),
            None => format!("target of {} not reached", percent(Some(target))),
        });
    }
    if let Some(privacy) = &result.privacy {
        privacy.sentences().into_iter().for_each(|sentence| table.note(sentence));
    }
    if let Some(examples) = &result.example_privacy {
        examples.sentences().into_iter().for_each(|sentence| table.note(sentence));
    }
    table.note(format!("model {} ({} parameters), {wall_s:.1} s", result.model_digest, result.parameters));
    table
}
