//! Signatures by the keys that certificates vouch for. The keys themselves are elsewhere.

use std::collections::BTreeSet;

use starling_wire::{DeviceId, Digest};

use crate::limits::SIGNATURE_BYTES;

/// A signature.
pub type Signature = [u8; SIGNATURE_BYTES];

/// This device's identity key.
pub trait IdentityKey {
    /// Signs `message`, which starts with its purpose.
    fn sign(&self, message: &[u8]) -> Signature;
}

/// What was found out about a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The device's certificate is valid, and its key made the signature.
    Valid,
    /// The device's certificate is valid, and its key did not make the signature.
    Forged,
    /// There is no valid certificate for the device.
    Uncertified,
}

/// The certificates of the fleet. What it answers must come from the enrolment CA, and not from the aggregator's word.
pub trait Fleet {
    /// Whether `device` signed `message`.
    fn verify(&self, device: &DeviceId, message: &[u8], signature: &Signature) -> Verdict;

    /// The devices of which a witness has seen that they are enrolled. Where the owner asks for witnesses, those alone count towards the smallest
    /// cohort, and the others are taken for colluders. `None` where he asks for none: then all count.
    fn witnessed(&self) -> Option<&BTreeSet<DeviceId>> {
        None
    }
}

/// What a device signs when it advertises its keys.
pub(crate) fn advertisement(
    setup: &Digest,
    device: &DeviceId,
    mask_key: &[u8; 32],
    envelope_key: &[u8; 32],
) -> Vec<u8> {
    [b"starling/1 secagg advertise\0", &setup.0[..], &device.0, mask_key, envelope_key].concat()
}

/// What a device signs when it confirms a survivor list.
pub(crate) fn confirmation(session: &Digest, survivors: &[u8]) -> Vec<u8> {
    [b"starling/1 secagg survivors\0", &session.0[..], &Digest::of(survivors).0].concat()
}
