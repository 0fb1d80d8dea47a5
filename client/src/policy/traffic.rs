//! Bytes that have moved today, over restarts.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `policy` | `traffic` | the day, and the bytes of it |

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use starling_store::{Batch, Store, StoreError};

const POLICY: &str = "policy";
const TRAFFIC: &str = "traffic";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Day {
    day: u64,
    bytes: u64,
}

/// The day's count. Nothing is written where no limit is set.
pub(super) struct Traffic {
    store: Arc<Store>,
    counted: bool,
    day: Mutex<Day>,
}

impl Traffic {
    pub(super) fn open(store: Arc<Store>, limit: Option<u64>) -> Result<Self, StoreError> {
        let day = store.get(POLICY, TRAFFIC)?.unwrap_or_default();
        Ok(Self { store, counted: limit.is_some(), day: Mutex::new(day) })
    }

    /// The bytes of `day`.
    pub(super) fn today(&self, day: u64) -> u64 {
        Some(*self.lock()).filter(|counted| counted.day == day).map_or(0, |counted| counted.bytes)
    }

    /// So many bytes move on `day`: durable before they do.
    pub(super) fn add(&self, day: u64, bytes: u64) -> Result<(), StoreError> {
        if !self.counted {
            return Ok(());
        }
        let mut counted = self.lock();
        let before = if counted.day == day { counted.bytes } else { 0 };
        *counted = Day { day, bytes: before.saturating_add(bytes) };
        let mut batch = Batch::new();
        batch.put(POLICY, TRAFFIC, &*counted)?;
        self.store.commit(batch)
    }

    fn lock(&self) -> MutexGuard<'_, Day> {
        self.day.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::open_store;

    #[test]
    fn a_days_bytes_survive_a_restart_and_end_with_the_day() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open = || Traffic::open(Arc::new(open_store(folder.path()).expect("a store")), Some(1)).expect("traffic");
        let traffic = open();
        traffic.add(7, 100).expect("written");
        traffic.add(7, 20).expect("written");
        drop(traffic);
        let traffic = open();
        assert_eq!((traffic.today(7), traffic.today(8)), (120, 0));
        traffic.add(8, 5).expect("written");
        assert_eq!((traffic.today(7), traffic.today(8)), (0, 5));
    }
}
