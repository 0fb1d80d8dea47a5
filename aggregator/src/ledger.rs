//! What a run has spent of its devices' privacy, durable before anything that spends it is released.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `spent` | run | [`Spent`] |
//!
//! A version with noise in it is charged in the batch that makes its record durable, and is on the shelf only afterwards: a crash at any
//! point leaves a version that nobody has seen and a ledger that does not know it, or both. Where devices add the noise, a sum is
//! released to the aggregator itself when it is unmasked, and is charged before that.
//!
//! *After a restore* the backup's figure is older than the truth. What bounds the truth is that the lost daemon kept the same rules: a
//! run makes no more rounds than its task says, and none beyond its budget. All of those count as released. Published versions and
//! receipts could only show that some were; nothing can show that others were not.

use serde::{Deserialize, Serialize};
use starling_privacy::{Charge, PrivacyError, Statement, rounds_within, spent};
use starling_spec::{DpMode, TaskFile, TaskPlan};
use starling_store::{Batch, Store, StoreError};
use starling_wire::{Address, RunId};

use crate::records::RunRecord;

const SPENT: &str = "spent";

/// Charges that a run may have, as a multiple of its rounds: attempts that were unmasked and came to nothing are charged too.
const CHARGES_PER_ROUND_MAX: u32 = 4;

/// The record of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Spent {
    /// Noisy sums that were released, or may have been.
    rounds: u32,
    /// How many of those are assumed, after a restore.
    assumed: u32,
    /// Round and attempt of the last one.
    last: Option<(u32, u16)>,
    /// The store's era when this was written.
    era: u64,
}

/// Why something is not released.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// There is nothing left.
    #[error("the run's privacy budget is gone: epsilon_max = {epsilon_max} lasts for {rounds} rounds")]
    Gone {
        /// The budget.
        epsilon_max: f64,
        /// How long it lasts.
        rounds: u32,
    },
    /// The state folder.
    #[error("the run's privacy ledger cannot be read or written")]
    Store(#[from] StoreError),
    /// The plan's noise.
    #[error("the run's noise has no price")]
    Price(#[from] PrivacyError),
}

/// The ledger of one run whose plan promises noise.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    run: RunId,
    spent: Spent,
    charge: Charge,
    epsilon_max: Option<f64>,
    /// Charges that the budget has room for in all.
    rounds_max: u32,
}

/// What the operator is shown. The names are those of `run status --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Balance {
    /// What has been spent; nothing when no number bounds it.
    pub(crate) epsilon_spent: Option<f64>,
    /// What may be spent.
    pub(crate) epsilon_max: Option<f64>,
    /// The probability of the guarantee's failure.
    pub(crate) delta: f64,
    /// Noisy sums that were released, or may have been.
    pub(crate) rounds_charged: u32,
    /// How many of those are assumed, after a restore.
    pub(crate) rounds_assumed: u32,
    /// How many more there may be; nothing where there is no budget.
    pub(crate) rounds_left: Option<u32>,
    /// What the figures mean.
    pub(crate) statement: Statement,
}

impl Ledger {
    /// The ledger of `run` under `plan`, and in `batch` what has to be durable before the run goes on: its first record, or what is
    /// assumed since the state was restored. Nothing for a plan without noise.
    pub(crate) fn open(
        store: &Store,
        batch: &mut Batch,
        run: RunId,
        plan: &TaskPlan,
    ) -> Result<Option<Self>, LedgerError> {
        let Some(privacy) = &plan.privacy else { return Ok(None) };
        let (Some(charge), Some(dp)) = (Charge::of(privacy), &privacy.asked.dp) else { return Ok(None) };
        let most = privacy.rounds.saturating_mul(CHARGES_PER_ROUND_MAX);
        let rounds_max = match dp.epsilon_max {
            Some(epsilon_max) => rounds_within(&charge, epsilon_max, most)?,
            None => u32::MAX,
        };
        let era = store.era()?;
        let before = store.get::<Spent>(SPENT, &key(run))?;
        let mut spent = before.unwrap_or(Spent { rounds: 0, assumed: 0, last: None, era });
        if spent.era < era {
            // Who draws the noise himself makes one release a round; unmasked sums may have been more.
            let one_a_round = dp.mode == DpMode::Central || dp.epsilon_max.is_none();
            let could = if one_a_round { rounds_max.min(privacy.rounds) } else { rounds_max };
            spent.assumed = spent.assumed.saturating_add(could.saturating_sub(spent.rounds));
            spent.rounds = spent.rounds.max(could);
            spent.era = era;
            tracing::warn!(
                run = run.0,
                rounds_assumed = spent.assumed,
                "the state was restored: every round that the run could have made since the backup is charged"
            );
        }
        if before != Some(spent) {
            batch.put(SPENT, &key(run), &spent)?;
        }
        Ok(Some(Self { run, spent, charge, epsilon_max: dp.epsilon_max, rounds_max }))
    }

    /// Charges what this attempt releases, in `batch`: it is released when that is durable, and not before. The same attempt is charged
    /// once.
    ///
    /// # Errors
    /// [`LedgerError::Gone`]: then nothing may be released.
    pub(crate) fn charge(&mut self, batch: &mut Batch, address: &Address) -> Result<(), LedgerError> {
        let last = Some((address.round, address.attempt));
        if self.spent.last == last {
            return Ok(());
        }
        if self.rounds_left() == 0 {
            let epsilon_max = self.epsilon_max.unwrap_or(f64::INFINITY);
            return Err(LedgerError::Gone { epsilon_max, rounds: self.rounds_max });
        }
        self.spent.rounds += 1;
        self.spent.last = last;
        batch.put(SPENT, &key(self.run), &self.spent)?;
        Ok(())
    }

    /// Whether a sum is released to the aggregator itself as soon as it is unmasked.
    pub(crate) fn is_released_by_unmasking(&self) -> bool {
        self.charge.mode != DpMode::Central
    }

    /// How many more releases the budget has room for.
    pub(crate) fn rounds_left(&self) -> u32 {
        self.rounds_max.saturating_sub(self.spent.rounds)
    }

    /// What the operator is shown.
    pub(crate) fn balance(&self) -> Balance {
        // A charge whose price is not to be had would not have been opened.
        let epsilon = spent(&self.charge, self.spent.rounds).unwrap_or(f64::INFINITY);
        Balance {
            epsilon_spent: Some(epsilon).filter(|epsilon| epsilon.is_finite()),
            epsilon_max: self.epsilon_max,
            delta: self.charge.delta,
            rounds_charged: self.spent.rounds,
            rounds_assumed: self.spent.assumed,
            rounds_left: self.epsilon_max.map(|_| self.rounds_left()),
            statement: self.charge.statement(),
        }
    }
}

/// What a run that is over has spent: of one that goes on, [`Ledger::open`] knows more.
pub(crate) fn stored(store: &Store, run: &RunRecord) -> Result<Option<Balance>, StoreError> {
    let Some(spent) = store.get::<Spent>(SPENT, &key(run.run))? else { return Ok(None) };
    let task = store.get_blob(&run.task_blob)?.and_then(|json| serde_json::from_slice::<TaskFile>(&json).ok());
    let plan = task.and_then(|task| TaskPlan::new(&task, run.seed).ok());
    let privacy = plan.and_then(|plan| plan.privacy);
    Ok(privacy.and_then(|privacy| {
        let epsilon_max = privacy.asked.dp.as_ref()?.epsilon_max;
        let charge = Charge::of(&privacy)?;
        let ledger = Ledger { run: run.run, spent, charge, epsilon_max, rounds_max: spent.rounds };
        Some(ledger.balance())
    }))
}

/// Takes out the record of a run that is removed.
pub(crate) fn remove(batch: &mut Batch, run: RunId) {
    batch.remove(SPENT, &key(run));
}

fn key(run: RunId) -> String {
    format!("{:010}", run.0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use starling_store::KeySource;
    use starling_store::backup::Repository;
    use starling_wire::TaskId;

    use super::*;

    const RUN: RunId = RunId(7);

    /// Without sampling, z = 4 and δ = 1e-3 cost 3.6051 for 20 rounds (dp-accounting 0.6.0, PLD).
    fn plan(rounds: u32, more: &str) -> TaskPlan {
        starling_testkit::plan::small(&format!(
            r#"
            [federation]
            rounds = {rounds}
            [privacy]
            weights = "uniform"
            dp = {{ mode = "central", clip = 1.0, noise_multiplier = 4.0, delta = 1e-3 {more} }}
            "#
        ))
    }

    fn budget() -> TaskPlan {
        plan(100, ", epsilon_max = 3.65")
    }

    fn address(round: u32, attempt: u16) -> Address {
        Address { task: TaskId([1; 16]), run: RUN, round, attempt }
    }

    fn store(folder: &Path) -> Store {
        let state = folder.join("state");
        Store::open(&state, &KeySource::beside(&state)).expect("a store")
    }

    fn open(store: &Store, plan: &TaskPlan) -> Ledger {
        let mut batch = Batch::new();
        let ledger = Ledger::open(store, &mut batch, RUN, plan).expect("a ledger").expect("the plan has noise");
        store.commit(batch).expect("durable");
        ledger
    }

    /// What a daemon does that is killed after each commit.
    fn charge(folder: &Path, plan: &TaskPlan, address: &Address) -> Result<(), LedgerError> {
        let store = store(folder);
        let mut ledger = open(&store, plan);
        let mut batch = Batch::new();
        ledger.charge(&mut batch, address)?;
        Ok(store.commit(batch)?)
    }

    #[test]
    fn inv5_the_budget_lasts_for_its_rounds_over_any_number_of_starts_and_then_stays_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        for round in 1..=20 {
            charge(folder.path(), &budget(), &address(round, 1)).expect("there is something left");
        }
        let balance = open(&store(folder.path()), &budget()).balance();
        assert_eq!((balance.rounds_charged, balance.rounds_left), (20, Some(0)));
        let spent = balance.epsilon_spent.expect("bounded");
        assert!((spent / 3.6051 - 1.0).abs() < 2e-3 && spent <= 3.65, "{spent}");
        for _ in 0..2 {
            let error = charge(folder.path(), &budget(), &address(21, 1)).expect_err("gone");
            assert!(matches!(error, LedgerError::Gone { rounds: 20, .. }), "{error}");
        }
    }

    #[test]
    fn inv5_an_attempt_is_charged_once_and_the_next_one_again() {
        let folder = tempfile::tempdir().expect("a folder");
        for (attempt, charged) in [(1, 1), (1, 1), (2, 2), (2, 2)] {
            charge(folder.path(), &budget(), &address(1, attempt)).expect("there is something left");
            let balance = open(&store(folder.path()), &budget()).balance();
            assert_eq!(balance.rounds_charged, charged, "attempt {attempt}");
        }
    }

    #[test]
    fn inv5_what_is_not_durable_is_not_charged_and_not_released() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = store(folder.path());
        let mut ledger = open(&place, &budget());
        ledger.charge(&mut Batch::new(), &address(1, 1)).expect("there is something left");
        assert_eq!(open(&place, &budget()).balance().rounds_charged, 0, "the batch was never committed");
    }

    #[test]
    fn inv5_a_restored_run_is_charged_all_that_it_could_have_made() {
        for (plan, made, charged, left) in [
            (plan(12, ", epsilon_max = 3.65"), 9, 12, Some(8)),
            (budget(), 19, 20, Some(0)),
            (plan(12, ""), 9, 12, None),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let state = folder.path().join("state");
            let backups = Repository::open(&folder.path().join("backups")).expect("a folder");
            for round in 1..=5 {
                charge(folder.path(), &plan, &address(round, 1)).expect("there is something left");
            }
            backups.create(&store(folder.path()), 1, 9).expect("a backup");
            for round in 6..=made {
                charge(folder.path(), &plan, &address(round, 1)).expect("there is something left");
            }
            ["records", "blobs"].iter().for_each(|name| std::fs::remove_dir_all(state.join(name)).expect("lost"));
            backups.restore(None, &state, &KeySource::beside(&state)).expect("restored");
            for _ in 0..2 {
                let balance = open(&store(folder.path()), &plan).balance();
                assert!(balance.rounds_charged >= made, "no less than was released");
                assert_eq!(
                    (balance.rounds_charged, balance.rounds_assumed, balance.rounds_left),
                    (charged, charged - 5, left)
                );
            }
        }
    }
}
