//! `starling publish inspect` and `starling publish verify`: what a bundle states, who has signed it, and what a device would say.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use starling_daemon::{Exit, now_unix_s};
use starling_trust::{Bundle, Document, Refused, Root, Statement, Subject};

use super::artefact::PlanFile;
use super::files;
use super::sign::{quorums, roots};
use crate::model::file::read_release;
use crate::report::{JsonArgs, Table};
use crate::task_input;

/// Arguments of `starling publish inspect`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct InspectArgs {
    /// A bundle
    bundle: PathBuf,
    #[command(flatten)]
    json: JsonArgs,
}

/// Arguments of `starling publish verify`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The bundle
    bundle: PathBuf,
    /// The roots that the device has pinned
    #[arg(long, value_name = "FILE")]
    roots: PathBuf,
    /// The release that it is about
    #[arg(long, value_name = "FILE", conflicts_with = "plan", required_unless_present = "plan")]
    release: Option<PathBuf>,
    /// The task file of the plan that it is about
    #[arg(long, value_name = "TASK")]
    plan: Option<PathBuf>,
    /// With --plan: override a key of the task
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = task_input::parse_override, requires = "plan")]
    overrides: Vec<(String, String)>,
    /// With --plan: the seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    json: JsonArgs,
}

/// One document.
#[derive(Debug, Serialize)]
struct Shown {
    kind: &'static str,
    version: u64,
    issued_unix_s: u64,
    expires_unix_s: u64,
    expired: bool,
    task: Option<String>,
    bytes: Option<u64>,
    sha256: Option<String>,
    names: Vec<String>,
    signatures: Vec<Signed>,
    complete: bool,
}

/// How far a document's signatures go for one quorum.
#[derive(Debug, Serialize)]
struct Signed {
    by: String,
    have: usize,
    need: usize,
    problem: Option<String>,
}

pub(super) fn inspect(args: &InspectArgs) -> Result<()> {
    show(&files::read_bundle(&args.bundle)?, &args.json)
}

/// Says what is in a bundle: the end of every verb that writes one.
pub(super) fn show(bundle: &Bundle, json: &JsonArgs) -> Result<()> {
    let (roots, now_s) = (roots(bundle), now_unix_s());
    let shown: Vec<Shown> = bundle.documents.iter().map(|document| one(document, &roots, now_s)).collect();
    let mut table = Table::new(&["statement", "version", "expires in", "signatures"]);
    for shown in &shown {
        let signatures = shown.signatures.iter().map(|signed| match &signed.problem {
            Some(problem) => problem.clone(),
            None => format!("{} of {} (by {})", signed.have, signed.need, signed.by),
        });
        let left = if shown.expired { "expired".to_owned() } else { span(shown.expires_unix_s - now_s) };
        let signatures = signatures.collect::<Vec<_>>().join(", ");
        table.row(vec![shown.kind.to_owned(), shown.version.to_string(), left, signatures]);
    }
    for shown in &shown {
        let artefact = match (&shown.task, shown.bytes, &shown.sha256) {
            (Some(task), Some(bytes), Some(digest)) => Some(format!("{task}, {bytes} bytes, SHA-256 {digest}")),
            _ => None,
        };
        let about = artefact.as_ref().into_iter().chain(&shown.names);
        about.for_each(|about| table.note(format!("{} {}: {about}", shown.kind, shown.version)));
    }
    if let Some(missing) = shown.iter().find(|shown| !shown.complete) {
        table.note(format!("the {} is not signed by enough keys yet: `starling publish sign`", missing.kind));
    }
    json.finish(&shown, &table)
}

fn one(document: &Document, roots: &[Root], now_s: u64) -> Shown {
    let statement = document.statement();
    let head = statement.head();
    let signatures: Vec<Signed> = quorums(document, roots)
        .into_iter()
        .map(|(root, quorum)| {
            let (have, problem) = match document.signers(root, quorum) {
                Ok(have) => (have, None),
                Err(problem) => (0, Some(problem.to_string())),
            };
            Signed { by: format!("root {}", root.head().version), have, need: quorum.threshold(), problem }
        })
        .collect();
    let complete = !signatures.is_empty() && signatures.iter().all(|signed| signed.have >= signed.need);
    let mut shown = Shown {
        kind: statement.kind().word(),
        version: head.version,
        issued_unix_s: head.issued_unix_s,
        expires_unix_s: head.expires_unix_s,
        expired: now_s >= head.expires_unix_s,
        task: None,
        bytes: None,
        sha256: None,
        names: Vec::new(),
        signatures,
        complete,
    };
    match statement {
        Statement::Root(root) => {
            let quorum = |what: &str, quorum| {
                let keys: Vec<String> = root.members(quorum).map(ToString::to_string).collect();
                format!("{what} {} of {}", quorum.threshold(), keys.join(" "))
            };
            shown.names = vec![quorum("root", root.root_quorum()), quorum("freshness", root.freshness_quorum())];
            shown.names.extend(
                root.publishers().iter().map(|rule| quorum(&format!("publishers of {}", rule.tasks), rule.quorum)),
            );
        }
        Statement::Artefact(artefact) => {
            shown.task = Some(artefact.task.clone());
            shown.bytes = Some(artefact.length);
            shown.sha256 = Some(artefact.digest.to_string());
        }
        Statement::Current(current) => {
            shown.names = vec![format!("root {}", current.root_version)];
            for entry in &current.entries {
                let release = entry.release.map(|named| format!("release {} of {}", named.version, entry.task));
                let plan = entry.plan.map(|named| format!("plan {} of {}", named.version, entry.task));
                shown.names.extend([release, plan].into_iter().flatten());
            }
        }
    }
    shown
}

/// What `verify --json` prints.
#[derive(Debug, Serialize)]
struct Verified {
    believed: bool,
    task: String,
    version: Option<u64>,
    root_version: u64,
    code: Option<u16>,
    problem: Option<String>,
}

pub(super) fn verify(args: &VerifyArgs) -> Result<Exit> {
    let (subject, (task, bytes)) = match (&args.release, &args.plan) {
        (Some(release), _) => (Subject::Release, read_release(release)?),
        (None, Some(task)) => {
            let plan = PlanFile { task: task.clone(), overrides: args.overrides.clone(), seed: args.seed };
            (Subject::Plan, plan.read()?)
        }
        (None, None) => anyhow::bail!("name what it is about with --release or --plan"),
    };
    let (_, trusted) = files::read_roots(&args.roots)?;
    let bundle = files::read_bundle(&args.bundle)?.to_bytes().context("the bundle was just read")?;
    let outcome = trusted.take(&bundle, subject, &task, now_unix_s());
    let verified: Result<u64, Refused> =
        outcome.permit.and_then(|permit| permit.verify(&bytes)).map(|verified| verified.version());
    let root_version = outcome.trusted.root().head().version;
    let (version, code, problem) = match verified {
        Ok(version) => (Some(version), None, None),
        Err(refused) => (None, Some(refused.reason().code()), Some(refused.to_string())),
    };
    let mut table = Table::default();
    table.note(match (&version, &problem) {
        (Some(version), _) => format!("good: version {version} of {task}, under root {root_version}"),
        (None, problem) => format!("refused: {}", problem.as_deref().unwrap_or("for no reason")),
    });
    let exit = if version.is_some() { Exit::Ok } else { Exit::Missed };
    args.json.finish(&Verified { believed: version.is_some(), task, version, root_version, code, problem }, &table)?;
    Ok(exit)
}

/// A span of time in its largest unit.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}
