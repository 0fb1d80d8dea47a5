//! Which keys of devices the audit log knows.

use starling_wire::{DeviceId, PublicKey};

use super::Registry;
use crate::enrolment::acts;
use crate::worker::chain;

/// Keys that are remembered as known to the audit log, 48 bytes each; beyond that they are looked for in the store again.
const TOLD_MAX: usize = 1 << 16;

impl Registry {
    /// The audit log is about to hold, or holds, that `key` is the device's. `false` where it was known.
    pub(super) fn tell(&mut self, device: DeviceId, key: PublicKey) -> bool {
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        self.told.insert((device, key))
    }

    /// Whatever key a device takes part with is in the log, however its certificate came about: who watches the log misses none.
    pub(super) fn shown(&mut self, device: DeviceId, key: PublicKey) {
        if !self.tell(device, key) {
            return;
        }
        match crate::audit::is_enrolled(&self.store, device, &key) {
            Ok(true) => {}
            Ok(false) => self.acts.push(acts::shown(device, &key)),
            Err(error) => tracing::error!(error = chain(&error), "the audit log's keys of a device cannot be read"),
        }
    }
}
