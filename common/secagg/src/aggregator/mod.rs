//! The aggregator's machine.
//!
//! ```text
//!  new ─▶ advertising ─ close ─▶ sharing ─ close ─▶ masking ─ close ─▶ confirming ─ close ─▶ revealing ─ finish ─▶ Sum
//! ```
//!
//! A phase is a mailbox: messages come in any order until the caller closes it, at its deadline or when nobody is missing; who is
//! late has dropped out. Each `close_*` gives the messages of the next phase. Below a minimum or a threshold the attempt is [`Aborted`], and
//! stays so: the round needs a new attempt, for which every device makes new keys.
//!
//! It learns the sum of the survivors' vectors. A masked vector is added when it comes and is not kept; memory is one
//! vector and, for each device, its neighbours' envelopes and shares.

mod collect;
mod confirm;
mod unmask;

use std::collections::BTreeMap;

use starling_wire::{DeviceId, Digest};

use crate::bitmap::Bitmap;
use crate::graph::TopologyError;
use crate::identity::Signature;
use crate::limits::SHARE_BYTES;
use crate::message::{Member, Shared};
use crate::refused::Refused;
use crate::session::Session;
use crate::setup::Setup;
use crate::vector::{Ring, RingVector};

/// A message for one device.
pub type Addressed = (DeviceId, Vec<u8>);

/// Where an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Keys come in.
    Advertising,
    /// Envelopes come in.
    Sharing,
    /// Masked vectors come in.
    Masking,
    /// Signatures of the survivor list come in.
    Confirming,
    /// Shares come in.
    Revealing,
    /// The sum is known.
    Finished,
    /// Given up.
    Aborted,
}

/// Why an attempt is given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Aborted {
    /// Too few devices are left.
    #[error("{got} devices are left after the phase {phase:?}; {wanted} are needed")]
    TooFew {
        /// The phase that was closed.
        phase: Phase,
        /// Devices that are left.
        got: usize,
        /// Devices that are needed.
        wanted: usize,
    },
    /// The cohort has no safe threshold.
    #[error("the cohort has no safe graph")]
    Topology(#[from] TopologyError),
    /// The survivors fall into pieces; no device would help to unmask them.
    #[error("the survivors fall into pieces whose sums could be told apart")]
    Split,
    /// Too few neighbours of a device have survived.
    #[error("{got} holders of the shares of {device} are left; {wanted} are needed")]
    TooFewShares {
        /// Whose secret is out of reach.
        device: DeviceId,
        /// Shares there are.
        got: usize,
        /// Shares that are needed.
        wanted: usize,
    },
    /// More holders gave wrong shares than can be left out.
    #[error("the shares of {0} do not give the secret that it committed to")]
    WrongShares(DeviceId),
    /// The survivor set would have to change after it was announced, or an input be taken out.
    #[error("{0} was revoked after its input had come in")]
    Revoked(DeviceId),
    /// The attempt was given up before.
    #[error("the attempt is not in the phase that is closed: it is {0:?}")]
    OutOfTurn(Phase),
}

/// What an attempt was for.
pub struct Sum {
    vector: RingVector,
    survivors: Vec<DeviceId>,
}

impl Sum {
    /// The sum of the survivors' inputs, coordinate by coordinate. It cannot have wrapped.
    pub fn values(&self) -> Vec<i64> {
        self.vector.to_signed()
    }

    /// Whose inputs are in it.
    pub fn survivors(&self) -> &[DeviceId] {
        &self.survivors
    }
}

/// The aggregator in one attempt.
pub struct Aggregator {
    setup: Setup,
    about: Digest,
    ring: Ring,
    phase: Phase,
    /// The most devices that may advertise.
    room: usize,
    advertised: BTreeMap<DeviceId, Member>,
    open: Option<Open>,
}

/// What there is once the roster is fixed. Everything is by roster index.
struct Open {
    session: Session,
    neighbours: Vec<Vec<usize>>,
    shared: Vec<Option<Shared>>,
    // Digests of the masked vectors that are in the sum.
    masked: Vec<Option<Digest>>,
    sum: RingVector,
    survivors: Bitmap,
    confirmed: Vec<Option<Signature>>,
    asked: Vec<bool>,
    revealed: Vec<Option<Digest>>,
    // For each device, the shares of the one secret of it that is needed, with their points.
    collected: Vec<Vec<(u32, [u8; SHARE_BYTES])>>,
}

impl Aggregator {
    /// An attempt that waits for keys.
    ///
    /// # Errors
    /// [`Refused::Setup`].
    pub fn new(setup: &Setup) -> Result<Self, Refused> {
        setup.check()?;
        Ok(Self {
            setup: *setup,
            about: setup.digest(),
            ring: setup.ring()?,
            phase: Phase::Advertising,
            room: setup.cohort_max.into(),
            advertised: BTreeMap::new(),
            open: None,
        })
    }

    /// An attempt whose devices are to be [`Aggregator::split`] into so many groups, each of which may have as many devices as the setup says.
    ///
    /// # Errors
    /// [`Refused::Setup`].
    pub fn of_groups(setup: &Setup, groups: u16) -> Result<Self, Refused> {
        let one = Self::new(setup)?;
        Ok(Self { room: one.room.saturating_mul(groups.into()), ..one })
    }

    /// Deals the devices that have advertised out to `groups` attempts, as evenly as can be, in the order of `key`. Devices notice nothing of it:
    /// each sees the roster of its own group, and one setup is everybody's.
    ///
    /// # Panics
    /// If keys come in no longer, or `groups` is 0.
    pub fn split(mut self, groups: u16, key: impl Fn(&DeviceId) -> u64) -> Vec<Self> {
        assert_eq!(self.phase, Phase::Advertising, "a roster is not taken apart");
        let mut members: Vec<(u64, Member)> =
            std::mem::take(&mut self.advertised).into_values().map(|member| (key(&member.device), member)).collect();
        members.sort_by_key(|(key, member)| (*key, member.device));
        let empty = || Self {
            setup: self.setup,
            about: self.about,
            ring: self.ring,
            phase: Phase::Advertising,
            room: self.setup.cohort_max.into(),
            advertised: BTreeMap::new(),
            open: None,
        };
        let mut parts: Vec<Self> = (0..groups).map(|_| empty()).collect();
        for (index, (_, member)) in members.into_iter().enumerate() {
            parts[index % usize::from(groups)].advertised.insert(member.device, member);
        }
        parts
    }

    /// Where the attempt is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The devices that have advertised, until the roster is fixed.
    pub fn advertised(&self) -> impl Iterator<Item = DeviceId> {
        self.advertised.keys().copied()
    }

    /// The digest of setup and roster, once the roster is fixed.
    pub fn session(&self) -> Option<Digest> {
        self.open.as_ref().map(|open| open.session.digest)
    }

    /// The devices of the roster, once it is fixed.
    pub fn members(&self) -> Vec<DeviceId> {
        let members = self.open.as_ref().map(|open| &open.session.members);
        members.map_or_else(Vec::new, |members| members.iter().map(|member| member.device).collect())
    }

    /// How many devices have answered in this phase.
    pub fn answered(&self) -> usize {
        let Some(open) = &self.open else { return self.advertised.len() };
        match self.phase {
            Phase::Sharing => open.shared.iter().flatten().count(),
            Phase::Masking => open.masked.iter().flatten().count(),
            Phase::Confirming => open.confirmed.iter().flatten().count(),
            Phase::Revealing => open.revealed.iter().flatten().count(),
            Phase::Advertising | Phase::Finished | Phase::Aborted => 0,
        }
    }

    /// How many devices can answer in this phase at most.
    pub fn expected(&self) -> usize {
        let Some(open) = &self.open else { return self.room };
        match self.phase {
            Phase::Sharing => open.session.members.len(),
            Phase::Masking => open.shared.iter().flatten().count(),
            Phase::Confirming => open.survivors.count(),
            Phase::Revealing => open.asked.iter().filter(|asked| **asked).count(),
            Phase::Advertising | Phase::Finished | Phase::Aborted => 0,
        }
    }

    /// The neighbours of a device, once the roster is fixed: those that can tell what became of it.
    pub fn neighbours(&self, device: &DeviceId) -> Vec<DeviceId> {
        let found = self.open.as_ref().and_then(|open| Some((open, open.session.index_of(device)?)));
        let named = |(open, index): (&Open, usize)| {
            open.neighbours[index].iter().map(|other| *open.session.device(*other)).collect()
        };
        found.map_or_else(Vec::new, named)
    }

    /// Gives the attempt up: nothing of it can be unmasked any more.
    pub fn abort(&mut self) {
        self.phase = Phase::Aborted;
        self.open = None;
    }

    /// Takes a device out that the operator has revoked. Before its input has come in it has merely dropped out.
    ///
    /// # Errors
    /// [`Aborted::Revoked`] afterwards: the survivor set of an attempt never changes.
    pub fn revoke(&mut self, device: &DeviceId) -> Result<(), Aborted> {
        self.advertised.remove(device);
        let Some(open) = &mut self.open else { return Ok(()) };
        let Some(index) = open.session.index_of(device) else { return Ok(()) };
        if open.masked[index].is_some() {
            self.abort();
            return Err(Aborted::Revoked(*device));
        }
        if self.phase == Phase::Sharing {
            open.shared[index] = None;
        }
        Ok(())
    }

    fn at(&self, phase: Phase) -> Result<(), Refused> {
        if self.phase == phase { Ok(()) } else { Err(Refused::OutOfTurn("its phase is not open")) }
    }

    /// Ends `phase`, or finds that it is not the one that is open.
    fn close(&mut self, phase: Phase, next: Phase) -> Result<(), Aborted> {
        if self.phase != phase {
            return Err(Aborted::OutOfTurn(self.phase));
        }
        self.phase = next;
        Ok(())
    }

    /// Hands a result on, and gives the attempt up when it is an error.
    fn or_abort<T>(&mut self, result: Result<T, Aborted>) -> Result<T, Aborted> {
        if result.is_err() {
            self.abort();
        }
        result
    }
}

impl Open {
    fn index(&self, device: &DeviceId) -> Result<usize, Refused> {
        self.session.index_of(device).ok_or(Refused::Unexpected(*device))
    }

    /// Survivors among a device's holders: its neighbours and itself.
    fn holders_left(&self, index: usize) -> usize {
        let itself = usize::from(self.survivors.contains(index));
        itself + self.neighbours[index].iter().filter(|other| self.survivors.contains(**other)).count()
    }

    /// Devices that shared, did not survive, and are in a survivor's masks.
    fn dropped(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.shared.len()).filter(|index| {
            self.shared[*index].is_some() && !self.survivors.contains(*index) && self.holders_left(*index) > 0
        })
    }
}

/// Accepts a message once: the same bytes again change nothing, other bytes are refused.
fn first_time(slot: &mut Option<Digest>, bytes: &[u8], device: &DeviceId) -> Result<bool, Refused> {
    let digest = Digest::of(bytes);
    match slot {
        None => {
            *slot = Some(digest);
            Ok(true)
        }
        Some(before) if *before == digest => Ok(false),
        Some(_) => Err(Refused::Unexpected(*device)),
    }
}
