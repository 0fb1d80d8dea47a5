//! What lies behind the log's commitments: names and addresses. Each belongs to a device and lies in its compartment, or to a stranger and
//! lies in a compartment of all strangers, so that the end of a key is the end of it, in backups too.

use starling_audit::Personal;
use starling_store::{Batch, Store, StoreError};
use starling_wire::DeviceId;

use super::AuditLog;
use super::storage::{AuditError, PERSONAL, record_key};

/// What the names of strangers' compartments begin with; a number follows. No device's id begins so.
const STRANGERS: &str = "strangers/";

/// The shortest name that strangers' fields are searched for: a shorter one is in all of them.
const NAME_BYTES_MIN: usize = 3;

/// The number of the strangers' compartment in use.
pub(super) fn strangers(store: &Store) -> Result<u64, StoreError> {
    let ids = store.compartment_ids()?;
    Ok(ids.iter().filter_map(|id| id.strip_prefix(STRANGERS)?.parse().ok()).max().unwrap_or(0))
}

impl AuditLog {
    pub(super) fn put_personal(
        &self,
        device: Option<DeviceId>,
        seq: u64,
        personal: &Personal,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let id = device.map_or_else(|| format!("{STRANGERS}{}", self.strangers), |device| device.to_string());
        match self.store.compartment(&id) {
            Ok(compartment) => batch.put_in(&compartment, PERSONAL, &record_key(seq), personal),
            // The commitment stays, and nobody can open it.
            Err(StoreError::Forgotten(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Everything that is still known.
    pub(super) fn all_personal(&self) -> Result<Vec<Personal>, StoreError> {
        let mut found = Vec::new();
        for id in self.store.compartment_ids()? {
            if let Some(compartment) = self.store.known_compartment(&id)? {
                found.extend(compartment.scan::<Personal>(PERSONAL)?);
            }
        }
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(found.into_iter().map(|(_, personal)| personal).collect())
    }

    /// Forgets what the log knows of `device`, before its compartment goes: what waits to be written, and where it was taken for a
    /// stranger. Its records stay, and nobody can tell any more what their commitments hid. Returns how many fields strangers lost.
    pub(crate) fn forget(&mut self, device: DeviceId, name: Option<&str>) -> Result<usize, AuditError> {
        self.flush(false)?;
        let Some(name) = name.filter(|name| name.len() >= NAME_BYTES_MIN) else { return Ok(0) };
        let id = device.to_string();
        let mut lost = 0;
        // Others that a crash has left over come along.
        let all = self.store.compartment_ids()?.into_iter().filter(|id| id.starts_with(STRANGERS));
        let olds: Vec<String> = all.collect();
        let mut kept = Vec::new();
        for old in &olds {
            let Some(compartment) = self.store.known_compartment(old)? else { continue };
            for (key, personal) in compartment.scan::<Personal>(PERSONAL)? {
                if personal.value.contains(name) || personal.value.contains(&id) {
                    lost += 1;
                } else {
                    kept.push((key, personal));
                }
            }
        }
        if lost == 0 {
            return Ok(0);
        }
        // Under a new key; the old one's end takes what was dropped out of the backups as well.
        self.strangers += 1;
        let next = self.store.compartment(&format!("{STRANGERS}{}", self.strangers))?;
        for some in kept.chunks(super::PENDING_MAX) {
            let mut batch = Batch::new();
            some.iter().try_for_each(|(key, personal)| batch.put_in(&next, PERSONAL, key, personal))?;
            self.store.commit(batch)?;
        }
        for old in &olds {
            self.store.discard(old)?;
        }
        Ok(lost)
    }
}
