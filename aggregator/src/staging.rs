//! The memory that updates may take between their arrival and their fold.
//!
//! A body is read only once its whole length has been set aside; until then its stream is left unread, and QUIC's flow
//! control makes the device wait. So the bound holds for any number of devices (invariant 6).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits are counted in units, because a semaphore of bytes would overflow its permit count.
const UNIT_BYTES: u64 = 4096;

/// The budget.
#[derive(Debug, Clone)]
pub(crate) struct Staging {
    units: Arc<Semaphore>,
    units_max: u32,
}

/// Bytes set aside; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Reservation {
    _permit: OwnedSemaphorePermit,
}

impl Staging {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let units_max = u32::try_from(bytes_max.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX >> 3).min(u32::MAX >> 3);
        Self { units: Arc::new(Semaphore::new(units_max as usize)), units_max }
    }

    /// Whether `length` bytes can ever be set aside.
    pub(crate) fn fits(&self, length: u64) -> bool {
        length.div_ceil(UNIT_BYTES) <= u64::from(self.units_max)
    }

    /// Waits until `length` bytes can be set aside, first come, first served.
    pub(crate) async fn reserve(&self, length: u64) -> Option<Reservation> {
        let units = u32::try_from(length.div_ceil(UNIT_BYTES)).ok().filter(|units| *units <= self.units_max)?;
        let permit = Arc::clone(&self.units).acquire_many_owned(units).await.ok()?;
        Some(Reservation { _permit: permit })
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
