//! Which daemon a command asks, and how its answer is printed.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::Value;
use starling_daemon::Exit;

use crate::admin::Daemon;
use crate::config::AggregatorConfig;

/// How to reach the daemon and how to print its answer.
#[derive(Debug, Args)]
pub struct Ask {
    #[command(flatten)]
    pub(super) which: Which,
    /// Print JSON instead of words
    #[arg(long)]
    pub(super) json: bool,
}

/// Which running daemon: the one of this machine, or one elsewhere.
#[derive(Debug, Args)]
pub struct Which {
    /// The configuration file of the running daemon of this machine: it says where its socket is
    #[arg(long, required_unless_present = "remote", conflicts_with = "remote")]
    pub(super) config: Option<PathBuf>,
    /// An aggregator elsewhere, where devices connect to it
    #[arg(long, value_name = "HOST:PORT", requires = "identity")]
    pub(super) remote: Option<String>,
    /// The folder of the certificate to ask with: certificate.pem, key.pem and ca.pem of an operator, a publisher or an auditor
    #[arg(long, value_name = "FOLDER", requires = "remote")]
    pub(super) identity: Option<PathBuf>,
}

impl Which {
    /// The way to it.
    pub(crate) fn daemon(&self) -> anyhow::Result<Daemon> {
        match (&self.config, &self.remote, &self.identity) {
            (Some(config), ..) => Ok(Daemon::here(AggregatorConfig::load(config)?.admin_socket())),
            (None, Some(remote), Some(identity)) => Ok(Daemon::remote(remote, identity)?),
            _ => anyhow::bail!("expected --config FILE, or --remote HOST:PORT with --identity FOLDER"),
        }
    }
}

pub(crate) fn print(ask: &Ask, request: &Value, words: impl FnOnce(&Value)) -> anyhow::Result<Exit> {
    let answer = ask.daemon()?.ask(request)?;
    ask.show(&answer, words)
}

impl Ask {
    /// The way to the daemon.
    pub(crate) fn daemon(&self) -> anyhow::Result<Daemon> {
        self.which.daemon()
    }

    pub(crate) fn show(&self, answer: &Value, words: impl FnOnce(&Value)) -> anyhow::Result<Exit> {
        if self.json {
            println!("{answer}")
        } else {
            words(answer)
        }
        Ok(Exit::Ok)
    }
}

/// Asks with the file at `path`, whose length `request` announces as `field`.
pub(crate) fn send(daemon: &Daemon, mut request: Value, field: &str, path: &Path) -> anyhow::Result<Value> {
    let unreadable = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(unreadable)?;
    let length = file.metadata().with_context(unreadable)?.len();
    request[field] = length.into();
    Ok(daemon.ask_with_file(&request, &mut file, length)?)
}
