//! Secure sums in the worker's memory: messages come in, a stage is closed, letters go out. What the sum is, and no single update, is
//! ever in memory in the clear.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use starling_audit::Contribution;
use starling_audit::enrolment::key_digest;
use starling_net::Certified;
use starling_protocol::run::Stage;
use starling_store::Batch;
use starling_update::{SecureRound, SecureSums, Summed};
use starling_wire::{Address, BlobHeader, DeviceId, Digest, Refusal, Roll, SecureLetter, SecureMail};

use super::{Budget, Model, State};
use crate::ledger::LedgerError;

/// An attempt under way.
pub(super) struct Summing {
    address: Address,
    round: SecureRound,
    certified: Certified,
    /// The certificates that each device came with, and those between them and the CA, each once.
    leaves: BTreeMap<DeviceId, Vec<u8>>,
    between: BTreeSet<Vec<u8>>,
    /// While the stage is open that tells everybody of everybody in its group: what it asks, one copy for all of the group.
    rosters: Vec<Option<Bytes>>,
}

/// What a round's sums say, and the digests that they were bound to.
pub(super) type Bound = (Summed, Vec<Digest>);

/// What closing a stage leads to.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) address: Address,
    /// Who is asked in the next stage; after the last one, whose updates are in the sum.
    pub(crate) members: Result<BTreeSet<DeviceId>, Refusal>,
    pub(crate) letters: Vec<(DeviceId, Bytes)>,
}

impl Summing {
    fn new(sums: &SecureSums, address: Address, model: Digest) -> Result<Self, Refusal> {
        let round = SecureRound::of(sums, address, model).map_err(|refused| refused.refusal())?;
        let (certified, leaves, between, rosters) = Default::default();
        Ok(Self { address, round, certified, leaves, between, rosters })
    }

    /// Takes in the certificates that a device shows with its keys.
    fn show(&mut self, device: DeviceId, certified: Certified, chain: &[&[u8]]) -> Result<(), Refusal> {
        let Some((leaf, between)) = chain.split_first().filter(|_| certified.contains(&device)) else {
            return Err(Refusal::SecureUncertifiedMember);
        };
        self.certified.extend(certified);
        self.leaves.insert(device, leaf.to_vec());
        self.between.extend(between.iter().map(|certificate| certificate.to_vec()));
        Ok(())
    }

    /// The members of a roster and the digests of the keys that their certificates vouch for.
    fn keys(&self, members: &[DeviceId]) -> Vec<(DeviceId, Digest)> {
        members.iter().filter_map(|member| Some((*member, key_digest(self.certified.key(member)?)))).collect()
    }

    /// A roster, with everybody's certificates and where the audit log, under what witnesses have co-signed, has them.
    fn roster(&self, members: &[DeviceId], rolls: Vec<Roll>) -> Option<Bytes> {
        let message = self.round.message(members.first()?)?.to_vec();
        let leaves = members.iter().filter_map(|member| self.leaves.get(member));
        let certificates = leaves.chain(&self.between).cloned().collect();
        Some(SecureLetter { message, certificates, rolls }.to_bytes())
    }

    /// What the open stage asks of `device`.
    fn letter(&self, device: &DeviceId) -> Option<Bytes> {
        let message = self.round.message(device)?;
        if self.round.names_members() {
            return self.rosters.get(self.round.group_of(device)?)?.clone();
        }
        Some(SecureLetter { message: message.to_vec(), ..SecureLetter::default() }.to_bytes())
    }
}

impl State {
    /// What a device sent in a stage, but for its masked update.
    pub(super) fn take_mail(&mut self, device: DeviceId, mail: &SecureMail, stage: Stage) -> Result<(), Refusal> {
        let SecureMail { address, message, chain } = mail;
        if !mail.is_bounded() {
            return Err(Refusal::SecureMalformed);
        }
        let credentials = self.making.endpoint.credentials();
        let summing = self.summing(address, stage)?;
        if stage == Stage::Advertise {
            let shown: Vec<&[u8]> = chain.iter().map(|certificate| certificate.as_slice()).collect();
            summing.show(device, Certified::check(&credentials, shown.iter().copied()), &shown)?;
        }
        let Summing { round, certified, .. } = summing;
        round.take(device, message, certified).map_err(|refused| {
            tracing::warn!(device = %device, %address, error = super::chain(&refused), "a message of a secure sum was refused");
            refused.refusal()
        })
    }

    /// A device's masked update.
    pub(super) fn take_masked(
        &mut self,
        device: DeviceId,
        address: &Address,
        (header, body, digest): (&BlobHeader, &[u8], Digest),
    ) -> Result<(), Refusal> {
        if digest != header.digest {
            return Err(Refusal::DigestMismatch);
        }
        let Summing { round, certified, .. } = self.summing(address, Stage::Mask)?;
        round.take(device, body, certified).map_err(|refused| refused.refusal())?;
        if let Err(error) = self.audit.admitted(*address, Contribution { device, digest }, None) {
            tracing::error!(error = super::chain(&error), "the audit log could not be written");
        }
        Ok(())
    }

    /// Closes the stage that is open.
    pub(super) fn close_stage(&mut self, address: Address, stage: Stage) -> Closed {
        let closed = self.summing(&address, stage).and_then(|summing| {
            let members = summing.round.close().map_err(|aborted| {
                tracing::warn!(%address, error = super::chain(&aborted), "an attempt at a secure sum is given up");
                Refusal::StaleAttempt
            })?;
            let rosters = if summing.round.names_members() { summing.round.rosters() } else { Vec::new() };
            let with_keys = rosters.into_iter().map(|members| (summing.keys(&members), members));
            Ok((members, with_keys.collect::<Vec<_>>()))
        });
        let closed = closed.and_then(|(members, rosters)| {
            let rosters = rosters.into_iter().map(|(keys, members)| {
                let rolls = if keys.is_empty() { Vec::new() } else { self.audit.rolls(&keys) };
                (members, rolls)
            });
            let rosters: Vec<_> = rosters.collect();
            let summing = self.summing(&address, stage)?;
            summing.rosters = rosters.into_iter().map(|(members, rolls)| summing.roster(&members, rolls)).collect();
            let letters = members.iter().filter_map(|device| Some((*device, summing.letter(device)?))).collect();
            Ok((members, letters))
        });
        match closed {
            Ok((members, letters)) => Closed { address, members: Ok(members), letters },
            Err(refusal) => Closed { address, members: Err(refusal), letters: Vec::new() },
        }
    }

    /// Where the devices' own noise is all that protects the sum, the aggregator sees it as soon as the masks are off: that is charged,
    /// durably, before anybody is asked to help with it.
    pub(super) fn charge_unmasking(&mut self, address: &Address, stage: Stage) -> Result<(), LedgerError> {
        let Some(model) = self.models.get_mut(&address.run).filter(|_| stage == Stage::Confirm) else { return Ok(()) };
        let Some(ledger) = model.ledger.as_mut().filter(|ledger| ledger.is_released_by_unmasking()) else {
            return Ok(());
        };
        let mut batch = Batch::new();
        ledger.charge(&mut batch, address)?;
        model.loaded.budget = Some(Budget::of(ledger));
        Ok(self.store.commit(batch)?)
    }

    /// What the open stage asks of a device that is back.
    pub(super) fn remind(&self, address: &Address, device: DeviceId) -> Option<Bytes> {
        let summing = self.models.get(&address.run)?.summing.as_ref()?;
        (summing.address == *address).then(|| summing.letter(&device)).flatten()
    }

    /// A device has been thrown out before its update was in.
    pub(super) fn drop_out(&mut self, address: &Address, device: DeviceId) {
        let summing = self.models.get_mut(&address.run).and_then(|model| model.summing.as_mut());
        if let Some(summing) = summing.filter(|summing| summing.address == *address)
            && let Err(aborted) = summing.round.revoke(&device)
        {
            // The machine gives the attempt up at the next stage: the survivors of an aborted round are nobody.
            tracing::warn!(%address, error = super::chain(&aborted), "a secure sum cannot go on");
        }
    }

    /// The sum under way for `address`; the first message of an attempt begins it.
    fn summing(&mut self, address: &Address, stage: Stage) -> Result<&mut Summing, Refusal> {
        let model = self.models.get_mut(&address.run).ok_or(Refusal::UnknownRun)?;
        let Model { loaded, version, summing, .. } = model;
        let sums = loaded.numbers.secure.as_ref().ok_or(Refusal::UnexpectedFrame)?;
        let other = summing.as_ref().is_none_or(|summing| summing.address != *address);
        if other && stage == Stage::Advertise {
            *summing = Some(Summing::new(sums, *address, version.digest())?);
        }
        summing.as_mut().filter(|summing| summing.address == *address).ok_or(Refusal::StaleAttempt)
    }
}

impl Model {
    /// What the round's secure sums say, where the run has any, and the digests that they were bound to.
    pub(super) fn take_sum(&mut self) -> Result<Option<Bound>, Box<dyn std::error::Error>> {
        let Some(sums) = self.loaded.numbers.secure.as_ref() else { return Ok(None) };
        let summing = self.summing.take().ok_or("nothing was summed")?;
        let sessions = summing.round.sessions();
        let summed = summing.round.summed(sums).ok_or("the secure sum is not complete")??;
        Ok(Some((summed, sessions)))
    }
}
