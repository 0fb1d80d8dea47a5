//! How often somebody may be wrong: per address and in all, in a table of bounded size (invariant 6).
//!
//! Addresses are real ones: a request comes over a connection whose handshake is complete. Who has failed too often is
//! refused whatever it says, so that a guess that is right by chance is worth nothing either.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Seconds after which failures are forgotten.
const WINDOW_S: u64 = 60;

/// Failures of one address in a window. A person who types a join string is wrong twice or thrice.
const ADDRESS_FAILURES_MAX: u32 = 10;

/// Failures of all addresses in a window. At 96 bits of token, a year of them finds nothing: 1 in 10²¹.
const ALL_FAILURES_MAX: u32 = 600;

/// Addresses that are remembered, 40 bytes each. The oldest goes first.
const ADDRESSES_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    since_unix_s: u64,
    failures: u32,
}

impl Window {
    fn failures(&self, now_unix_s: u64) -> u32 {
        if now_unix_s.saturating_sub(self.since_unix_s) < WINDOW_S { self.failures } else { 0 }
    }

    fn note(&mut self, now_unix_s: u64) {
        if self.failures(now_unix_s) == 0 {
            *self = Self { since_unix_s: now_unix_s, failures: 0 };
        }
        self.failures = self.failures.saturating_add(1);
    }
}

/// Who has failed how often.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    addresses: BTreeMap<IpAddr, Window>,
    all: Window,
}

impl Limiter {
    /// Whether requests from `address` are to be refused unheard.
    pub(super) fn is_blocked(&self, now_unix_s: u64, address: IpAddr) -> bool {
        let of_address = self.addresses.get(&network(address)).map_or(0, |window| window.failures(now_unix_s));
        of_address >= ADDRESS_FAILURES_MAX || self.all.failures(now_unix_s) >= ALL_FAILURES_MAX
    }

    /// A request from `address` was wrong.
    pub(super) fn note_failure(&mut self, now_unix_s: u64, address: IpAddr) {
        self.all.note(now_unix_s);
        let address = network(address);
        if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&address) {
            let oldest = self.addresses.iter().min_by_key(|(_, window)| window.since_unix_s).map(|(oldest, _)| *oldest);
            oldest.map(|oldest| self.addresses.remove(&oldest));
        }
        self.addresses.entry(address).or_default().note(now_unix_s);
    }
}

/// Who has one IPv6 address has 2⁶⁴ of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + last).to_be_bytes())
    }

    #[test]
    fn an_address_that_guesses_is_shut_out_for_a_minute_and_others_are_not() {
        let mut limiter = Limiter::default();
        for _ in 0..ADDRESS_FAILURES_MAX {
            assert!(!limiter.is_blocked(100, v4(1)));
            limiter.note_failure(100, v4(1));
        }
        assert!(limiter.is_blocked(100 + WINDOW_S - 1, v4(1)));
        assert!(!limiter.is_blocked(100, v4(2)));
        assert!(!limiter.is_blocked(100 + WINDOW_S, v4(1)));
    }

    #[test]
    fn a_whole_ipv6_network_is_one_address() {
        let mut limiter = Limiter::default();
        let at = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, host]);
        (0..10).for_each(|host| limiter.note_failure(5, at(host)));
        assert!(limiter.is_blocked(5, at(99)));
    }

    #[test]
    fn inv6_many_addresses_are_limited_together_and_the_table_is_bounded() {
        let mut limiter = Limiter::default();
        (0..20_000).for_each(|last| limiter.note_failure(u64::from(last) / 1000, v4(last)));
        assert!(limiter.addresses.len() <= ADDRESSES_MAX);
        assert!(limiter.is_blocked(19, v4(0x00ff_0000)), "all together");
    }
}
