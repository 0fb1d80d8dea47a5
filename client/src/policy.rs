//! What the device's owner allows (invariant 13). Asked by the participant before any work of a round is done, and by the
//! intake before a release is asked for.
//!
//! An allow-list, the tasks that are bound in the configuration; and, where the owner has pinned a root of trust, plans that
//! publishers signed. Whatever later rules there are (hours, power, privacy budgets) go behind the same trait, so that none can be
//! passed by.

use std::collections::BTreeSet;
use std::sync::Arc;

use starling_protocol::participant::Consent;
use starling_spec::TaskPlan;
use starling_wire::{Decline, RoundKind};

use crate::trust::Keeper;

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

impl Consent for AllowList {
    fn consent(&self, plan: &TaskPlan, kind: RoundKind) -> Result<(), Decline> {
        let allowed = self.allows(&plan.name);
        if !allowed {
            tracing::warn!(task = plan.name, ?kind, "declined: no [[task]] of the configuration has this name");
        }
        if allowed { Ok(()) } else { Err(Decline::Policy) }
    }
}

/// The allow-list, and the signatures that the owner asks for.
pub(crate) struct Owner {
    pub(crate) tasks: AllowList,
    pub(crate) trust: Option<Arc<Keeper>>,
}

impl Consent for Owner {
    fn consent(&self, plan: &TaskPlan, kind: RoundKind) -> Result<(), Decline> {
        self.tasks.consent(plan, kind)?;
        self.trust.as_ref().map_or(Ok(()), |trust| trust.consent(plan))
    }
}
