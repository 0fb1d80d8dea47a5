//! From the envelopes to the masked vector.

use super::{Device, Joined, Unsent};
use crate::keys::open;
use crate::message::{Delivered, Kind, masked_header};
use crate::refused::Refused;
use crate::vector::{RingVector, Sign};

impl Device {
    /// Opens the neighbours' envelopes. From here on the device masks with those neighbours, and only with them.
    ///
    /// # Errors
    /// [`Refused`]: an envelope that does not open, too few of them, or a second set.
    pub fn handle_envelopes(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.once(Kind::Deliver, bytes, Refused::SecondEnvelopes, |device| {
            let joined = device.joined.as_mut().ok_or(Refused::OutOfTurn("there is no roster yet"))?;
            let topology = joined.session.topology();
            let delivered = Delivered::read(bytes, &joined.session.digest, topology.degree())?;
            let (got, wanted) = (delivered.present.count() + 1, topology.threshold());
            if got < wanted {
                return Err(Refused::TooFewHolders { got, wanted });
            }
            let mut held = vec![None; joined.neighbours.len()];
            for (position, envelope) in delivered.present.iter().zip(&delivered.envelopes) {
                let shares = open(&joined.incoming[position], &joined.session.digest, envelope);
                let sender = *joined.session.device(joined.neighbours[position]);
                held[position] = Some(shares.ok_or(Refused::BadEnvelope(sender))?);
            }
            joined.present = delivered.present;
            joined.held = held;
            Ok(None)
        })
        .map(drop)
    }

    /// Masks this device's input: the one vector that the attempt's keys will ever mask.
    ///
    /// # Errors
    /// [`Refused`]: an input of another length or beyond the setup's bound, or a second one.
    pub fn mask(&mut self, input: &[i64]) -> Result<Unsent, Refused> {
        let secrets = self.secrets()?;
        let joined = self.joined.as_ref().filter(|joined| !joined.held.is_empty());
        let joined = joined.ok_or(Refused::OutOfTurn("the neighbours' envelopes are not here yet"))?;
        if joined.masked {
            return Err(Refused::OutOfTurn("this attempt's keys have masked an input already"));
        }
        let wanted = self.setup.values as usize;
        if input.len() != wanted {
            return Err(Refused::InputLength { got: input.len(), wanted });
        }
        let bound = self.setup.value_max;
        if let Some(index) = input.iter().position(|value| value.unsigned_abs() > bound) {
            return Err(Refused::InputRange { index, bound });
        }
        let Joined { session, index, neighbours, present, .. } = joined;
        let mut masks = vec![session.self_mask(*index, &secrets.seed[..], Sign::Add)];
        for position in present.iter() {
            let other = neighbours[position];
            let member = &session.members[other];
            let agreed = secrets.mask.agree(&member.mask_key).ok_or(Refused::WeakKeys(member.device))?;
            masks.push(session.pair_mask(*index, other, &agreed));
        }
        let ring = self.setup.ring()?;
        let mut vector = RingVector::from_signed(ring, input);
        vector.apply(&mut masks);
        let mut message = masked_header(&session.digest, ring.packed_len(wanted));
        vector.pack_into(&mut message);
        if let Some(joined) = &mut self.joined {
            joined.masked = true;
        }
        Ok(Unsent::new(&self.about, &message))
    }
}
