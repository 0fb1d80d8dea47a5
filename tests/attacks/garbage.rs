//! Bytes that mean nothing: as datagrams, as a first frame, as a later frame, as a blob.

use std::net::{Ipv4Addr, UdpSocket};

use quinn::WriteError;
use starling_wire::{Refusal, Role};

use crate::attacker::{Attacker, PATIENCE};
use crate::battlefield::{ATTACKER, Battlefield};

/// Bytes without a pattern, from SplitMix64.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let word = |index: u64| {
        let mut word = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    };
    (1..).flat_map(|index| word(index).to_le_bytes()).take(length).collect()
}

#[test]
fn garbage_datagrams_change_nothing() {
    let mut field = Battlefield::new(38);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    for seed in 0..20_000u32 {
        let length = 1 + usize::try_from(seed * 37 % 1400).expect("below 1400");
        let mut datagram = noise(seed.into(), length);
        // Every other one looks like a QUIC long header of version 1, so that it gets further.
        if seed % 2 == 0 && datagram.len() > 5 {
            let first = 0xc0 | datagram[0] & 0x3f;
            datagram[..5].copy_from_slice(&[first, 0, 0, 0, 1]);
        }
        socket.send_to(&datagram, field.fleet.address()).expect("sent");
    }
    field.assert_undisturbed();
}

#[test]
fn inv12_garbage_frames_end_their_connection_and_garbage_blobs_their_stream() {
    let mut field = Battlefield::new(39);
    let (address, ca) = (field.fleet.address(), field.fleet.pki.ca_pem().to_owned());
    let issued = field.fleet.pki.issue(Role::Device, ATTACKER);
    // A length that is allowed, and a body that is no message.
    let mut frame = 600u32.to_le_bytes().to_vec();
    frame.extend([0xff; 600]);
    field.runtime.block_on(async {
        let first = Attacker::connect(address, &issued, &ca).await.expect("the certificate is good");
        let (mut send, _receive) = first.connection.open_bi().await.expect("a control stream is allowed");
        send.write_all(&frame).await.expect("sent");
        assert_eq!(first.closed_with().await, Some(Refusal::MalformedFrame), "no hello, and no frame either");

        let attacker = Attacker::connect(address, &issued, &ca).await.expect("the certificate is good");
        let (mut send, _receive) = attacker.enrol("device-66").await;
        for seed in 0..50 {
            let mut blob = attacker.connection.open_uni().await.expect("the connection lives on");
            let poured = async {
                loop {
                    if let Err(error) = blob.write_all(&noise(seed, 4096)).await {
                        return error;
                    }
                }
            };
            match tokio::time::timeout(PATIENCE, poured).await.expect("the stream is stopped") {
                WriteError::Stopped(code) => {
                    assert_eq!(Refusal::from_code(code.into_inner()), Some(Refusal::MalformedHeader));
                }
                other => panic!("the stream ended otherwise: {other}"),
            }
        }
        send.write_all(&frame).await.expect("the connection lives on");
        assert_eq!(attacker.closed_with().await, Some(Refusal::MalformedFrame));
    });
    field.wait_logged(Refusal::MalformedHeader);
    field.assert_undisturbed();
}
