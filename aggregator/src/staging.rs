//! The memory that updates may take between their arrival and their fold.
//!
//! A body is read only once its whole length has been set aside; until then its stream is left unread, and QUIC's flow
//! control makes the device wait. So the bound holds for any number of devices (invariant 6).
//!
//! What was folded is kept as long as nobody needs its memory, in a quarter of the budget at most, so that a device that
//! the operator throws out can be taken out of an open round again ([`Kept`]).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use starling_wire::{DeviceId, RunId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::event::Staged;

/// Permits are counted in units, because a semaphore of bytes would overflow its permit count.
const UNIT_BYTES: u64 = 4096;

/// One part in so many of the budget may be kept.
const KEPT_SHARE: u32 = 4;

/// The budget.
#[derive(Debug, Clone)]
pub(crate) struct Staging {
    units: Arc<Semaphore>,
    units_max: u32,
    kept: Arc<Mutex<Kept>>,
}

/// Updates that are in a fold whose round is open.
#[derive(Debug, Default)]
struct Kept {
    /// Oldest first.
    updates: VecDeque<(RunId, DeviceId, Arc<Staged>)>,
    units: u32,
    /// Bodies that wait for memory: while there are any, nothing is kept.
    waiting: usize,
}

impl Kept {
    fn pop_oldest(&mut self) -> bool {
        let oldest = self.updates.pop_front();
        self.units -= oldest.as_ref().map_or(0, |(_, _, staged)| staged.reservation.units);
        oldest.is_some()
    }
}

/// Bytes set aside; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Reservation {
    _permit: OwnedSemaphorePermit,
    units: u32,
}

impl Staging {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let units_max = u32::try_from(bytes_max.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX >> 3).min(u32::MAX >> 3);
        Self { units: Arc::new(Semaphore::new(units_max as usize)), units_max, kept: Arc::default() }
    }

    /// Whether `length` bytes can ever be set aside.
    pub(crate) fn fits(&self, length: u64) -> bool {
        length.div_ceil(UNIT_BYTES) <= u64::from(self.units_max)
    }

    /// Waits until `length` bytes can be set aside, first come, first served.
    pub(crate) async fn reserve(&self, length: u64) -> Option<Reservation> {
        let units = u32::try_from(length.div_ceil(UNIT_BYTES)).ok().filter(|units| *units <= self.units_max)?;
        if let Ok(permit) = Arc::clone(&self.units).try_acquire_many_owned(units) {
            return Some(Reservation { _permit: permit, units });
        }
        // What is kept goes first, and nothing more is kept until this body has its place.
        let _waiting = Waiting::new(&self.kept);
        let permit = Arc::clone(&self.units).acquire_many_owned(units).await.ok()?;
        Some(Reservation { _permit: permit, units })
    }

    /// Keeps an update that goes into a fold, if there is room.
    pub(crate) fn keep(&self, run: RunId, device: DeviceId, staged: &Arc<Staged>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let units = staged.reservation.units;
        if kept.waiting == 0 && kept.units.saturating_add(units) <= self.units_max / KEPT_SHARE {
            kept.units += units;
            kept.updates.push_back((run, device, Arc::clone(staged)));
        }
    }

    /// The update of a device in the open round of a run, if it was kept.
    pub(crate) fn take_kept(&self, run: RunId, device: DeviceId) -> Option<Arc<Staged>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.updates.iter().position(|(of, from, _)| (*of, *from) == (run, device))?;
        let (_, _, staged) = kept.updates.remove(at)?;
        kept.units -= staged.reservation.units;
        Some(staged)
    }

    /// The round is over: nothing of it can be taken out any more.
    pub(crate) fn forget_kept(&self, run: RunId) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.updates.retain(|(of, _, _)| *of != run);
        kept.units = kept.updates.iter().map(|(_, _, staged)| staged.reservation.units).sum();
    }
}

/// A body that waits for memory; also when its device goes away meanwhile.
struct Waiting<'a>(&'a Mutex<Kept>);

impl<'a> Waiting<'a> {
    fn new(kept: &'a Mutex<Kept>) -> Self {
        let mut held = kept.lock().unwrap_or_else(PoisonError::into_inner);
        held.waiting += 1;
        while held.pop_oldest() {}
        drop(held);
        Self(kept)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn inv6_no_more_than_the_budget_is_set_aside() {
        let staging = Staging::new(10 * UNIT_BYTES);
        assert!(!staging.fits(11 * UNIT_BYTES));
        let first = staging.reserve(8 * UNIT_BYTES).await.expect("fits");
        let second = tokio::spawn({
            let staging = staging.clone();
            async move { staging.reserve(4 * UNIT_BYTES).await.is_some() }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished(), "four units are not free while eight of ten are taken");
        drop(first);
        assert!(second.await.expect("no panic"));
    }
}
