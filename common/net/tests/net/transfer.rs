//! Blobs: whole, refused, broken off and resumed.

use std::time::Duration;

use starling_net::{BlobError, TransferError, resume_offset};
use starling_testkit::{Conditions, Pki};
use starling_wire::{BlobHeader, Digest, Refusal};

use crate::{PATIENCE, aggregator, body, connected, header, patient};

const MEGABYTE: usize = 1 << 20;

#[tokio::test]
async fn a_blob_arrives_whole_in_either_direction_with_its_digest() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let (_client, up, down) = connected(&pki, &server, address).await;
    for length in [0, 1, 63, 1024, 5 * MEGABYTE + 17] {
        let body = body(length);
        let header = header(&body);
        for (from, to) in [(&up, &down), (&down, &up)] {
            let receive = async {
                let blob = to.accept_blob().await.expect("accepted");
                assert_eq!(blob.header(), &header);
                blob.receive(PATIENCE, length as u64).await.expect("received")
            };
            let (sent, (bytes, digest)) =
                patient(async { tokio::join!(from.send_blob(&header, body.clone()), receive) }).await;
            sent.expect("sent");
            assert!(bytes == body && digest == header.digest);
        }
    }
}

#[tokio::test]
async fn four_blobs_at_once_keep_apart() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let (_client, up, down) = connected(&pki, &server, address).await;
    let bodies: Vec<_> = (1..=8).map(|factor| body(factor * 300_000)).collect();
    let tasks: Vec<_> = bodies
        .iter()
        .map(|body| {
            let (up, body) = (up.clone(), body.clone());
            tokio::spawn(async move { up.send_blob(&header(&body), body).await })
        })
        .collect();
    let mut lengths = Vec::new();
    for _ in &bodies {
        let blob = patient(down.accept_blob()).await.expect("accepted");
        let promised = blob.header().clone();
        let (bytes, digest) = patient(blob.receive(PATIENCE, u64::MAX)).await.expect("received");
        assert_eq!(digest, promised.digest);
        lengths.push(bytes.len());
    }
    for task in tasks {
        task.await.expect("no panic").expect("sent");
    }
    lengths.sort_unstable();
    assert_eq!(lengths, bodies.iter().map(bytes::Bytes::len).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_refused_blob_tells_its_sender_why_and_spares_the_connection() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let (_client, up, down) = connected(&pki, &server, address).await;
    let body = body(8 * MEGABYTE);
    let header = header(&body);
    for reason in [Refusal::NotInCohort, Refusal::StagingFull] {
        let refuse = async { down.accept_blob().await.expect("accepted").refuse(reason) };
        let (sent, ()) = patient(async { tokio::join!(up.send_blob(&header, body.clone()), refuse) }).await;
        assert_eq!(sent, Err(TransferError::Refused(reason)));
    }
    let receive =
        async { down.accept_blob().await.expect("accepted").receive(PATIENCE, u64::MAX).await.expect("received") };
    let (sent, (_, digest)) = patient(async { tokio::join!(up.send_blob(&header, body.clone()), receive) }).await;
    assert_eq!((sent, digest), (Ok(()), header.digest));
}

#[tokio::test]
async fn a_transfer_that_breaks_off_resumes_behind_what_is_kept() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let (_client, up, down) = connected(&pki, &server, address).await;
    let body = body(20 * MEGABYTE + 333);
    let whole = header(&body);

    // The receiver's patience ends while the sender is halted: nothing sends, as when a device loses its network.
    let sender = tokio::spawn({
        let (up, whole, body) = (up.clone(), whole.clone(), body.clone());
        async move { up.send_blob(&whole, body).await }
    });
    let blob = patient(down.accept_blob()).await.expect("accepted");
    sender.abort();
    let broken = patient(blob.receive(PATIENCE, u64::MAX)).await.expect_err("the sender is gone");
    assert_eq!(broken.cause, TransferError::Abandoned);
    assert!(broken.kept.len() < body.len() && body.starts_with(&broken.kept));

    let offset = resume_offset(broken.kept.len());
    let rest = BlobHeader { offset, ..whole.clone() };
    let tail = body.slice(usize::try_from(offset).expect("small")..);
    let receive = async {
        down.accept_blob()
            .await
            .expect("accepted")
            .receive_onto(broken.kept, PATIENCE, u64::MAX)
            .await
            .expect("received")
    };
    let (sent, (bytes, digest)) = patient(async { tokio::join!(up.send_blob(&rest, tail), receive) }).await;
    sent.expect("sent");
    assert!(bytes == body && digest == whole.digest);
}

#[tokio::test]
async fn a_transfer_that_resumes_behind_nothing_is_refused() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let (_client, up, down) = connected(&pki, &server, address).await;
    let body = body(4096);
    let rest = BlobHeader { offset: 2048, ..header(&body) };
    let receive = async { down.accept_blob().await.expect("accepted").receive(PATIENCE, u64::MAX).await };
    let (_, received) = patient(async { tokio::join!(up.send_blob(&rest, body.slice(2048..)), receive) }).await;
    assert_eq!(received.expect_err("a gap").cause, TransferError::Gap { offset: 2048, kept: 0 });
}

#[tokio::test]
async fn a_body_that_does_not_fit_its_header_is_never_sent() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let (_client, up, _down) = connected(&pki, &server, address).await;
    let body = body(100);
    let error = up.send_blob(&header(&body), body.slice(1..)).await.expect_err("a byte short");
    assert_eq!(error, TransferError::Length { declared: 100, actual: 99 });
}

#[tokio::test]
async fn accepting_a_blob_can_be_cancelled_at_any_point() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let (_client, up, down) = connected(&pki, &server, address).await;
    let body = body(1000);
    let header = header(&body);
    let accept = async {
        loop {
            // Polled once and dropped, again and again.
            tokio::select! {
                biased;
                blob = down.accept_blob() => break blob,
                () = tokio::task::yield_now() => {}
            }
        }
    };
    let receive = async { accept.await.expect("accepted").receive(PATIENCE, 1000).await.expect("received") };
    let (sent, (_, digest)) = patient(async { tokio::join!(up.send_blob(&header, body.clone()), receive) }).await;
    assert_eq!((sent, digest), (Ok(()), header.digest));
}

#[tokio::test]
async fn a_bad_mobile_link_and_a_change_of_address_cost_time_but_no_bytes() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let lossy = starling_testkit::Link::start(address, 5, Conditions::MOBILE).await.expect("started");
    let (_client, up, down) = connected(&pki, &server, lossy.address()).await;
    let body = body(MEGABYTE);
    let header = header(&body);
    let receive = async {
        let blob = down.accept_blob().await.expect("accepted");
        lossy.rebind();
        blob.receive(PATIENCE, u64::MAX).await.expect("received")
    };
    let (sent, (bytes, digest)) = patient(async { tokio::join!(up.send_blob(&header, body.clone()), receive) }).await;
    sent.expect("sent");
    assert!(bytes == body && digest == Digest::of(&body));
    assert!(lossy.counts().1 > 0, "the link has lost packets");
}

#[tokio::test]
async fn a_vanished_peer_is_noticed() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let link = starling_testkit::Link::start(address, 5, Conditions::CLEAN).await.expect("started");
    let (_client, _up, down) = connected(&pki, &server, link.address()).await;
    link.set(Conditions::CUT);
    let error = patient(down.accept_blob()).await.expect_err("gone");
    let BlobError::Closed(reason) = error else { panic!("expected a closed connection, got {error:?}") };
    assert!(reason.refusal.is_none() && !reason.is_final(), "{reason}");
    assert!(down.close_reason().is_some());
    tokio::time::timeout(Duration::ZERO, down.closed()).await.expect("it is over already");
}
