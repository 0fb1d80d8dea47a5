//! From the survivor list to the shares that unmask their sum.

use starling_wire::DeviceId;

use super::{Device, Joined, Unsent};
use crate::bitmap::Bitmap;
use crate::identity::{Fleet, IdentityKey, Verdict, confirmation};
use crate::limits::SHARE_BYTES;
use crate::message::{Kind, Unmasking, read_survivors, write_confirmation, write_reveal};
use crate::refused::Refused;

impl Device {
    /// Confirms the survivor list with this device's signature. There is one list an attempt: another one burns it.
    ///
    /// # Errors
    /// [`Refused`]: too few survivors, in all, of those that witnesses know, or around this device, survivors that fall into pieces, one that never shared, this device
    /// left out, or a second list.
    pub fn handle_survivors(&mut self, bytes: &[u8], key: &dyn IdentityKey) -> Result<Unsent, Refused> {
        let answer = self.once(Kind::Survivors, bytes, Refused::SecondSurvivors, |device| {
            let cohort_min = device.policy.cohort_min(&device.setup);
            let joined = device.joined.as_mut().filter(|joined| joined.masked);
            let joined = joined.ok_or(Refused::OutOfTurn("this device has sent no input yet"))?;
            let survivors = read_survivors(bytes, &joined.session.digest, joined.session.members.len())?;
            joined.check_survivors(&survivors, cohort_min)?;
            let signature = key.sign(&confirmation(&joined.session.digest, survivors.as_bytes()));
            let message = write_confirmation(&joined.session.digest, &signature);
            joined.survivors = Some(survivors);
            Ok(Some(Unsent::new(&device.about, &message)))
        })?;
        Ok(answer.expect("a survivor list is answered"))
    }

    /// Hands out the shares that the survivor list allows, once: of a survivor's seed, of a drop-out's key, never both.
    ///
    /// # Errors
    /// [`Refused`]: too few neighbours that confirmed the same list, one that confirmed another, a share that the list does not allow, both
    /// shares of one device, or a second request.
    pub fn handle_unmask(&mut self, bytes: &[u8], fleet: &dyn Fleet) -> Result<Unsent, Refused> {
        let answer = self.once(Kind::Unmask, bytes, Refused::SecondUnmasking, |device| {
            let joined = device.joined.as_ref().and_then(|joined| Some((joined, joined.survivors.as_ref()?)));
            let (joined, survivors) = joined.ok_or(Refused::OutOfTurn("there is no survivor list yet"))?;
            let request = Unmasking::read(bytes, &joined.session.digest, joined.neighbours.len())?;
            joined.check_confirmations(&request, survivors, fleet)?;
            let shares = joined.shares(&request, survivors)?;
            let message = write_reveal(&joined.session.digest, &shares);
            Ok(Some(Unsent::new(&device.about, &message)))
        })?;
        // Nothing more will be asked of these keys.
        self.burn();
        Ok(answer.expect("a request for shares is answered"))
    }
}

impl Joined {
    fn check_survivors(&self, survivors: &Bitmap, cohort_min: usize) -> Result<(), Refused> {
        if !survivors.contains(self.index) {
            return Err(Refused::NotASurvivor);
        }
        if survivors.count() < cohort_min {
            return Err(Refused::TooFewSurvivors { got: survivors.count(), wanted: cohort_min });
        }
        if let Some(known) = &self.witnessed {
            let witnessed = survivors.iter().filter(|survivor| known.contains(*survivor)).count();
            let others = survivors.count() - witnessed;
            if witnessed < cohort_min {
                // The others were counted with the roster.
                let others_max = self.session.members.len() - known.count();
                return Err(Refused::Unwitnessed { witnessed, wanted: cohort_min, others, others_max });
            }
        }
        let mut around = 1;
        for (position, neighbour) in self.neighbours.iter().enumerate() {
            if survivors.contains(*neighbour) {
                if !self.present.contains(position) {
                    return Err(Refused::SurvivorNeverShared(*self.session.device(*neighbour)));
                }
                around += 1;
            }
        }
        let wanted = self.session.topology().threshold();
        if around < wanted {
            return Err(Refused::TooFewSurvivors { got: around, wanted });
        }
        if self.session.graph.holds_together(survivors) { Ok(()) } else { Err(Refused::SurvivorsSplit) }
    }

    fn check_confirmations(&self, request: &Unmasking, survivors: &Bitmap, fleet: &dyn Fleet) -> Result<(), Refused> {
        let signed = confirmation(&self.session.digest, survivors.as_bytes());
        let wanted = self.session.topology().threshold();
        // This device has confirmed the list itself.
        let mut got = 1;
        for (position, signature) in request.confirmed.iter().zip(&request.signatures) {
            if got == wanted {
                break;
            }
            let neighbour = self.neighbours[position];
            let device = self.session.device(neighbour);
            if !survivors.contains(neighbour) || fleet.verify(device, &signed, signature) != Verdict::Valid {
                return Err(Refused::SurvivorsDisagree(*device));
            }
            got += 1;
        }
        if got < wanted { Err(Refused::TooFewConfirmations { got, wanted }) } else { Ok(()) }
    }

    /// The device at a position among the holders: the neighbours, then this device itself.
    fn holder(&self, position: usize) -> (usize, &DeviceId) {
        let index = self.neighbours.get(position).copied().unwrap_or(self.index);
        (index, self.session.device(index))
    }

    fn shares(&self, request: &Unmasking, survivors: &Bitmap) -> Result<Vec<[u8; SHARE_BYTES]>, Refused> {
        let positions = 0..=self.neighbours.len();
        if let Some(both) = positions.clone().find(|at| request.seeds.contains(*at) && request.keys.contains(*at)) {
            return Err(Refused::BothShares(*self.holder(both).1));
        }
        let allowed = |at: &usize, seed: bool| survivors.contains(self.holder(*at).0) == seed;
        let wrong = request.seeds.iter().find(|at| !allowed(at, true));
        if let Some(wrong) = wrong.or_else(|| request.keys.iter().find(|at| !allowed(at, false))) {
            return Err(Refused::ForbiddenShare(*self.holder(wrong).1));
        }
        let share = |at: usize, from: usize| match self.held.get(at) {
            None => Ok(*self.own_share),
            Some(held) => {
                let held = held.as_ref().ok_or(Refused::ForbiddenShare(*self.holder(at).1))?;
                Ok(held[from..from + SHARE_BYTES].try_into().expect("an envelope holds two shares"))
            }
        };
        let seeds = request.seeds.iter().map(|at| share(at, 0));
        seeds.chain(request.keys.iter().map(|at| share(at, SHARE_BYTES))).collect()
    }
}
