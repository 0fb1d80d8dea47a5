//! The TLS configurations: TLS 1.3 only, both sides show a certificate, no resumption (a resumed session would keep a
//! certificate alive after its expiry).
//!
//! A certificate passes when webpki builds a chain to `ca.pem`, valid now and for this use, and when it carries a
//! Starling identity. Each refusal leaves as the TLS alert that [`crate::reason`] reads back on the other side.
//!
//! One kind of handshake is different: a machine that offers [`JOIN_ALPN`] and nothing else is asked for no certificate, and
//! is shown the root behind the listener's chain, so that it can compare it with its join string ([`crate::join`]).

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    ServerConfig, SignatureScheme, version::TLS13,
};
use starling_wire::{ADMIN_ALPN, ALPN, Digest, Identity, JOIN_ALPN, Refusal, Role};

use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::identity;

/// The DNS name in every Starling certificate: addresses change, identities do not, so that the name is the same for all.
pub(crate) const SERVER_NAME: &str = "starling";

/// What one handshake of a listener leaves behind and is steered by.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// The common name in the certificate that the peer showed, whether it was accepted or not.
    shown: Mutex<Option<String>>,
    /// The peer came to join. Set when its first message is read, before it would be asked for a certificate.
    joining: AtomicBool,
}

impl Gate {
    /// The name that the peer claimed, if it showed a certificate.
    pub(crate) fn shown(&self) -> Option<String> {
        self.shown.lock().ok()?.clone()
    }
}

/// By what a joining machine knows an aggregator.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// The first half of SHA-256 of the root's SubjectPublicKeyInfo; the root comes with the chain.
    Fingerprint([u8; 16]),
    /// Trust anchors that it holds.
    Anchors(Arc<RootCertStore>),
}

/// What a dialer uses for connections of the kind `alpn`: the peer must be an aggregator.
pub(crate) fn client_config(credentials: &Credentials, alpn: &[u8]) -> Result<ClientConfig, Error> {
    let trust = Trust::Anchors(credentials.roots.clone());
    let verifier = AggregatorVerifier { trust, provider: credentials.provider.clone() };
    let mut config = ClientConfig::builder_with_details(credentials.provider.clone(), credentials.clock.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from((*credentials.key).clone())));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// What a machine without a certificate dials with.
pub(crate) fn joiner_config(trust: Trust, clock: Arc<Clock>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(crypto::ring::default_provider());
    let verifier = AggregatorVerifier { trust, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_details(provider, clock)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![JOIN_ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// The chain check that all handshakes of a listener share.
pub(crate) fn peer_chain(credentials: &Credentials) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    WebPkiClientVerifier::builder_with_provider(credentials.roots.clone(), credentials.provider.clone())
        .build()
        .map_err(|error| Error::General(error.to_string()))
}

/// What a listener uses for one handshake.
pub(crate) fn server_config(
    credentials: &Credentials,
    chain: Arc<dyn ClientCertVerifier>,
    gate: Arc<Gate>,
) -> Result<ServerConfig, Error> {
    let resolver =
        Shown { member: credentials.key.clone(), joiner: credentials.key_with_root.clone(), gate: gate.clone() };
    let mut config = ServerConfig::builder_with_details(credentials.provider.clone(), credentials.clock.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(PeerVerifier { chain, gate }))
        .with_cert_resolver(Arc::new(resolver));
    // The first that both speak is taken: who offers more than to join is a member, and has to show a certificate.
    config.alpn_protocols = vec![ALPN.to_vec(), ADMIN_ALPN.to_vec(), JOIN_ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The identity of a leaf whose chain has been checked.
fn identified(leaf: &CertificateDer<'_>) -> Result<Identity, Error> {
    identity::of(leaf).ok_or_else(|| CertificateError::Other(OtherError(Arc::new(Refusal::NoIdentity))).into())
}

/// A CA that bears our CA's name but not its key is a foreign CA, and not a broken signature.
fn chain_error(error: Error) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => CertificateError::UnknownIssuer.into(),
        other => other,
    }
}

/// The chain that a listener shows.
struct Shown {
    member: Arc<CertifiedKey>,
    joiner: Arc<CertifiedKey>,
    gate: Arc<Gate>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered: Vec<&[u8]> = hello.alpn().into_iter().flatten().collect();
        let joining = offered == [JOIN_ALPN];
        self.gate.joining.store(joining, Ordering::SeqCst);
        Some(if joining { self.joiner.clone() } else { self.member.clone() })
    }
}

struct AggregatorVerifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl AggregatorVerifier {
    /// The anchors that count for this chain.
    fn anchors(&self, chain: &[&CertificateDer<'_>]) -> Result<Arc<RootCertStore>, Error> {
        let half = match &self.trust {
            Trust::Anchors(roots) => return Ok(roots.clone()),
            Trust::Fingerprint(half) => half,
        };
        let is_root = |certificate: &&&CertificateDer<'_>| {
            identity::public_key_info(certificate).is_some_and(|info| Digest::of(&info).0[..16] == half[..])
        };
        let root = chain.iter().find(is_root).ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add((**root).clone().into_owned())?;
        Ok(Arc::new(roots))
    }
}

impl fmt::Debug for AggregatorVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AggregatorVerifier")
    }
}

impl ServerCertVerifier for AggregatorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<&CertificateDer<'_>> = std::iter::once(end_entity).chain(intermediates).collect();
        let verified = WebPkiServerVerifier::builder_with_provider(self.anchors(&chain)?, self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(chain_error)?;
        match identified(end_entity)?.role {
            Role::Aggregator => Ok(verified),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

struct PeerVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    gate: Arc<Gate>,
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerVerifier")
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        !self.gate.joining.load(Ordering::SeqCst)
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Ok(mut shown) = self.gate.shown.lock() {
            *shown = identity::claimed_name(end_entity);
        }
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now).map_err(chain_error)?;
        identified(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
