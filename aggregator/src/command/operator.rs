//! `operator …`: certificates of those who administer: operators, publishers and auditors.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use starling_certs::{Key, write_new, write_new_secret};
use starling_daemon::Exit;
use starling_daemon::span::seconds;
use starling_wire::PublicKey;

use super::device::{decide, list};
use super::{Ask, print};
use crate::admin::AdminError;

/// Verbs about administrators.
#[derive(Debug, Subcommand)]
pub enum OperatorVerb {
    /// Make a key for a certificate to be: it stays here, and the operator gets its public half
    Key {
        /// The folder for key.pem
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
    /// Issue a certificate to an operator, a publisher or an auditor
    Issue(Issue),
    /// List operators, publishers and auditors: id, state, certificate's end, when last seen, name
    List(Ask),
    /// Throw one out for good: its connection ends, and its certificates count no more
    Revoke(super::device::Which),
}

/// `operator issue`.
#[derive(Debug, Args)]
pub struct Issue {
    /// What its holder may be
    #[arg(value_enum)]
    role: AdministratorRole,
    /// The holder's name
    #[arg(long)]
    name: String,
    /// The folder for certificate.pem and ca.pem, and for the key.pem of a key that is made here
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// The public half of the holder's key, as `operator key` prints it; without it a key is made here
    #[arg(long, value_name = "HEX")]
    public_key: Option<PublicKey>,
    /// How long the certificate is good, such as 12h or 30d; as long as a device's when not given
    #[arg(long, value_parser = seconds)]
    expires: Option<u64>,
    /// Which daemon
    #[command(flatten)]
    ask: Ask,
}

/// Who administers.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum AdministratorRole {
    /// Administers the aggregator
    Operator,
    /// Signs and releases models
    Publisher,
    /// Reads, and changes nothing
    Auditor,
}

impl AdministratorRole {
    fn word(self) -> &'static str {
        match self {
            AdministratorRole::Operator => "operator",
            AdministratorRole::Publisher => "publisher",
            AdministratorRole::Auditor => "auditor",
        }
    }
}

pub(super) fn execute(verb: OperatorVerb) -> anyhow::Result<Exit> {
    match verb {
        OperatorVerb::Key { out } => {
            let key = Key::generate()?;
            write_new_secret(&out.join("key.pem"), &key.to_pem())?;
            println!("{}", key.public());
            eprintln!("give this public half to an operator: `starling-aggregator operator issue … --public-key …`");
            Ok(Exit::Ok)
        }
        OperatorVerb::Issue(arguments) => issue(&arguments),
        OperatorVerb::List(ask) => print(&ask, &json!({ "verb": "operator-list" }), list),
        OperatorVerb::Revoke(which) => decide("device-revoke", &which, false),
    }
}

fn issue(arguments: &Issue) -> anyhow::Result<Exit> {
    let Issue { role, name, out, public_key, expires, ask } = arguments;
    let file = |name: &str| out.join(name);
    ensure!(!file("certificate.pem").exists(), "{} is there already", file("certificate.pem").display());
    let made = public_key.is_none().then(Key::generate).transpose()?;
    if let Some(key) = &made {
        // On the disk before anybody vouches for it.
        write_new_secret(&file("key.pem"), &key.to_pem())?;
    }
    let key = made.as_ref().map(Key::public).or(*public_key).context("there is no key")?;
    let answer = ask.daemon()?.ask(&json!({
        "verb": "operator-issue", "role": role.word(), "name": name, "public_key": key.to_string(),
        "certificate_s": expires,
    }));
    if made.is_some() && matches!(answer, Err(AdminError::Refused(_) | AdminError::Denied { .. })) {
        // Nobody vouches for it, and nobody will: the next try makes a new one.
        let _ = std::fs::remove_file(file("key.pem"));
    }
    let answer = answer?;
    write(out, &answer)?;
    ask.show(&answer, |answer| {
        let id = answer["id"].as_str().unwrap_or("?");
        println!("{} {name:?} has the id {id}; written to {}", role.word(), out.display());
    })
}

fn write(out: &Path, answer: &Value) -> anyhow::Result<()> {
    for (name, field) in [("ca.pem", "ca_pem"), ("certificate.pem", "certificate_pem")] {
        let text = answer[field].as_str().with_context(|| format!("the aggregator's answer has no {field}"))?;
        write_new(&out.join(name), text)?;
    }
    Ok(())
}
