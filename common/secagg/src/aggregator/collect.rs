//! Keys, envelopes and masked vectors come in.

use starling_wire::DeviceId;

use super::{Aborted, Addressed, Aggregator, Open, Phase, first_time};
use crate::bitmap::Bitmap;
use crate::identity::{Fleet, Verdict, advertisement};
use crate::message::{Delivered, Member, Shared, read_masked, write_roster, write_survivors};
use crate::refused::Refused;
use crate::session::Session;
use crate::vector::RingVector;

impl Aggregator {
    /// Takes a device's keys. `device` is who the certificate of the connection says.
    ///
    /// # Errors
    /// [`Refused`], to be told to the device.
    pub fn handle_advertisement(&mut self, device: DeviceId, bytes: &[u8], fleet: &dyn Fleet) -> Result<(), Refused> {
        self.at(Phase::Advertising)?;
        let member = Member::read(bytes, &self.about)?;
        if member.device != device {
            return Err(Refused::Unexpected(member.device));
        }
        if (member.round, member.attempt) != (self.setup.address.round, self.setup.address.attempt) {
            return Err(Refused::StaleMember(device));
        }
        if member.model != self.setup.model {
            return Err(Refused::OtherModel(device));
        }
        let signed = advertisement(&self.about, &device, &member.mask_key, &member.envelope_key);
        match fleet.verify(&device, &signed, &member.signature) {
            Verdict::Valid => {}
            Verdict::Forged => return Err(Refused::SwappedKeys(device)),
            Verdict::Uncertified => return Err(Refused::UncertifiedMember(device)),
        }
        if let Some(before) = self.advertised.get(&device) {
            return if *before == member { Ok(()) } else { Err(Refused::Unexpected(device)) };
        }
        if self.advertised.len() >= self.room {
            return Err(Refused::CohortTooLarge { got: self.advertised.len() + 1, allowed: self.room });
        }
        self.advertised.insert(device, member);
        Ok(())
    }

    /// Fixes the roster; the message goes to every device in it.
    ///
    /// # Errors
    /// [`Aborted`] when too few devices have advertised, or no graph is safe for as many as have.
    pub fn close_advertising(&mut self) -> Result<Vec<u8>, Aborted> {
        self.close(Phase::Advertising, Phase::Sharing)?;
        let opened = self.open_session();
        let roster = self.or_abort(opened)?;
        Ok(roster)
    }

    fn open_session(&mut self) -> Result<Vec<u8>, Aborted> {
        let (got, wanted) = (self.advertised.len(), usize::from(self.setup.cohort_min));
        if got < wanted {
            return Err(Aborted::TooFew { phase: Phase::Advertising, got, wanted });
        }
        let members: Vec<Member> = std::mem::take(&mut self.advertised).into_values().collect();
        let roster = write_roster(&self.about, &members);
        let session = Session::new(&self.setup, members)?;
        let devices = session.members.len();
        self.open = Some(Open {
            neighbours: (0..devices).map(|index| session.graph.neighbours(index)).collect(),
            session,
            shared: (0..devices).map(|_| None).collect(),
            masked: vec![None; devices],
            sum: RingVector::zero(self.ring, self.setup.values as usize),
            survivors: Bitmap::empty(devices),
            confirmed: vec![None; devices],
            asked: vec![false; devices],
            revealed: vec![None; devices],
            collected: vec![Vec::new(); devices],
        });
        Ok(roster)
    }

    /// Takes a device's envelopes.
    ///
    /// # Errors
    /// [`Refused`], to be told to the device.
    pub fn handle_shares(&mut self, device: DeviceId, bytes: &[u8]) -> Result<(), Refused> {
        self.at(Phase::Sharing)?;
        let open = self.open.as_mut().ok_or(Refused::Burned)?;
        let index = open.index(&device)?;
        let shared = Shared::read(bytes, &open.session.digest, open.session.topology().degree())?;
        // Encrypting is deterministic in the device's keys, so what comes twice is the same.
        if let Some(before) = &open.shared[index] {
            let same = before.commitment == shared.commitment && before.envelopes == shared.envelopes;
            return if same { Ok(()) } else { Err(Refused::Unexpected(device)) };
        }
        open.shared[index] = Some(shared);
        Ok(())
    }

    /// Forwards the envelopes: a message for each device that has shared.
    ///
    /// # Errors
    /// [`Aborted`] when too few have.
    pub fn close_sharing(&mut self) -> Result<Vec<Addressed>, Aborted> {
        self.close(Phase::Sharing, Phase::Masking)?;
        let wanted = usize::from(self.setup.cohort_min);
        let delivered =
            self.open.as_ref().ok_or(Aborted::OutOfTurn(Phase::Aborted)).and_then(|open| open.deliver(wanted));
        self.or_abort(delivered)
    }

    /// Takes a device's masked vector into the sum.
    ///
    /// # Errors
    /// [`Refused`], to be told to the device.
    pub fn handle_masked(&mut self, device: DeviceId, bytes: &[u8]) -> Result<(), Refused> {
        self.at(Phase::Masking)?;
        let open = self.open.as_mut().ok_or(Refused::Burned)?;
        let index = open.index(&device)?;
        if open.shared[index].is_none() {
            return Err(Refused::Unexpected(device));
        }
        let packed = read_masked(bytes, &open.session.digest)?;
        let mut slot = open.masked[index];
        if first_time(&mut slot, bytes, &device)? {
            open.sum.add_packed(packed)?;
            open.masked[index] = slot;
        }
        Ok(())
    }

    /// Fixes and announces the survivors, once; the message goes to every device whose vector is in the sum.
    ///
    /// # Errors
    /// [`Aborted`] when they are too few, in all or around somebody, or fall into pieces.
    pub fn close_masking(&mut self) -> Result<Vec<u8>, Aborted> {
        self.close(Phase::Masking, Phase::Confirming)?;
        let wanted = usize::from(self.setup.cohort_min);
        let announced =
            self.open.as_mut().ok_or(Aborted::OutOfTurn(Phase::Aborted)).and_then(|open| open.announce(wanted));
        self.or_abort(announced)
    }

    /// Who is in the sum, once that is fixed.
    pub fn survivors(&self) -> Vec<DeviceId> {
        let open = self.open.iter();
        open.flat_map(|open| open.survivors.iter().map(|index| *open.session.device(index))).collect()
    }
}

impl Open {
    fn deliver(&self, wanted: usize) -> Result<Vec<Addressed>, Aborted> {
        let got = self.shared.iter().flatten().count();
        if got < wanted {
            return Err(Aborted::TooFew { phase: Phase::Sharing, got, wanted });
        }
        let receivers = (0..self.shared.len()).filter(|index| self.shared[*index].is_some());
        let message = |receiver: usize| {
            let neighbours = &self.neighbours[receiver];
            let mut delivered = Delivered { present: Bitmap::empty(neighbours.len()), envelopes: Vec::new() };
            for (position, sender) in neighbours.iter().enumerate() {
                let Some(shared) = &self.shared[*sender] else { continue };
                let at = self.neighbours[*sender].binary_search(&receiver).expect("the graph is symmetric");
                delivered.present.insert(position);
                delivered.envelopes.push(shared.envelopes[at]);
            }
            (*self.session.device(receiver), delivered.write(&self.session.digest))
        };
        Ok(receivers.map(message).collect())
    }

    fn announce(&mut self, wanted: usize) -> Result<Vec<u8>, Aborted> {
        let got = self.masked.iter().flatten().count();
        if got < wanted {
            return Err(Aborted::TooFew { phase: Phase::Masking, got, wanted });
        }
        for (index, _) in self.masked.iter().enumerate().filter(|(_, masked)| masked.is_some()) {
            self.survivors.insert(index);
        }
        let wanted = self.session.topology().threshold();
        let secrets = self.survivors.iter().chain(self.dropped());
        let holders = secrets.map(|index| (index, self.holders_left(index)));
        if let Some((index, got)) = holders.into_iter().find(|(_, got)| *got < wanted) {
            return Err(Aborted::TooFewShares { device: *self.session.device(index), got, wanted });
        }
        if !self.session.graph.holds_together(&self.survivors) {
            return Err(Aborted::Split);
        }
        Ok(write_survivors(&self.session.digest, &self.survivors))
    }
}
