//! What the device's owner allows (invariant 13). Asked by the participant before any work of a round is done, and by the
//! intake before a release is asked for.
//!
//! The tasks that are bound in the configuration, and no other; the rules of `[policy]` (`settings`); and, where the owner has pinned a
//! root of trust, plans that publishers signed. All of them stand behind one trait, so that none can be passed by, and all are
//! read from the device's own disk: nothing that an aggregator sends loosens one. What a plan says is only ever compared with them.
//!
//! A refusal names its rule ([`PolicyRule`]). Budgets are kept by the `ledger`, which is asked a second time when an
//! update is sealed: by then another run may have spent what was left.

mod hours;
mod publishers;
mod rules;
mod settings;
pub(crate) mod statement;
mod traffic;

use std::collections::BTreeSet;
use std::sync::Arc;

use starling_audit::VerifierKey;
use starling_protocol::participant::Consent;
use starling_spec::TaskPlan;
use starling_store::{Store, StoreError};
use starling_wire::{Address, Decline, Digest, PolicyRule, RoundKind, RoundStart, RunPlan};

pub use hours::{Hours, LocalTime, NotHours};
pub use settings::{PolicyProblem, PolicySettings};

use crate::config::ClientConfig;
use crate::learner::with_causes;
use crate::ledger::Ledger;
use crate::status::PrivacyStatus;
use crate::trust::Keeper;
use publishers::Publishers;
use rules::Facts;
use traffic::Traffic;

/// Allows the tasks that it names, and nothing else.
#[derive(Debug, Clone)]
pub struct AllowList {
    tasks: BTreeSet<String>,
}

impl AllowList {
    /// Allows `tasks`.
    pub fn new(tasks: impl IntoIterator<Item = String>) -> Self {
        Self { tasks: tasks.into_iter().collect() }
    }

    /// Whether the owner has bound `task`.
    pub fn allows(&self, task: &str) -> bool {
        self.tasks.contains(task)
    }
}

/// The device's owner, as far as the daemon knows his mind.
pub(crate) struct Owner {
    tasks: AllowList,
    settings: PolicySettings,
    publishers: Publishers,
    witnesses: Arc<[VerifierKey]>,
    trust: Option<Arc<Keeper>>,
    ledger: Arc<Ledger>,
    traffic: Traffic,
    /// The machine's time, or a test's.
    local_time: Box<dyn Fn() -> LocalTime + Send + Sync>,
}

impl Owner {
    /// The owner of a device with this configuration and state folder.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn new(
        tasks: AllowList,
        config: &ClientConfig,
        store: &Arc<Store>,
        trust: Option<Arc<Keeper>>,
        local_time: impl Fn() -> LocalTime + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let settings = config.policy.clone();
        let publishers = Publishers::new(settings.publisher_keys().expect("checked when the configuration was read"));
        let witnesses = settings.witness_keys().expect("checked when the configuration was read").into();
        let ledger = Arc::new(Ledger::open(Arc::clone(store), &config.state_dir, settings.budget())?);
        let traffic = Traffic::open(Arc::clone(store), settings.bytes_per_day)?;
        Ok(Self { tasks, settings, publishers, witnesses, trust, ledger, traffic, local_time: Box::new(local_time) })
    }

    /// Who has to have seen that the devices of a cohort are enrolled; empty where certificates are enough.
    pub(crate) fn witnesses(&self) -> Arc<[VerifierKey]> {
        Arc::clone(&self.witnesses)
    }

    /// A plan is announced: who has signed it is remembered for its rounds.
    pub(crate) fn take_plan(&self, announced: &RunPlan) {
        if self.tasks.allows(&announced.name) {
            self.publishers.take_plan(announced);
        }
    }

    /// Whether updates by this plan may say what their training was like.
    pub(crate) fn lets_metrics_out(&self, plan: &TaskPlan) -> bool {
        rules::lets_metrics_out(&self.settings, plan)
    }

    /// Writes down, durably, what an update of this round will have spent, before a byte of it leaves. Blocks.
    ///
    /// # Errors
    /// The budget is gone by now, or nothing could be written: nothing may leave then.
    pub(crate) fn spend(&self, plan: &TaskPlan, address: &Address, base: Digest) -> Result<(), Decline> {
        self.ledger.spend(plan, address, base).map_err(Decline::Policy)
    }

    /// Writes down, durably, what a training with DP-SGD on so many examples spends of each of them, before it begins. Blocks.
    ///
    /// # Errors
    /// A budget is gone, or nothing could be written: it must not begin then.
    pub(crate) fn spend_examples(&self, plan: &TaskPlan, address: &Address, examples: u32) -> Result<(), Decline> {
        let owners = self.settings.epsilon_example_per_run;
        self.ledger.spend_examples(plan, address, examples, owners).map_err(|rule| {
            tracing::warn!(task = plan.name, %address, rule = rule.name(), code = rule.code(), "declined: {}", rule.text());
            Decline::Policy(rule)
        })
    }

    /// What is spent, for the thread that masks updates.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// So many bytes of a model, an update or a release are about to move.
    pub(crate) fn move_bytes(&self, bytes: u64) {
        if let Err(error) = self.traffic.add((self.local_time)().day, bytes) {
            tracing::error!(error = with_causes(&error), "the bytes of the day could not be written down");
        }
    }

    /// For the status file.
    pub(crate) fn privacy(&self) -> PrivacyStatus {
        self.ledger.status()
    }

    fn check(&self, plan: &TaskPlan, start: &RoundStart) -> Result<(), PolicyRule> {
        if !self.tasks.allows(&plan.name) {
            return Err(PolicyRule::Task);
        }
        if !self.publishers.have_signed(start.address.task) {
            return Err(PolicyRule::Publisher);
        }
        let now = (self.local_time)();
        let facts = Facts { minute: now.minute, bytes_today: self.traffic.today(now.day) };
        rules::check(&self.settings, &facts, plan, start)?;
        if start.kind != RoundKind::Train {
            return Ok(());
        }
        self.ledger.allows(plan, start)?;
        self.ledger.allows_examples(plan, &start.address, self.settings.epsilon_example_per_run)
    }
}

impl Consent for Owner {
    fn consent(&self, plan: &TaskPlan, start: &RoundStart) -> Result<(), Decline> {
        self.check(plan, start).map_err(|rule| {
            tracing::warn!(task = plan.name, address = %start.address, kind = ?start.kind, rule = rule.name(), code = rule.code(), "declined: {}", rule.text());
            Decline::Policy(rule)
        })?;
        self.trust.as_ref().map_or(Ok(()), |trust| trust.consent(plan))
    }
}

/// The owner on the participant's side; the worker has another hand on him.
pub(crate) struct Asked(pub(crate) Arc<Owner>);

impl Consent for Asked {
    fn consent(&self, plan: &TaskPlan, start: &RoundStart) -> Result<(), Decline> {
        self.0.consent(plan, start)
    }
}
