//! The device's part in a secure sum, as far as the protocol goes: which attempt a message is about, and what it is sent under. What is in
//! the messages is `starling-secagg`'s, which the driver asks.

use std::sync::Arc;

use starling_wire::secure::letter_bytes_max;
use starling_wire::{Address, Decline, Refusal, RoundStart, SecureMail, SecurePart, ToAggregator};

use super::slot::Slot;
use super::{Action, JobId, Participant, SecureOrder};

impl Participant {
    /// Enters the sum of a round that was accepted, or says again what was said in it.
    pub(super) fn enter_sum(&mut self, start: &RoundStart) {
        let Some(run) = self.runs.get(&start.address.run) else { return };
        let entered = run.train.as_ref().filter(|slot| slot.secure && slot.start.address == start.address);
        if let Some(slot) = entered {
            let order = SecureOrder::Enter { plan: Arc::clone(&slot.plan), start: *start };
            self.actions.push_back(Action::Secure(order));
        }
    }

    /// A part of what a stage asks has come. Parts for another attempt are passed over; one that does not fit ends the device's part in
    /// the round.
    pub fn handle_secure_part(&mut self, part: SecurePart) {
        let address = part.address;
        let Some(run) = self.runs.get_mut(&address.run) else { return };
        let Ok(plan) = &run.plan else { return };
        let cohort_max = plan.privacy.as_ref().map_or(0, |privacy| privacy.sum_max());
        let Some(slot) = run.train.as_mut().filter(|slot| slot.is_summing(&address)) else { return };
        match slot.letters.take(part, letter_bytes_max(cohort_max)) {
            Ok(None) => {}
            Ok(Some(letter)) => {
                self.actions.push_back(Action::Secure(SecureOrder::Answer { address, letter }));
            }
            Err(_) => self.leave_sum(&address, Refusal::SecureMalformed),
        }
    }

    /// The device's part in the sum has an answer for the aggregator, none (it waits for training), or leaves the attempt.
    pub fn handle_secure(&mut self, address: &Address, answer: Result<Option<SecureMail>, Refusal>) {
        let summing = |slot: &&Slot| slot.is_summing(address);
        let live = self.runs.get(&address.run).and_then(|run| run.train.as_ref()).is_some_and(|slot| summing(&slot));
        match answer {
            Ok(Some(mail)) if live => self.send(ToAggregator::Secure(mail)),
            Ok(_) => {}
            Err(reason) => self.leave_sum(address, reason),
        }
    }

    /// The attempt that a training job's update is for now, and nothing when nobody waits for it.
    pub fn address_of(&self, job: JobId) -> Option<Address> {
        let mut slots = self.runs.values().filter_map(|run| run.train.as_ref());
        slots.find(|slot| slot.is_working(job)).map(|slot| slot.start.address)
    }

    fn leave_sum(&mut self, address: &Address, reason: Refusal) {
        let slot = self.runs.get(&address.run).and_then(|run| run.train.as_ref());
        if slot.is_some_and(|slot| slot.is_summing(address)) {
            self.send(ToAggregator::Decline(*address, Decline::Secure(reason)));
            self.leave_training(address.run, |slot| slot.start.address == *address);
        }
    }
}

impl Slot {
    /// Whether its update goes into the secure sum of this attempt, as far as we know.
    fn is_summing(&self, address: &Address) -> bool {
        self.secure && self.live && self.start.address == *address
    }
}
