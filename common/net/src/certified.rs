//! Devices by their certificates, without a connection to them: what a device needs to judge the keys of its cohort.

use std::collections::BTreeMap;

use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::SignatureScheme;
use rustls::pki_types::{CertificateDer, UnixTime};
use starling_secagg::{Fleet, IdentityKey, Signature, Verdict};
use starling_wire::secure::CERTIFICATE_BYTES_MAX;
use starling_wire::{DeviceId, PublicKey, Role};

use crate::credentials::Credentials;
use crate::identity;
use crate::verify::peer_chain;

/// The keys of devices whose certificates chain to this side's CA and are valid now.
#[derive(Debug, Clone, Default)]
pub struct Certified {
    keys: BTreeMap<DeviceId, PublicKey>,
}

impl Certified {
    /// Judges certificates: leaves of devices, and in any order the certificates between them and the CA. What does not hold is left out. A
    /// device that is vouched for under two keys is left out as well: one of them is not its own.
    pub fn check<'a>(credentials: &Credentials, certificates: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let usable = certificates.into_iter().filter(|bytes| bytes.len() <= CERTIFICATE_BYTES_MAX);
        let named = usable.map(|bytes| {
            let certificate = CertificateDer::from(bytes);
            (identity::of(&certificate), certificate)
        });
        let (leaves, between): (Vec<_>, Vec<_>) = named.partition(|(identity, _)| identity.is_some());
        let between: Vec<CertificateDer<'_>> = between.into_iter().map(|(_, certificate)| certificate).collect();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(credentials.clock.now_unix_s()));
        let Ok(verifier) = peer_chain(credentials) else { return Self::default() };
        let mut keys: BTreeMap<DeviceId, Option<PublicKey>> = BTreeMap::new();
        for (named, leaf) in leaves {
            let Some(named) = named.filter(|named| named.role == Role::Device) else { continue };
            let Some(key) = identity::leaf(&leaf).and_then(|leaf| leaf.key) else { continue };
            if verifier.verify_client_cert(&leaf, &between, now).is_ok() {
                keys.entry(named.id)
                    .and_modify(|before| *before = before.filter(|before| *before == key))
                    .or_insert(Some(key));
            }
        }
        Self { keys: keys.into_iter().filter_map(|(device, key)| Some((device, key?))).collect() }
    }

    /// Whether there is a valid certificate of `device`.
    pub fn contains(&self, device: &DeviceId) -> bool {
        self.keys.contains_key(device)
    }

    /// The key that a valid certificate of `device` vouches for.
    pub fn key(&self, device: &DeviceId) -> Option<&PublicKey> {
        self.keys.get(device)
    }

    /// Adds what others hold; of a device that both know the newer one counts.
    pub fn extend(&mut self, others: Self) {
        self.keys.extend(others.keys);
    }
}

impl Fleet for Certified {
    fn verify(&self, device: &DeviceId, message: &[u8], signature: &Signature) -> Verdict {
        match self.keys.get(device) {
            None => Verdict::Uncertified,
            Some(key) => {
                let key = UnparsedPublicKey::new(&ED25519, key.0);
                key.verify(message, signature).map_or(Verdict::Forged, |()| Verdict::Valid)
            }
        }
    }
}

impl IdentityKey for Credentials {
    /// By the key of the own certificate. With one that is no Ed25519 key, or that fails to sign, the signature is one that nobody
    /// accepts: all certificates of a fleet's own CA have Ed25519 keys.
    fn sign(&self, message: &[u8]) -> Signature {
        let signer = self.key.key.choose_scheme(&[SignatureScheme::ED25519]);
        let signature = signer.and_then(|signer| signer.sign(message).ok());
        signature.and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; 64])
    }
}

impl Credentials {
    /// The own certificate and those between it and the CA, as others can check them.
    pub fn chain(&self) -> Vec<Vec<u8>> {
        self.key.cert.iter().map(|certificate| certificate.to_vec()).collect()
    }
}
