//! A scope is what one set of keys seals: the store itself, or the compartment of one device.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::keys::ring::Ring;
use crate::keys::secret::Secret;
use crate::names::{Names, Tag};

/// The keys of one generation, one for each purpose.
pub(crate) struct ScopeKeys {
    pub(crate) records: Secret,
    pub(crate) blobs: Secret,
}

impl ScopeKeys {
    fn derive(key: &Secret, id: &[u8; 16]) -> Self {
        Self { records: key.derive(id, "records"), blobs: key.derive(id, "blobs") }
    }
}

/// Keys, and the tag of what they are for. Not `Debug`.
pub(crate) struct Scope {
    pub(crate) tag: Tag,
    /// For messages: empty for the store itself.
    pub(crate) id: String,
    pub(crate) store: [u8; 16],
    generations: BTreeMap<u32, ScopeKeys>,
    forgotten: AtomicBool,
}

impl Scope {
    /// The store's own.
    pub(crate) fn of_store(ring: &Ring, names: &Names) -> Self {
        let generations =
            ring.data.iter().map(|(number, data)| (*number, ScopeKeys::derive(&data.key, &ring.id))).collect();
        Self { tag: names.scope(""), id: String::new(), store: ring.id, generations, forgotten: AtomicBool::new(false) }
    }

    /// A device's: one key for as long as the device is known.
    pub(crate) fn of_device(tag: Tag, id: String, store: [u8; 16], key: &Secret) -> Self {
        let generations = BTreeMap::from([(1, ScopeKeys::derive(key, &store))]);
        Self { tag, id, store, generations, forgotten: AtomicBool::new(false) }
    }

    /// The keys that seal now.
    pub(crate) fn newest(&self) -> (u32, &ScopeKeys) {
        let (number, keys) = self.generations.last_key_value().expect("every scope has a generation");
        (*number, keys)
    }

    /// The keys of a generation.
    pub(crate) fn generation(&self, number: u32) -> Option<&ScopeKeys> {
        self.generations.get(&number)
    }

    /// Nothing more is sealed or opened by whoever still holds this.
    pub(crate) fn forget(&self) {
        self.forgotten.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::SeqCst)
    }
}
