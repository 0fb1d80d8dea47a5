//! `starling privacy`: what a run's noise is worth, how much of it a budget asks for, and what a task's privacy is in words.

mod plan;

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;
use starling_privacy::{Accountant, SampledGaussian, dp_sgd, noise_multiplier, statement};

use crate::report::{JsonArgs, Table};
use crate::task_input::TaskArgs;

/// The verbs of `starling privacy`.
#[derive(Debug, Subcommand)]
pub(crate) enum Privacy {
    /// The epsilon that steps of Gaussian noise have spent
    Epsilon(EpsilonArgs),
    /// The noise multiplier that an epsilon asks for
    Noise(NoiseArgs),
    /// Before a run: what noise costs in epsilon and in deviation, and how long a budget lasts
    Plan(plan::PlanArgs),
    /// What a task's privacy is, in words: who can see what, what it costs, what is not protected
    Statement(StatementArgs),
}

/// What both verbs are told of a run.
#[derive(Debug, Clone, clap::Args)]
struct RunArgs {
    /// The probability with which each unit takes part in a step, by a coin of its own; 1: always
    #[arg(long, value_name = "Q")]
    sampling_rate: f64,
    /// Steps: rounds, for devices; batches, for examples
    #[arg(long, value_name = "T")]
    steps: u32,
    /// The probability with which epsilon may not hold
    #[arg(long, value_name = "D")]
    delta: f64,
    /// pld (tight) or rdp
    #[arg(long, default_value = "pld")]
    accountant: Accountant,
    /// What is protected: device, owner or example; it only names what the steps were clipped and sampled by
    #[arg(long, default_value = "device")]
    unit: String,
    #[command(flatten)]
    json: JsonArgs,
}

/// Arguments of `starling privacy epsilon`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EpsilonArgs {
    #[command(flatten)]
    run: RunArgs,
    /// The noise's standard deviation in clipping norms
    #[arg(long, value_name = "Z")]
    noise_multiplier: f64,
}

/// Arguments of `starling privacy noise`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NoiseArgs {
    #[command(flatten)]
    run: RunArgs,
    /// The budget
    #[arg(long, value_name = "E")]
    epsilon: f64,
}

/// Arguments of `starling privacy statement`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StatementArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// Rounds that are spent already
    #[arg(long, value_name = "N", default_value_t = 0)]
    rounds_spent: u32,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Debug, Serialize)]
struct Answer {
    epsilon: f64,
    delta: f64,
    noise_multiplier: f64,
    sampling_rate: f64,
    steps: u32,
    accountant: String,
    statement: String,
}

pub(crate) fn command(verb: &Privacy) -> Result<()> {
    let (run, noise) = match verb {
        Privacy::Epsilon(args) => (&args.run, args.noise_multiplier),
        Privacy::Plan(args) => return plan::command(args),
        Privacy::Statement(StatementArgs { task, rounds_spent, json }) => {
            let input = task.read()?;
            let mut words = statement::words(&input.plan, *rounds_spent);
            if let Some((noise, epsilon)) = dp_sgd::words(&input.plan.train, input.task.federation.rounds) {
                words.noise.push(noise);
                words.epsilon.extend(epsilon);
            }
            return json.finish(&words, &words);
        }
        Privacy::Noise(NoiseArgs { run, epsilon }) => {
            (run, noise_multiplier(run.accountant, run.sampling_rate, run.steps, *epsilon, run.delta)?)
        }
    };
    let steps = SampledGaussian::new(run.sampling_rate, noise, run.steps)?;
    let answer = Answer {
        epsilon: run.accountant.epsilon(&[steps], run.delta)?,
        delta: run.delta,
        noise_multiplier: noise,
        sampling_rate: run.sampling_rate,
        steps: run.steps,
        accountant: run.accountant.to_string(),
        statement: run.accountant.statement(&run.unit),
    };
    let mut table = Table::new(&["epsilon", "delta", "noise multiplier", "sampling rate", "steps"]);
    table.row(vec![
        format!("{:.4}", answer.epsilon),
        format!("{:e}", answer.delta),
        format!("{:.4}", answer.noise_multiplier),
        answer.sampling_rate.to_string(),
        answer.steps.to_string(),
    ]);
    table.note(answer.statement.as_str());
    run.json.finish(&answer, &table)
}
