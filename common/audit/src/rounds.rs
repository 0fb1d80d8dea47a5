//! What a version's record says of its contributors, and whether the log bears it out.

use std::collections::BTreeMap;

use starling_wire::{DeviceId, Digest, Role};

use crate::record::{About, Action, Record, Who};
use crate::tree::{leaf_hash, range_root};

/// One update in a version: whose, and the digest of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contribution {
    /// Whose.
    pub device: DeviceId,
    /// The digest of the sealed update.
    pub digest: Digest,
}

/// One hash for a set of updates: the root of the tree over `device ‖ digest` (48 bytes each), in the order of the devices.
pub fn contributors_root(contributions: &[Contribution]) -> Digest {
    let mut sorted = contributions.to_vec();
    sorted.sort();
    let leaf = |Contribution { device, digest }: &Contribution| leaf_hash(&[&device.0[..], &digest.0[..]].concat());
    let leaves: Vec<Digest> = sorted.iter().map(leaf).collect();
    range_root(leaves.as_slice(), 0, leaves.len() as u64).unwrap_or_else(|never| match never {})
}

/// The updates of rounds under way. It holds what was admitted since the last commit or abandonment of each run.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    admitted: BTreeMap<(u32, u32, u16), Vec<Contribution>>,
}

impl Rounds {
    /// Takes the next record in; `false` when it names other contributors than the records before it.
    pub(crate) fn take(&mut self, record: &Record) -> bool {
        let About { run: Some(run), round: Some(round), attempt: Some(attempt), .. } = record.about else {
            return true;
        };
        let key = (run, round, attempt);
        match (record.what, record.who, record.about.digest) {
            (Action::UpdateAdmitted, Who::Certificate(Role::Device, device), Some(digest)) => {
                self.admitted.entry(key).or_default().push(Contribution { device, digest });
                true
            }
            (Action::UpdateWithdrawn, Who::System, Some(digest)) => {
                let device = record.about.device;
                if let Some(admitted) = self.admitted.get_mut(&key) {
                    admitted.retain(|one| Some(one.device) != device || one.digest != digest);
                }
                true
            }
            (Action::AttemptAbandoned, ..) => {
                self.admitted.remove(&key);
                true
            }
            (Action::VersionCommitted, ..) => {
                let found = self.admitted.remove(&key).unwrap_or_default();
                // Attempts that a crash ended are never heard of again.
                self.admitted.retain(|(other, ..), _| *other != run);
                let count = u32::try_from(found.len()).ok();
                record.about.contributors == count && record.about.contributors_root == Some(contributors_root(&found))
            }
            _ => true,
        }
    }
}
