//! Two endpoints on loopback, with certificates from a CA in memory.

mod admin;
mod clock;
mod hello;
mod hostile;
mod join;
mod transfer;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use starling_certs::Issued;
use starling_net::{Credentials, Endpoint, HandshakeFailure, Incoming, Link, Path, Transport};
use starling_testkit::Pki;
use starling_wire::{BlobHeader, BlobKind, CodecId, Digest, Role, RunId};

/// Longer than anything here takes, so that a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(20);

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn credentials(trusting: &Pki, issued: &Issued) -> Credentials {
    Credentials::from_pem(trusting.ca_pem(), &issued.certificate_pem, &issued.key_pem).expect("usable credentials")
}

fn transport(path: Path) -> Transport {
    Transport { path, idle_timeout_ms: 5_000, keep_alive_ms: 1_000 }
}

fn aggregator(pki: &Pki) -> (Endpoint, SocketAddr) {
    let server = Endpoint::bind(ANY, &credentials(pki, &pki.issue(Role::Aggregator, 0)), &transport(Path::Loopback))
        .expect("a free port");
    let address = server.local_addr().expect("bound");
    (server, address)
}

fn device(trusting: &Pki, issued: &Issued) -> Endpoint {
    Endpoint::dialer(ANY, &credentials(trusting, issued), &transport(Path::Loopback)).expect("a free port")
}

/// A device's endpoint and both ends of its connection. Endpoints live as long as they are held.
async fn connected(pki: &Pki, server: &Endpoint, address: SocketAddr) -> (Endpoint, Link, Link) {
    let client = device(pki, &pki.issue(Role::Device, 1));
    let (up, down) = tokio::join!(client.dial(address), next_link(server));
    (client, up.expect("dialed"), down)
}

async fn next_link(server: &Endpoint) -> Link {
    match patient(server.accept()).await {
        Some(Incoming::Connected(link)) => link,
        other => panic!("expected a link, got {other:?}"),
    }
}

async fn next_failure(server: &Endpoint) -> HandshakeFailure {
    match patient(server.accept()).await {
        Some(Incoming::Failed(failure)) => failure,
        other => panic!("expected a failure, got {other:?}"),
    }
}

async fn patient<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this test hangs")
}

/// A body that no prefix or shift of repeats.
fn body(length: usize) -> Bytes {
    (0..length).map(|index| u8::try_from(index * 31 / 7 % 251).expect("below 251")).collect::<Vec<_>>().into()
}

fn header(body: &Bytes) -> BlobHeader {
    BlobHeader {
        kind: BlobKind::Update,
        codec: CodecId { family: 1, parameter: 0 },
        run: RunId(1),
        round: 2,
        attempt: 1,
        offset: 0,
        length: body.len() as u64,
        digest: Digest::of(body),
    }
}
