//! The aggregator's test set: the seam of `starling-aggregator`, filled with burn.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use starling_aggregator::evaluator::{Evaluator, TestFigures};
use starling_data::Dataset;
use starling_model::{Evaluated, Network};
use starling_spec::{TaskKind, TaskPlan};

use crate::task_input::{TaskInput, read};
use crate::world::all_rows;

/// Tests model versions on the test sets of the task files that it was given, found by the task's name. It keeps the data
/// and the network of the run that it was asked about last.
pub(crate) struct BurnEvaluator {
    tasks: BTreeMap<String, TaskInput>,
    last: Mutex<Option<Prepared>>,
}

struct Prepared {
    plan: TaskPlan,
    test: Dataset,
    rows: Vec<u32>,
    network: Network,
}

impl BurnEvaluator {
    /// An evaluator for the tasks in `files`; none when there are none.
    pub(crate) fn new(files: &[PathBuf]) -> Result<Option<Self>> {
        let mut tasks = BTreeMap::new();
        for file in files {
            // The seed that splits off a test fraction is the run's, and comes with its plan.
            let input = read(file, &[], 0)?;
            let name = input.task.name.clone();
            ensure!(tasks.insert(name.clone(), input).is_none(), "task {name:?} is given twice");
        }
        Ok((!tasks.is_empty()).then_some(Self { tasks, last: Mutex::new(None) }))
    }

    fn figures(&self, plan: &TaskPlan, parameters: &[f32]) -> Result<Option<TestFigures>> {
        if plan.moments.is_some() || !self.tasks.contains_key(&plan.name) {
            return Ok(None);
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = match last.take() {
            Some(prepared) if prepared.plan == *plan => last.insert(prepared),
            _ => last.insert(self.prepare(plan)?),
        };
        let figures = prepared.network.evaluate(parameters, &prepared.test, &prepared.rows)?;
        let counts = plan.kind != TaskKind::Regression;
        Ok(Some(TestFigures { accuracy: counts.then(|| Evaluated::accuracy(&figures)), loss: figures.loss() }))
    }

    fn prepare(&self, plan: &TaskPlan) -> Result<Prepared> {
        let input =
            self.tasks.get(&plan.name).with_context(|| format!("no test set was given for task {:?}", plan.name))?;
        let loaded = input.load_under(plan.seed)?;
        let test = loaded.test.with_context(|| format!("task {:?} names no test set", plan.name))?;
        let rows = all_rows(&test)?;
        Ok(Prepared { plan: plan.clone(), test, rows, network: Network::new(plan)? })
    }
}

impl Evaluator for BurnEvaluator {
    fn evaluate(&self, plan: &TaskPlan, parameters: &[f32]) -> Result<Option<TestFigures>, String> {
        self.figures(plan, parameters).map_err(|error| format!("{error:#}"))
    }
}
