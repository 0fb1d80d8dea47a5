//! From the roster to the envelopes: who the others are, and a share of our secrets for each neighbour.

use std::collections::BTreeSet;

use starling_wire::Digest;
use zeroize::Zeroizing;

use super::{Device, Joined, Unsent};
use crate::bitmap::Bitmap;
use crate::identity::{Fleet, Verdict, advertisement};
use crate::keys::{Purpose, close, derive};
use crate::keystream::Keystream;
use crate::limits::SHARE_BYTES;
use crate::message::{Kind, Member, Shared, read_roster};
use crate::refused::Refused;
use crate::session::Session;
use crate::shamir::{Elements, Polynomials};

/// A share's field elements as bytes, big-endian.
pub(crate) fn share_bytes(elements: &Elements) -> Zeroizing<[u8; SHARE_BYTES]> {
    let mut bytes = Zeroizing::new([0; SHARE_BYTES]);
    for (place, element) in bytes.as_chunks_mut().0.iter_mut().zip(elements.iter()) {
        *place = element.to_be_bytes();
    }
    bytes
}

impl Device {
    /// Accepts the roster and shares this device's secrets with its neighbours.
    ///
    /// # Errors
    /// [`Refused`]: too small a cohort, or one of too many that no witness knows, a member twice, without a certificate, with keys that it did not sign, in another round or with
    /// another model; this device itself missing or changed; a second roster.
    pub fn handle_roster(&mut self, bytes: &[u8], fleet: &dyn Fleet) -> Result<Unsent, Refused> {
        let answer = self.once(Kind::Roster, bytes, Refused::SecondRoster, |device| {
            let members = read_roster(bytes, &device.about, device.setup.cohort_max.into())?;
            device.check_roster(&members)?;
            let session = Session::new(&device.setup, members)?;
            let index = session.index_of(&device.member.device).ok_or(Refused::OwnKeysChanged)?;
            let neighbours = session.graph.neighbours(index);
            let witnessed = device.check_witnesses(&session, index, fleet)?;
            device.check_certificates(&session, index, &neighbours, (fleet, witnessed.as_ref()))?;
            device.share(session, index, neighbours, witnessed).map(Some)
        })?;
        Ok(answer.expect("a roster is answered"))
    }

    /// What can be seen without certificates.
    fn check_roster(&self, members: &[Member]) -> Result<(), Refused> {
        let wanted = self.policy.cohort_min(&self.setup);
        if members.len() < wanted {
            return Err(Refused::TinyCohort { got: members.len(), wanted });
        }
        if let Some(pair) = members.windows(2).find(|pair| pair[0].device >= pair[1].device) {
            return Err(Refused::DuplicateMember(pair[1].device));
        }
        let mut keys = BTreeSet::new();
        for member in members {
            if !keys.insert(member.mask_key) || !keys.insert(member.envelope_key) {
                return Err(Refused::DuplicateMember(member.device));
            }
            if (member.round, member.attempt) != (self.setup.address.round, self.setup.address.attempt) {
                return Err(Refused::StaleMember(member.device));
            }
            if member.model != self.setup.model {
                return Err(Refused::OtherModel(member.device));
            }
        }
        if members.contains(&self.member) { Ok(()) } else { Err(Refused::OwnKeysChanged) }
    }

    /// Whom witnesses know, where the owner asks for them: enough for the smallest cohort, and no more others than are assumed to collude. All of
    /// them hold shares, so a cohort in which the others were many would protect nothing, however many witnessed ones stood beside them.
    fn check_witnesses(&self, session: &Session, own: usize, fleet: &dyn Fleet) -> Result<Option<Bitmap>, Refused> {
        let Some(known) = fleet.witnessed() else { return Ok(None) };
        let devices = session.members.len();
        let mut witnessed = Bitmap::empty(devices);
        let counts = |index: &usize| *index == own || known.contains(session.device(*index));
        (0..devices).filter(counts).for_each(|index| witnessed.insert(index));
        let wanted = self.policy.cohort_min(&self.setup);
        let others_max = self.setup.assumptions.colluders(devices);
        let (count, others) = (witnessed.count(), devices - witnessed.count());
        if count < wanted || others > others_max {
            return Err(Refused::Unwitnessed { witnessed: count, wanted, others, others_max });
        }
        Ok(Some(witnessed))
    }

    /// Every neighbour has signed its keys for this very setup, and so have enough others for the smallest cohort: all of them, where witnesses
    /// say who counts towards it.
    fn check_certificates(
        &self,
        session: &Session,
        index: usize,
        neighbours: &[usize],
        (fleet, witnessed): (&dyn Fleet, Option<&Bitmap>),
    ) -> Result<(), Refused> {
        let wanted = self.policy.cohort_min(&self.setup) - 1;
        let others = (0..session.members.len()).filter(|other| *other != index && !neighbours.contains(other));
        let more = if witnessed.is_some() { usize::MAX } else { wanted.saturating_sub(neighbours.len()) };
        for other in neighbours.iter().copied().chain(others.take(more)) {
            let member = &session.members[other];
            let signed = advertisement(&self.about, &member.device, &member.mask_key, &member.envelope_key);
            match fleet.verify(&member.device, &signed, &member.signature) {
                Verdict::Valid => {}
                Verdict::Forged => return Err(Refused::SwappedKeys(member.device)),
                Verdict::Uncertified => return Err(Refused::UncertifiedMember(member.device)),
            }
        }
        Ok(())
    }

    fn share(
        &mut self,
        session: Session,
        index: usize,
        neighbours: Vec<usize>,
        witnessed: Option<Bitmap>,
    ) -> Result<Unsent, Refused> {
        let secrets = self.secrets()?;
        let threshold = session.topology().threshold();
        let mut random = Keystream::new(&secrets.polynomials);
        let of_seed = Polynomials::of(&secrets.seed[..], threshold, &mut random);
        let of_key = Polynomials::of(&secrets.mask.secret()[..], threshold, &mut random);
        let own = session.device(index);
        let mut incoming = Vec::with_capacity(neighbours.len());
        let mut envelopes = Vec::with_capacity(neighbours.len());
        for neighbour in &neighbours {
            let member = &session.members[*neighbour];
            let agreed = secrets.envelope.agree(&member.envelope_key).ok_or(Refused::WeakKeys(member.device))?;
            let outgoing = derive(&agreed[..], &session.digest, &Purpose::Envelope, &[own, &member.device]);
            incoming.push(derive(&agreed[..], &session.digest, &Purpose::Envelope, &[&member.device, own]));
            let point = Session::point(*neighbour);
            let mut shares = Zeroizing::new([0; 2 * SHARE_BYTES]);
            shares[..SHARE_BYTES].copy_from_slice(&share_bytes(&of_seed.share(point))[..]);
            shares[SHARE_BYTES..].copy_from_slice(&share_bytes(&of_key.share(point))[..]);
            envelopes.push(close(&outgoing, &session.digest, &shares));
        }
        let commitment: Digest = session.seed_commitment(index, &secrets.seed[..]);
        let message = Shared { commitment, envelopes }.write(&session.digest);
        let own_share = share_bytes(&of_seed.share(Session::point(index)));
        let present = Bitmap::empty(neighbours.len());
        let held = Vec::new();
        self.joined = Some(Joined {
            session,
            index,
            neighbours,
            witnessed,
            incoming,
            own_share,
            present,
            held,
            masked: false,
            survivors: None,
        });
        Ok(Unsent::new(&self.about, &message))
    }
}
