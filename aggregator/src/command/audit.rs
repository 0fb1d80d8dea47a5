//! `audit …`: export, check, sign and witness the log. What is checked is checked here, in the command, not by the daemon that wrote it.

mod cosign;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use starling_audit::export::{Checker, LINE_BYTES_MAX, Report, checkpoint_line, header_line};
use starling_audit::receipt::{Wanted, check};
use starling_audit::{Checkpoint, Note, VerifierKey};
use starling_daemon::Exit;
use starling_wire::{DeviceId, Digest, Receipt, RunId};

use super::{Ask, Which};
use crate::admin::Daemon;
use crate::audit::key as key_files;
use crate::config::AggregatorConfig;

/// Verbs about the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditVerb {
    /// Check every record, the chain, the signed checkpoints and the contributors of each version. Exit code 5: something was
    /// changed, and it says where
    Verify(Verify),
    /// Write the log as JSON lines, which `verify --file` checks anywhere
    Export {
        /// The file; standard output when not given
        #[arg(long)]
        out: Option<PathBuf>,
        /// Also write the names behind the commitments, as far as they were not erased
        #[arg(long)]
        personal: bool,
        /// Which daemon
        #[command(flatten)]
        ask: Ask,
    },
    /// Check a certificate of erasure; no daemon is needed. Exit code 5: it does not hold
    Certificate {
        /// The certificate, as `device forget` wrote it
        file: PathBuf,
        /// The log's public keys (`audit.pub` of the state folder), from somebody you trust
        #[arg(long)]
        key: PathBuf,
        /// Print JSON instead of words
        #[arg(long)]
        json: bool,
    },
    /// Sign a checkpoint of all there is and print it
    Checkpoint(Ask),
    /// Co-sign the newest checkpoint as a witness, after checking that the log goes on from the one seen last, and counting the devices that it has
    /// let into the fleet
    Cosign {
        /// The witness's private key; made when there is none. `FILE.seen` keeps the checkpoint seen last, and `FILE.census` who is enrolled
        #[arg(long)]
        key: PathBuf,
        /// Refuse to sign when more devices than this were ever enrolled: as many as the witness knows of
        #[arg(long, value_name = "DEVICES")]
        devices_max: Option<u64>,
        /// The name of a key that is made
        #[arg(long, default_value = "starling-witness")]
        name: String,
        /// The log's public keys; those of the state folder when not given
        #[arg(long)]
        log_key: Option<PathBuf>,
        /// Which daemon
        #[command(flatten)]
        ask: Ask,
    },
    /// Show, and check, the proof that a device's update is in the log
    Receipt {
        /// The run
        run: u32,
        /// The round
        round: u32,
        /// The device's id
        device: DeviceId,
        /// The log's public keys; those of the state folder when not given
        #[arg(long)]
        key: Option<PathBuf>,
        /// Which daemon
        #[command(flatten)]
        ask: Ask,
    },
}

/// `audit verify`: of a running daemon, or of a file.
#[derive(Debug, Args)]
pub struct Verify {
    /// The configuration file of the running daemon of this machine
    #[arg(long, required_unless_present_any = ["file", "remote"], conflicts_with_all = ["file", "remote"])]
    config: Option<PathBuf>,
    /// An aggregator elsewhere, where devices connect to it
    #[arg(long, value_name = "HOST:PORT", requires = "identity", conflicts_with = "file")]
    remote: Option<String>,
    /// The folder of the certificate to ask with
    #[arg(long, value_name = "FOLDER", requires = "remote")]
    identity: Option<PathBuf>,
    /// An export; no daemon and no state folder are needed
    #[arg(long)]
    file: Option<PathBuf>,
    /// The log's public keys (`audit.pub` of the state folder), from somebody you trust
    #[arg(long)]
    key: Option<PathBuf>,
    /// Public keys of witnesses, whose signatures are then checked as well
    #[arg(long)]
    witness: Vec<PathBuf>,
    /// A checkpoint that you kept: the log has to go on from it
    #[arg(long)]
    checkpoint: Vec<PathBuf>,
    /// Print JSON instead of words
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(verb: AuditVerb) -> anyhow::Result<Exit> {
    match verb {
        AuditVerb::Verify(verify) => verify_log(&verify),
        AuditVerb::Export { out, personal, ask } => {
            let log = Log::of(&ask.which)?;
            match out {
                Some(path) => {
                    let mut file = io::BufWriter::new(
                        File::create(&path).with_context(|| format!("cannot write {}", path.display()))?,
                    );
                    log.lines(personal, |line| Ok(writeln!(file, "{line}")?))?;
                    file.flush()?;
                }
                None => {
                    let mut stdout = io::stdout().lock();
                    log.lines(personal, |line| Ok(writeln!(stdout, "{line}")?))?;
                }
            }
            Ok(Exit::Ok)
        }
        AuditVerb::Certificate { file, key, json } => super::forget::check(&file, &key, json),
        AuditVerb::Checkpoint(ask) => {
            let answer = Log::of(&ask.which)?.ask(&json!({ "what": "checkpoint" }))?;
            if ask.json {
                println!("{answer}")
            } else {
                print!("{}", word(&answer, "note")?)
            }
            Ok(Exit::Ok)
        }
        AuditVerb::Cosign { key, devices_max, name, log_key, ask } => {
            cosign::cosign(&key, &name, log_key.as_deref(), devices_max, &ask)
        }
        AuditVerb::Receipt { run, round, device, key, ask } => receipt(run, round, device, key.as_deref(), &ask),
    }
}

/// The running daemon's log.
struct Log {
    daemon: Daemon,
    /// The log's public keys, where the state folder is of this machine.
    public: Option<PathBuf>,
}

impl Log {
    fn of(which: &Which) -> anyhow::Result<Self> {
        let config = which.config.as_deref().map(AggregatorConfig::load).transpose()?;
        let public = config.map(|config| crate::audit::public_file(&config.state_dir));
        Ok(Self { daemon: which.daemon()?, public })
    }

    fn ask(&self, ask: &Value) -> anyhow::Result<Value> {
        Ok(self.daemon.ask(&json!({ "verb": "audit", "ask": ask }))?)
    }

    /// The log's public keys: `given`, or those of the state folder. Of an aggregator elsewhere they have to come by another way than the log.
    fn keys(&self, given: Option<&Path>) -> anyhow::Result<Vec<VerifierKey>> {
        let path = given.or(self.public.as_deref());
        public_keys(
            path.context("give the log's public keys, `audit.pub` of the aggregator's state folder, with --key")?,
        )
    }

    /// The export, line by line: up to a checkpoint that is signed now.
    fn lines(&self, personal: bool, mut line: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        // Asking for personal fields is itself recorded, so it comes first.
        let opened = if personal { self.ask(&json!({ "what": "personal" }))? } else { Value::Null };
        let head = self.ask(&json!({ "what": "checkpoint" }))?;
        let size = head["size"].as_u64().context("the answer names no size")?;
        let keys = texts(&head["keys"]).map(str::parse).collect::<Result<Vec<VerifierKey>, _>>()?;
        line(&header_line(&keys, size))?;
        let mut from = 0;
        while from < size {
            let page = self.ask(&json!({ "what": "records", "from": from, "end": size }))?;
            if let Some(problem) = page["problem"].as_str() {
                eprintln!("{problem}");
            }
            texts(&page["lines"]).try_for_each(&mut line)?;
            let next = page["next"].as_u64().filter(|next| *next > from);
            from = next.context("the daemon gives no further records")?;
        }
        texts(&opened["lines"]).try_for_each(&mut line)?;
        let mut from = 0;
        loop {
            let page = self.ask(&json!({ "what": "checkpoints", "from": from }))?;
            for text in texts(&page["notes"]) {
                let note = Note::parse(text)?;
                let signed = note.text().parse::<Checkpoint>()?.size;
                if signed <= size {
                    line(&checkpoint_line(&note))?;
                }
            }
            match page["next"].as_u64().filter(|next| *next > from && *next < size) {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }
}

fn verify_log(arguments: &Verify) -> anyhow::Result<Exit> {
    let mut witnesses = Vec::new();
    for path in &arguments.witness {
        witnesses.extend(public_keys(path)?);
    }
    let mut checker;
    let Verify { config, remote, identity, .. } = arguments;
    match &arguments.file {
        None => {
            let which = Which { config: config.clone(), remote: remote.clone(), identity: identity.clone() };
            let log = Log::of(&which)?;
            let keys = log.keys(arguments.key.as_deref())?;
            checker = Checker::new(keys, witnesses);
            log.lines(false, |line| {
                checker.line(line.as_bytes());
                Ok(())
            })?;
        }
        Some(path) => {
            let mut file = BufReader::new(File::open(path).with_context(|| format!("cannot read {}", path.display()))?);
            let first = next_line(&mut file)?.unwrap_or_default();
            let given = arguments.key.as_deref().map(public_keys).transpose()?;
            let keys = given.unwrap_or_else(|| Checker::keys_of(&String::from_utf8_lossy(&first)));
            ensure!(!keys.is_empty(), "the export names no key; give the log's public key with --key");
            if arguments.key.is_none() {
                let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
                eprintln!(
                    "the key is the export's own; compare it with the operator's `audit.pub`: {}",
                    names.join(" ")
                );
            }
            checker = Checker::new(keys, witnesses);
            checker.line(&first);
            while let Some(line) = next_line(&mut file)? {
                checker.line(&line);
            }
        }
    }
    for path in &arguments.checkpoint {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        checker.checkpoint(&text);
    }
    let report = checker.finish();
    tell(&report, arguments.json);
    Ok(if report.findings.is_empty() { Exit::Ok } else { Exit::Missed })
}

/// A line without its end. One that is longer than any is cut: its rest counts as further lines, none of which is any.
pub(super) fn next_line(file: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    file.take(LINE_BYTES_MAX as u64 + 2).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Some(line));
    }
    Ok((!line.is_empty()).then_some(line))
}

fn tell(report: &Report, as_json: bool) {
    let Report { records, checkpoints, newest, cosignatures, personal, findings } = report;
    if as_json {
        let finding =
            |finding: &starling_audit::Finding| json!({ "line": finding.line, "problem": finding.to_string() });
        let findings: Vec<Value> = findings.iter().map(finding).collect();
        let answer = json!({
            "whole": findings.is_empty(), "records": records, "checkpoints": checkpoints,
            "signed_records": newest.as_ref().map(|newest| newest.size),
            "root": newest.as_ref().map(|newest| newest.root.to_string()),
            "cosignatures": cosignatures, "personal": personal, "findings": findings,
        });
        return println!("{answer}");
    }
    findings.iter().for_each(|finding| println!("{finding}"));
    let signed = newest.as_ref().map_or(0, |newest| newest.size);
    println!(
        "{records} records, {signed} of them under {checkpoints} signed checkpoints, {cosignatures} co-signatures"
    );
    println!("{}", if findings.is_empty() { "the log is whole" } else { "the log was changed" });
}

fn receipt(run: u32, round: u32, device: DeviceId, key: Option<&Path>, ask: &Ask) -> anyhow::Result<Exit> {
    let log = Log::of(&ask.which)?;
    let question = json!({ "what": "receipt", "run": run, "round": round, "device": device.to_string() });
    let answer = log.ask(&question)?;
    let receipt = Receipt {
        run: RunId(run),
        round,
        key: word(&answer, "key")?.to_owned(),
        record: word(&answer, "record")?.as_bytes().to_vec(),
        inclusion: digests(&answer["inclusion"])?,
        checkpoint: word(&answer, "checkpoint")?.to_owned(),
        consistency: digests(&answer["consistency"])?,
    };
    let keys = log.keys(key)?;
    let key = keys.last().context("audit.pub holds no key")?;
    let wanted = Wanted { device, run, round, digest: None };
    let (record, checkpoint) = check(&receipt, &wanted, key, None)?;
    if ask.json {
        println!("{answer}");
    } else {
        println!("{}", String::from_utf8_lossy(&receipt.record));
        println!("is record {} of {}, under the root {}", record.seq, checkpoint.size, checkpoint.root);
    }
    Ok(Exit::Ok)
}

fn public_keys(path: &Path) -> anyhow::Result<Vec<VerifierKey>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the public key {}", path.display()))?;
    let keys = key_files::read_public(path, &text)?;
    ensure!(!keys.is_empty(), "{}: there is no key in it", path.display());
    Ok(keys)
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn digests(list: &Value) -> anyhow::Result<Vec<Digest>> {
    Ok(texts(list).map(str::parse).collect::<Result<_, _>>()?)
}

fn word<'a>(answer: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    answer[field].as_str().with_context(|| format!("the daemon's answer has no {field}"))
}
