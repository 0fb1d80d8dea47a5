//! Peers with good certificates and bad manners, speaking raw QUIC: each costs bounded memory and its own stream or
//! connection, and no other.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, RecvStream, SendStream};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use starling_certs::Issued;
use starling_net::{BlobError, ControlError, Endpoint, Incoming, Link, TransferError, greet_device};
use starling_testkit::Pki;
use starling_wire::limits::{BLOB_BYTES_MAX, FRAME_BYTES_MAX, UNI_STREAMS_MAX};
use starling_wire::{ADMIN_ALPN, ALPN, BlobHeader, Hello, JOIN_ALPN, Refusal, Role, ToAggregator, encode};

use crate::{ANY, PATIENCE, aggregator, body, connected, header, next_failure, next_link, patient};

/// A raw QUIC client with the certificate of device 1.
fn raw_endpoint(pki: &Pki, alpn: &[u8]) -> quinn::Endpoint {
    raw_endpoint_as(pki, &[alpn], Some(pki.issue(Role::Device, 1)))
}

/// A dialer of somebody else's making that offers `alpns` and shows a certificate, or none.
fn raw_endpoint_as(pki: &Pki, alpns: &[&[u8]], issued: Option<Issued>) -> quinn::Endpoint {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).expect("PEM")).expect("an anchor");
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots);
    let mut tls = match issued {
        Some(issued) => {
            let chain = CertificateDer::pem_slice_iter(issued.certificate_pem.as_bytes());
            let chain = chain.collect::<Result<_, _>>().expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("PEM");
            tls.with_client_auth_cert(chain, key).expect("a matching pair")
        }
        None => tls.with_no_client_auth(),
    };
    tls.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    let mut endpoint = quinn::Endpoint::client(ANY).expect("a free port");
    let tls = QuicClientConfig::try_from(tls).expect("a QUIC suite");
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    endpoint
}

struct Raw {
    _endpoint: quinn::Endpoint,
    connection: Connection,
    link: Link,
    _server: Endpoint,
}

async fn raw() -> Raw {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let endpoint = raw_endpoint(&pki, ALPN);
    let connecting = endpoint.connect(address, "starling").expect("a config");
    let (connection, link) = tokio::join!(connecting, next_link(&server));
    Raw { _endpoint: endpoint, connection: connection.expect("connected"), link, _server: server }
}

fn hello() -> Vec<u8> {
    let hello = Hello { version_min: 1, version_max: 1, name: "device-1".to_owned(), software: String::new() };
    encode(&ToAggregator::Hello(hello)).expect("small")
}

/// Says hello and returns the raw streams with the listener's control.
async fn greeted(raw: &Raw) -> (SendStream, RecvStream, starling_net::Control<starling_wire::ToClient, ToAggregator>) {
    let (mut send, receive) = raw.connection.open_bi().await.expect("a stream");
    send.write_all(&hello()).await.expect("sent");
    let (_, control) = greet_device(&raw.link, 1, &[Role::Device], PATIENCE).await.expect("greeted");
    (send, receive, control)
}

#[tokio::test]
async fn half_a_frame_is_an_error_and_never_a_message() {
    let raw = raw().await;
    let (mut send, _receive, mut control) = greeted(&raw).await;
    let frame = encode(&ToAggregator::Bye).expect("small");
    send.write_all(&frame[..frame.len() - 1]).await.expect("sent");
    // Cancelled in the middle of the frame, it goes on where it was.
    assert!(tokio::time::timeout(Duration::from_millis(50), control.recv()).await.is_err());
    send.write_all(&frame[frame.len() - 1..]).await.expect("sent");
    assert_eq!(patient(control.recv()).await.expect("whole"), Some(ToAggregator::Bye));
    send.write_all(&frame[..3]).await.expect("sent");
    send.finish().expect("open");
    let error = patient(control.recv()).await.expect_err("half a frame");
    assert!(matches!(error, ControlError::HalfFrame(3)), "{error}");
    assert_eq!(error.refusal(), Some(Refusal::MalformedFrame));
}

#[tokio::test]
async fn a_control_stream_that_ends_between_frames_ends_cleanly() {
    let raw = raw().await;
    let (mut send, _receive, mut control) = greeted(&raw).await;
    send.write_all(&encode(&ToAggregator::Bye).expect("small")).await.expect("sent");
    send.finish().expect("open");
    assert_eq!(patient(control.recv()).await.expect("whole"), Some(ToAggregator::Bye));
    assert_eq!(patient(control.recv()).await.expect("a clean end"), None);
}

#[tokio::test]
async fn inv8_a_frame_that_declares_4_gb_is_refused_from_its_length() {
    let raw = raw().await;
    let (mut send, _receive, mut control) = greeted(&raw).await;
    send.write_all(&u32::MAX.to_le_bytes()).await.expect("sent");
    let error = patient(control.recv()).await.expect_err("refused");
    assert_eq!(error.refusal(), Some(Refusal::FrameTooLarge), "{error}");
}

#[tokio::test]
async fn inv8_the_longest_frame_passes_and_garbage_in_it_is_refused() {
    let raw = raw().await;
    let (mut send, _receive, mut control) = greeted(&raw).await;
    let length = u32::try_from(FRAME_BYTES_MAX).expect("small");
    send.write_all(&length.to_le_bytes()).await.expect("sent");
    send.write_all(&vec![0xee; FRAME_BYTES_MAX]).await.expect("sent");
    let error = patient(control.recv()).await.expect_err("garbage");
    assert_eq!(error.refusal(), Some(Refusal::MalformedFrame), "{error}");
}

#[tokio::test]
async fn a_first_frame_that_is_no_hello_is_refused() {
    let raw = raw().await;
    let (mut send, _receive) = raw.connection.open_bi().await.expect("a stream");
    send.write_all(&encode(&ToAggregator::Bye).expect("small")).await.expect("sent");
    let error = patient(greet_device(&raw.link, 1, &[Role::Device], PATIENCE)).await.map(|_| ()).expect_err("refused");
    assert_eq!(error.refusal(), Some(Refusal::NoHello));
    let told = patient(raw.connection.closed()).await;
    assert!(matches!(told, quinn::ConnectionError::ApplicationClosed(close)
        if close.error_code.into_inner() == u64::from(Refusal::NoHello.code())));
}

#[tokio::test]
async fn a_protocol_that_is_not_ours_is_a_version_not_spoken() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let endpoint = raw_endpoint(&pki, b"starling/9");
    let connecting = endpoint.connect(address, "starling").expect("a config");
    let (refused, failure) = patient(async { tokio::join!(connecting, next_failure(&server)) }).await;
    assert!(refused.is_err());
    assert_eq!(failure.reason.refusal, Some(Refusal::VersionNotSpoken), "{failure}");
}

#[tokio::test]
async fn inv9_no_offer_of_several_kinds_gets_round_the_certificate() {
    let pki = Pki::new(1);
    for alpns in [&[ADMIN_ALPN][..], &[JOIN_ALPN, ADMIN_ALPN], &[ADMIN_ALPN, JOIN_ALPN], &[ALPN, JOIN_ALPN, ADMIN_ALPN]]
    {
        let (server, address) = aggregator(&pki);
        let endpoint = raw_endpoint_as(&pki, alpns, None);
        let connecting = endpoint.connect(address, "starling").expect("a config");
        // With TLS 1.3 the dialer's half succeeds before the listener has looked.
        let (_dialed, failure) = patient(async { tokio::join!(connecting, next_failure(&server)) }).await;
        assert_eq!(failure.reason.refusal, Some(Refusal::NoIdentity), "{failure}");
    }
}

#[tokio::test]
async fn a_malformed_header_costs_its_stream_only() {
    let raw = raw().await;
    let mut bad = raw.connection.open_uni().await.expect("a stream");
    bad.write_all(&[0x55; 64]).await.expect("sent");
    assert_eq!(patient(raw.link.accept_blob()).await.err(), Some(BlobError::Refused(Refusal::MalformedHeader)));
    let code = patient(bad.stopped()).await.expect("connected").expect("stopped");
    assert_eq!(Refusal::from_code(code.into_inner()), Some(Refusal::MalformedHeader));

    let mut short = raw.connection.open_uni().await.expect("a stream");
    short.write_all(b"St").await.expect("sent");
    short.finish().expect("open");
    assert_eq!(patient(raw.link.accept_blob()).await.err(), Some(BlobError::Refused(Refusal::MalformedHeader)));

    let body = body(10);
    let mut good = raw.connection.open_uni().await.expect("a stream");
    good.write_all(&header(&body).to_bytes()).await.expect("sent");
    good.write_all(&body).await.expect("sent");
    good.finish().expect("open");
    let blob = patient(raw.link.accept_blob()).await.expect("accepted");
    assert_eq!(patient(blob.receive(PATIENCE, 10)).await.expect("received").0, body);
}

#[tokio::test]
async fn inv8_a_blob_that_declares_4_gb_costs_what_it_sends() {
    let raw = raw().await;
    let huge = BlobHeader { length: BLOB_BYTES_MAX, ..header(&body(0)) };
    // Over the caller's limit: refused from the header.
    let mut stream = raw.connection.open_uni().await.expect("a stream");
    stream.write_all(&huge.to_bytes()).await.expect("sent");
    let blob = patient(raw.link.accept_blob()).await.expect("accepted");
    let error = patient(blob.receive(PATIENCE, 1 << 20)).await.expect_err("too large");
    assert_eq!(error.cause, TransferError::TooLarge { length: BLOB_BYTES_MAX, length_max: 1 << 20 });
    assert_eq!(error.kept.capacity(), 0);
    let code = patient(stream.stopped()).await.expect("connected").expect("stopped");
    assert_eq!(Refusal::from_code(code.into_inner()), Some(Refusal::LengthMismatch));

    // Within it: memory grows with the bytes, which then stop coming.
    let mut stream = raw.connection.open_uni().await.expect("a stream");
    stream.write_all(&huge.to_bytes()).await.expect("sent");
    stream.write_all(&body(100_000)).await.expect("sent");
    let blob = patient(raw.link.accept_blob()).await.expect("accepted");
    let error = patient(blob.receive(Duration::from_millis(200), u64::MAX)).await.expect_err("stalled");
    assert_eq!((error.cause, error.kept.len()), (TransferError::Stalled, 100_000));
    assert!(error.kept.capacity() <= 400_000, "{} bytes are held for 100,000", error.kept.capacity());
    let code = patient(stream.stopped()).await.expect("connected").expect("stopped");
    assert_eq!(Refusal::from_code(code.into_inner()), Some(Refusal::Stalled));
}

#[tokio::test]
async fn inv6_a_byte_at_a_time_is_no_progress() {
    let raw = raw().await;
    let mut stream = raw.connection.open_uni().await.expect("a stream");
    let body = body(1 << 20);
    stream.write_all(&header(&body).to_bytes()).await.expect("sent");
    let blob = patient(raw.link.accept_blob()).await.expect("accepted");
    let drip = tokio::spawn(async move {
        while stream.write_all(&[7]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let error = patient(blob.receive(Duration::from_millis(300), u64::MAX)).await.expect_err("too slow");
    assert_eq!(error.cause, TransferError::Stalled);
    patient(drip).await.expect("no panic");
}

#[tokio::test]
async fn a_body_longer_or_shorter_than_its_header_is_refused() {
    let raw = raw().await;
    let body = body(1000);
    for sent in [999, 1001] {
        let mut stream = raw.connection.open_uni().await.expect("a stream");
        stream.write_all(&header(&body).to_bytes()).await.expect("sent");
        stream.write_all(&vec![1; sent]).await.expect("sent");
        stream.finish().expect("open");
        let blob = patient(raw.link.accept_blob()).await.expect("accepted");
        let error = patient(blob.receive(PATIENCE, 1000)).await.expect_err("refused");
        assert_eq!(error.cause, TransferError::Length { declared: 1000, actual: sent as u64 });
        assert!(error.kept.len() <= 1000);
    }
}

#[tokio::test]
async fn inv6_ten_thousand_streams_are_four_and_disturb_nobody() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let endpoint = raw_endpoint(&pki, ALPN);
    let (connection, _link) =
        tokio::join!(endpoint.connect(address, "starling").expect("a config"), next_link(&server));
    let connection = connection.expect("connected");
    let mut open = Vec::new();
    for _ in 0..10_000 {
        // The transport grants no more: asking waits.
        match tokio::time::timeout(Duration::from_millis(20), connection.open_uni()).await {
            Ok(stream) => {
                let mut stream = stream.expect("connected");
                stream.write_all(b"x").await.expect("sent");
                open.push(stream);
            }
            Err(_) => break,
        }
    }
    assert_eq!(open.len(), usize::try_from(UNI_STREAMS_MAX).expect("small"));
    let (first, second) =
        (connection.open_bi().await, tokio::time::timeout(Duration::from_millis(50), connection.open_bi()).await);
    assert!(first.is_ok() && second.is_err(), "one control stream, no more");

    let (_client, up, down) = connected(&pki, &server, address).await;
    let body = body(1 << 20);
    let receive =
        async { down.accept_blob().await.expect("accepted").receive(PATIENCE, u64::MAX).await.expect("received") };
    let promised = header(&body);
    let (sent, (_, digest)) = patient(async { tokio::join!(up.send_blob(&promised, body.clone()), receive) }).await;
    assert_eq!((sent, digest), (Ok(()), promised.digest));
}

#[tokio::test]
async fn garbage_datagrams_and_endless_handshakes_disturb_nobody() {
    let pki = Pki::new(1);
    let (server, address) = aggregator(&pki);
    let socket = std::net::UdpSocket::bind(ANY).expect("a free port");
    for length in (0..1200).step_by(13) {
        socket.send_to(&body(length), address).expect("sent");
    }
    // Clients that start a handshake and vanish.
    let endpoint = raw_endpoint(&pki, ALPN);
    for _ in 0..200 {
        drop(endpoint.connect(address, "starling").expect("a config"));
    }
    let good = async {
        let client = crate::device(&pki, &pki.issue(Role::Device, 2));
        let link = client.dial(address).await.expect("dialed");
        (client, link)
    };
    let accept = async {
        loop {
            if let Some(Incoming::Connected(link)) = server.accept().await
                && link.peer().name == "device-2"
            {
                break link;
            }
        }
    };
    let _ = patient(async { tokio::join!(good, accept) }).await;
}
