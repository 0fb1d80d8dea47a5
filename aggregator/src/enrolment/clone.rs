//! Telling a device that comes back from two holders of one key.
//!
//! The newest connection of a device counts. One device that loses its link comes back once, from the same address or
//! from a new one, and stays there: A B, or A A A. Two holders throw each other out in turns: A B A B. So the addresses of a
//! device's connections are watched while they supersede each other, and who *returns* to an address that it had been
//! thrown out at, twice within a minute, is two.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use starling_wire::DeviceId;

/// Milliseconds within which the turns count.
const WINDOW_MS: u64 = 60_000;

/// Addresses in a row that make a clone: A B A B.
const TURNS: usize = 4;

/// Devices that are watched at once: only those whose connection was superseded within the window.
const WATCHED_MAX: usize = 4096;

/// Who superseded whom lately.
#[derive(Debug, Default)]
pub(crate) struct Sightings {
    watched: BTreeMap<DeviceId, VecDeque<(u64, SocketAddr)>>,
}

impl Sightings {
    /// A connection from `now_at` has superseded one from `before_at` that was still open. Returns the two addresses if they
    /// are of two holders.
    pub(crate) fn note(
        &mut self,
        now_ms: u64,
        device: DeviceId,
        before_at: SocketAddr,
        now_at: SocketAddr,
    ) -> Option<(SocketAddr, SocketAddr)> {
        let fresh = |at: u64| now_ms.saturating_sub(at) <= WINDOW_MS;
        self.watched.retain(|_, seen| seen.back().is_some_and(|(at, _)| fresh(*at)));
        if self.watched.len() >= WATCHED_MAX && !self.watched.contains_key(&device) {
            // A storm of reconnections: better to miss a clone than to grow.
            return None;
        }
        let seen = self.watched.entry(device).or_default();
        if seen.back().is_none_or(|(_, last)| *last != before_at) {
            seen.push_back((now_ms, before_at));
        }
        seen.push_back((now_ms, now_at));
        while seen.len() > TURNS || seen.front().is_some_and(|(at, _)| !fresh(*at)) {
            seen.pop_front();
        }
        let addresses: Vec<SocketAddr> = seen.iter().map(|(_, address)| *address).collect();
        match addresses[..] {
            [a, b, c, d] if a == c && b == d && a != b => {
                self.watched.remove(&device);
                Some((a, b))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceId = DeviceId([1; 16]);

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    /// Connections from these ports, a second apart.
    fn found(ports: &[u16], step_ms: u64) -> bool {
        let mut sightings = Sightings::default();
        let mut now_ms = 0;
        ports.windows(2).any(|pair| {
            now_ms += step_ms;
            sightings.note(now_ms, DEVICE, at(pair[0]), at(pair[1])).is_some()
        })
    }

    #[test]
    fn two_holders_that_throw_each_other_out_are_found() {
        assert!(found(&[1, 2, 1, 2], 1000));
        assert!(found(&[3, 1, 2, 1, 2], 1000));
    }

    #[test]
    fn a_device_that_flaps_or_moves_is_no_clone() {
        assert!(!found(&[1, 1, 1, 1, 1, 1], 100), "the same place again and again");
        assert!(!found(&[1, 2, 3, 4, 5, 6], 100), "a new port at each start");
        assert!(!found(&[1, 2, 1, 1, 1], 1000), "there and back");
        assert!(!found(&[1, 2, 1, 2, 1, 2], 40_000), "between two networks, in the course of minutes");
    }

    #[test]
    fn inv6_only_so_many_devices_are_watched() {
        let mut sightings = Sightings::default();
        for index in 0..10_000 {
            sightings.note(5, DeviceId::seeded(1, index), at(1), at(2));
        }
        assert!(sightings.watched.len() <= WATCHED_MAX);
    }
}
