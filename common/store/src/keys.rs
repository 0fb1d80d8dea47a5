//! Every key of a state folder: where the master key comes from, what it wraps, and what is derived from that.
//!
//! ```text
//! master key (file, systemd credential, passphrase; never in the state folder unless the operator puts it there)
//!   └─ wraps ─▶ keys/ring: names key, data keys by generation, wrapping keys by generation
//!                 │            │                                └─ wrap ─▶ keys/devices/*: one key a device
//!                 │            ├─ HKDF "records" ─▶ seals records                   ├─ HKDF "records"
//!                 │            └─ HKDF "blobs" + salt of the file ─▶ seals a blob   └─ HKDF "blobs" + salt
//!                 └─ HKDF "names" ─▶ HMAC of names;  HKDF "set" ─▶ HMAC of what is there
//! ```
//!
//! A derived key has one purpose: the label that it was derived under names it (`starling/store/1/…`). Secrets are wiped when
//! they are dropped and have no `Debug` (invariant 10). The schedules that ring expands a key into are not wiped: ring offers no
//! way. They live for one call.

pub(crate) mod compartment;
pub(crate) mod error;
pub(crate) mod escrow;
pub(crate) mod file;
pub(crate) mod ring;
pub(crate) mod rotate;
pub(crate) mod sealed_file;
pub(crate) mod secret;
pub(crate) mod source;
