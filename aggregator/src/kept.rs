//! Versions that are kept beyond the next one, so that a run can go back to them: what a device has taught a run is undone by going back to
//! before its first round and learning anew without it.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `kept` | run/round | [`KeptVersion`] |
//!
//! Which rounds are kept follows from the round alone: multiples of a spacing that doubles whenever more than `keep` of them would be there. A run that
//! began with weights keeps those as well, since no seed brings them back.

use serde::{Deserialize, Serialize};
use starling_store::{Batch, Store, StoreError};
use starling_wire::RunId;

use crate::config::VersionsSection;

const TABLE: &str = "kept";

/// A version that a run can begin from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptVersion {
    pub(crate) run: RunId,
    /// The round that made it; 0 for what the run began with.
    pub(crate) round: u32,
    pub(crate) version: u64,
    /// The blob of the float master.
    pub(crate) master_blob: String,
}

impl VersionsSection {
    /// How far apart the kept rounds of a run are that has committed `round`; nothing is kept without one.
    fn spacing(&self, round: u32) -> Option<u32> {
        let mut spacing = Some(self.every_rounds).filter(|spacing| *spacing > 0 && self.keep > 0)?;
        while round / spacing > self.keep {
            spacing = spacing.checked_mul(2)?;
        }
        Some(spacing)
    }

    /// Whether the version of `round` is kept when `newest` is the newest round.
    pub(crate) fn keeps(&self, round: u32, newest: u32) -> bool {
        round == 0 || self.spacing(newest).is_some_and(|spacing| round.is_multiple_of(spacing))
    }
}

fn key(run: RunId, round: u32) -> String {
    format!("{:010}/{round:010}", run.0)
}

/// The kept versions of a run, in the order of their rounds.
pub(crate) fn of_run(store: &Store, run: RunId) -> Result<Vec<KeptVersion>, StoreError> {
    Ok(all(store)?.into_iter().filter(|kept| kept.run == run).collect())
}

/// Those of all runs.
pub(crate) fn all(store: &Store) -> Result<Vec<KeptVersion>, StoreError> {
    Ok(store.scan::<KeptVersion>(TABLE)?.into_iter().map(|(_, kept)| kept).collect())
}

/// Keeps a version.
pub(crate) fn put(batch: &mut Batch, kept: &KeptVersion) -> Result<(), StoreError> {
    batch.put(TABLE, &key(kept.run, kept.round), kept)
}

/// Keeps a version no longer; its blob is the caller's to remove.
pub(crate) fn remove(batch: &mut Batch, kept: &KeptVersion) {
    batch.remove(TABLE, &key(kept.run, kept.round));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_at(section: &VersionsSection, newest: u32) -> Vec<u32> {
        (0..=newest).filter(|round| section.keeps(*round, newest)).collect()
    }

    #[test]
    fn kept_rounds_are_spread_over_the_run_and_never_more_than_asked_for() {
        let section = VersionsSection { every_rounds: 10, keep: 4 };
        assert_eq!(kept_at(&section, 9), [0]);
        assert_eq!(kept_at(&section, 40), [0, 10, 20, 30, 40]);
        assert_eq!(kept_at(&section, 50), [0, 20, 40]);
        assert_eq!(kept_at(&section, 1_000), [0, 320, 640, 960]);
        for newest in 0..5_000 {
            let kept = kept_at(&section, newest);
            assert!(kept.len() <= 5, "{newest}: {kept:?}");
            // What is kept now was kept before: no version comes back.
            assert!(kept.iter().all(|round| section.keeps(*round, (*round).max(newest / 2))), "{newest}");
        }
        assert_eq!(kept_at(&VersionsSection::default(), 1_000), [0], "nothing without being asked");
    }
}
