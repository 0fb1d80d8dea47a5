//! The masks come off the sum.

use zeroize::Zeroizing;

use super::{Aborted, Aggregator, Open, Phase, Sum};
use crate::agreement::KeyPair;
use crate::keys::Key;
use crate::limits::{SECRET_BYTES, SHARE_BYTES};
use crate::shamir::combine;
use crate::vector::Sign;

/// Masks that are taken off in one pass over the vector: their key schedules (a quarter of a kilobyte each) stay in the second-level
/// cache.
const MASKS_AT_ONCE: usize = 256;

impl Aggregator {
    /// Recovers the survivors' seeds and the drop-outs' keys, takes their masks off, and gives the sum. It is CPU work of the order
    /// of (drop-outs × neighbours + survivors) vectors.
    ///
    /// # Errors
    /// [`Aborted`] when shares are missing or wrong; the attempt is then over.
    pub fn finish(&mut self) -> Result<Sum, Aborted> {
        self.close(Phase::Revealing, Phase::Finished)?;
        let finished = self.open.take().ok_or(Aborted::OutOfTurn(Phase::Aborted)).and_then(Open::unmask);
        self.or_abort(finished)
    }
}

impl Open {
    fn unmask(mut self) -> Result<Sum, Aborted> {
        let mut masks = Vec::with_capacity(MASKS_AT_ONCE);
        for owner in self.survivors.iter() {
            let commitment = self.shared[owner].as_ref().map(|shared| shared.commitment);
            let seed =
                self.recover(owner, |seed| Some(self.session.seed_commitment(owner, &seed[..])) == commitment)?;
            masks.push(self.session.self_mask(owner, &seed[..], Sign::Subtract));
            if masks.len() == MASKS_AT_ONCE {
                self.sum.apply(&mut masks);
                masks.clear();
            }
        }
        for owner in self.dropped().collect::<Vec<_>>() {
            let advertised = self.session.members[owner].mask_key;
            let secret = self.recover(owner, |secret| *KeyPair::from_secret(secret).public() == advertised)?;
            let pair = KeyPair::from_secret(&secret);
            for survivor in self.neighbours[owner].iter().filter(|other| self.survivors.contains(**other)) {
                // Its holder found this key good, or it would not have masked.
                let agreed = pair.agree(&self.session.members[*survivor].mask_key);
                let agreed = agreed.ok_or(Aborted::WrongShares(*self.session.device(owner)))?;
                masks.push(self.session.pair_mask(*survivor, owner, &agreed).reversed());
                if masks.len() == MASKS_AT_ONCE {
                    self.sum.apply(&mut masks);
                    masks.clear();
                }
            }
        }
        self.sum.apply(&mut masks);
        let survivors = self.survivors.iter().map(|index| *self.session.device(index)).collect();
        Ok(Sum { vector: self.sum, survivors })
    }

    /// The secret of the device at `owner` that its shares give and that `is_right`. Wrong shares are left out, where there are
    /// shares to spare: each try leaves out others of them.
    fn recover(&self, owner: usize, is_right: impl Fn(&Key) -> bool) -> Result<Key, Aborted> {
        let device = *self.session.device(owner);
        let wanted = self.session.topology().threshold();
        let got = self.collected[owner].len();
        if got < wanted {
            return Err(Aborted::TooFewShares { device, got, wanted });
        }
        let elements: Vec<(u32, Zeroizing<[u32; SHARE_BYTES / 4]>)> =
            self.collected[owner].iter().map(|(point, share)| (*point, elements(share))).collect();
        let spare = got - wanted;
        let tries = if spare == 0 { 1 } else { got.div_ceil(spare) };
        for start in (0..tries).map(|attempt| attempt * spare) {
            let chosen = (start..start + wanted).map(|at| &elements[at % got]);
            let shares: Vec<(u32, &[u32])> = chosen.map(|(point, share)| (*point, &share[..])).collect();
            let secret = combine(&shares, SECRET_BYTES);
            let secret =
                secret.map(|secret| Zeroizing::new(secret.as_slice().try_into().expect("32 bytes were asked for")));
            if let Some(secret) = secret.filter(|secret| is_right(secret)) {
                return Ok(secret);
            }
        }
        Err(Aborted::WrongShares(device))
    }
}

fn elements(share: &[u8; SHARE_BYTES]) -> Zeroizing<[u32; SHARE_BYTES / 4]> {
    let mut elements = Zeroizing::new([0; SHARE_BYTES / 4]);
    for (element, bytes) in elements.iter_mut().zip(share.as_chunks().0) {
        *element = u32::from_be_bytes(*bytes);
    }
    elements
}
