//! The clock that certificates are judged by: the system's, but never earlier than what is known for sure.
//!
//! A device's clock may be wrong by days after a power cut. The floor is learnt from authenticated words (the aggregator's
//! time in a credential) and from the own past, and is stored by its owner; a clock that runs behind it is corrected, one
//! that runs ahead cannot be told from a long sleep and is only diagnosed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// max(now, floor). Shared by all handshakes of an endpoint.
#[derive(Debug)]
pub struct Clock {
    floor_unix_s: AtomicU64,
    /// 0 for the system's clock; otherwise the time itself, for tests.
    fixed_unix_s: AtomicU64,
}

impl Clock {
    /// The system's clock above a floor that is known from before, in seconds since 1970; 0 when nothing is.
    pub fn system(floor_unix_s: u64) -> Arc<Self> {
        Arc::new(Self { floor_unix_s: AtomicU64::new(floor_unix_s), fixed_unix_s: AtomicU64::new(0) })
    }

    /// A clock that stands at `now_unix_s` until [`Clock::set`]: virtual time for tests.
    pub fn standing(now_unix_s: u64) -> Arc<Self> {
        Arc::new(Self { floor_unix_s: AtomicU64::new(0), fixed_unix_s: AtomicU64::new(now_unix_s) })
    }

    /// Moves a standing clock.
    pub fn set(&self, now_unix_s: u64) {
        self.fixed_unix_s.store(now_unix_s, Ordering::SeqCst);
    }

    /// It is certainly not earlier than this. Returns whether that is news.
    pub fn raise_floor(&self, unix_s: u64) -> bool {
        self.floor_unix_s.fetch_max(unix_s, Ordering::SeqCst) < unix_s
    }

    /// What is known for sure.
    pub fn floor_unix_s(&self) -> u64 {
        self.floor_unix_s.load(Ordering::SeqCst)
    }

    /// What the machine says, floor or not.
    pub fn unfloored_unix_s(&self) -> u64 {
        match self.fixed_unix_s.load(Ordering::SeqCst) {
            0 => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            fixed => fixed,
        }
    }

    /// The time that counts.
    pub fn now_unix_s(&self) -> u64 {
        self.unfloored_unix_s().max(self.floor_unix_s())
    }

    /// How many seconds the machine's clock runs behind what is known, if it does.
    pub fn behind_s(&self) -> Option<u64> {
        self.floor_unix_s().checked_sub(self.unfloored_unix_s()).filter(|behind_s| *behind_s > 0)
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(self.now_unix_s())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_below_the_floor() {
        let clock = Clock::standing(1_000);
        assert_eq!((clock.now_unix_s(), clock.behind_s()), (1_000, None));
        assert!(clock.raise_floor(2_000) && !clock.raise_floor(1_500));
        assert_eq!((clock.now_unix_s(), clock.behind_s()), (2_000, Some(1_000)));
        clock.set(3_000);
        assert_eq!((clock.now_unix_s(), clock.behind_s()), (3_000, None));
    }
}
