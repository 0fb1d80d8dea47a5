//! The aggregator's side of one attempt: what comes in a stage, what closes it, and what goes out then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use starling_secagg::{Aborted, Aggregator, Fleet, Phase, Refused, Setup};
use starling_wire::{DeviceId, Digest};

use super::{SecureSums, Summed};
use crate::ring::RingError;

/// An attempt at a secure sum.
pub struct SecureRound {
    machine: Aggregator,
    /// The message of the open stage for each device that is asked in it.
    outbox: BTreeMap<DeviceId, Arc<[u8]>>,
    session: Option<Digest>,
    survivors: BTreeSet<DeviceId>,
    sum: Option<Vec<i64>>,
}

impl SecureRound {
    /// An attempt that waits for keys.
    ///
    /// # Errors
    /// [`Refused::Setup`].
    pub fn new(setup: &Setup) -> Result<Self, Refused> {
        let machine = Aggregator::new(setup)?;
        Ok(Self { machine, outbox: BTreeMap::new(), session: None, survivors: BTreeSet::new(), sum: None })
    }

    /// Takes what `device` sent in the open stage.
    ///
    /// # Errors
    /// [`Refused`], to be told to the device.
    pub fn take(&mut self, device: DeviceId, message: &[u8], fleet: &dyn Fleet) -> Result<(), Refused> {
        match self.machine.phase() {
            Phase::Advertising => self.machine.handle_advertisement(device, message, fleet),
            Phase::Sharing => self.machine.handle_shares(device, message),
            Phase::Masking => self.machine.handle_masked(device, message),
            Phase::Confirming => self.machine.handle_confirmation(device, message, fleet),
            Phase::Revealing => self.machine.handle_reveal(device, message),
            Phase::Finished | Phase::Aborted => Err(Refused::OutOfTurn("the attempt is over")),
        }
    }

    /// Closes the open stage: who is asked in the next one, and after the last one the survivors.
    ///
    /// # Errors
    /// [`Aborted`]: the attempt is over.
    pub fn close(&mut self) -> Result<BTreeSet<DeviceId>, Aborted> {
        let outbox: BTreeMap<DeviceId, Arc<[u8]>> = match self.machine.phase() {
            Phase::Advertising => {
                let roster = Arc::from(self.machine.close_advertising()?);
                self.session = self.machine.session();
                self.machine.members().into_iter().map(|device| (device, Arc::clone(&roster))).collect()
            }
            Phase::Sharing => each(self.machine.close_sharing()?),
            Phase::Masking => {
                let survivors = Arc::from(self.machine.close_masking()?);
                self.survivors = self.machine.survivors().into_iter().collect();
                self.survivors.iter().map(|device| (*device, Arc::clone(&survivors))).collect()
            }
            Phase::Confirming => each(self.machine.close_confirming()?),
            Phase::Revealing => {
                self.sum = Some(self.machine.finish()?.values());
                BTreeMap::new()
            }
            over => return Err(Aborted::OutOfTurn(over)),
        };
        let members = if self.sum.is_some() { self.survivors.clone() } else { outbox.keys().copied().collect() };
        self.outbox = outbox;
        Ok(members)
    }

    /// What the open stage asks of `device`, if anything.
    pub fn message(&self, device: &DeviceId) -> Option<&Arc<[u8]>> {
        self.outbox.get(device)
    }

    /// Whether the open stage's messages name devices whose certificates their receivers have to know: in the roster, everybody's.
    pub fn names_members(&self) -> bool {
        self.machine.phase() == Phase::Sharing
    }

    /// The devices of the roster.
    pub fn members(&self) -> Vec<DeviceId> {
        self.machine.members()
    }

    /// Takes a device out that has been thrown out, as far as that is possible.
    ///
    /// # Errors
    /// [`Aborted::Revoked`]: its input is in.
    pub fn revoke(&mut self, device: &DeviceId) -> Result<(), Aborted> {
        self.machine.revoke(device)
    }

    /// The digest that everything in the attempt is bound to, once its devices are known.
    pub fn session(&self) -> Option<Digest> {
        self.session
    }

    /// What the sum says, once there is one.
    ///
    /// # Errors
    /// [`RingError`] when it is of another plan than `sums`.
    pub fn summed(&self, sums: &SecureSums) -> Option<Result<Summed, RingError>> {
        let (sum, session) = self.sum.as_ref().zip(self.session)?;
        Some(sums.decode(sum, &session, self.survivors.len()))
    }
}

fn each(messages: Vec<(DeviceId, Vec<u8>)>) -> BTreeMap<DeviceId, Arc<[u8]>> {
    messages.into_iter().map(|(device, message)| (device, Arc::from(message))).collect()
}
