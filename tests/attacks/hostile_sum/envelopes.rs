//! Which shares of the others' secrets a device is given.

use starling_wire::Refusal;

use super::attempt::Asked;
use super::refused;

/// Where the envelopes of three neighbours begin: behind the digest and the bitmap.
const ENVELOPES_AT: usize = 35;

#[tokio::test]
async fn an_envelope_is_changed_on_its_way() {
    refused(Asked::Envelopes, Refusal::SecureBadEnvelope, |_, _, mut honest| {
        honest.message[ENVELOPES_AT + 5] ^= 1;
        vec![honest]
    })
    .await;
}

#[tokio::test]
async fn two_devices_envelopes_are_swapped() {
    refused(Asked::Envelopes, Refusal::SecureBadEnvelope, |_, _, mut honest| {
        let len = starling_secagg::limits::ENVELOPE_BYTES;
        honest.message[ENVELOPES_AT..ENVELOPES_AT + 2 * len].rotate_left(len);
        vec![honest]
    })
    .await;
}
