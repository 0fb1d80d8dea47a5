//! Connections of administrators: bytes both ways, one request after another, and nothing that a device can do.

use starling_net::{Endpoint, Incoming};
use starling_testkit::Pki;
use starling_wire::{Refusal, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{aggregator, credentials, device, patient, transport};

async fn connected(pki: &Pki) -> (Endpoint, starling_net::AdminLink, Endpoint, starling_net::AdminLink) {
    let (server, address) = aggregator(pki);
    let issued = pki.issue(Role::Operator, 7);
    let operator = Endpoint::dialer(address, &credentials(pki, &issued), &transport(Default::default()));
    let operator = operator.expect("a free port");
    let (up, down) = patient(async { tokio::join!(operator.dial_admin(address), server.accept()) }).await;
    let Some(Incoming::Administering(down)) = down else { panic!("expected an administrator, got {down:?}") };
    (operator, up.expect("dialed"), server, down)
}

#[tokio::test]
async fn requests_follow_each_other_each_on_a_stream_of_its_own() {
    let pki = Pki::new(1);
    let (_operator, up, _server, down) = connected(&pki).await;
    assert_eq!((down.peer().role, up.peer().role), (Role::Operator, Role::Aggregator));
    let answering = async {
        // Larger than a stream's window, both ways.
        for length in [3, 3_000_000, 1] {
            let mut stream = down.accept().await.expect("open");
            let mut request = vec![0; length];
            stream.read_exact(&mut request).await.expect("whole");
            stream.write_all(&request).await.expect("sent");
            stream.shutdown().await.expect("open");
        }
    };
    let asking = async {
        for length in [3, 3_000_000, 1] {
            let mut stream = up.open().await.expect("open");
            stream.write_all(&vec![7; length]).await.expect("sent");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("whole");
            assert_eq!(answer, vec![7; length]);
        }
    };
    patient(async { tokio::join!(answering, asking) }).await;
}

#[tokio::test]
async fn an_administrator_learns_why_it_was_sent_away() {
    let pki = Pki::new(1);
    let (_operator, up, _server, down) = connected(&pki).await;
    let mut stream = up.open().await.expect("open");
    stream.write_all(b"request").await.expect("sent");
    down.close_with(Refusal::Revoked, "by the operator");
    assert!(patient(stream.read_u8()).await.is_err());
    let reason = up.close_reason().expect("it is over");
    assert_eq!((reason.refusal, reason.text.as_str()), (Some(Refusal::Revoked), "by the operator"));
    assert_eq!(patient(up.open()).await.expect_err("it is over").refusal, Some(Refusal::Revoked));
}

#[tokio::test]
async fn the_kinds_of_connections_are_told_apart_whatever_the_role() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let member = device(&pki, &pki.issue(Role::Device, 1));
    let (up, down) = patient(async { tokio::join!(member.dial_admin(address), server.accept()) }).await;
    up.expect("its CA is the right one");
    let Some(Incoming::Administering(link)) = down else { panic!("expected an administrator, got {down:?}") };
    assert_eq!(link.peer().role, Role::Device, "whether it may is for the caller to say");
}
