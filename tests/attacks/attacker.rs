//! A peer that is bound by no rule of ours but TLS and QUIC: quinn itself, with a certificate.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use starling_certs::{Issued, SERVER_NAME};
use starling_wire::frame::body_length;
use starling_wire::{ALPN, Hello, PROTOCOL_VERSION, Refusal, ToAggregator, ToClient, decode, encode};
use tokio::time::timeout;

/// How long an answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

/// A connection that passed the handshake.
pub(crate) struct Attacker {
    pub(crate) connection: Connection,
    _endpoint: Endpoint,
}

impl Attacker {
    /// Shows `issued`, and trusts the CA in `ca_pem`.
    pub(crate) async fn connect(address: SocketAddr, issued: &Issued, ca_pem: &str) -> Result<Self, ConnectionError> {
        let mut roots = rustls::RootCertStore::empty();
        for anchor in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(anchor.expect("PEM")).expect("a certificate");
        }
        let chain =
            CertificateDer::pem_slice_iter(issued.certificate_pem.as_bytes()).map(|der| der.expect("PEM")).collect();
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring speaks TLS 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("the key belongs to the certificate");
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3")));
        let endpoint = Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()).expect("a socket");
        let connecting = endpoint.connect_with(config, address, SERVER_NAME).expect("an address");
        let connection = timeout(PATIENCE, connecting).await.expect("the handshake ends")?;
        Ok(Self { connection, _endpoint: endpoint })
    }

    /// Opens the control stream and says hello as `name`.
    pub(crate) async fn hello(&self, name: &str) -> (SendStream, RecvStream) {
        let (mut send, receive) = self.connection.open_bi().await.expect("a control stream is allowed");
        let hello = Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            name: name.to_owned(),
            software: "attacker".to_owned(),
        };
        send.write_all(&encode(&ToAggregator::Hello(hello)).expect("it fits")).await.expect("sent");
        (send, receive)
    }

    /// Says hello truthfully and reads the welcome.
    pub(crate) async fn enrol(&self, name: &str) -> (SendStream, RecvStream) {
        let (send, mut receive) = self.hello(name).await;
        match next_message(&mut receive).await {
            Some(ToClient::Welcome(_)) => (send, receive),
            other => panic!("an honest hello was answered with {other:?}"),
        }
    }

    /// Waits for the end of the connection and returns the code that the aggregator closed it with.
    pub(crate) async fn closed_with(&self) -> Option<Refusal> {
        match timeout(PATIENCE, self.connection.closed()).await.expect("the aggregator ends the connection") {
            ConnectionError::ApplicationClosed(close) => Refusal::from_code(close.error_code.into_inner()),
            other => panic!("the connection ended otherwise: {other}"),
        }
    }
}

/// The next message of the control stream; `None` when it has ended.
pub(crate) async fn next_message(receive: &mut RecvStream) -> Option<ToClient> {
    let read = async {
        let mut prefix = [0u8; 4];
        receive.read_exact(&mut prefix).await.ok()?;
        let mut body = vec![0u8; body_length(prefix).expect("an honest length")];
        receive.read_exact(&mut body).await.ok()?;
        Some(decode(&body).expect("an honest frame"))
    };
    timeout(PATIENCE, read).await.expect("the aggregator answers or closes")
}
