//! Confirmations and shares come in.

use starling_wire::DeviceId;

use super::{Aborted, Addressed, Aggregator, Open, Phase, first_time};
use crate::bitmap::Bitmap;
use crate::identity::{Fleet, Verdict, confirmation};
use crate::message::{Unmasking, read_confirmation, read_reveal};
use crate::refused::Refused;
use crate::session::Session;

impl Aggregator {
    /// Takes a survivor's signature of the survivor list.
    ///
    /// # Errors
    /// [`Refused`], to be told to the device.
    pub fn handle_confirmation(&mut self, device: DeviceId, bytes: &[u8], fleet: &dyn Fleet) -> Result<(), Refused> {
        self.at(Phase::Confirming)?;
        let open = self.open.as_mut().ok_or(Refused::Burned)?;
        let index = open.index(&device)?;
        if !open.survivors.contains(index) {
            return Err(Refused::Unexpected(device));
        }
        let signature = read_confirmation(bytes, &open.session.digest)?;
        let signed = confirmation(&open.session.digest, open.survivors.as_bytes());
        if fleet.verify(&device, &signed, &signature) != Verdict::Valid {
            return Err(Refused::SurvivorsDisagree(device));
        }
        open.confirmed[index] = Some(signature);
        Ok(())
    }

    /// Asks for shares: a message for each device that has confirmed and whose neighbours have.
    ///
    /// # Errors
    /// [`Aborted`] when a secret that is needed is out of reach.
    pub fn close_confirming(&mut self) -> Result<Vec<Addressed>, Aborted> {
        self.close(Phase::Confirming, Phase::Revealing)?;
        let asked = self.open.as_mut().ok_or(Aborted::OutOfTurn(Phase::Aborted)).and_then(Open::ask);
        self.or_abort(asked)
    }

    /// Takes a device's shares.
    ///
    /// # Errors
    /// [`Refused`], to be told to the device.
    pub fn handle_reveal(&mut self, device: DeviceId, bytes: &[u8]) -> Result<(), Refused> {
        self.at(Phase::Revealing)?;
        let open = self.open.as_mut().ok_or(Refused::Burned)?;
        let index = open.index(&device)?;
        if !open.asked[index] {
            return Err(Refused::Unexpected(device));
        }
        let owners = open.owners(index);
        let shares = read_reveal(bytes, &open.session.digest, owners.len())?;
        if first_time(&mut open.revealed[index], bytes, &device)? {
            for (owner, share) in owners.into_iter().zip(shares) {
                open.collected[owner].push((Session::point(index), share));
            }
        }
        Ok(())
    }

    /// Whether every secret that is needed has as many shares as the threshold: the attempt can be finished.
    pub fn is_complete(&self) -> bool {
        let threshold = |open: &Open| open.session.topology().threshold();
        self.phase == Phase::Revealing
            && self.open.as_ref().is_some_and(|open| {
                let mut needed = open.survivors.iter().chain(open.dropped());
                needed.all(|owner| open.collected[owner].len() >= threshold(open))
            })
    }
}

impl Open {
    /// The devices of whose needed secret the device at `holder` has a share: survivors first, itself among them, then drop-outs; each
    /// in the order of the positions in its request.
    fn owners(&self, holder: usize) -> Vec<usize> {
        let around = self.neighbours[holder].iter().copied().chain([holder]);
        let (survivors, others): (Vec<usize>, Vec<usize>) = around.partition(|owner| self.survivors.contains(*owner));
        let shared = others.into_iter().filter(|owner| self.shared[*owner].is_some());
        survivors.into_iter().chain(shared).collect()
    }

    fn ask(&mut self) -> Result<Vec<Addressed>, Aborted> {
        let threshold = self.session.topology().threshold();
        let confirmed: Vec<usize> =
            (0..self.confirmed.len()).filter(|index| self.confirmed[*index].is_some()).collect();
        let mut requests = Vec::with_capacity(confirmed.len());
        for holder in confirmed {
            let neighbours = &self.neighbours[holder];
            let mut request = Unmasking {
                confirmed: Bitmap::empty(neighbours.len()),
                signatures: Vec::with_capacity(threshold - 1),
                seeds: Bitmap::empty(neighbours.len() + 1),
                keys: Bitmap::empty(neighbours.len() + 1),
            };
            for (position, neighbour) in neighbours.iter().enumerate() {
                if let Some(signature) = self.confirmed[*neighbour].filter(|_| request.signatures.len() + 1 < threshold)
                {
                    request.confirmed.insert(position);
                    request.signatures.push(signature);
                }
                if self.survivors.contains(*neighbour) {
                    request.seeds.insert(position);
                } else if self.shared[*neighbour].is_some() {
                    request.keys.insert(position);
                }
            }
            request.seeds.insert(neighbours.len());
            // A device would refuse with fewer.
            if request.signatures.len() + 1 == threshold {
                self.asked[holder] = true;
                requests.push((*self.session.device(holder), request.write(&self.session.digest)));
            }
        }
        for owner in self.survivors.iter().chain(self.dropped()) {
            let holders = self.neighbours[owner].iter().chain([&owner]);
            let got = holders.filter(|holder| self.asked[**holder]).count();
            if got < threshold {
                return Err(Aborted::TooFewShares { device: *self.session.device(owner), got, wanted: threshold });
            }
        }
        Ok(requests)
    }
}
