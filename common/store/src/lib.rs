//! What a daemon must not forget, on disk: small records in sled, and blobs (models, plans, updates) as files that are named by
//! their digest. The only crate that knows sled.
//!
//! ```text
//! DIR/lock       held while the store is open: one process at a time
//! DIR/keys/      the key ring, sealed by a master key that lies elsewhere, and one wrapped key for each device
//! DIR/records/   sled: (table, key) → a bincode value of at most 4 KiB, sealed; names are keyed hashes
//! DIR/blobs/     one sealed file a blob; `.tmp-*` are unfinished and removed at open
//! ```
//!
//! **Durable** here means: it survives a power cut, not just the end of the process. sled's own flush ends in
//! `sync_file_range`, which a power cut does not respect, so [`Store::commit`] follows it with an fsync of sled's file and of its
//! folder. sled would spill large pages to files that it never syncs; values are therefore limited ([`VALUE_BYTES_MAX`]), and
//! larger things are blobs.
//!
//! It holds the storage half of invariants 4 and 5: when a call that promises durability has returned, what it wrote is found
//! after a crash at any later instruction, and a batch is found whole or not at all.
//!
//! All calls block on the disk (an fsync takes milliseconds): on a tokio worker, wrap them in `spawn_blocking`.
//!
//! **Sealed** means AES-256-GCM under a key of one purpose, bound to the name and, for a record, to the commit that wrote it. A changed,
//! swapped, truncated, missing or older record or blob is an error that names it. Not detected: the whole folder replaced by an
//! older copy of itself; [`Store::anchor`] is the seam for that. What belongs to one device lies in a [`Compartment`] under
//! a key of its own; [`Store::forget`] destroys that for good. Invariant 10 holds for every key.
//!
//! It is not a cache and not a database: no queries, no secondary indices. It does not hide how many records there are, how large
//! blobs are or when they change.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! use starling_store::{Batch, KeySource, Store};
//! let state = folder.path().join("state");
//! let store = Store::open(&state, &KeySource::beside(&state))?;
//! let mut batch = Batch::new();
//! batch.put("runs", "1", &("digits", 7_u64))?;
//! store.commit(batch)?;
//! assert_eq!(store.get::<(String, u64)>("runs", "1")?, Some(("digits".to_owned(), 7)));
//! # Ok(()) }
//! ```

pub mod backup;
mod batch;
mod blobs;
mod compartment;
mod error;
mod keys;
mod names;
mod records;
mod root;
mod seal;
mod store;
mod sync;
mod wipe;

pub use batch::{Batch, KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use compartment::Compartment;
pub use error::StoreError;
pub use keys::compartment::COMPARTMENT_ID_BYTES_MAX;
pub use keys::error::KeyError;
pub use keys::escrow::{ESCROW_TTL_S, recover, recovery_init};
pub use keys::rotate::{Rotated, rotate};
pub use keys::sealed_file::{create_key_file, read_key_file};
pub use keys::source::KeySource;
pub use root::Anchor;
pub use store::{Forgotten, Store};
pub use wipe::{Wiped, destroy_file, wipe};

/// The table that belongs to the store itself. Nobody else's name has a dot in front.
pub(crate) const OWN_TABLE: &str = ".store";
