//! The aggregator's side of one attempt: what comes in a stage, what closes it, and what goes out then.
//!
//! A cohort is one secure sum, or several groups with one each. Keys come in at one place; once all are there, devices are dealt out to the groups,
//! which go through the later stages side by side. A group that loses too many devices is lost alone while enough others are left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use starling_secagg::{Aborted, Aggregator, Fleet, Phase, Refused, Setup};
use starling_spec::task::GROUPS_MIN;
use starling_wire::{Address, DeviceId, Digest};

use super::{SecureSums, Summed, groups};
use crate::ring::RingError;

/// An attempt at a round's secure sums.
pub struct SecureRound {
    /// What the devices of a round are dealt out by.
    seed: u64,
    address: Address,
    wanted: u16,
    /// Where keys come in, until they are all there.
    lobby: Option<Aggregator>,
    groups: Vec<Group>,
    group_of: BTreeMap<DeviceId, usize>,
    /// The message of the open stage for each device that is asked in it.
    outbox: BTreeMap<DeviceId, Arc<[u8]>>,
}

/// One secure sum.
struct Group {
    machine: Aggregator,
    survivors: BTreeSet<DeviceId>,
    sum: Option<Vec<i64>>,
    session: Option<Digest>,
}

impl SecureRound {
    /// An attempt at one sum over everybody, which waits for keys.
    ///
    /// # Errors
    /// [`Refused::Setup`].
    pub fn new(setup: &Setup) -> Result<Self, Refused> {
        Self::of_groups(setup, 1, 0)
    }

    /// An attempt at the sums of `sums` with the model of this digest.
    ///
    /// # Errors
    /// [`Refused::Setup`].
    pub fn of(sums: &SecureSums, address: Address, model: Digest) -> Result<Self, Refused> {
        Self::of_groups(&sums.setup(address, model), sums.groups(), sums.seed)
    }

    fn of_groups(setup: &Setup, wanted: u16, seed: u64) -> Result<Self, Refused> {
        let lobby = Some(Aggregator::of_groups(setup, wanted)?);
        let (groups, group_of, outbox) = Default::default();
        Ok(Self { seed, address: setup.address, wanted, lobby, groups, group_of, outbox })
    }

    fn phase(&self) -> Phase {
        let open = self.lobby.iter().chain(self.live().map(|group| &group.machine));
        open.map(Aggregator::phase).next().unwrap_or(Phase::Aborted)
    }

    /// The groups that are not lost.
    fn live(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| group.machine.phase() != Phase::Aborted)
    }

    /// Takes what `device` sent in the open stage.
    ///
    /// # Errors
    /// [`Refused`], to be told to the device.
    pub fn take(&mut self, device: DeviceId, message: &[u8], fleet: &dyn Fleet) -> Result<(), Refused> {
        let group = self.group_of.get(&device).map(|group| &mut self.groups[*group].machine);
        let Some(machine) = self.lobby.as_mut().or(group) else { return Err(Refused::Unexpected(device)) };
        match machine.phase() {
            Phase::Advertising => machine.handle_advertisement(device, message, fleet),
            Phase::Sharing => machine.handle_shares(device, message),
            Phase::Masking => machine.handle_masked(device, message),
            Phase::Confirming => machine.handle_confirmation(device, message, fleet),
            Phase::Revealing => machine.handle_reveal(device, message),
            Phase::Finished | Phase::Aborted => Err(Refused::OutOfTurn("the attempt is over")),
        }
    }

    /// Closes the open stage: who is asked in the next one, and after the last one the survivors.
    ///
    /// # Errors
    /// [`Aborted`]: the attempt is over.
    pub fn close(&mut self) -> Result<BTreeSet<DeviceId>, Aborted> {
        if let Some(lobby) = self.lobby.take() {
            self.deal(lobby);
        } else if matches!(self.phase(), Phase::Finished | Phase::Aborted) {
            return Err(Aborted::OutOfTurn(self.phase()));
        }
        self.outbox.clear();
        let mut lost = None;
        for group in &mut self.groups {
            if group.machine.phase() == Phase::Aborted {
                continue;
            }
            match group.close() {
                Ok(messages) => self.outbox.extend(messages),
                Err(aborted) => lost = Some(aborted),
            }
        }
        let left = self.live().count();
        match lost {
            Some(aborted) if left < usize::from(self.wanted.min(GROUPS_MIN)) => {
                self.groups.iter_mut().for_each(|group| group.machine.abort());
                self.outbox.clear();
                return Err(aborted);
            }
            _ => {}
        }
        if self.phase() == Phase::Finished {
            return Ok(self.live().flat_map(|group| group.survivors.iter().copied()).collect());
        }
        Ok(self.outbox.keys().copied().collect())
    }

    /// Everybody's keys are there: who is in which group.
    fn deal(&mut self, lobby: Aggregator) {
        let (seed, address) = (self.seed, self.address);
        let parts = lobby.split(self.wanted, |device| groups::group_order(seed, &address, device));
        for (index, machine) in parts.into_iter().enumerate() {
            self.group_of.extend(machine.advertised().map(|device| (device, index)));
            self.groups.push(Group { machine, survivors: BTreeSet::new(), sum: None, session: None });
        }
    }

    /// What the open stage asks of `device`, if anything.
    pub fn message(&self, device: &DeviceId) -> Option<&Arc<[u8]>> {
        self.outbox.get(device)
    }

    /// Whether the open stage's messages name devices whose certificates their receivers have to know: in the roster, everybody's.
    pub fn names_members(&self) -> bool {
        self.phase() == Phase::Sharing
    }

    /// The group that `device` was dealt out to.
    pub fn group_of(&self, device: &DeviceId) -> Option<usize> {
        self.group_of.get(device).copied()
    }

    /// The devices of each group's roster; of a lost group, nobody.
    pub fn rosters(&self) -> Vec<Vec<DeviceId>> {
        self.groups.iter().map(|group| group.machine.members()).collect()
    }

    /// Takes a device out that has been thrown out, as far as that is possible.
    ///
    /// # Errors
    /// [`Aborted::Revoked`]: its input is in.
    pub fn revoke(&mut self, device: &DeviceId) -> Result<(), Aborted> {
        let group = self.group_of.get(device).map(|group| &mut self.groups[*group].machine);
        self.lobby.as_mut().or(group).map_or(Ok(()), |machine| machine.revoke(device)).inspect_err(|_| {
            // The others' sums are of an attempt that is given up whole.
            self.groups.iter_mut().for_each(|group| group.machine.abort());
        })
    }

    /// The digests that everything in the attempt's sums is bound to, once their devices are known: one for each group that is not lost.
    pub fn sessions(&self) -> Vec<Digest> {
        self.live().filter_map(|group| group.session).collect()
    }

    /// What the sums say, once they are there.
    ///
    /// # Errors
    /// [`RingError`] when they are of another plan than `sums`.
    pub fn summed(&self, sums: &SecureSums) -> Option<Result<Summed, RingError>> {
        let found = self.live().map(|group| Some((group.sum.as_deref()?, group.session?, group.survivors.len())));
        let found = found.collect::<Option<Vec<_>>>().filter(|found| !found.is_empty())?;
        Some(sums.decode_groups(&found))
    }
}

impl Group {
    /// Closes the open stage; what the next one asks of whom.
    fn close(&mut self) -> Result<BTreeMap<DeviceId, Arc<[u8]>>, Aborted> {
        Ok(match self.machine.phase() {
            Phase::Advertising => {
                let roster: Arc<[u8]> = Arc::from(self.machine.close_advertising()?);
                self.session = self.machine.session();
                self.machine.members().into_iter().map(|device| (device, Arc::clone(&roster))).collect()
            }
            Phase::Sharing => each(self.machine.close_sharing()?),
            Phase::Masking => {
                let survivors: Arc<[u8]> = Arc::from(self.machine.close_masking()?);
                self.survivors = self.machine.survivors().into_iter().collect();
                self.survivors.iter().map(|device| (*device, Arc::clone(&survivors))).collect()
            }
            Phase::Confirming => each(self.machine.close_confirming()?),
            Phase::Revealing => {
                self.sum = Some(self.machine.finish()?.values());
                BTreeMap::new()
            }
            over => return Err(Aborted::OutOfTurn(over)),
        })
    }
}

fn each(messages: Vec<(DeviceId, Vec<u8>)>) -> BTreeMap<DeviceId, Arc<[u8]>> {
    messages.into_iter().map(|(device, message)| (device, Arc::from(message))).collect()
}
