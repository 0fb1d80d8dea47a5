//! A frame that stops in its middle: for ever, or with the end of its stream. And a blob's header that never ends.

use starling_wire::{Available, Refusal, Role, ToAggregator, encode};

use crate::attacker::Attacker;
use crate::battlefield::{ATTACKER, Battlefield};

#[test]
fn inv12_half_a_frame_costs_its_sender_its_connection_and_nobody_else_anything() {
    let mut field = Battlefield::new(35);
    let (address, ca) = (field.fleet.address(), field.fleet.pki.ca_pem().to_owned());
    let issued = field.fleet.pki.issue(Role::Device, ATTACKER);
    let frame = encode(&ToAggregator::Available(Available { tasks: vec!["digits".to_owned()] })).expect("it fits");
    let half = &frame[..frame.len() / 2];
    field.runtime.block_on(async {
        let attacker = Attacker::connect(address, &issued, &ca).await.expect("the certificate is good");
        let (mut send, _receive) = attacker.enrol("device-66").await;
        send.write_all(half).await.expect("sent");
        send.finish().expect("not finished before");
        assert_eq!(attacker.closed_with().await, Some(Refusal::MalformedFrame));
    });
    field.assert_undisturbed();
}

#[test]
fn inv6_half_a_frame_and_then_silence_is_not_waited_for_for_ever() {
    let mut field = Battlefield::new(36);
    let (address, ca) = (field.fleet.address(), field.fleet.pki.ca_pem().to_owned());
    let issued = field.fleet.pki.issue(Role::Device, ATTACKER);
    let frame = encode(&ToAggregator::Available(Available { tasks: vec!["digits".to_owned()] })).expect("it fits");
    let half = frame[..frame.len() / 2].to_vec();
    let waiting = field.runtime.spawn(async move {
        let attacker = Attacker::connect(address, &issued, &ca).await.expect("the certificate is good");
        let (mut send, _receive) = attacker.enrol("device-66").await;
        send.write_all(&half).await.expect("sent");
        let mut blob = attacker.connection.open_uni().await.expect("a stream is allowed");
        blob.write_all(b"St").await.expect("sent");
        attacker.closed_with().await
    });
    field.wait_more_rounds(3);
    assert_eq!(field.runtime.block_on(waiting).expect("no panic"), Some(Refusal::Stalled));
    field.assert_undisturbed();
}
