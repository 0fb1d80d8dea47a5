//! Who takes part in a round: the draw, and what has become of each member since.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use starling_spec::random::{Purpose, Random, device_key};
use starling_wire::{DeviceId, Digest, Refusal};
use zeroize::Zeroizing;

/// Draws `count` of `available` for `round`.
///
/// Devices are ranked by a keyed word of (seed, round, id), so the draw is a function of the *set* of available devices:
/// the order in which they connected does not matter, and a simulation draws the same cohort as a real run.
pub fn draw(available: &BTreeSet<DeviceId>, count: usize, seed: u64, round: u32) -> BTreeSet<DeviceId> {
    let rank = |device: &DeviceId| {
        let (low, high) = device.0.split_at(8);
        let word = |half: &[u8]| half.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        Random::new(seed, Purpose::Cohort, &[u64::from(round), word(low), word(high)]).next_u64()
    };
    let mut ranked: Vec<_> = available.iter().map(|device| (rank(device), *device)).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(count).map(|(_, device)| device).collect()
}

/// Those of `available` whose own coin of probability `rate` says so for `round`.
///
/// Coins are independent of each other, of who else is there and of when anybody came. Each round tosses its own, and an attempt that was
/// given up tosses none anew.
pub fn toss(available: &BTreeSet<DeviceId>, rate: f64, coins: &Coins, round: u32) -> BTreeSet<DeviceId> {
    // In units of 2^-64, so that a rate of 1 is everybody.
    let bound = rate * 2f64.powi(64);
    available.iter().copied().filter(|device| (coins.word(round, *device) as f64) < bound).collect()
}

/// What the coins of `participation = "poisson"` are tossed by.
#[derive(Clone)]
pub enum Coins {
    /// A secret key: nobody can know who was in a round.
    Secret(Zeroizing<[u8; 32]>),
    /// A seed, which anybody can repeat: for simulations.
    Simulated(u64),
}

impl Coins {
    /// A coin of 64 bits.
    fn word(&self, round: u32, device: DeviceId) -> u64 {
        match self {
            Self::Secret(key) => {
                // A keyed hash of fields of fixed length.
                let mut bytes = Zeroizing::new([0; 52]);
                bytes[..32].copy_from_slice(&key[..]);
                bytes[32..36].copy_from_slice(&round.to_le_bytes());
                bytes[36..].copy_from_slice(&device.0);
                device_key(Digest::of(&bytes[..]).0[..16].try_into().expect("16 of 32 bytes"))
            }
            Self::Simulated(seed) => {
                let (low, high) = device.0.split_at(8);
                let word = |half: &[u8]| half.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
                Random::new(*seed, Purpose::Coin, &[u64::from(round), word(low), word(high)]).next_u64()
            }
        }
    }
}

impl fmt::Debug for Coins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(…)",
            Self::Simulated(_) => "Simulated",
        })
    }
}

/// What has become of one member of a cohort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// It was asked and may still report.
    Pending,
    /// Its connection is gone since this time (ms); it may come back.
    Gone(u64),
    /// Its contribution is in.
    Reported,
    /// It will not contribute: it declined, or what it sent was refused.
    Out,
}

/// The cohort of one attempt.
#[derive(Debug, Clone)]
pub struct Cohort {
    members: BTreeMap<DeviceId, Member>,
    /// Contributions that complete the round.
    pub goal: usize,
    /// Contributions without which the round does not commit.
    pub quorum: usize,
    /// When the round waits no longer (ms).
    pub deadline_at_ms: u64,
}

impl Cohort {
    /// A cohort of `devices`, all of them asked.
    pub fn new(devices: BTreeSet<DeviceId>, goal: usize, quorum: usize, deadline_at_ms: u64) -> Self {
        let members = devices.into_iter().map(|device| (device, Member::Pending)).collect();
        Self { members, goal, quorum, deadline_at_ms }
    }

    /// What has become of `device`, if it is a member.
    pub fn get(&self, device: DeviceId) -> Option<Member> {
        self.members.get(&device).copied()
    }

    /// Whether `device` may contribute now.
    ///
    /// # Errors
    /// The reason to refuse it with.
    pub fn admit(&self, device: DeviceId) -> Result<(), Refusal> {
        match self.get(device) {
            None => Err(Refusal::NotInCohort),
            Some(Member::Reported) => Err(Refusal::Duplicate),
            Some(Member::Out) => Err(Refusal::RoundClosed),
            Some(Member::Pending | Member::Gone(_)) => Ok(()),
        }
    }

    /// Notes what has become of a member; a contribution that is in stays in.
    pub fn set(&mut self, device: DeviceId, state: Member) {
        if let Some(member) = self.members.get_mut(&device)
            && *member != Member::Reported
        {
            *member = state;
        }
    }

    /// Takes a member out for good, whatever it has done. Returns whether its contribution was in.
    pub fn expel(&mut self, device: DeviceId) -> bool {
        match self.members.get_mut(&device) {
            Some(member) => std::mem::replace(member, Member::Out) == Member::Reported,
            None => false,
        }
    }

    /// The members whose contribution is in.
    pub fn reported(&self) -> impl Iterator<Item = DeviceId> {
        self.members.iter().filter(|(_, state)| **state == Member::Reported).map(|(device, _)| *device)
    }

    /// The members that may still be at work.
    pub fn unfinished(&self) -> impl Iterator<Item = DeviceId> {
        let unfinished = |state: &Member| matches!(state, Member::Pending | Member::Gone(_));
        self.members.iter().filter(move |(_, state)| unfinished(state)).map(|(device, _)| *device)
    }

    /// How many were asked.
    pub fn asked(&self) -> usize {
        self.members.len()
    }

    /// When nothing more has to be waited for (ms): now when every member is done, later when only vanished ones are
    /// missing (they get `grace_ms` to come back), and the deadline otherwise.
    pub fn settles_at_ms(&self, now_ms: u64, grace_ms: u64) -> u64 {
        let mut latest = now_ms;
        for state in self.members.values() {
            match state {
                Member::Pending => return self.deadline_at_ms,
                Member::Gone(since) => latest = latest.max(since.saturating_add(grace_ms)),
                Member::Reported | Member::Out => {}
            }
        }
        latest.min(self.deadline_at_ms)
    }
}
