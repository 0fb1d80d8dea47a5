//! What the rest of the daemon has to know of a device before it is welcomed, readable without waiting for a disk.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use starling_store::Store;
use starling_wire::{DeviceId, PublicKey, Refusal};

use super::tags::Tags;

/// One device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Why it is refused, if it is.
    pub(crate) refusal: Option<Refusal>,
    /// The keys that are its own: the one in use and the one that was issued last. `None` while any key of a good
    /// certificate will do, which is so for devices whose certificates were issued by hand.
    pub(crate) keys: Option<[Option<PublicKey>; 2]>,
}

/// All devices that there is anything to know of.
#[derive(Default)]
pub(crate) struct Standings {
    pub(crate) tags: Tags,
    known: RwLock<BTreeMap<DeviceId, Standing>>,
    /// Knows who was forgotten, also where the records of that were lost with a disk.
    store: Option<Arc<Store>>,
}

impl fmt::Debug for Standings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standings").finish_non_exhaustive()
    }
}

impl Standings {
    /// Of nobody yet.
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { tags: Tags::default(), known: RwLock::default(), store: Some(store) }
    }

    /// Whether a device was forgotten.
    pub(crate) fn is_forgotten(&self, device: DeviceId) -> bool {
        self.store.as_ref().is_some_and(|store| store.is_forgotten(&device.to_string()))
    }

    /// Whether a device with this key may come in.
    ///
    /// # Errors
    /// The reason to refuse it with.
    pub(crate) fn admit(&self, device: DeviceId, key: Option<&PublicKey>) -> Result<(), Refusal> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let Some(standing) = known.get(&device) else {
            return if self.is_forgotten(device) { Err(Refusal::Revoked) } else { Ok(()) };
        };
        if let Some(refusal) = standing.refusal {
            return Err(refusal);
        }
        match &standing.keys {
            // A key that a later one has replaced is a copy, or comes from a backup: its holder is not the device.
            Some(keys) if !keys.iter().flatten().any(|own| Some(own) == key) => Err(Refusal::ClonedKey),
            _ => Ok(()),
        }
    }

    /// Why an identity is refused whatever key it has, if it is.
    pub(crate) fn refusal(&self, id: DeviceId) -> Option<Refusal> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&id)?.refusal
    }

    /// Replaces what is known of a device.
    pub(crate) fn set(&self, device: DeviceId, standing: Standing) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(device, standing);
    }

    /// Refuses a device from now on, ahead of the disk: the registrar makes it last.
    pub(crate) fn bar(&self, device: DeviceId, refusal: Refusal) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).entry(device).or_default().refusal = Some(refusal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_refused_by_its_state_and_by_a_key_that_is_no_longer_its_own() {
        let (device, one, two, old) = (DeviceId([1; 16]), PublicKey([1; 32]), PublicKey([2; 32]), PublicKey([3; 32]));
        let standings = Standings::default();
        assert_eq!(standings.admit(device, Some(&old)), Ok(()), "nothing is known of it");
        standings.set(device, Standing { refusal: None, keys: Some([Some(one), Some(two)]) });
        assert_eq!(standings.admit(device, Some(&one)), Ok(()));
        assert_eq!(standings.admit(device, Some(&two)), Ok(()));
        assert_eq!(standings.admit(device, Some(&old)), Err(Refusal::ClonedKey));
        assert_eq!(standings.admit(device, None), Err(Refusal::ClonedKey));
        standings.bar(device, Refusal::Revoked);
        assert_eq!(standings.admit(device, Some(&one)), Err(Refusal::Revoked));
    }
}
