//! The client's command line: `starling-client …`, and the same as `starling client …`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;
use starling_daemon::exit::Exit;
use starling_daemon::keeping::{self, BackupVerb, KeepRequest, Kept, KeyVerb};
use starling_net::Credentials;
use starling_store::{KeySource, StoreError};

use crate::agent::ClientError;
use crate::burn_learner::BurnLearner;
use crate::config::ClientConfig;
use crate::learner::{Learner, with_causes};
use crate::predict;
use crate::status::Status;
use crate::trust::TrustError;

mod join;
mod privacy;
mod words;

use join::join;
use words::describe;

/// Arguments of the client.
#[derive(Debug, Args)]
pub struct ClientCommand {
    /// Say more; twice for everything. The variable STARLING_LOG has the last word.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The client's verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Connect to the aggregator and take part in rounds until SIGTERM or SIGINT. Exit code 3: refused for good at the first connection.
    Run {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Become a device of a fleet: with the join string that `starling-aggregator device invite` has printed
    Join {
        /// The join string. Any case; dashes and spaces do not matter.
        string: String,
        /// The folder for key.pem, certificate.pem, ca.pem and a first starling-client.toml.
        #[arg(long, value_name = "FOLDER", conflicts_with = "config", required_unless_present = "config")]
        out: Option<PathBuf>,
        /// A configuration: the files go where its `[tls]` says.
        #[arg(long)]
        config: Option<PathBuf>,
        /// The name to ask for, where the invitation does not say; the machine's own by default.
        #[arg(long)]
        name: Option<String>,
        /// The network that leads to the aggregator, for the configuration that is written.
        #[arg(long, value_enum, default_value = "internet")]
        path: PathChoice,
    },
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Ask the running client for predictions, from the newest release that it holds.
    Predict(predict::Args),
    /// Show the receipts of the aggregator's audit log, each checked again. Exit code 5: one does not hold.
    Receipts {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Print JSON, to a file when one is named.
        #[arg(long, num_args = 0..=1, value_name = "FILE")]
        json: Option<Option<PathBuf>>,
    },
    /// The keys of the state folder. `escrow` also works while the client runs; for `rotate` it must be stopped.
    #[command(subcommand)]
    Key(KeyVerb),
    /// Backups of the state folder. `create` also works while the client runs; `[backup]` of its configuration makes them by itself.
    #[command(subcommand)]
    Backup(BackupVerb),
    /// Stop the client and destroy its keys and all that it remembers. Nothing brings that back.
    Wipe {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Do it. Without this nothing is done.
        #[arg(long)]
        yes: bool,
    },
    /// What has been spent of the owner's privacy, and what is left.
    #[command(subcommand)]
    Privacy(privacy::PrivacyVerb),
    /// What the client of this configuration is doing.
    Status {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Print JSON, to a file when one is named.
        #[arg(long, num_args = 0..=1, value_name = "FILE")]
        json: Option<Option<PathBuf>>,
    },
}

/// Which network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PathChoice {
    /// Any.
    Internet,
    /// The same machine.
    Loopback,
}

/// What can be done with a configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Read the configuration and the certificate as `run` would, without connecting. Exit code 2: something is wrong.
    Check {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Print JSON, to a file when one is named.
        #[arg(long, num_args = 0..=1, value_name = "FILE")]
        json: Option<Option<PathBuf>>,
    },
}

/// Does what the arguments say.
pub fn run(command: ClientCommand) -> Exit {
    match command.verb {
        Verb::Run { config } => match load(&config) {
            Ok(config) => {
                let learner = Arc::new(BurnLearner::new(config.task.clone()));
                run_with(config, learner, command.verbose)
            }
            Err(exit) => exit,
        },
        Verb::Join { string, out, config, name, path } => join(&string, out, config, name, path),
        Verb::Config(ConfigVerb::Check { config, json }) => check(&config, json),
        Verb::Predict(args) => match load(&args.config) {
            Ok(config) => predict::command(&config, &args),
            Err(exit) => exit,
        },
        Verb::Receipts { config, json } => match load(&config) {
            Ok(config) => receipts(&config, json),
            Err(exit) => exit,
        },
        Verb::Key(verb) => {
            let request = keeping::request_of_key(&verb);
            kept(keeping::config_of_key(&verb), request, |state| keeping::key(&verb, state))
        }
        Verb::Backup(verb) => {
            let request = keeping::request_of_backup(&verb);
            kept(keeping::config_of_backup(&verb), request, |state| keeping::backup(&verb, state))
        }
        Verb::Wipe { config, yes } => match load(&config) {
            Ok(config) => wipe(&config, yes),
            Err(exit) => exit,
        },
        Verb::Privacy(verb) => privacy::command(verb),
        Verb::Status { config, json } => match load(&config) {
            Ok(config) => status(&config, json),
            Err(exit) => exit,
        },
    }
}

fn wipe(config: &ClientConfig, yes: bool) -> Exit {
    if !yes {
        eprintln!(
            "this would stop the client and destroy its keys, its certificate and {}: add --yes",
            config.state_dir.display()
        );
        return Exit::Usage;
    }
    match crate::wipe::execute(config) {
        Ok(said) => {
            println!("{}", said.join("\n"));
            Exit::Ok
        }
        Err(error @ StoreError::InUse(_)) => complain(&error, Exit::InUse),
        Err(error) => complain(&error, Exit::Failure),
    }
}

/// Asks the running client where it can do it itself, and does it here where none runs.
fn kept(
    config: Option<&Path>,
    request: Option<KeepRequest>,
    offline: impl FnOnce(Option<(&Path, &KeySource)>) -> Kept,
) -> Exit {
    let state = match config.map(load).transpose() {
        Ok(config) => config.map(|config| (config.state_dir.clone(), config.key_source())),
        Err(exit) => return exit,
    };
    if let (Some((folder, _)), Some(request)) = (&state, &request) {
        match crate::keeping::ask(folder, request) {
            Ok(None) => {}
            Ok(Some(said)) => {
                println!("{said}");
                return Exit::Ok;
            }
            Err(error) => return complain(&error, Exit::Failure),
        }
    }
    match offline(state.as_ref().map(|(folder, source)| (&**folder, source))) {
        Ok((exit, said)) => {
            println!("{said}");
            exit
        }
        Err(error @ StoreError::InUse(_)) => complain(&error, Exit::InUse),
        Err(error @ StoreError::Key(_)) => complain(&error, Exit::Usage),
        Err(error) => complain(&error, Exit::Failure),
    }
}

/// Runs the client with any learner, in a runtime of its own on this thread. For this command, and for a bench.
pub fn run_with(config: ClientConfig, learner: Arc<dyn Learner>, verbose: u8) -> Exit {
    if let Err(error) = starling_daemon::logging::init(verbose) {
        return complain(&error, Exit::Usage);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, Exit::Failure),
    };
    let result = runtime.block_on(async {
        let shutdown = starling_daemon::signals::shutdown();
        crate::agent::run(config, learner, shutdown).await
    });
    match result {
        Ok(()) => Exit::Ok,
        Err(error) => {
            let exit = exit_of(&error);
            complain(&error, exit)
        }
    }
}

fn exit_of(error: &ClientError) -> Exit {
    match error {
        ClientError::Refused(_) => Exit::Refused,
        ClientError::Credentials(_) | ClientError::Files(_) | ClientError::Role(_) => Exit::Usage,
        ClientError::Trust(TrustError::File(_) | TrustError::Root { .. }) => Exit::Usage,
        ClientError::State { source: StoreError::InUse(_), .. } => Exit::InUse,
        ClientError::State { source: StoreError::Key(_), .. } => Exit::Usage,
        ClientError::State { .. } | ClientError::Trust(_) | ClientError::Bind(_) | ClientError::Backups(_) => {
            Exit::Failure
        }
    }
}

fn load(path: &Path) -> Result<ClientConfig, Exit> {
    ClientConfig::load(path).map_err(|error| complain(&error, Exit::Usage))
}

/// What `config check --json` prints.
#[derive(Debug, Serialize)]
struct Checked {
    name: String,
    device: String,
    aggregator: String,
    tasks: Vec<String>,
    certificate_valid_until_unix_s: i64,
    /// The digest of the fleet's first root of trust, if one is pinned.
    root: Option<String>,
    root_version: Option<u64>,
}

fn check(path: &Path, json: Option<Option<PathBuf>>) -> Exit {
    let config = match load(path) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let credentials = match Credentials::load(&config.tls) {
        Ok(credentials) => credentials,
        Err(error) => return complain(&error, Exit::Usage),
    };
    let identity = credentials.identity();
    if identity.role != starling_wire::Role::Device {
        return complain(&ClientError::Role(identity.role), Exit::Usage);
    }
    let root = config.trust.as_ref().map(|trust| crate::trust::pinned(&trust.root)).transpose();
    let root = match root {
        Ok(root) => root,
        Err(error) => return complain(&error, Exit::Usage),
    };
    let checked = Checked {
        name: identity.name.clone(),
        device: identity.id.to_string(),
        aggregator: config.aggregator.to_string(),
        tasks: config.task.iter().map(|task| task.name.clone()).collect(),
        certificate_valid_until_unix_s: credentials.valid_until_unix_s(),
        root: root.as_ref().map(|root| root.origin().to_string()),
        root_version: root.as_ref().map(|root| root.root().head().version),
    };
    print(&checked, json, || {
        let Checked { name, device, aggregator, tasks, .. } = &checked;
        let trust = match (&checked.root, checked.root_version) {
            (Some(root), Some(version)) => format!("root {root}, version {version}"),
            _ => "unsigned: no root is pinned".to_owned(),
        };
        let tasks = tasks.join(", ");
        format!("device      {name} ({device})\naggregator  {aggregator}\ntasks       {tasks}\ntrust       {trust}")
    })
}

fn status(config: &ClientConfig, json: Option<Option<PathBuf>>) -> Exit {
    match Status::read(&config.state_dir) {
        Ok(status) => print(&status, json, || describe(&status)),
        Err(error) => {
            eprintln!("no client has run with the state folder {}", config.state_dir.display());
            complain(&error, Exit::Failure)
        }
    }
}

/// One line of `receipts --json`.
#[derive(Debug, Serialize)]
struct Shown {
    run: u32,
    round: u32,
    received_unix_s: u64,
    log: String,
    record: String,
    /// Records under the signed root; nothing when the receipt does not hold.
    log_records: Option<u64>,
    problem: Option<String>,
}

fn receipts(config: &ClientConfig, json: Option<Option<PathBuf>>) -> Exit {
    let device = match Credentials::load(&config.tls) {
        Ok(credentials) => credentials.identity().id,
        Err(error) => return complain(&error, Exit::Usage),
    };
    let kept = match crate::receipts::all(&config.state_dir) {
        Ok(kept) => kept,
        Err(error) => return complain(&error, Exit::Failure),
    };
    let shown = kept.into_iter().map(|kept| {
        let checked = crate::receipts::check_again(&kept, device);
        let log = kept.key.split('+').next().unwrap_or_default().to_owned();
        Shown {
            run: kept.run,
            round: kept.round,
            received_unix_s: kept.received_unix_s,
            log,
            record: kept.record,
            log_records: checked.as_ref().ok().map(|checkpoint| checkpoint.size),
            problem: checked.err().map(|error| with_causes(&error)),
        }
    });
    let shown: Vec<Shown> = shown.collect();
    let line = |shown: &Shown| {
        let Shown { run, round, log_records, problem, log, .. } = shown;
        match (log_records, problem) {
            (Some(records), _) => format!("run {run} round {round}: in the log {log}, of {records} records then"),
            (None, problem) => format!("run {run} round {round}: {}", problem.as_deref().unwrap_or("does not hold")),
        }
    };
    let printed = print(&shown, json, || shown.iter().map(line).collect::<Vec<_>>().join("\n"));
    if printed == Exit::Ok && shown.iter().any(|shown| shown.problem.is_some()) { Exit::Missed } else { printed }
}

/// stdout is data: JSON where it is asked for, words otherwise.
pub(crate) fn print(value: &impl Serialize, json: Option<Option<PathBuf>>, words: impl FnOnce() -> String) -> Exit {
    let text = match &json {
        None => words(),
        Some(_) => serde_json::to_string_pretty(value).expect("it holds numbers and texts only"),
    };
    match json.flatten() {
        None => println!("{text}"),
        Some(file) => {
            if let Err(error) = fs::write(&file, text + "\n") {
                eprintln!("{} cannot be written", file.display());
                return complain(&error, Exit::Failure);
            }
        }
    }
    Exit::Ok
}

/// Says what went wrong, with its causes, once.
pub(crate) fn complain(error: &dyn Error, exit: Exit) -> Exit {
    eprintln!("error: {}", with_causes(error));
    exit
}
