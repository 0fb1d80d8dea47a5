//! What simulated devices owe: residuals of updates that leave something out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use starling_update::Residual;
use starling_wire::DeviceId;

/// What each device owes, and what it will owe when the round under way contains its update.
#[derive(Default)]
pub(super) struct Owed {
    now: BTreeMap<DeviceId, Arc<Residual>>,
    then: BTreeMap<DeviceId, Arc<Residual>>,
}

impl Owed {
    /// What `device` owes for a model of `parameters` parameters.
    pub(super) fn before(&self, device: DeviceId, parameters: usize) -> Arc<Residual> {
        self.now.get(&device).map_or_else(|| Arc::new(Residual::zero(parameters)), Arc::clone)
    }

    /// What it will owe once its update is in a version.
    pub(super) fn pend(&mut self, device: DeviceId, residual: Residual) {
        self.then.insert(device, Arc::new(residual));
    }

    /// The round came to nothing.
    pub(super) fn abandon(&mut self) {
        self.then.clear();
    }

    /// A version has the updates of `contributors`.
    pub(super) fn settle(&mut self, contributors: &BTreeSet<DeviceId>) {
        let then = std::mem::take(&mut self.then);
        self.now.extend(then.into_iter().filter(|(device, _)| contributors.contains(device)));
    }
}
