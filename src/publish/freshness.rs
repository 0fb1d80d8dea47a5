//! `starling publish freshness`: the short-lived statement of what is newest. Its holder is often a machine with a timer.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use starling_daemon::span::seconds;
use starling_trust::{Bundle, Current, Document, Entry, Kind, Named, Statement, Subject, Trusted};

use super::files::{self, KeyArgs};
use super::inspect;
use crate::report::JsonArgs;

/// Arguments of `starling publish freshness`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The fleet's roots
    #[arg(long, value_name = "FILE")]
    roots: PathBuf,
    /// Releases and plans that are newest from now on: their bundles get the statement. The others of the statement before stay
    #[arg(value_name = "BUNDLE")]
    names: Vec<PathBuf>,
    /// A task that has nothing newest any more; can be given again
    #[arg(long = "drop", value_name = "TASK")]
    dropped: Vec<String>,
    /// From when on devices call it stale, from now: 7d. It has to be made anew before
    #[arg(long, default_value = "7d", value_name = "SPAN", value_parser = seconds)]
    expires: u64,
    /// Where the statement goes, with the roots. The one that is there is the one before; for `aggregator trust renew`
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    json: JsonArgs,
}

pub(super) fn command(args: &Args) -> Result<()> {
    let (mut fresh, trusted) = files::read_roots(&args.roots)?;
    let before = if args.out.exists() { newest(&files::read_bundle(&args.out)?) } else { None };
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for entry in before.iter().flat_map(|current| &current.entries) {
        entries.insert(entry.task.clone(), entry.clone());
    }
    let mut named = Vec::new();
    for path in &args.names {
        let bundle = files::read_bundle(path)?;
        name(&bundle, &trusted, &mut entries).with_context(|| format!("{} cannot be named", path.display()))?;
        named.push((path, bundle));
    }
    for task in &args.dropped {
        anyhow::ensure!(
            entries.remove(task).is_some(),
            "--drop {task:?}: the statement before does not name this task"
        );
    }
    let version = before.map_or(Some(1), |current| current.head.version.checked_add(1));
    let version = version.context("there is no later version")?;
    let head = files::head(version, args.expires, trusted.origin())?;
    let root_version = trusted.root().head().version;
    let current = Current { head, root_version, entries: entries.into_values().collect() };
    let mut document = Document::new(Statement::Current(current))?;
    for key in args.keys.read()? {
        document.sign(&key)?;
    }
    fresh.documents.push(document);
    files::write_bundle(&args.out, &fresh)?;
    for (path, bundle) in named {
        files::write_bundle(path, &bundle.renewed(&fresh))?;
    }
    inspect::show(&fresh, &args.json)
}

fn newest(bundle: &Bundle) -> Option<Current> {
    let of = |document: &Document| match document.statement() {
        Statement::Current(current) => Some(current.clone()),
        _ => None,
    };
    bundle.of(Kind::Current).filter_map(of).max_by_key(|current| current.head.version)
}

/// Enters what the bundle states, if enough publishers have signed it and it is not older than what was named before.
fn name(bundle: &Bundle, trusted: &Trusted, entries: &mut BTreeMap<String, Entry>) -> Result<()> {
    let root = trusted.root();
    let mut any = false;
    for document in bundle.of(Kind::Release).chain(bundle.of(Kind::Plan)) {
        let Statement::Artefact(artefact) = document.statement() else { continue };
        let task = &artefact.task;
        let quorum = root.publisher_quorum(task).with_context(|| format!("nobody may publish for task {task:?}"))?;
        document.check(root, quorum)?;
        let named = Named { version: artefact.head.version, digest: document.digest() };
        let fresh = || Entry { task: task.clone(), release: None, plan: None };
        let entry = entries.entry(task.clone()).or_insert_with(fresh);
        let place = match artefact.subject {
            Subject::Release => &mut entry.release,
            Subject::Plan => &mut entry.plan,
        };
        if let Some(before) =
            place.filter(|before| before.version > named.version || before.version == named.version && *before != named)
        {
            anyhow::bail!(
                "version {} of task {task:?} does not follow version {}, which was named before; sign it with a higher --version",
                named.version,
                before.version
            );
        }
        *place = Some(named);
        any = true;
    }
    anyhow::ensure!(any, "it states neither a release nor a plan");
    Ok(())
}
