//! How long to wait before the next attempt: doubled after each failure, capped, and jittered so that the devices of
//! a restarted aggregator do not come back in one wave.

use std::time::Duration;

/// Waiting times between attempts. Entropy is an argument, so that a seed replays a schedule (invariant 7's habit).
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

/// A schedule that would spin or never grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a back-off from {first_ms} ms to {max_ms} ms: the first wait must be at least 1 ms and no longer than the last"
)]
pub struct BackoffError {
    first_ms: u64,
    max_ms: u64,
}

impl Backoff {
    /// Waits that start at `first_ms` and never exceed `max_ms`.
    ///
    /// # Errors
    /// When the first wait is zero or above the cap.
    pub fn new(first_ms: u64, max_ms: u64) -> Result<Self, BackoffError> {
        if first_ms == 0 || first_ms > max_ms {
            return Err(BackoffError { first_ms, max_ms });
        }
        Ok(Self { first: Duration::from_millis(first_ms), max: Duration::from_millis(max_ms), failures: 0 })
    }

    /// The next wait: uniform in [d/2, d] with d = min(max, first · 2^failures). `entropy` is 64 uniform bits.
    pub fn next(&mut self, entropy: u64) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        let whole = doubled.min(self.max);
        let half = whole / 2;
        // The top 32 bits as a fraction of the half: exact enough for a wait, and free of float casts.
        let share = u32::try_from(entropy >> 32).expect("32 bits are left");
        half + Duration::from_nanos(
            u64::try_from((whole - half).as_nanos() * u128::from(share) / u128::from(u32::MAX)).unwrap_or(u64::MAX),
        )
    }

    /// Starts over, after an attempt that went well.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last [`Backoff::reset`].
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

impl Default for Backoff {
    /// From 200 ms to 30 s: a restarted aggregator gets its devices back within a second, and a fleet of 100,000
    /// devices costs an absent one 5,000 packets a second.
    fn default() -> Self {
        Self::new(200, 30_000).expect("the bounds are in order")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv6_waits_double_up_to_the_cap_and_stay_within_their_jitter() {
        for entropy in [0, u64::MAX / 3, u64::MAX] {
            let mut backoff = Backoff::new(100, 1_500).expect("in order");
            for whole_ms in [100, 200, 400, 800, 1_500, 1_500] {
                let wait = backoff.next(entropy);
                assert!(
                    wait >= Duration::from_millis(whole_ms / 2) && wait <= Duration::from_millis(whole_ms),
                    "{wait:?}"
                );
            }
            (0..100).for_each(|_| assert!(backoff.next(entropy) <= Duration::from_millis(1_500)));
            backoff.reset();
            assert!(backoff.next(entropy) <= Duration::from_millis(100));
        }
    }

    #[test]
    fn a_schedule_that_spins_cannot_be_built() {
        assert!(Backoff::new(0, 10).is_err());
        assert!(Backoff::new(11, 10).is_err());
    }
}
