//! What a daemon must not forget, on disk: small records in sled, and blobs (models, plans, updates) as files that are named by
//! their digest. The only crate that knows sled.
//!
//! ```text
//! DIR/lock       held while the store is open: one process at a time
//! DIR/records/   sled: (table, key) → a bincode value of at most 4 KiB
//! DIR/blobs/     one file a blob, named by its SHA-256 in hex; `.tmp-*` are unfinished and removed at open
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
//! It is not a cache and not a database: no queries, no secondary indices, no encryption at rest yet.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! use starling_store::{Batch, Store};
//! let store = Store::open(folder.path())?;
//! let mut batch = Batch::new();
//! batch.put("runs", "1", &("digits", 7_u64))?;
//! store.commit(batch)?;
//! assert_eq!(store.get::<(String, u64)>("runs", "1")?, Some(("digits".to_owned(), 7)));
//! # Ok(()) }
//! ```

mod blobs;
mod error;
mod records;
mod store;
mod sync;

pub use error::StoreError;
pub use records::{Batch, KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use store::Store;
