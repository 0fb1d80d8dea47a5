//! The model versions and releases that devices may fetch, encoded once: every connection sends the same bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use starling_wire::{BlobKind, CodecId, Digest, RELEASE_RUN, RunId};

/// What is sent for a fetch.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) kind: BlobKind,
    pub(crate) codec: CodecId,
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
    /// Only devices with all of these tags may have it.
    pub(crate) tags: Arc<[String]>,
}

/// The newest version of one run, and how to get to it from the one before.
#[derive(Debug)]
struct Slot {
    whole: Offer,
    from_previous: Option<(Digest, Offer)>,
}

/// The newest version of each run and the release of each task. It holds at most one version and one difference a run, and
/// one file a task.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    slots: Mutex<HashMap<RunId, Slot>>,
    releases: Mutex<HashMap<String, Offer>>,
}

impl Shelf {
    /// Offers the version of `digest`, and `difference` (previous version, bytes) to those who hold that one.
    pub(crate) fn put(
        &self,
        run: RunId,
        whole: (CodecId, Digest, Bytes),
        difference: Option<(Digest, Bytes)>,
        tags: &[String],
    ) {
        let (codec, digest, bytes) = whole;
        let tags: Arc<[String]> = tags.into();
        let whole = Offer { kind: BlobKind::Model, codec, digest, bytes, tags: Arc::clone(&tags) };
        let from_previous = difference.map(|(held, bytes)| {
            let digest = Digest::of(&bytes);
            (held, Offer { kind: BlobKind::Difference, codec, digest, bytes, tags })
        });
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.insert(run, Slot { whole, from_previous });
    }

    /// Offers the release of `task`, in place of the one before.
    pub(crate) fn put_release(&self, task: &str, digest: Digest, bytes: Bytes, tags: &[String]) {
        // A release says itself how it is encoded.
        let codec = CodecId { family: 0, parameter: 0 };
        let offer = Offer { kind: BlobKind::Release, codec, digest, bytes, tags: tags.into() };
        self.releases.lock().unwrap_or_else(PoisonError::into_inner).insert(task.to_owned(), offer);
    }

    /// What to send to a device that wants `wanted` and holds `held`.
    pub(crate) fn find(&self, run: RunId, wanted: Digest, held: Option<Digest>) -> Option<Offer> {
        if run == RELEASE_RUN {
            let releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
            return releases.values().find(|offer| offer.digest == wanted).cloned();
        }
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get(&run).filter(|slot| slot.whole.digest == wanted)?;
        match &slot.from_previous {
            Some((previous, offer)) if Some(*previous) == held => Some(offer.clone()),
            _ => Some(slot.whole.clone()),
        }
    }

    /// The run has no more versions to offer.
    pub(crate) fn remove(&self, run: RunId) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }
}
