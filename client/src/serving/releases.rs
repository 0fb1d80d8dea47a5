//! The releases that the device has: one a task, durable, and swapped in one step.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `releases` | digest of the task's name | the offer; the file is the blob of its digest |
//!
//! The order of an installation: blob, record (and, where a root of trust is pinned, what is believed, in the same batch), swap, then
//! the old blob goes. A crash in between leaves the old release or the new one. Versions only increase: by the offers' numbers, or by
//! the statements that are believed. What the disk holds but nobody signed for is not served where signatures are asked for. After a start a release is read when it is first asked for, so that a device that
//! nobody asks holds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use starling_store::{Batch, Store, StoreError};
use starling_trust::Permit;
use starling_wire::{Digest, ReleaseOffer, ReleaseRefusal};

use super::model::Model;
use super::verified::{Basis, Verified, verify};
use crate::config::TaskBinding;
use crate::learner::with_causes;
use crate::trust::{Keeper, NotTaken};

const RELEASES: &str = "releases";

struct Slot {
    offer: ReleaseOffer,
    model: Option<Arc<Model>>,
}

/// The releases of a device, shared by the agent and the connections of the local socket.
pub(crate) struct Releases {
    store: Arc<Store>,
    bindings: Vec<TaskBinding>,
    /// What publishers' signatures lead to, if the owner asks for them.
    trust: Option<Arc<Keeper>>,
    slots: RwLock<BTreeMap<String, Slot>>,
    /// One reads from the disk at a time, the others find it done; and none while a release is exchanged for another.
    loading: Mutex<()>,
}

/// Why there is no model of a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoModel {
    #[error("no release of task {0:?} is here; its aggregator has published none, or status says why it was refused")]
    NoRelease(String),
    #[error("releases of several tasks are served here ({0}): name one")]
    Several(String),
    #[error("the release on the disk cannot be served: {0}")]
    Unreadable(String),
    #[error(
        "what says which release is the newest has run out, and this device's owner has chosen to stop then ([trust] on_expiry); \
         a newer freshness statement ends it"
    )]
    Expired,
}

impl Releases {
    /// What an earlier process left, for the tasks that are still bound; the others' releases are removed.
    pub(crate) fn open(
        store: Arc<Store>,
        bindings: Vec<TaskBinding>,
        trust: Option<Arc<Keeper>>,
    ) -> Result<Self, StoreError> {
        let records: Vec<(String, ReleaseOffer)> = store.scan(RELEASES)?;
        let mut slots = BTreeMap::new();
        for (key, offer) in records {
            if bindings.iter().any(|binding| binding.name == offer.task) {
                slots.insert(offer.task.clone(), Slot { offer, model: None });
            } else {
                let mut batch = Batch::new();
                batch.remove(RELEASES, &key);
                store.commit(batch)?;
                store.remove_blob(&offer.digest.to_string())?;
            }
        }
        Ok(Self { store, bindings, trust, slots: RwLock::new(slots), loading: Mutex::new(()) })
    }

    /// The blobs that belong to releases.
    pub(crate) fn named(store: &Store) -> Result<BTreeSet<String>, StoreError> {
        let records: Vec<(String, ReleaseOffer)> = store.scan(RELEASES)?;
        Ok(records.into_iter().map(|(_, offer)| offer.digest.to_string()).collect())
    }

    /// Forgets everything: the folder has been another device's.
    pub(crate) fn clear(store: &Store, batch: &mut Batch) -> Result<(), StoreError> {
        let records: Vec<(String, ReleaseOffer)> = store.scan(RELEASES)?;
        records.iter().for_each(|(key, _)| batch.remove(RELEASES, key));
        Ok(())
    }

    /// The release that is held of `task` and believed.
    pub(crate) fn held(&self, task: &str) -> Option<ReleaseOffer> {
        let offer = self.read().get(task).map(|slot| slot.offer.clone());
        offer.filter(|offer| self.believes(offer))
    }

    /// All that are held and believed.
    pub(crate) fn all(&self) -> Vec<ReleaseOffer> {
        let offers: Vec<ReleaseOffer> = self.read().values().map(|slot| slot.offer.clone()).collect();
        offers.into_iter().filter(|offer| self.believes(offer)).collect()
    }

    /// The version that predictions of `task` come from, if there are any.
    pub(crate) fn serves(&self, task: &str) -> Option<u64> {
        self.held(task).filter(|_| !self.stops()).map(|held| held.version)
    }

    /// What publishers' signatures lead to, if the owner asks for them.
    pub(crate) fn trust(&self) -> Option<&Arc<Keeper>> {
        self.trust.as_ref()
    }

    fn believes(&self, offer: &ReleaseOffer) -> bool {
        self.trust.as_ref().is_none_or(|trust| trust.has_verified(offer))
    }

    fn stops(&self) -> bool {
        self.trust.as_ref().is_some_and(|trust| trust.stops())
    }

    /// Bytes of the releases of other tasks than `task`.
    pub(crate) fn bytes_besides(&self, task: &str) -> u64 {
        let slots = self.read();
        slots.values().filter(|slot| slot.offer.task != task).map(|slot| slot.offer.length).sum()
    }

    /// The model that answers for `task`; for the only one there is when `task` is empty. From the disk, if nobody has asked
    /// for it yet: then it blocks.
    pub(crate) fn model(&self, task: &str) -> Result<Arc<Model>, NoModel> {
        let find = || {
            let slots = self.read();
            let slot = match task {
                "" if slots.len() > 1 => {
                    return Err(NoModel::Several(slots.keys().cloned().collect::<Vec<_>>().join(", ")));
                }
                "" => slots.values().next(),
                task => slots.get(task),
            };
            let slot = slot.ok_or_else(|| NoModel::NoRelease(task.to_owned()))?;
            Ok((slot.offer.clone(), slot.model.clone()))
        };
        if self.stops() {
            return Err(NoModel::Expired);
        }
        // The common case copies no name.
        if let Some(model) = self.read().get(task).and_then(|slot| slot.model.clone()) {
            return Ok(model);
        }
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (offer, model) = find()?;
            if let Some(model) = model {
                return Ok(model);
            }
            let loaded = self.load(&offer);
            let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
            let Some(slot) = slots.get_mut(&offer.task) else { continue };
            // A newer one may have come meanwhile, and taken the file of this one with it.
            if slot.offer != offer {
                continue;
            }
            let model = Arc::new(loaded.map_err(NoModel::Unreadable)?);
            slot.model = Some(Arc::clone(&model));
            return Ok(model);
        }
    }

    fn load(&self, offer: &ReleaseOffer) -> Result<Model, String> {
        let bytes = self.store.get_blob(&offer.digest.to_string()).map_err(|error| with_causes(&error))?;
        let bytes = bytes.ok_or("its file is gone; it comes back when a newer one is published")?;
        let basis = self.trust.as_deref().map_or(Basis::Offer, Basis::Held);
        let verified = verify(offer, &bytes, basis).map_err(|refusal| refusal.to_string())?;
        Model::prepare(verified, self.binding(offer).map_err(|refusal| refusal.to_string())?)
            .map_err(|refusal| refusal.to_string())
    }

    fn binding(&self, offer: &ReleaseOffer) -> Result<&TaskBinding, ReleaseRefusal> {
        self.bindings.iter().find(|binding| binding.name == offer.task).ok_or(ReleaseRefusal::Policy)
    }

    /// Makes `bytes` the release of its task, if it is one that can be served: durable first, then swapped in. Until then, and
    /// when it is refused, the one before serves on. `permit` is what publishers stated of it, where the owner asks for that. Blocks.
    ///
    /// # Errors
    /// The [`ReleaseRefusal`] that the aggregator is told.
    pub(crate) fn install(
        &self,
        offer: &ReleaseOffer,
        bytes: &[u8],
        permit: Option<&Permit>,
    ) -> Result<(), ReleaseRefusal> {
        let basis = match (&self.trust, permit) {
            (None, _) => Basis::Offer,
            (Some(_), Some(permit)) => Basis::Permit(permit),
            (Some(keeper), None) => Basis::Held(keeper),
        };
        let verified: Verified = verify(offer, bytes, basis)?;
        let signed = verified.signed().cloned();
        let model = Arc::new(Model::prepare(verified, self.binding(offer)?)?);
        let offer = model.offer().clone();
        let not_stored = |error: StoreError| {
            tracing::error!(
                task = offer.task,
                version = offer.version,
                error = with_causes(&error),
                "a release could not be stored"
            );
            ReleaseRefusal::NotStored
        };
        let _exchanging = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.read().get(&offer.task).map(|slot| slot.offer.clone());
        // Signed statements say themselves what is older, and forget it when a key has lost its word.
        if signed.is_none() && before.as_ref().is_some_and(|before| before.version >= offer.version) {
            return Err(ReleaseRefusal::Older);
        }
        self.store.put_blob(&offer.digest.to_string(), bytes).map_err(not_stored)?;
        let mut batch = Batch::new();
        batch.put(RELEASES, &key(&offer.task), &offer).map_err(not_stored)?;
        match (&self.trust, &signed) {
            (Some(trust), Some(signed)) => trust.hold(signed, batch).map_err(|why: NotTaken| why.release())?,
            _ => self.store.commit(batch).map_err(not_stored)?,
        }
        let slot = Slot { offer: offer.clone(), model: Some(model) };
        self.slots.write().unwrap_or_else(PoisonError::into_inner).insert(offer.task.clone(), slot);
        if let Some(old) = before.filter(|before| before.digest != offer.digest)
            && let Err(error) = self.store.remove_blob(&old.digest.to_string())
        {
            // The next start finds that nothing names it.
            tracing::warn!(%error, "an old release could not be removed");
        }
        Ok(())
    }

    /// The file that is held under `digest`; it is verified when it is used.
    pub(crate) fn file(&self, digest: &Digest) -> Result<Vec<u8>, ReleaseRefusal> {
        self.store.get_blob(&digest.to_string()).ok().flatten().ok_or(ReleaseRefusal::Unavailable)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task's name may be longer than a key.
fn key(task: &str) -> String {
    Digest::of(task.as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::model::tests::{binding, offer, release_bytes, unrunnable_bytes};

    fn open(folder: &std::path::Path, train: &str) -> Releases {
        Releases::open(Arc::new(crate::state::tests::open_store(folder).expect("a store")), vec![binding(train)], None)
            .expect("releases")
    }

    const DATA: &str = "embedded:optdigits";

    #[test]
    fn a_newer_release_is_swapped_in_and_an_older_or_bad_one_leaves_the_old_serving() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let releases = open(folder.path(), DATA);
        assert_eq!(releases.model("digits").expect_err("none"), NoModel::NoRelease("digits".into()));
        let (first, second) = (release_bytes(1.0), release_bytes(2.0));
        releases.install(&offer(1, &first), &first, None).expect("installed");
        let old = releases.model("digits").expect("served");
        releases.install(&offer(3, &second), &second, None).expect("installed");
        assert_eq!((old.offer().version, releases.model("").expect("the only one").offer().version), (1, 3));
        assert_eq!(releases.install(&offer(3, &first), &first, None), Err(ReleaseRefusal::Older), "the same number");
        assert_eq!(releases.install(&offer(2, &first), &first, None), Err(ReleaseRefusal::Older), "a rollback");
        let bad = unrunnable_bytes();
        assert_eq!(releases.install(&offer(4, &bad), &bad, None), Err(ReleaseRefusal::NotRunnable));
        assert_eq!(releases.install(&offer(4, &first), &second, None), Err(ReleaseRefusal::DigestMismatch));
        assert_eq!(releases.model("digits").expect("served").offer().version, 3);
        assert_eq!(releases.store.blobs().expect("a list"), [Digest::of(&second).to_string()]);
    }

    #[test]
    fn a_release_is_served_from_the_disk_after_a_restart() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let bytes = release_bytes(1.0);
        open(folder.path(), DATA).install(&offer(1, &bytes), &bytes, None).expect("installed");
        let releases = open(folder.path(), DATA);
        assert_eq!(Releases::named(&releases.store).expect("read").len(), 1);
        assert!(releases.read()["digits"].model.is_none(), "nothing is in memory before the first question");
        assert_eq!(releases.model("digits").expect("served").offer(), &offer(1, &bytes));
        drop(releases);

        // A file that was damaged on the disk is never served.
        let mut blobs = std::fs::read_dir(folder.path().join("state/blobs")).expect("listed");
        let blob = blobs.next().expect("one blob").expect("an entry").path();
        let mut damaged = std::fs::read(&blob).expect("the blob's file");
        damaged[30] ^= 1;
        std::fs::write(&blob, damaged).expect("written");
        assert!(matches!(open(folder.path(), DATA).model("digits"), Err(NoModel::Unreadable(_))));
    }

    #[test]
    fn inv13_a_release_of_a_task_that_is_not_bound_any_more_is_removed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let bytes = release_bytes(1.0);
        open(folder.path(), DATA).install(&offer(1, &bytes), &bytes, None).expect("installed");
        let store = Arc::new(crate::state::tests::open_store(folder.path()).expect("a store"));
        let releases = Releases::open(Arc::clone(&store), Vec::new(), None).expect("releases");
        assert!(releases.all().is_empty() && store.blobs().expect("a list").is_empty());
    }
}
