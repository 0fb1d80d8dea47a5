//! The TLS configurations: TLS 1.3 only, both sides show a certificate, no resumption (a resumed session would keep a
//! certificate alive after its expiry).
//!
//! A certificate passes when webpki builds a chain to `ca.pem`, valid now and for this use, and when it carries a
//! Starling identity. Each refusal leaves as the TLS alert that [`crate::reason`] reads back on the other side.

use std::fmt;
use std::sync::{Arc, Mutex};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, ServerConfig,
    SignatureScheme, version::TLS13,
};
use starling_wire::{ALPN, Identity, Refusal, Role};

use crate::credentials::Credentials;
use crate::identity;

/// The DNS name in every Starling certificate: addresses change, identities do not, so that the name is the same for all.
pub(crate) const SERVER_NAME: &str = "starling";

/// The common name in the certificate that a peer showed, whether it was accepted or not.
pub(crate) type ShownName = Arc<Mutex<Option<String>>>;

/// What a dialer uses: the peer must be an aggregator.
pub(crate) fn client_config(credentials: &Credentials) -> Result<ClientConfig, Error> {
    let chain = WebPkiServerVerifier::builder_with_provider(credentials.roots.clone(), credentials.provider.clone())
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let mut config = ClientConfig::builder_with_provider(credentials.provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AggregatorVerifier { chain }))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from((*credentials.key).clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// The chain check that all handshakes of a listener share.
pub(crate) fn peer_chain(credentials: &Credentials) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    WebPkiClientVerifier::builder_with_provider(credentials.roots.clone(), credentials.provider.clone())
        .build()
        .map_err(|error| Error::General(error.to_string()))
}

/// What a listener uses for one handshake; the name that the peer's certificate claims lands in `shown`.
pub(crate) fn server_config(
    credentials: &Credentials,
    chain: Arc<dyn ClientCertVerifier>,
    shown: ShownName,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(credentials.provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(PeerVerifier { chain, shown }))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from((*credentials.key).clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
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

struct AggregatorVerifier {
    chain: Arc<WebPkiServerVerifier>,
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
        let verified = self
            .chain
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

struct PeerVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    shown: ShownName,
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerVerifier")
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Ok(mut shown) = self.shown.lock() {
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
