//! A certificate and its key on disk, replaced together although they are two files.
//!
//! ```text
//!  1  key.pem.next, certificate.pem.next   written, synced, named in this order
//!  2  key.pem.next → key.pem               ┐ a crash in between is completed by `settle`,
//!  3  certificate.pem.next → certificate.pem ┘ because the certificate's `.next` is the last to be named and the last to go
//! ```
//!
//! A `certificate.pem.next` says that its key is safe: in `key.pem.next`, or in `key.pem` already. A `key.pem.next` alone is a
//! replacement that never got that far, and goes.

use std::fs;
use std::path::PathBuf;

use rcgen::PublicKeyData as _;

use crate::error::CertsError;
use crate::files::{self, Secrecy};
use crate::inspect;
use crate::key::Key;

const NEXT: &str = ".next";

/// Where a certificate and its key lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate and its chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Pair {
    /// Puts a new certificate and key in the place of the old ones, durably: after a crash at any instant, [`Pair::settle`]
    /// leaves one of the two pairs, whole.
    ///
    /// # Errors
    /// Names the file. The old pair stays in use then.
    pub fn replace(&self, certificate_pem: &str, key_pem: &str) -> Result<(), CertsError> {
        files::replace(&self.next_key(), Secrecy::Secret, key_pem)?;
        files::replace(&self.next_certificate(), Secrecy::Public, certificate_pem)?;
        self.settle()
    }

    /// Completes or forgets a replacement that a crash has interrupted. To be called before the pair is read.
    ///
    /// # Errors
    /// If a file cannot be moved, or [`CertsError::Torn`] if what is left belongs to nothing.
    pub fn settle(&self) -> Result<(), CertsError> {
        let (key, certificate) = (self.next_key(), self.next_certificate());
        let exists = |path| fs::exists(path).unwrap_or(false);
        if !exists(&certificate) {
            // Without its certificate a key is of no use.
            return match fs::remove_file(&key) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    Err(CertsError::File { action: "remove", path: key, source })
                }
                _ => Ok(()),
            };
        }
        if exists(&key) {
            files::rename(&key, &self.key)?;
        }
        let held = Key::from_pem(&files::read(&self.key, Secrecy::Secret)?);
        let leaf = &inspect::read(&certificate)?[0];
        let belongs =
            held.is_some_and(|held| inspect::sha256_hex(&held.subject_public_key_info()) == leaf.public_key_sha256);
        if !belongs {
            return Err(CertsError::Torn { key: self.key.clone(), certificate });
        }
        files::rename(&certificate, &self.certificate)
    }

    /// The private key.
    ///
    /// # Errors
    /// If it cannot be read, belongs to others too, or is no Ed25519 key.
    pub fn read_key(&self) -> Result<Key, CertsError> {
        Key::from_pem(&files::read(&self.key, Secrecy::Secret)?)
            .ok_or(CertsError::Content { path: self.key.clone(), expected: "Ed25519 private key" })
    }

    fn next_key(&self) -> PathBuf {
        files::with_suffix(&self.key, NEXT)
    }

    fn next_certificate(&self) -> PathBuf {
        files::with_suffix(&self.certificate, NEXT)
    }
}

#[cfg(test)]
mod tests {
    use starling_wire::{DeviceId, Identity, Role};

    use super::*;
    use crate::{Authority, Validity};

    fn issue(authority: &Authority) -> crate::Issued {
        let identity = Identity { id: DeviceId::seeded(1, 1), role: Role::Device, name: "pump".into() };
        authority.issue(&identity, Validity::days(1)).expect("issued")
    }

    #[test]
    fn inv5_a_crash_at_any_step_leaves_one_whole_pair() {
        let authority = Authority::in_memory().expect("made");
        let (old, new) = (issue(&authority), issue(&authority));
        // How far the replacement got: nothing, the key, both, the key moved, all.
        for step in 0..5 {
            let folder = tempfile::tempdir().expect("a temporary folder");
            old.write(folder.path()).expect("written");
            let pair = Pair { certificate: folder.path().join("certificate.pem"), key: folder.path().join("key.pem") };
            if step >= 1 {
                files::replace(&pair.next_key(), Secrecy::Secret, &new.key_pem).expect("written");
            }
            if step >= 2 {
                files::replace(&pair.next_certificate(), Secrecy::Public, &new.certificate_pem).expect("written");
            }
            if step >= 3 {
                files::rename(&pair.next_key(), &pair.key).expect("moved");
            }
            if step >= 4 {
                files::rename(&pair.next_certificate(), &pair.certificate).expect("moved");
            }
            pair.settle().expect("settled");
            let wanted = if step >= 2 { &new } else { &old };
            assert_eq!(fs::read_to_string(&pair.certificate).expect("there"), wanted.certificate_pem, "step {step}");
            assert_eq!(fs::read_to_string(&pair.key).expect("there"), *wanted.key_pem, "step {step}");
            assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 3, "nothing else is left: step {step}");
            pair.settle().expect("a second time changes nothing");
        }
    }
}
