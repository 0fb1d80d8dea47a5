//! Asking for a certificate, and checking that who asks has the keys.
//!
//! The request is our own and not PKCS #10: it is 200 bytes, binds the TLS session and the token, and carries the proof
//! of the old key in a renewal, for which PKCS #10 has no place. What is signed is in [`starling_wire::enrol`]. The name, the role
//! and the id in the certificate are the aggregator's word; a request cannot ask for any.

use starling_wire::enrol::{CHANNEL_BYTES, join_statement, renew_statement};
use starling_wire::{DeviceId, JoinRequest, RenewRequest, Token};

use crate::key::{Key, signed};

/// What a machine sends that has `key` and no certificate.
pub fn join(
    channel: &[u8; CHANNEL_BYTES],
    key: &Key,
    token: Option<Token>,
    name: String,
    software: String,
) -> JoinRequest {
    let proof = key.sign(&join_statement(channel, &key.public(), token.as_ref()));
    JoinRequest { token, name, software, key: key.public(), proof }
}

/// Whether the request was made on this connection by the holder of its key.
pub fn is_proven_join(channel: &[u8; CHANNEL_BYTES], request: &JoinRequest) -> bool {
    signed(&request.key, &join_statement(channel, &request.key, request.token.as_ref()), &request.proof)
}

/// What a device sends that replaces `old` by `new`.
pub fn renew(channel: &[u8; CHANNEL_BYTES], device: DeviceId, old: &Key, new: &Key) -> RenewRequest {
    let (old_key, new_key) = (old.public(), new.public());
    let statement = renew_statement(channel, device, &old_key, &new_key);
    RenewRequest { old_key, new_key, old_proof: old.sign(&statement), new_proof: new.sign(&statement) }
}

/// Whether the request was made on this connection by the holder of both keys, for `device`.
pub fn is_proven_renewal(channel: &[u8; CHANNEL_BYTES], device: DeviceId, request: &RenewRequest) -> bool {
    let statement = renew_statement(channel, device, &request.old_key, &request.new_key);
    signed(&request.old_key, &statement, &request.old_proof)
        && signed(&request.new_key, &statement, &request.new_proof)
        && request.old_key != request.new_key
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: [u8; CHANNEL_BYTES] = [1; CHANNEL_BYTES];
    const ELSEWHERE: [u8; CHANNEL_BYTES] = [2; CHANNEL_BYTES];

    #[test]
    fn inv9_a_join_is_bound_to_its_key_its_token_and_its_connection() {
        let key = Key::generate().expect("entropy");
        let request = join(&HERE, &key, Some(Token([3; 12])), "pump".into(), "test".into());
        assert!(is_proven_join(&HERE, &request));
        assert!(!is_proven_join(&ELSEWHERE, &request), "relayed");
        let other = Key::generate().expect("entropy").public();
        assert!(!is_proven_join(&HERE, &JoinRequest { key: other, ..request.clone() }));
        assert!(!is_proven_join(&HERE, &JoinRequest { token: None, ..request.clone() }));
        assert!(!is_proven_join(&HERE, &JoinRequest { proof: vec![0; 9], ..request }));
    }

    #[test]
    fn inv9_a_renewal_needs_both_keys_the_device_and_the_connection() {
        let (old, new) = (Key::generate().expect("entropy"), Key::generate().expect("entropy"));
        let device = DeviceId([7; 16]);
        let request = renew(&HERE, device, &old, &new);
        assert!(is_proven_renewal(&HERE, device, &request));
        assert!(!is_proven_renewal(&ELSEWHERE, device, &request));
        assert!(!is_proven_renewal(&HERE, DeviceId([8; 16]), &request));
        let stolen = RenewRequest { old_proof: request.new_proof.clone(), ..request.clone() };
        assert!(!is_proven_renewal(&HERE, device, &stolen), "the new key alone");
        let other = RenewRequest { new_key: Key::generate().expect("entropy").public(), ..request };
        assert!(!is_proven_renewal(&HERE, device, &other));
        assert!(!is_proven_renewal(&HERE, device, &renew(&HERE, device, &old, &old)), "the same key again");
    }
}
