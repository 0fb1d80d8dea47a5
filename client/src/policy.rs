//! What the device's owner allows (invariant 13). Asked by the participant before any work of a round is done, and by the
//! intake before a release is asked for.
//!
//! Today it is an allow-list: the tasks that are bound in the configuration. Whatever later rules there are (hours, power,
//! privacy budgets) go behind the same trait, so that none can be passed by.

use std::collections::BTreeSet;

use starling_protocol::participant::Consent;
use starling_spec::TaskPlan;
use starling_wire::{Decline, RoundKind};

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

    /// Whether a release of `task` may be fetched and served.
    pub fn allows_release(&self, task: &str) -> bool {
        self.tasks.contains(task)
    }
}

impl Consent for AllowList {
    fn consent(&self, plan: &TaskPlan, kind: RoundKind) -> Result<(), Decline> {
        let allowed = self.tasks.contains(&plan.name);
        if !allowed {
            tracing::warn!(task = plan.name, ?kind, "declined: no [[task]] of the configuration has this name");
        }
        if allowed { Ok(()) } else { Err(Decline::Policy) }
    }
}
