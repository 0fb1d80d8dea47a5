//! 10,000 streams: all at once, as far as QUIC lets them through, and one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use starling_wire::limits::{BIDI_STREAMS_MAX, UNI_STREAMS_MAX};
use starling_wire::{Refusal, Role};
use tokio::time::timeout;

use crate::attacker::{Attacker, PATIENCE};
use crate::battlefield::{ATTACKER, Battlefield};

const STREAMS: u32 = 10_000;

#[test]
fn inv6_ten_thousand_streams_at_once_are_four() {
    let mut field = Battlefield::new(41);
    let (address, ca) = (field.fleet.address(), field.fleet.pki.ca_pem().to_owned());
    let issued = field.fleet.pki.issue(Role::Device, ATTACKER);
    let opened = Arc::new(AtomicU32::new(0));
    let counter = opened.clone();
    let attacker = field.runtime.block_on(async {
        let attacker = Attacker::connect(address, &issued, &ca).await.expect("the certificate is good");
        let (control, receive) = attacker.enrol("device-66").await;
        for _ in 0..STREAMS {
            let (connection, counter) = (attacker.connection.clone(), counter.clone());
            tokio::spawn(async move {
                // Held open for as long as the connection lives, with a part of a header in it.
                let Ok(mut stream) = connection.open_uni().await else { return };
                counter.fetch_add(1, Ordering::Relaxed);
                let _ = stream.write_all(b"St").await;
                connection.closed().await;
            });
        }
        // A second control stream is one too many, too: the permit for it never comes.
        let second = timeout(Duration::from_secs(1), attacker.connection.open_bi()).await;
        assert!(second.is_err(), "{BIDI_STREAMS_MAX} control stream is allowed");
        (attacker, control, receive)
    });
    field.wait_more_rounds(3);
    // A header that does not come in time frees its stream's place, so a few more get through while the run goes on.
    let most = opened.load(Ordering::Relaxed);
    assert!((1..=UNI_STREAMS_MAX * 20).contains(&most), "{most} streams got through");
    field.assert_undisturbed();
    drop(attacker);
}

#[test]
fn inv12_ten_thousand_streams_one_after_the_other_cost_nothing_that_stays() {
    let mut field = Battlefield::new(42);
    let (address, ca) = (field.fleet.address(), field.fleet.pki.ca_pem().to_owned());
    let issued = field.fleet.pki.issue(Role::Device, ATTACKER);
    field.runtime.block_on(async {
        let attacker = Attacker::connect(address, &issued, &ca).await.expect("the certificate is good");
        let (_control, _receive) = attacker.enrol("device-66").await;
        for index in 0..STREAMS {
            let opening = timeout(PATIENCE, attacker.connection.open_uni()).await;
            let mut stream = opening.expect("streams that are over make room").expect("the connection lives on");
            stream.write_all(b"S").await.expect("sent");
            if index % 2 == 0 {
                stream.finish().expect("not finished before");
            } else {
                stream.reset(u32::from(Refusal::Stalled.code()).into()).expect("not finished before");
            }
        }
    });
    field.assert_undisturbed();
}
