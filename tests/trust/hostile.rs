//! An aggregator that is bound by no rule of ours but TLS and QUIC: quinn itself, with a certificate that the device trusts.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, WriteError};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use starling_certs::Issued;
use starling_testkit::fleet::PATIENCE;
use starling_wire::frame::body_length;
use starling_wire::{
    ALPN, BlobHeader, BlobKind, CodecId, DeviceId, Fetch, PROTOCOL_VERSION, RELEASE_RUN, ReleaseOffer, ToAggregator,
    ToClient, Welcome, decode, encode,
};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// A listening aggregator and, once it has welcomed one, its device.
pub(crate) struct Hostile {
    runtime: Runtime,
    endpoint: Endpoint,
    device: Option<Device>,
    epoch: u64,
}

struct Device {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
}

impl Hostile {
    /// Listens on loopback with the certificate `issued`.
    pub(crate) fn new(issued: &Issued) -> Self {
        let chain =
            CertificateDer::pem_slice_iter(issued.certificate_pem.as_bytes()).map(|der| der.expect("PEM")).collect();
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring speaks TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the key belongs to the certificate");
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("TLS 1.3")));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread");
        let endpoint = {
            let _inside = runtime.enter();
            Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).expect("a socket")
        };
        Self { runtime, endpoint, device: None, epoch: 0 }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().expect("it is bound")
    }

    /// Waits for the device, welcomes it, and hears which tasks it offers itself for.
    #[track_caller]
    pub(crate) fn welcome(&mut self) -> Vec<String> {
        self.epoch += 1;
        let epoch = self.epoch;
        self.device = None;
        let accept = async {
            let connection = self.endpoint.accept().await.expect("the endpoint is open").await.expect("a handshake");
            let (send, receive) = connection.accept_bi().await.expect("a control stream");
            Device { connection, send, receive }
        };
        let accepted = self.runtime.block_on(async { timeout(PATIENCE, accept).await });
        self.device = Some(accepted.expect("the device comes"));
        let hello = self.next();
        assert!(matches!(hello, ToAggregator::Hello(_)), "{hello:?}");
        self.send(&ToClient::Welcome(Welcome { version: PROTOCOL_VERSION, device: DeviceId([1; 16]), epoch }));
        match self.next() {
            ToAggregator::Available(available) => available.tasks,
            other => panic!("expected the tasks, got {other:?}"),
        }
    }

    /// Sends a control message.
    #[track_caller]
    pub(crate) fn send(&mut self, message: &ToClient) {
        let frame = encode(message).expect("it fits");
        let device = self.device.as_mut().expect("a device was welcomed");
        self.runtime.block_on(device.send.write_all(&frame)).expect("the device is there");
    }

    /// The device's next control message.
    #[track_caller]
    pub(crate) fn next(&mut self) -> ToAggregator {
        let device = self.device.as_mut().expect("a device was welcomed");
        let read = async {
            let mut prefix = [0u8; 4];
            device.receive.read_exact(&mut prefix).await.expect("a frame");
            let mut body = vec![0u8; body_length(prefix).expect("an honest length")];
            device.receive.read_exact(&mut body).await.expect("a frame's body");
            decode(&body).expect("an honest frame")
        };
        self.runtime.block_on(async { timeout(PATIENCE, read).await }).expect("the device says something")
    }

    /// The fetch that has to come next.
    #[track_caller]
    pub(crate) fn fetch(&mut self) -> Fetch {
        match self.next() {
            ToAggregator::Fetch(fetch) => fetch,
            other => panic!("expected a fetch, got {other:?}"),
        }
    }

    /// Sends a blob under `header`, whatever the body.
    pub(crate) fn serve(&mut self, header: &BlobHeader, body: &[u8]) {
        let device = self.device.as_ref().expect("a device was welcomed");
        self.runtime.block_on(async {
            let mut stream = device.connection.open_uni().await.expect("a stream");
            stream.write_all(&header.to_bytes()).await.expect("sent");
            // The device may stop the stream: then the rest is not wanted.
            if stream.write_all(body).await.is_ok() {
                let _ = stream.finish();
                let _ = timeout(PATIENCE, stream.stopped()).await;
            }
        });
    }

    /// Sends `body` again and again under `header`, until the device stops the stream. How many bytes that took.
    #[track_caller]
    pub(crate) fn pour(&mut self, header: &BlobHeader, body: &[u8]) -> u64 {
        let device = self.device.as_ref().expect("a device was welcomed");
        let poured = async {
            let mut stream = device.connection.open_uni().await.expect("a stream");
            stream.write_all(&header.to_bytes()).await.expect("sent");
            let mut sent = 0;
            loop {
                match stream.write(body).await {
                    Ok(written) => sent += written as u64,
                    Err(WriteError::Stopped(_)) => return sent,
                    Err(other) => panic!("the stream ended otherwise: {other}"),
                }
            }
        };
        self.runtime.block_on(async { timeout(Duration::from_secs(30), poured).await }).expect("the device stops it")
    }
}

/// The header of an honest transfer of a release.
pub(crate) fn header(offer: &ReleaseOffer) -> BlobHeader {
    BlobHeader {
        kind: BlobKind::Release,
        codec: CodecId { family: 0, parameter: 0 },
        run: RELEASE_RUN,
        round: 0,
        attempt: 0,
        offset: 0,
        length: offer.length,
        digest: offer.digest,
    }
}
