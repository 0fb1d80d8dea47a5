//! `starling-client privacy …`: the owner's view of what has left the device.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;
use starling_daemon::exit::Exit;
use starling_privacy::Statement;
use starling_privacy::dp_sgd::meaning;
use starling_store::{Store, StoreError};

use super::{complain, load, print};
use crate::config::ClientConfig;
use crate::ledger::Ledger;
use crate::policy::statement;
use crate::status::{PrivacyStatus, Status};

/// The verbs of `starling-client privacy`.
#[derive(Debug, Subcommand)]
pub enum PrivacyVerb {
    /// What each run has spent, and all of them together; also while the client runs
    Ledger {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Print JSON, to a file when one is named.
        #[arg(long, num_args = 0..=1, value_name = "FILE")]
        json: Option<Option<PathBuf>>,
    },
    /// What this device gives away and to whom, in words, from its configuration and its ledger
    Statement {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Print JSON, to a file when one is named.
        #[arg(long, num_args = 0..=1, value_name = "FILE")]
        json: Option<Option<PathBuf>>,
    },
}

pub(super) fn command(verb: PrivacyVerb) -> Exit {
    match verb {
        PrivacyVerb::Ledger { config, json } => match load(&config) {
            Ok(config) => match read(&config) {
                Ok(ledger) => print(&ledger, json, || describe(&ledger)),
                Err(error) => complain(&error, Exit::Failure),
            },
            Err(exit) => exit,
        },
        PrivacyVerb::Statement { config, json } => match load(&config) {
            Ok(config) => {
                // A statement about a client that has not run yet makes no folder for it.
                let ledger = config.state_dir.join("records").exists().then(|| read(&config)).transpose();
                match ledger {
                    Ok(ledger) => {
                        let words = statement::words(&config, ledger.as_ref());
                        print(&words, json, || words.to_string())
                    }
                    Err(error) => complain(&error, Exit::Failure),
                }
            }
            Err(exit) => exit,
        },
    }
}

/// The ledger of a stopped client from its records; that of a running one as it wrote it last.
fn read(config: &ClientConfig) -> Result<PrivacyStatus, StoreError> {
    match Store::open(&config.state_dir, &config.key_source()) {
        Ok(store) => Ok(Ledger::open(Arc::new(store), &config.state_dir, config.policy.budget())?.status()),
        Err(error @ StoreError::InUse(_)) => {
            Status::read(&config.state_dir).ok().and_then(|status| status.privacy).ok_or(error)
        }
        Err(error) => Err(error),
    }
}

fn describe(ledger: &PrivacyStatus) -> String {
    let amount =
        |epsilon: Option<f64>| epsilon.map_or_else(|| "without bound".to_owned(), |epsilon| format!("{epsilon:.4}"));
    let of = |most: Option<f64>| most.map_or_else(String::new, |most| format!(" of {most}"));
    let mut lines = vec![format!(
        "spent in all  epsilon {}{}, delta {:e}",
        amount(ledger.epsilon_spent),
        of(ledger.epsilon_lifetime),
        ledger.delta
    )];
    for run in &ledger.runs {
        let assumed = match run.rounds_assumed {
            0 => String::new(),
            assumed => format!(", {assumed} of them assumed"),
        };
        lines.push(format!(
            "{} run {}  epsilon {}{}, {} rounds{assumed}, noise: {}",
            run.task,
            run.run,
            amount(run.epsilon),
            of(ledger.epsilon_per_run),
            run.rounds,
            run.noise
        ));
    }
    if ledger.epsilon_lost > 0.0 {
        lines.push(format!(
            "of all that, {:.4} is assumed: the state folder was restored from a backup",
            ledger.epsilon_lost
        ));
    }
    if ledger.restores_unbounded > 0 {
        lines.push(format!(
            "the state folder was restored {} times without a lifetime budget: runs that began and ended since the backup are not in this",
            ledger.restores_unbounded
        ));
    }
    for run in &ledger.examples {
        lines.push(format!(
            "{} run {}  of one example: epsilon {}{}, {} rounds{}, {} steps at a sampling rate of {:.6}, noise: {} clipping norms",
            run.task,
            run.run,
            amount(run.epsilon),
            run.epsilon_max.map_or_else(String::new, |most| format!(" (the plan's budget: {most})")),
            run.rounds,
            if run.rounds_assumed > 0 { format!(", {} of them assumed", run.rounds_assumed) } else { String::new() },
            run.steps,
            run.sampling_rate,
            run.noise_multiplier
        ));
    }
    if !ledger.examples.is_empty() {
        let Statement { unit, neighbours, sampling, adversary } = meaning();
        lines.push(format!(
            "of one example: unit: {unit}; neighbours: {neighbours}; sampling: {sampling}; adversary: {adversary}"
        ));
    }
    lines.push(
        "unit: this device; neighbours: its updates, or zeros in their place; sampling: none assumed; adversary: whoever sees what the \
         noise is added to, with the noise"
            .to_owned(),
    );
    lines.join("\n")
}
