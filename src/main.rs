//! One command for a workstation: the demo, simulation and pooled training of a task, models and their compression, the
//! runtime's bench, certificates, and both daemons.

mod bench_runtime;
mod budget;
mod demo;
mod evaluator;
mod example_budget;
mod fleet;
mod model;
mod privacy;
mod publish;
mod report;
mod simulate;
mod simulation;
mod status;
mod task_input;
mod train;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use starling_daemon::Exit;
use starling_search::SearchError;

/// What a shell sees, for all commands ([`Exit`]).
const EXIT_CODES: &str = "\
Exit codes:
  0    it did what was asked
  1    something in the world failed: a file, a socket, a peer; trying again may help
  2    the arguments, a configuration or a task file are wrong; the message says what to change
  3    the peer refused for good: certificate, role, name or version
  4    the state folder is in use by another process
  5    a check or limit that was asked for did not hold (model compress: no candidate keeps within the limits; the nearest one is \
written)
  101  a defect of this program";

/// Federated learning for edge devices
#[derive(Debug, Parser)]
#[command(name = "starling", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch real device processes train a real model with an aggregator, on this machine
    Demo(demo::Args),
    /// Run a task's federation in this process, without sockets, reproducibly
    Simulate(simulate::Args),
    /// Train a task's model on the pooled data: the baseline
    Train(train::Args),
    /// Train, compress, evaluate, time and look into models
    #[command(subcommand)]
    Model(model::Model),
    /// Sign releases and plans, for devices that have pinned whose signatures they need
    #[command(subcommand)]
    Publish(publish::Publish),
    /// What noise is worth, how much of it a privacy budget asks for, and what a task's privacy is in words
    #[command(subcommand)]
    Privacy(privacy::Privacy),
    /// Measure
    #[command(subcommand)]
    Bench(Bench),
    /// Make a certificate authority, issue certificates, look into them
    Certs(starling_certs::command::Args),
    /// The device's daemon and its verbs
    Client(starling_client::command::ClientCommand),
    /// The operator's daemon and its verbs
    Aggregator {
        /// A task file whose test set the versions of that task's runs are tested on; can be given again
        #[arg(long, value_name = "TASK")]
        test_of: Vec<std::path::PathBuf>,
        /// What to do
        #[command(subcommand)]
        verb: starling_aggregator::command::Command,
    },
    #[command(hide = true)]
    BenchClient(bench_runtime::ClientArgs),
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// The pure cost of the runtime: real processes whose training is a copy and a little noise
    Runtime(bench_runtime::Args),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            // A task that is wrong stays wrong: scripts need not try again.
            let is_task = error.chain().any(|cause| {
                cause.is::<starling_spec::SpecError>()
                    || matches!(cause.downcast_ref(), Some(SearchError::Method(_) | SearchError::Pruning(_)))
            });
            if is_task { Exit::Usage.into() } else { Exit::Failure.into() }
        }
    }
}

fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Demo(args) => return demo::command(&args),
        Command::Simulate(args) => simulate::command(&args)?,
        Command::Train(args) => train::command(&args)?,
        Command::Model(verb) => return model::command(&verb),
        Command::Publish(verb) => return publish::command(&verb),
        Command::Privacy(verb) => privacy::command(&verb)?,
        Command::Bench(Bench::Runtime(args)) => bench_runtime::command(&args)?,
        Command::Certs(args) => starling_certs::command::run(&args)?,
        Command::Client(args) => return Ok(starling_client::command::run(args)),
        Command::Aggregator { test_of, verb } => {
            let evaluator = evaluator::BurnEvaluator::new(&test_of)?;
            return starling_aggregator::command::execute(verb, evaluator.map(|evaluator| Arc::new(evaluator) as _));
        }
        Command::BenchClient(args) => return bench_runtime::client(&args),
    }
    Ok(Exit::Ok)
}
