//! `starling publish release` and `starling publish plan`: a publisher's word for the bytes of one of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use starling_daemon::span::seconds;
use starling_trust::{Artefact, Document, Statement, Subject};
use starling_wire::Digest;

use super::files::{self, KeyArgs};
use super::inspect;
use crate::model::file::read_release;
use crate::report::JsonArgs;
use crate::task_input;

/// What both have in common.
#[derive(Debug, Clone, clap::Args)]
struct Common {
    /// The fleet's roots, as `starling publish root` wrote them
    #[arg(long, value_name = "FILE")]
    roots: PathBuf,
    /// Its version: higher than any that devices have seen of this task
    #[arg(long, value_name = "N")]
    version: u64,
    /// From when on devices take it in no more, from now: 90d
    #[arg(long, default_value = "90d", value_name = "SPAN", value_parser = seconds)]
    expires: u64,
    /// Where the bundle goes; beside the file when not given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Arguments of `starling publish release`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReleaseArgs {
    /// The release, as `starling model compress` wrote it; it says itself of which task
    release: PathBuf,
    #[command(flatten)]
    common: Common,
}

/// A task file and what a run of it is started with: a plan is the same only where all of it is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PlanFile {
    /// The task file (TOML)
    pub(crate) task: PathBuf,
    /// Override a key of the task, as `run start` will
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = task_input::parse_override)]
    pub(crate) overrides: Vec<(String, String)>,
    /// The seed that `run start` will be given
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

/// Arguments of `starling publish plan`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    plan: PlanFile,
    #[command(flatten)]
    common: Common,
}

impl PlanFile {
    /// The task's name and the plan as it travels.
    pub(crate) fn read(&self) -> Result<(String, Vec<u8>)> {
        let plan = task_input::read(&self.task, &self.overrides, self.seed)?.plan;
        Ok((plan.name.clone(), plan.to_json()))
    }
}

pub(super) fn release(args: &ReleaseArgs) -> Result<()> {
    let (task, bytes) = read_release(&args.release)?;
    state(Subject::Release, &task, &bytes, &args.release, &args.common)
}

pub(super) fn plan(args: &PlanArgs) -> Result<()> {
    let (task, bytes) = args.plan.read()?;
    state(Subject::Plan, &task, &bytes, &args.plan.task, &args.common)
}

fn state(subject: Subject, task: &str, bytes: &[u8], file: &Path, common: &Common) -> Result<()> {
    let (mut bundle, trusted) = files::read_roots(&common.roots)?;
    let root = trusted.root();
    let quorum = root.publisher_quorum(task).with_context(|| {
        format!(
            "{} lets nobody publish for task {task:?}; make the next root with a --publisher for it",
            common.roots.display()
        )
    })?;
    let artefact = Artefact {
        head: files::head(common.version, common.expires, trusted.origin())?,
        subject,
        task: task.to_owned(),
        length: bytes.len() as u64,
        digest: Digest::of(bytes),
    };
    let mut document = Document::new(Statement::Artefact(artefact))?;
    for key in common.keys.read()? {
        let public = key.public();
        anyhow::ensure!(
            root.members(quorum).any(|member| *member == public),
            "the key {public} is none of those that publish for task {task:?}"
        );
        document.sign(&key)?;
    }
    bundle.documents.push(document);
    let out = common.out.clone().unwrap_or_else(|| files::beside(file));
    files::write_bundle(&out, &bundle)?;
    inspect::show(&bundle, &common.json)
}
