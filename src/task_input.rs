//! A task as the command line names it: the file, what `--set` changes in it, and the seed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use starling_daemon::read_at_most;
use starling_data::Loaded;
use starling_spec::{TaskFile, TaskPlan};

/// The largest task file that is read: a residual network of 100 layers takes 10 KiB.
const TASK_BYTES_MAX: u64 = 1 << 20;

/// The arguments of every command that takes a task.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TaskArgs {
    /// The task file (TOML)
    task: PathBuf,
    /// Override a key of the task, dotted: --set train.lr=0.05
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_override)]
    overrides: Vec<(String, String)>,
    /// What initialisers, data splits, cohorts and batch orders are drawn from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// A task, its plan under the seed, and where its data lie.
#[derive(Debug, Clone)]
pub(crate) struct TaskInput {
    /// The task.
    pub(crate) task: TaskFile,
    /// What devices are told of it.
    pub(crate) plan: TaskPlan,
    /// The folder that relative paths in the task start from.
    pub(crate) base: PathBuf,
    /// The seed.
    pub(crate) seed: u64,
}

impl TaskArgs {
    /// Reads and checks the task.
    pub(crate) fn read(&self) -> Result<TaskInput> {
        read(&self.task, &self.overrides, self.seed)
    }
}

/// The task in `file` with `overrides` put in place.
pub(crate) fn read(file: &Path, overrides: &[(String, String)], seed: u64) -> Result<TaskInput> {
    let shown = file.display();
    let text = String::from_utf8(read_at_most(file, "a task file", TASK_BYTES_MAX)?);
    let text = text.with_context(|| format!("{shown} is no text"))?;
    let base = file.parent().unwrap_or(Path::new("")).to_owned();
    TaskInput::parse(&text, overrides, base, seed).with_context(|| format!("{shown} is no valid task"))
}

impl TaskInput {
    /// The task in `text` with `overrides` put in place; relative paths start from `base`.
    pub(crate) fn parse(text: &str, overrides: &[(String, String)], base: PathBuf, seed: u64) -> Result<Self> {
        let task = TaskFile::parse(text, overrides)?;
        let plan = TaskPlan::new(&task, seed)?;
        Ok(Self { task, plan, base, seed })
    }

    /// The same task under another seed.
    pub(crate) fn under(&self, seed: u64) -> Result<Self> {
        let plan = TaskPlan::new(&self.task, seed)?;
        Ok(Self { plan, seed, ..self.clone() })
    }

    /// The task's data.
    pub(crate) fn load(&self) -> Result<Loaded> {
        self.load_under(self.seed)
    }

    /// Forgets where the test set is, for commands that must not see it; a `test_fraction` is still parted from the training rows.
    pub(crate) fn leave_test_out(&mut self) {
        self.task.data.test = None;
        self.task.data.test_labels = None;
    }

    /// The task's data, a test fraction drawn under another seed than the task was read with.
    pub(crate) fn load_under(&self, seed: u64) -> Result<Loaded> {
        starling_data::load(&self.task.data, self.task.kind, &self.plan.shape, &self.base, seed)
            .with_context(|| format!("the data of task {:?} could not be read", self.task.name))
    }
}

/// Reads the value of `--set`.
pub(crate) fn parse_override(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
