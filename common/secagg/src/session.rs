//! An attempt once its roster is known: what every party computes from it alike.

use starling_wire::{DeviceId, Digest};

use crate::graph::{Graph, Topology, TopologyError};
use crate::keys::{Key, Purpose, derive};
use crate::message::{Member, write_roster};
use crate::setup::Setup;
use crate::vector::{Mask, Sign};

/// Roster, graph and the digest that binds both to the setup.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) digest: Digest,
    pub(crate) members: Vec<Member>,
    pub(crate) graph: Graph,
}

impl Session {
    /// The session of a roster whose members are in ascending order of their ids, each once.
    ///
    /// The graph is drawn from the digest of all advertised keys: nobody fixes it before everybody's keys are fixed, and each honest
    /// device's keys make it new. Who comes last may still try keys of their own; the degree allows for that (`graph/topology.rs`).
    pub(crate) fn new(setup: &Setup, members: Vec<Member>) -> Result<Self, TopologyError> {
        let topology = Topology::of(members.len(), setup.assumptions)?;
        let roster = write_roster(&setup.digest(), &members);
        let digest = Digest::of_parts(&[b"starling/1 secagg session\0", &roster]);
        let seed = Digest::of_parts(&[b"starling/1 secagg graph\0", &digest.0]);
        Ok(Self { digest, members, graph: Graph::draw(topology, &seed) })
    }

    pub(crate) fn topology(&self) -> &Topology {
        self.graph.topology()
    }

    pub(crate) fn index_of(&self, device: &DeviceId) -> Option<usize> {
        self.members.binary_search_by(|member| member.device.cmp(device)).ok()
    }

    pub(crate) fn device(&self, index: usize) -> &DeviceId {
        &self.members[index].device
    }

    /// The point at which the device at `index` holds its shares.
    pub(crate) fn point(index: usize) -> u32 {
        u32::try_from(index + 1).expect("a cohort index fits in 16 bits")
    }

    /// The mask between two devices, as the device at `own` adds it, from their agreed secret. Of each pair the one with the lower index
    /// adds and the other subtracts.
    pub(crate) fn pair_mask(&self, own: usize, other: usize, agreed: &Key) -> Mask {
        let (low, high) = (own.min(other), own.max(other));
        let key = derive(&agreed[..], &self.digest, &Purpose::PairMask, &[self.device(low), self.device(high)]);
        Mask::new(&key, if own < other { Sign::Add } else { Sign::Subtract })
    }

    /// The mask that the device at `own` adds for itself.
    pub(crate) fn self_mask(&self, own: usize, seed: &[u8], sign: Sign) -> Mask {
        Mask::new(&derive(seed, &self.digest, &Purpose::SelfMask, &[self.device(own)]), sign)
    }

    /// What a device shows of its seed, so that wrong shares of it are found out.
    pub(crate) fn seed_commitment(&self, own: usize, seed: &[u8]) -> Digest {
        Digest::of_parts(&[b"starling/1 secagg seed\0", &self.digest.0, &self.device(own).0, seed])
    }
}
