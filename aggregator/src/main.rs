//! `starling-aggregator`: the operator's daemon and its verbs, without burn.

use std::process::ExitCode;

use clap::Parser;
use starling_aggregator::command::{Command, execute};

/// Coordinates federated learning for a fleet of devices
#[derive(Debug, Parser)]
#[command(name = "starling-aggregator", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match execute(Arguments::parse().command, None) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            starling_daemon::Exit::Failure.into()
        }
    }
}
