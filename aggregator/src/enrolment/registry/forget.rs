//! Forgetting a device, the registrar's part: it is known no longer, and its certificates count no more. What it had is destroyed by the
//! worker afterwards.

use starling_store::Batch;
use starling_wire::{DeviceId, Refusal, Role};

use super::Registry;
use crate::enrolment::devices::{self, DeviceRecord, DeviceState, Gone};
use crate::worker::chain;

impl Registry {
    /// Whether a device was forgotten: by this state folder, or by the one whose keys were restored into it.
    pub(super) fn is_gone(&self, device: DeviceId) -> bool {
        self.gone.contains_key(&device) || self.store.is_forgotten(&device.to_string())
    }

    /// What is known of a device that may be forgotten, and how many others belong to the fleet.
    pub(in crate::enrolment) fn known(&self, device: DeviceId) -> (Option<DeviceRecord>, u32) {
        let others = |record: &&DeviceRecord| {
            record.id != device && record.role == Role::Device && record.state == DeviceState::Active
        };
        let left = self.devices.values().filter(others).count();
        (self.devices.get(&device).cloned(), u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// Takes a device out of everything that is known here, durably: a crash after this is followed by the rest of its erasure.
    pub(in crate::enrolment) fn retire(&mut self, now_s: u64, device: DeviceId, unlearn: bool) -> Result<(), String> {
        self.standings.bar(device, Refusal::Revoked);
        self.standings.tags.set(device, &[]);
        self.unwritten.remove(&device);
        let record = self.devices.remove(&device);
        if self.gone.contains_key(&device) {
            return Ok(());
        }
        let serials = record.map(|record| record.serials).unwrap_or_default();
        let gone = Gone { since_unix_s: now_s, serials, certificate: None, unlearn };
        let mut batch = Batch::new();
        self.tokens.forget(device, &mut batch);
        devices::put_gone(device, &gone, &mut batch).map_err(|error| chain(&error))?;
        self.store.commit(batch).map_err(|error| chain(&error))?;
        self.gone.insert(device, gone);
        Ok(())
    }
}
