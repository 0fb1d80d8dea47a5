//! What DP-SGD has cost single examples of this device, beside what updates have cost the device as a whole: one record a run, durable before
//! the training that it is about begins.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `examples` | task id, run | [`Steps`]: the noise, the largest sampling rate, and the steps of all trainings that were begun |
//!
//! *What counts.* A training counts with all its steps from its beginning, whether or not its update is ever made, and each time that it is begun:
//! its noise is new. Where the number of examples changes between rounds, all steps count at the largest rate.
//!
//! *After a restore* the rounds before the one that is asked for count as trained in, and one more for that one, as in the ledger of the device.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use starling_daemon::now_unix_s;
use starling_privacy::{SampledGaussian, dp_sgd};
use starling_spec::{DpSgd, TaskPlan};
use starling_store::{Batch, Store, StoreError};
use starling_wire::{Address, PolicyRule, RunId};

use super::{Key, Ledger, RUNS_MAX, RUNS_SHOWN, name};
use crate::learner::with_causes;
use crate::status::ExampleStatus;

const EXAMPLES: &str = "examples";

/// What the trainings of one run have cost an example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Steps {
    /// The task's name.
    task: String,
    noise_multiplier: f64,
    epsilon_max: Option<f64>,
    /// The δ that the plan states `epsilon_max` at.
    delta: f64,
    sampling_rate: f64,
    steps: u32,
    /// Trainings that were begun, or may have been.
    rounds: u32,
    /// How many of those are assumed, after a restore.
    assumed: u32,
    /// The store's era when this was written.
    era: u64,
    written_unix_s: u64,
}

impl Steps {
    fn new(plan: &TaskPlan, dp: &DpSgd) -> Self {
        Self {
            task: plan.name.clone(),
            noise_multiplier: dp.noise_multiplier,
            epsilon_max: dp.epsilon_max,
            delta: dp.delta,
            sampling_rate: 0.0,
            steps: 0,
            rounds: 0,
            assumed: 0,
            era: 0,
            written_unix_s: 0,
        }
    }

    /// With one more training.
    fn and(mut self, address: &Address, era: u64, sampling_rate: f64, steps: u32) -> Self {
        if self.era < era {
            // The round that is asked for may have been under way before the state was restored.
            let known = self.rounds.max(address.round.saturating_sub(1)).saturating_add(1);
            let assumed = known - self.rounds;
            self.steps = self.steps.saturating_add(assumed.saturating_mul(steps));
            (self.rounds, self.assumed, self.era) = (known, self.assumed.saturating_add(assumed), era);
        }
        self.sampling_rate = self.sampling_rate.max(sampling_rate);
        self.steps = self.steps.saturating_add(steps);
        self.rounds = self.rounds.saturating_add(1);
        self.written_unix_s = now_unix_s();
        self
    }

    /// What it has spent at `delta`; infinite where no number bounds it.
    fn epsilon(&self, delta: f64) -> f64 {
        SampledGaussian::new(self.sampling_rate, self.noise_multiplier, self.steps)
            .and_then(|steps| dp_sgd::epsilon(steps, delta))
            .unwrap_or(f64::INFINITY)
    }

    /// Whether neither the plan's budget nor the owner's (and the δ that it is stated at) is passed.
    fn is_within(&self, owners: Option<f64>, delta: f64) -> bool {
        self.epsilon_max.is_none_or(|most| self.epsilon(self.delta) <= most)
            && owners.is_none_or(|most| self.epsilon(delta) <= most)
    }
}

/// The records in `store`.
pub(super) fn read(store: &Store) -> Result<BTreeMap<Key, Steps>, StoreError> {
    let parsed = store.scan::<Steps>(EXAMPLES)?.into_iter().filter_map(|(name, steps)| {
        let (task, run) = name.split_once('/')?;
        Some(((task.parse().ok()?, RunId(run.parse().ok()?)), steps))
    });
    Ok(parsed.collect())
}

impl Ledger {
    /// Whether the owner's budget has a plan's noise to count, and no training of this run has been turned away for its budgets: the accountant is asked
    /// where a training is charged, which is not the thread that keeps the connection. `owners` is what the owner lets one run spend.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub(crate) fn allows_examples(
        &self,
        plan: &TaskPlan,
        address: &Address,
        owners: Option<f64>,
    ) -> Result<(), PolicyRule> {
        if plan.train.dp_sgd.is_none() {
            return if owners.is_none() { Ok(()) } else { Err(PolicyRule::Noise) };
        }
        let over = self.lock().examples_over.contains(&(address.task, address.run));
        if over { Err(PolicyRule::EpsilonExample) } else { Ok(()) }
    }

    /// Writes down, durably, that a training on so many examples begins. Blocks.
    ///
    /// # Errors
    /// The rule that forbids it, or [`PolicyRule::Ledger`]: then it must not begin.
    pub(crate) fn spend_examples(
        &self,
        plan: &TaskPlan,
        address: &Address,
        examples: u32,
        owners: Option<f64>,
    ) -> Result<(), PolicyRule> {
        let Some(dp) = &plan.train.dp_sgd else { return Ok(()) };
        let mut books = self.lock();
        let key = (address.task, address.run);
        let before = books.examples.get(&key).cloned();
        // A record that made room for another would be a budget that begins anew.
        if before.is_none() && books.examples.len() >= RUNS_MAX {
            tracing::error!(%address, "the ledger holds as many runs with train.dp_sgd as it can; only `wipe` makes room");
            return Err(PolicyRule::Ledger);
        }
        let count = examples as usize;
        let steps = u32::try_from(plan.train.steps(count)).unwrap_or(u32::MAX);
        let before = before.unwrap_or_else(|| Steps::new(plan, dp));
        let after = before.and(address, self.era, plan.train.sampling_rate(count), steps);
        if !after.is_within(owners, self.budget.delta) {
            books.examples_over.insert(key);
            return Err(PolicyRule::EpsilonExample);
        }
        let written = (|| {
            let mut batch = Batch::new();
            batch.put(EXAMPLES, &name(key), &after)?;
            self.store.commit(batch)
        })();
        written.map_err(|error: StoreError| {
            tracing::error!(%address, error = with_causes(&error), "what a training spends could not be written down: it does not begin");
            PolicyRule::Ledger
        })?;
        books.examples.insert(key, after);
        Ok(())
    }
}

/// The latest runs, as the owner is shown them.
pub(super) fn status(runs: &BTreeMap<Key, Steps>, delta: f64) -> Vec<ExampleStatus> {
    let mut latest: Vec<(&Key, &Steps)> = runs.iter().collect();
    latest.sort_by_key(|(_, steps)| std::cmp::Reverse(steps.written_unix_s));
    let shown = latest.into_iter().take(RUNS_SHOWN).map(|((_, run), spent)| ExampleStatus {
        task: spent.task.clone(),
        run: run.0,
        rounds: spent.rounds,
        rounds_assumed: spent.assumed,
        steps: spent.steps,
        sampling_rate: spent.sampling_rate,
        noise_multiplier: spent.noise_multiplier,
        epsilon: Some(spent.epsilon(delta)).filter(|epsilon| epsilon.is_finite()),
        epsilon_max: spent.epsilon_max,
        written_unix_s: spent.written_unix_s,
    });
    shown.collect()
}
