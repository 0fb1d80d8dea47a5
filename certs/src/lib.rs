//! The certificates of a Starling fleet: a CA with an offline root and an issuing key, and the certificates that it
//! issues to devices, aggregators and operators.
//!
//! ```text
//! root (10 years, key goes offline) ──► issuing (2 years, signs every day) ──► leaf (30 days by default)
//! ```
//!
//! A leaf carries a [`starling_wire::Identity`] (invariant 9): the role and the stable id in a URI of the subject
//! alternative name, `starling://<role>/<id>`, and the name as the common name. It also carries the DNS name
//! [`SERVER_NAME`], by which every dialer asks for its peer, so that an address may change freely.
//!
//! Invariant 10: private keys are wiped when dropped, are never `Debug`, lie in files of mode 0600 that are created
//! exclusively, and are never overwritten. What is outside our reach: ring's own expanded keys and the buffers of the
//! PEM codec are not wiped.
//!
//! A device that is on its way into the fleet, or that gets its next certificate, makes its key itself; what it signs to ask
//! for a certificate is in [`request`], and how a new pair of files takes the place of an old one in [`Pair`].
//!
//! What this crate is not: it opens no socket, and it does not decide whether a peer is trusted (`starling-net` does).
//!
//! ```
//! use starling_certs::{Authority, Validity};
//! use starling_wire::{DeviceId, Identity, Role};
//!
//! let authority = Authority::in_memory()?;
//! let pump = Identity { id: DeviceId::seeded(1, 0), role: Role::Device, name: "pump-4".into() };
//! let issued = authority.issue(&pump, Validity::days(30))?;
//! assert_eq!(starling_certs::inspect::parse(&issued.certificate_pem)?[0].identity(), Some(pump));
//! # Ok::<(), starling_certs::CertsError>(())
//! ```

mod authority;
pub mod command;
mod error;
mod files;
pub mod inspect;
mod key;
mod pair;
pub mod request;
mod revocation;

pub use authority::{Authority, Issued, Validity};
pub use error::CertsError;
pub use files::{write_new, write_new_secret};
pub use key::{Key, random};
pub use pair::Pair;
pub use revocation::{Reason, Revoked};

/// The DNS name in every leaf. Peers are told apart by their identity, not by their address.
pub const SERVER_NAME: &str = "starling";

/// The days for which a leaf is valid unless the operator says otherwise.
pub const LEAF_DAYS_DEFAULT: u32 = 30;

/// The longest common name that X.509 allows (RFC 5280, appendix A, `ub-common-name`).
pub const NAME_CHARACTERS_MAX: usize = 64;
