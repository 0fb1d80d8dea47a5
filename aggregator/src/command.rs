//! The operator's command line: `starling-aggregator …`, and the same as `starling aggregator …`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use starling_daemon::Exit;
use starling_daemon::keeping::{self, BackupVerb, KeepRequest, Kept, KeyVerb};
use starling_store::KeySource;

mod ask;
mod config;
pub(crate) mod device;
mod forget;
mod operator;
mod revoke;
pub(crate) mod trust;

use crate::access;
use crate::admin::{self, AdminError, Daemon};
use crate::config::AggregatorConfig;
use crate::evaluator::Evaluator;
use crate::release_command::{self, ReleaseVerb};

pub mod audit;

pub use ask::{Ask, Which};
pub(crate) use ask::{print, send};

/// The operator's verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon, or start, list, watch and stop runs on the running one
    Run(Run),
    /// Check a configuration file
    Config {
        /// What to do with it
        #[command(subcommand)]
        verb: config::ConfigVerb,
    },
    /// Show the connected devices and who was turned away
    Devices(Ask),
    /// Publish releases to the devices of a task, and see who serves them
    #[command(subcommand)]
    Release(ReleaseVerb),
    /// Forward what publishers signed anew
    #[command(subcommand)]
    Trust(trust::TrustVerb),
    /// Check, export, sign and witness the audit log
    Audit {
        /// What to do with it
        #[command(subcommand)]
        verb: audit::AuditVerb,
    },
    /// Print who may do what: the table by which the daemon decides
    Access {
        /// Print JSON instead of words
        #[arg(long)]
        json: bool,
    },
    /// The keys of the state folder
    #[command(subcommand)]
    Key(KeyVerb),
    /// Backups of the state folder
    #[command(subcommand)]
    Backup(BackupVerb),
    /// Certificates of operators, publishers and auditors: issue, list, revoke
    Operator {
        /// What to do
        #[command(subcommand)]
        verb: operator::OperatorVerb,
    },
    /// Invite devices, list them, let them in and throw them out
    Device {
        /// What to do
        #[command(subcommand)]
        verb: device::DeviceVerb,
    },
}

/// `run`: without a verb it is the daemon itself.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Run {
    /// The daemon's configuration file
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<RunVerb>,
}

/// Verbs about runs, sent to the running daemon.
#[derive(Debug, Subcommand)]
pub enum RunVerb {
    /// Start a run of a task
    Start {
        /// The task file
        task: PathBuf,
        /// The seed of initialisers, cohorts and batches
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Override a key of the task: key=value, keys dotted
        #[arg(long = "set", value_parser = key_value)]
        overrides: Vec<(String, String)>,
        /// Only devices that have all of these tags take part: `federation.tags` of the task
        #[arg(long, value_delimiter = ',')]
        tags: Vec<String>,
        /// Begin with these weights (safetensors) instead of the initialiser's
        #[arg(long, value_name = "FILE")]
        weights: Option<PathBuf>,
        /// What publishers signed of the plan, as `starling publish plan` writes it; devices that have pinned a root train nothing else
        #[arg(long, value_name = "FILE")]
        bundle: Option<PathBuf>,
        /// Which daemon
        #[command(flatten)]
        ask: Ask,
    },
    /// List all runs
    List(Ask),
    /// Show a run and its rounds
    Status {
        /// The run; the newest when not given
        run: Option<u32>,
        /// Which daemon
        #[command(flatten)]
        ask: Ask,
    },
    /// Write a run's model as safetensors: the float master of its newest version
    Export {
        /// The run
        run: u32,
        /// Where the weights go
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// A version's number, or `newest`; no older one is kept
        #[arg(long, default_value = "newest", value_parser = version)]
        version: VersionChoice,
        /// Which daemon
        #[command(flatten)]
        ask: Ask,
    },
    /// Forget a run that is over, with its rounds and its model
    Remove {
        /// The run
        run: u32,
        /// Which daemon
        #[command(flatten)]
        ask: Ask,
    },
    /// Stop a run after the round that is being committed
    Stop {
        /// The run
        run: u32,
        /// Which daemon
        #[command(flatten)]
        ask: Ask,
    },
}

/// Which version of a model.
#[derive(Debug, Clone, Copy)]
pub struct VersionChoice(Option<u64>);

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn version(text: &str) -> Result<VersionChoice, String> {
    match text {
        "newest" => Ok(VersionChoice(None)),
        number => {
            number.parse().map(|number| VersionChoice(Some(number))).map_err(|_| "expected `newest` or a number".into())
        }
    }
}

/// Does what the command line says.
///
/// # Errors
/// With the whole chain of causes, for people.
pub fn execute(command: Command, evaluator: Option<Arc<dyn Evaluator>>) -> anyhow::Result<Exit> {
    match do_as_told(command, evaluator) {
        Err(error) if error.downcast_ref().is_some_and(AdminError::is_denied) => {
            eprintln!("error: {error:#}");
            Ok(Exit::Refused)
        }
        done => done,
    }
}

fn do_as_told(command: Command, evaluator: Option<Arc<dyn Evaluator>>) -> anyhow::Result<Exit> {
    match command {
        Command::Run(Run { config: Some(config), verb: None }) => daemon(&config, evaluator),
        Command::Run(Run { verb: Some(verb), .. }) => about_runs(verb),
        Command::Run(Run { config: None, verb: None }) => {
            anyhow::bail!("expected `run --config FILE` for the daemon, or `run start|list|status|export|stop`")
        }
        Command::Config { verb } => config::execute(&verb),
        Command::Access { json: false } => {
            print!("{}", access::show::text());
            Ok(Exit::Ok)
        }
        Command::Access { json: true } => {
            println!("{}", access::show::json());
            Ok(Exit::Ok)
        }
        Command::Release(verb) => release_command::execute(verb),
        Command::Trust(verb) => trust::execute(verb),
        Command::Audit { verb } => audit::execute(verb),
        Command::Key(verb) => {
            let request = keeping::request_of_key(&verb);
            kept(keeping::config_of_key(&verb), request, |state| keeping::key(&verb, state))
        }
        Command::Backup(verb) => {
            let request = keeping::request_of_backup(&verb);
            let exit = kept(keeping::config_of_backup(&verb), request, |state| keeping::backup(&verb, state))?;
            if let (BackupVerb::Restore { which, .. }, Exit::Ok) = (&verb, exit) {
                eprintln!("{}", revoke::hint(&which.config));
            }
            Ok(exit)
        }
        Command::Operator { verb } => operator::execute(verb),
        Command::Device { verb } => device::execute(verb),
        Command::Devices(ask) => print(&ask, &json!({ "verb": "devices" }), devices),
    }
}

fn daemon(config: &Path, evaluator: Option<Arc<dyn Evaluator>>) -> anyhow::Result<Exit> {
    starling_daemon::logging::init(0)?;
    let config = AggregatorConfig::load(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { crate::server::run(config, evaluator, starling_daemon::signals::shutdown()).await })?;
    Ok(Exit::Ok)
}

/// Asks the running daemon where it can do it itself, and does it here where none runs.
fn kept(
    config: Option<&Path>,
    request: Option<KeepRequest>,
    offline: impl FnOnce(Option<(&Path, &KeySource)>) -> Kept,
) -> anyhow::Result<Exit> {
    let config = config.map(AggregatorConfig::load).transpose()?;
    if let (Some(config), Some(request)) = (&config, request) {
        match admin::ask(&config.admin_socket(), &json!({ "verb": "keep", "request": request })) {
            Err(AdminError::Unreachable { .. }) => {}
            answer => {
                println!("{}", answer?["said"].as_str().unwrap_or_default());
                return Ok(Exit::Ok);
            }
        }
    }
    let state = config.map(|config| (config.state_dir.clone(), config.key_source()));
    let (exit, said) = offline(state.as_ref().map(|(folder, source)| (&**folder, source)))?;
    println!("{said}");
    Ok(exit)
}

fn about_runs(verb: RunVerb) -> anyhow::Result<Exit> {
    match verb {
        RunVerb::Start { task, seed, mut overrides, tags, weights, bundle, ask } => {
            if !tags.is_empty() {
                overrides.push(("federation.tags".to_owned(), json!(tags).to_string()));
            }
            let bundle = bundle.as_deref().map(trust::read_bundle).transpose()?;
            let text = std::fs::read_to_string(&task).with_context(|| format!("cannot read {}", task.display()))?;
            let request =
                json!({ "verb": "run-start", "task": text, "overrides": overrides, "seed": seed, "bundle": bundle });
            let begun = |answer: &Value| println!("run {} has begun", answer["run"]);
            match weights {
                None => print(&ask, &request, begun),
                Some(path) => {
                    let answer = send(&ask.daemon()?, request, "weights_bytes", &path)
                        .with_context(|| format!("no run was started with the weights in {}", path.display()))?;
                    ask.show(&answer, begun)
                }
            }
        }
        RunVerb::Export { run, out, version, ask } => {
            let request = json!({ "verb": "run-export", "run": run, "version": version.0 });
            let answer = export(&ask.daemon()?, &request, &out)?;
            ask.show(&answer, |answer| {
                let (parameters, version) = (&answer["parameters"], &answer["version"]);
                println!("{} holds version {version} of run {run}: {parameters} parameters", out.display());
            })
        }
        RunVerb::List(ask) => print(&ask, &json!({ "verb": "run-list" }), list),
        RunVerb::Status { run, ask } => print(&ask, &json!({ "verb": "run-status", "run": run }), status),
        RunVerb::Remove { run, ask } => {
            let request = json!({ "verb": "run-remove", "run": run });
            print(&ask, &request, |answer| println!("run {} is gone", answer["run"]))
        }
        RunVerb::Stop { run, ask } => {
            let request = json!({ "verb": "run-stop", "run": run });
            print(&ask, &request, |answer| println!("run {} stops", answer["run"]))
        }
    }
}

/// The file appears under its name when it is whole.
fn export(daemon: &Daemon, request: &Value, out: &Path) -> anyhow::Result<Value> {
    let unwritable = || format!("cannot write {}", out.display());
    let mut part = out.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut file = File::create(&part).with_context(unwritable)?;
    let answer = daemon.ask_for_file(request, &mut file).map_err(anyhow::Error::from).and_then(|answer| {
        file.sync_all().and_then(|()| std::fs::rename(&part, out)).with_context(unwritable)?;
        Ok(answer)
    });
    if answer.is_err() {
        // Best effort: what is half there is of no use.
        let _ = std::fs::remove_file(&part);
    }
    answer
}

fn list(answer: &Value) {
    println!("{:>5}  {:<24} {:<9} {:>6}  {:>8}", "run", "task", "state", "rounds", "accuracy");
    for run in answer.as_array().into_iter().flatten() {
        println!(
            "{:>5}  {:<24} {:<9} {:>6}  {:>8}",
            run["run"],
            run["name"].as_str().unwrap_or("?"),
            run["state"].as_str().unwrap_or("?"),
            run["rounds_committed"],
            share(&run["test_accuracy"])
        );
    }
}

fn status(answer: &Value) {
    let word = |key: &str| answer[key].as_str().unwrap_or("?").to_owned();
    println!("run {} of {}: {}", answer["run"], word("name"), word("state"));
    if let Some(problem) = answer["problem"].as_str() {
        println!("  problem: {problem}");
    }
    println!(
        "  version {}, {} devices connected, {} refused updates, {} bytes up, {} bytes down",
        answer["version"], answer["devices_connected"], answer["refused"], answer["bytes_up"], answer["bytes_down"]
    );
    for declined in answer["declined"].as_array().into_iter().flatten() {
        println!("  declined {} times: {}", declined["times"], declined["reason"].as_str().unwrap_or("?"));
    }
    match (&answer["answer"]["held_out"], &answer["answer"]["ranges"]) {
        (Value::Null, Value::Null) => rounds(answer),
        (held_out, Value::Null) => println!(
            "  held out by {} devices: {} of {} right, loss {:.4}",
            held_out["devices"],
            held_out["correct"],
            held_out["examples"],
            held_out["loss_sum"].as_f64().unwrap_or(f64::NAN) / held_out["examples"].as_f64().unwrap_or(f64::NAN)
        ),
        (_, ranges) => println!("  input ranges over {} rows of {} devices", ranges["examples"], ranges["devices"]),
    }
}

fn rounds(answer: &Value) {
    println!(
        "{:>6} {:>8} {:>9} {:>11} {:>11} {:>10} {:>10} {:>9}",
        "round", "updates", "wall s", "bytes up", "bytes down", "train loss", "test acc", "held out"
    );
    for round in answer["rounds"].as_array().into_iter().flatten() {
        println!(
            "{:>6} {:>8} {:>9.3} {:>11} {:>11} {:>10} {:>10} {:>9}",
            round["round"],
            format!("{}/{}", round["contributors"], round["cohort"]),
            round["wall_s"].as_f64().unwrap_or(f64::NAN),
            round["bytes_up"],
            round["bytes_down"],
            round["train_loss"].as_f64().map_or_else(|| "–".to_owned(), |loss| format!("{loss:.4}")),
            share(&round["test_accuracy"]),
            share(&round["heldout_accuracy"])
        );
    }
}

fn devices(answer: &Value) {
    for device in answer["devices"].as_array().into_iter().flatten() {
        let word = |key: &str| device[key].as_str().unwrap_or("?").to_owned();
        println!("{}  {:<20} {:<22} {}", word("device"), word("name"), word("address"), device["tasks"]);
    }
    for peer in answer["turned_away"].as_array().into_iter().flatten() {
        println!(
            "turned away: {}: {} (code {})",
            peer["who"].as_str().unwrap_or("?"),
            peer["reason"].as_str().unwrap_or("?"),
            peer["code"]
        );
    }
}

fn share(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |share| format!("{:.2} %", share * 100.0))
}
