//! `starling model`: float weights and releases, from training to a device's budget.

mod bench;
mod compress;
mod evaluate;
mod export;
mod federated;
pub(crate) mod file;
mod found;
mod import;
mod init;
mod inspect;
mod moments;
mod run;
mod train;

use anyhow::Result;
use clap::Subcommand;
use starling_daemon::Exit;

/// The verbs of `starling model`.
#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// Write a task's initial weights
    Init(init::Args),
    /// Train a task's model on the pooled data and keep the weights
    Train(train::Args),
    /// Find a smaller and faster form of trained weights within limits, and write it as a release
    Compress(compress::Args),
    /// Measure weights or a release on the task's test set
    Evaluate(evaluate::Args),
    /// Time weights or a release on this machine, one thread
    Bench(bench::Args),
    /// Show weights or a release layer by layer
    Inspect(inspect::Args),
    /// Show the means and deviations of features that a run has found, as a task file has them
    Moments(moments::Args),
    /// Read weights of another tool
    Import(import::Args),
    /// Write weights, or what a release computes with, for another tool
    Export(export::Args),
}

/// Runs the verb.
pub(crate) fn command(verb: &Model) -> Result<Exit> {
    match verb {
        Model::Init(args) => init::command(args)?,
        Model::Train(args) => train::command(args)?,
        Model::Compress(args) => return compress::command(args),
        Model::Evaluate(args) => evaluate::command(args)?,
        Model::Bench(args) => bench::command(args)?,
        Model::Inspect(args) => inspect::command(args)?,
        Model::Moments(args) => moments::command(args)?,
        Model::Import(args) => import::command(args)?,
        Model::Export(args) => export::command(args)?,
    }
    Ok(Exit::Ok)
}
