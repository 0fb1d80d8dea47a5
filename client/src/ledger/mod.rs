//! What this device has spent of its owner's privacy: one record a run, durable before the update that it is about leaves.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `spent` | task id, run | [`Spent`]: the plan's noise, and how many of its rounds have an update of this device in them, or may have |
//! | `ledger` | `head` | [`Head`]: the era that the records are of, and what was lost sight of |
//!
//! What DP-SGD spends of single examples is another unit and another table (`examples.rs`).
//!
//! It belongs to the state folder, not to a certificate: a device that is enrolled anew goes on with it. Only `wipe` ends it.
//!
//! *What counts.* An update that is sealed counts, whether or not it arrives: after a crash nobody knows. An update is charged once
//! where training it again gives the same bytes, or where the aggregator draws the noise and draws it once a round; where the
//! device draws noise, each sealing is charged.
//!
//! *What an ε here means.* The unit is this device: all its updates, replaced by zeros. Nothing is claimed for rounds that it was not in,
//! whatever the plan says of coins. δ is the owner's: a plan that names a large one gets nothing by it.
//!
//! *After a restore* the records are older than the truth. A run that is asked for again then counts as if this device had been in every
//! round before the one that is asked for, and once more for the one that was under way; receipts that are still there count too. Of
//! runs that began and ended meanwhile nothing is known, but that the lifetime budget held: what was left of it counts as
//! spent. Where there is none, the status says how often that happened.

mod examples;
mod price;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use starling_daemon::now_unix_s;
use starling_privacy::Past;
use starling_protocol::run::{Turn, Turns};
use starling_spec::{DpMode, TaskPlan};
use starling_store::{Batch, Store, StoreError};
use starling_wire::{Address, Digest, PolicyRule, RoundStart, RunId, TaskId};

use crate::learner::with_causes;
use crate::receipts;
use crate::status::{PrivacyStatus, SpentStatus};

pub(crate) use price::Budget;
use price::Noise;

const SPENT: &str = "spent";
const LEDGER: &str = "ledger";
const HEAD: &str = "head";

/// Runs that have a record of their own; what the one that was quiet for longest has spent goes into the head. A device that takes part
/// in a new run every day keeps three years apart.
const RUNS_MAX: usize = 1024;

/// Runs that the status names, the latest ones.
const RUNS_SHOWN: usize = 64;

/// What one run has spent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Spent {
    /// The task's name.
    task: String,
    noise: Option<Noise>,
    /// Rounds that have an update of this device in them, or may have.
    rounds: u32,
    /// How many of those are assumed, after a restore.
    assumed: u32,
    /// The latest round, and the model that its update was trained from.
    last: Option<(u32, Digest)>,
    /// The store's era when this was written.
    era: u64,
    written_unix_s: u64,
}

/// What is not about one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Head {
    era: u64,
    /// What was left of the lifetime budget when the state was restored, each time.
    lost_epsilon: f64,
    /// Restores at which no lifetime budget was set: nothing bounds what was lost sight of.
    lost_unbounded: u32,
    /// What runs cost that have no record of their own any more ([`Past::loss_squared`]); infinite when one of them had no noise that counts.
    folded: f64,
}

type Key = (TaskId, RunId);

/// The device's ledger.
pub(crate) struct Ledger {
    store: Arc<Store>,
    state_dir: PathBuf,
    budget: Budget,
    era: u64,
    books: Mutex<Books>,
}

#[derive(Debug, Clone, Default)]
struct Books {
    head: Head,
    runs: BTreeMap<Key, Spent>,
    examples: BTreeMap<Key, examples::Steps>,
    /// Runs in which a training was turned away for its budget, by this process.
    examples_over: BTreeSet<Key>,
}

impl Ledger {
    /// The ledger in `store`. If the state was restored since it was last open, what may have been spent meanwhile is counted.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn open(store: Arc<Store>, state_dir: &Path, budget: Budget) -> Result<Self, StoreError> {
        let (head, examples) = (store.get(LEDGER, HEAD)?.unwrap_or_default(), examples::read(&store)?);
        let mut books = Books { head, examples, ..Books::default() };
        for (name, spent) in store.scan::<Spent>(SPENT)? {
            let (task, run) = name.split_once('/').unwrap_or_default();
            if let (Ok(task), Ok(run)) = (task.parse(), run.parse()) {
                books.runs.insert((task, RunId(run)), spent);
            }
        }
        let era = store.era()?;
        let ledger = Self { store, state_dir: state_dir.to_owned(), budget, era, books: Mutex::new(books) };
        ledger.notice_restore()?;
        Ok(ledger)
    }

    fn notice_restore(&self) -> Result<(), StoreError> {
        let mut books = self.lock();
        if books.head.era >= self.era {
            return Ok(());
        }
        let mut head = Head { era: self.era, ..books.head };
        match self.budget.lifetime {
            Some(most) => head.lost_epsilon += (most - books.total(&self.budget)).max(0.0),
            None => head.lost_unbounded = head.lost_unbounded.saturating_add(1),
        }
        tracing::warn!(
            lost_epsilon = head.lost_epsilon,
            "the state folder was restored: what may have been spent since the backup counts as spent"
        );
        let mut batch = Batch::new();
        batch.put(LEDGER, HEAD, &head)?;
        self.store.commit(batch)?;
        books.head = head;
        Ok(())
    }

    /// Whether the budget has room for a round, before any work is done.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub(crate) fn allows(&self, plan: &TaskPlan, start: &RoundStart) -> Result<(), PolicyRule> {
        let books = self.lock();
        let after = self.after(&books, plan, &start.address, start.base.digest);
        self.check(&books, plan, &start.address, &after)
    }

    /// Writes down, durably, that an update of this round may leave. Blocks.
    ///
    /// # Errors
    /// The rule that forbids it by now, or [`PolicyRule::Ledger`]: then nothing may leave.
    pub(crate) fn spend(&self, plan: &TaskPlan, address: &Address, base: Digest) -> Result<(), PolicyRule> {
        let mut books = self.lock();
        let after = self.after(&books, plan, address, base);
        self.check(&books, plan, address, &after)?;
        let key = (address.task, address.run);
        self.write(&mut books, key, after).map_err(|error| {
            tracing::error!(%address, error = with_causes(&error), "what an update spends could not be written down: it does not leave");
            PolicyRule::Ledger
        })
    }

    /// What the run's record says once an update for this round was sealed.
    fn after(&self, books: &Books, plan: &TaskPlan, address: &Address, base: Digest) -> Spent {
        let mut spent = books.runs.get(&(address.task, address.run)).cloned().unwrap_or_else(|| Spent {
            task: plan.name.clone(),
            noise: Noise::of(plan),
            rounds: 0,
            assumed: 0,
            last: None,
            era: 0,
            written_unix_s: 0,
        });
        if spent.era < self.era {
            let known = spent.rounds.max(self.receipts(address.run)).max(address.round.saturating_sub(1));
            // The round that is asked for may have been under way before the state was restored.
            let known = known.saturating_add(1);
            spent.assumed = spent.assumed.saturating_add(known - spent.rounds);
            spent.rounds = known;
            spent.last = None;
            spent.era = self.era;
        }
        let own_noise = spent.noise.is_some_and(|noise| noise.mode != DpMode::Central);
        if own_noise || spent.last != Some((address.round, base)) {
            spent.rounds = spent.rounds.saturating_add(1);
        }
        spent.last = Some((address.round, base));
        spent.written_unix_s = now_unix_s();
        spent
    }

    /// The receipts of a run that are there: rounds that are in a version for certain.
    fn receipts(&self, run: RunId) -> u32 {
        let kept = receipts::all(&self.state_dir).unwrap_or_default();
        let mut rounds: Vec<u32> = kept.iter().filter(|kept| kept.run == run.0).map(|kept| kept.round).collect();
        rounds.sort_unstable();
        rounds.dedup();
        u32::try_from(rounds.len()).unwrap_or(u32::MAX)
    }

    fn check(&self, books: &Books, plan: &TaskPlan, address: &Address, after: &Spent) -> Result<(), PolicyRule> {
        let budget = &self.budget;
        if !has_turn(plan, books.runs.get(&(address.task, address.run)), after) {
            return Err(PolicyRule::Turns);
        }
        if budget.per_run.is_none() && budget.lifetime.is_none() {
            return Ok(());
        }
        if !after.noise.is_some_and(|noise| budget.counts(&noise)) {
            return Err(PolicyRule::Noise);
        }
        if budget.per_run.is_some_and(|most| budget.epsilon(after.past(budget)) > most) {
            return Err(PolicyRule::EpsilonPerRun);
        }
        if let Some(most) = budget.lifetime {
            let others = books.runs.iter().filter(|(key, _)| **key != (address.task, address.run));
            let others = others.map(|(_, spent)| spent.past(budget)).sum::<Past>();
            if books.head.epsilon(others + after.past(budget), budget) > most {
                return Err(PolicyRule::EpsilonLifetime);
            }
        }
        Ok(())
    }

    fn write(&self, books: &mut Books, key: Key, spent: Spent) -> Result<(), StoreError> {
        if books.runs.get(&key) == Some(&spent) {
            return Ok(());
        }
        let mut batch = Batch::new();
        let mut head = books.head;
        let mut folded = None;
        if books.runs.len() >= RUNS_MAX && !books.runs.contains_key(&key) {
            let quiet = books.runs.iter().min_by_key(|(_, spent)| spent.written_unix_s);
            let (old, quiet) = quiet.expect("there are as many as there may be");
            head.folded += quiet.past(&self.budget).loss_squared();
            batch.remove(SPENT, &name(*old));
            batch.put(LEDGER, HEAD, &head)?;
            folded = Some(*old);
        }
        batch.put(SPENT, &name(key), &spent)?;
        self.store.commit(batch)?;
        books.head = head;
        folded.and_then(|old| books.runs.remove(&old));
        books.runs.insert(key, spent);
        Ok(())
    }

    /// What the owner is shown.
    pub(crate) fn status(&self) -> PrivacyStatus {
        let (books, budget) = (self.lock(), &self.budget);
        let finite = |epsilon: f64| Some(epsilon).filter(|epsilon| epsilon.is_finite());
        let mut runs: Vec<(&Key, &Spent)> = books.runs.iter().collect();
        runs.sort_by_key(|(_, spent)| std::cmp::Reverse(spent.written_unix_s));
        let shown = runs.into_iter().take(RUNS_SHOWN).map(|((_, run), spent)| SpentStatus {
            task: spent.task.clone(),
            run: run.0,
            rounds: spent.rounds,
            rounds_assumed: spent.assumed,
            noise: spent.noise.map_or_else(|| "none".to_owned(), |noise| noise.to_string()),
            epsilon: finite(budget.epsilon(spent.past(budget))),
            written_unix_s: spent.written_unix_s,
        });
        PrivacyStatus {
            delta: budget.delta,
            epsilon_spent: finite(books.total(budget)),
            epsilon_lifetime: budget.lifetime,
            epsilon_per_run: budget.per_run,
            epsilon_lost: books.head.lost_epsilon,
            restores_unbounded: books.head.lost_unbounded,
            runs: shown.collect(),
            examples: examples::status(&books.examples, budget.delta),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // What is behind it is replaced whole, after the disk has it.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn total(&self, budget: &Budget) -> f64 {
        self.head.epsilon(self.runs.values().map(|spent| spent.past(budget)).sum(), budget)
    }
}

impl Head {
    /// The ε of the runs of `past`, with what was folded and what was lost sight of.
    fn epsilon(&self, past: Past, budget: &Budget) -> f64 {
        budget.epsilon(past + Past::of_unknown_noise(self.folded)) + self.lost_epsilon
    }
}

/// Whether a device with the record `before` may have the one `after`: where a plan limits turns, its noise is priced by them, and the device
/// keeps to that by itself.
fn has_turn(plan: &TaskPlan, before: Option<&Spent>, after: &Spent) -> bool {
    let Some(limit) = Turns::of(plan) else { return true };
    let last = |spent: &Spent| spent.last.map_or(0, |(round, _)| round);
    let again = before.is_some_and(|before| before.rounds == after.rounds);
    let had = Turn { count: after.rounds.saturating_sub(1), last: before.map_or(0, last) };
    again || limit.allow(had, last(after))
}

impl Spent {
    fn past(&self, budget: &Budget) -> Past {
        match &self.noise {
            _ if self.rounds == 0 => Past::NOTHING,
            Some(noise) if budget.counts(noise) => {
                noise.past(self.rounds, self.last.map_or(0, |last| last.0), self.assumed == 0)
            }
            _ => Past::UNBOUNDED,
        }
    }
}

fn name((task, run): Key) -> String {
    format!("{task}/{:010}", run.0)
}
