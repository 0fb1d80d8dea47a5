//! `device forget`: what it would do is said first, then it is done, then it is certified.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};
use starling_audit::erasure::{CERTIFICATE_BYTES_MAX, Certificate};
use starling_daemon::{Exit, read_at_most};

use super::Ask;
use crate::audit::key as key_files;
use crate::config::AggregatorConfig;

/// `device forget`.
#[derive(Debug, Args)]
pub struct Forget {
    /// The device's id, the beginning of it, or its name. For one that was forgotten before: its certificate again
    device: String,
    /// Also begin every run anew that has learnt from the device, from before its first round and without it
    #[arg(long)]
    unlearn: bool,
    /// Only say what would go, and what unlearning would cost
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// The file for the certificate of erasure; standard output when not given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Which daemon
    #[command(flatten)]
    ask: Ask,
}

pub(super) fn execute(forget: &Forget) -> anyhow::Result<Exit> {
    let daemon = forget.ask.daemon()?;
    if let Some(out) = &forget.out {
        ensure!(!out.exists(), "{} is there already; name another file", out.display());
    }
    let plan = daemon.ask(&json!({ "verb": "device-forget-plan", "device": forget.device }))?;
    if plan["certificate"].is_null() {
        if forget.dry_run && forget.ask.json {
            println!("{plan}");
            return Ok(Exit::Ok);
        }
        eprint!("{}", said(&plan, forget.unlearn));
        if forget.dry_run || !(forget.yes || confirmed(&plan)?) {
            eprintln!("nothing was done");
            return Ok(if forget.dry_run { Exit::Ok } else { Exit::Usage });
        }
    }
    // By its id: a name may be given to another device meanwhile.
    let request = json!({ "verb": "device-forget", "device": plan["device"], "unlearn": forget.unlearn });
    let answer = daemon.ask(&request)?;
    let text = answer["certificate"].as_str().context("the aggregator sent no certificate")?;
    if let Some(out) = &forget.out {
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).open(out)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().with_context(|| {
            format!("the device is forgotten, but {} cannot be written; ask for the certificate again", out.display())
        })?;
    }
    match (forget.ask.json, &forget.out) {
        (true, _) => println!("{answer}"),
        (false, None) => print!("{text}"),
        (false, Some(out)) => {
            let config = forget.ask.which.config.as_deref().map(AggregatorConfig::load).transpose()?;
            let key = config.map_or_else(|| "audit.pub".into(), |config| crate::audit::public_file(&config.state_dir));
            eprintln!("the certificate is in {}; anybody can check it:", out.display());
            eprintln!("  starling-aggregator audit certificate {} --key {}", out.display(), key.display());
        }
    }
    for new in answer["unlearned"].as_array().into_iter().flatten() {
        eprintln!(
            "run {} takes the place of run {}, from version {} on",
            new["new_run"], new["run"], new["from_version"]
        );
    }
    Ok(Exit::Ok)
}

fn confirmed(plan: &Value) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        eprintln!("this cannot be undone: add --yes");
        return Ok(false);
    }
    let id = plan["device"].as_str().unwrap_or_default();
    let start = id.get(..8).unwrap_or(id);
    eprint!("this cannot be undone; type {start} to go on: ");
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim() == start)
}

/// What would be done, in words.
fn said(plan: &Value, unlearn: bool) -> String {
    let mut lines = vec![format!(
        "device {} {}: its key, name, tags, certificates, invitation and audit fields are destroyed, here and in every backup",
        plan["device"].as_str().unwrap_or("?"),
        plan["name"].as_str().unwrap_or("(nothing is known of it)"),
    )];
    if plan["connected"] == true {
        lines.push(
            "it is connected: it is cut off, and its update leaves every round that has not begun to commit".into(),
        );
    }
    lines.push(format!(
        "final at {} (seconds since 1970), when the last escrow copy of its key expires",
        plan["final_unix_s"]
    ));
    for run in plan["runs"].as_array().into_iter().flatten() {
        let rounds = run["rounds"].as_str().unwrap_or("?");
        lines.push(format!(
            "run {} has learnt from it in rounds {rounds}: its versions {} to {} keep that",
            run["run"], run["version_first"], run["version_last"]
        ));
        let cost = &run["unlearn"];
        if cost.is_null() {
            continue;
        }
        let mb = |key: &str| cost[key].as_f64().unwrap_or(0.0) / 1e6;
        lines.push(format!(
            "  {} back to version {}: {} rounds to repeat, about {:.1} MB up, {:.1} MB down and {:.0} s; at least {} devices",
            if unlearn { "it goes" } else { "--unlearn would go" },
            cost["from_version"],
            cost["rounds_to_repeat"],
            mb("bytes_up"),
            mb("bytes_down"),
            cost["wall_s"].as_f64().unwrap_or(0.0),
            cost["devices_min"],
        ));
    }
    for release in plan["releases"].as_array().into_iter().flatten() {
        let offered = if release["offered"] == true { ", and is offered" } else { "" };
        lines.push(format!("release version {} may have learnt from it{offered}", release["version"]));
    }
    for part in plan["unreadable"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        lines.push(format!("not searched: {part}"));
    }
    lines.join("\n") + "\n"
}

/// `audit certificate`: needs no daemon.
pub(super) fn check(path: &Path, key: &Path, json: bool) -> anyhow::Result<Exit> {
    let unreadable = |path: &Path| format!("{} cannot be read", path.display());
    let text = read_at_most(path, "a certificate of erasure", CERTIFICATE_BYTES_MAX as u64)?;
    let text = String::from_utf8(text).with_context(|| unreadable(path))?;
    let keys = std::fs::read_to_string(key).with_context(|| unreadable(key))?;
    let keys = key_files::read_public(key, &keys)?;
    let certificate = match Certificate::verified(&text, &keys) {
        Ok(certificate) => certificate,
        Err(error) => {
            eprintln!("{}: {}", path.display(), crate::worker::chain(&error));
            return Ok(Exit::Missed);
        }
    };
    if json {
        println!("{}", serde_json::to_string(&certificate)?);
        return Ok(Exit::Ok);
    }
    println!("device {} was erased at {}", certificate.device, certificate.erased_unix_s);
    println!("final at {} (seconds since 1970)", certificate.final_unix_s);
    for run in &certificate.runs {
        println!("run {}: rounds {}; versions {} to {}", run.run, run.rounds, run.version_first, run.version_last);
        if let Some(new) = run.unlearned {
            println!("  unlearned: run {} took its place from version {} on", new.run, new.version);
        }
    }
    for release in &certificate.releases {
        println!("release version {} {}", release.version, release.digest);
    }
    Ok(Exit::Ok)
}
