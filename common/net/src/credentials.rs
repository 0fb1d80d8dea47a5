//! What one side proves itself with: the trust anchors of its fleet, its certificate chain and its key.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::hmac;
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use serde::{Deserialize, Serialize};
use starling_wire::Identity;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::identity::{self, Leaf};

/// What the key of stateless resets is derived for (invariant 9: every label binds its purpose).
const RESET_KEY_LABEL: &[u8] = b"starling/1 stateless reset";

/// Where the three PEM files lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The CA's trust anchors, `ca.pem`.
    pub ca: PathBuf,
    /// The own certificate and the certificates between it and the CA, `certificate.pem`.
    pub certificate: PathBuf,
    /// The key of the own certificate, `key.pem`; readable by its owner only.
    pub key: PathBuf,
}

/// Trust anchors, own chain and key, checked. Cheap to clone; says nothing of the key in its `Debug` (invariant 10).
#[derive(Clone)]
pub struct Credentials {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) key: Arc<CertifiedKey>,
    /// The same with the trust anchors behind the chain, for machines that know the root by its fingerprint only.
    pub(crate) key_with_root: Arc<CertifiedKey>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) ca_pem: Arc<str>,
    /// Authenticates the resets that a restarted process sends. Derived from the private key: it needs no other secret.
    pub(crate) reset_key: hmac::Key,
    identity: Arc<Identity>,
}

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read {path}; check the [tls] section of the configuration")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others may read the key.
    #[error("{path} can be read by others (mode {mode:03o}); run `chmod 600` on it")]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A text that is not the PEM it should be.
    #[error("the {what} is not valid PEM")]
    Pem {
        /// Which of the three.
        what: &'static str,
        /// What the parser said.
        #[source]
        source: pem::Error,
    },
    /// No certificate where one is needed.
    #[error("the {0} holds no certificate")]
    Empty(&'static str),
    /// A certificate that is no trust anchor.
    #[error("the CA file holds a certificate that cannot be a trust anchor")]
    Anchor(#[source] rustls::Error),
    /// A key of a kind that is not supported.
    #[error("the key cannot be used; expected an Ed25519 or P-256 key in PKCS#8, as `starling certs issue` writes it")]
    Key(#[source] rustls::Error),
    /// The key belongs to another certificate.
    #[error("the key is not the one of the certificate; they come from the same `starling certs issue`")]
    KeyMismatch,
    /// The own certificate has no Starling identity.
    #[error("the certificate carries no Starling identity; issue one with `starling certs issue`")]
    NoIdentity,
}

impl Credentials {
    /// Reads the three files. The key's file must be closed to others (mode 0600).
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(files: &TlsFiles) -> Result<Self, CredentialsError> {
        let read =
            |path: &Path| fs::read(path).map_err(|source| CredentialsError::Read { path: path.to_owned(), source });
        let ca = read(&files.ca)?;
        let certificate = read(&files.certificate)?;
        check_closed(&files.key)?;
        let key = Zeroizing::new(read(&files.key)?);
        Self::from_der_parts(&ca, &certificate, &key)
    }

    /// The same from texts.
    ///
    /// # Errors
    /// Says which text is wrong.
    pub fn from_pem(ca: &str, certificate: &str, key: &str) -> Result<Self, CredentialsError> {
        Self::from_der_parts(ca.as_bytes(), certificate.as_bytes(), key.as_bytes())
    }

    fn from_der_parts(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, CredentialsError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let (roots, anchors) = trust_anchors(ca)?;
        let chain = certificates("certificate file", certificate)?;
        let identity = chain.first().and_then(identity::of).ok_or(CredentialsError::NoIdentity)?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|source| CredentialsError::Pem { what: "key file", source })?;
        let reset_key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.secret_der()), RESET_KEY_LABEL);
        let reset_key = hmac::Key::new(hmac::HMAC_SHA256, reset_key.as_ref());
        let key = provider.key_provider.load_private_key(key).map_err(CredentialsError::Key)?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(CredentialsError::KeyMismatch),
        }
        let with_root = key.cert.iter().cloned().chain(anchors).collect();
        Ok(Self {
            provider,
            roots: Arc::new(roots),
            key_with_root: Arc::new(CertifiedKey::new(with_root, key.key.clone())),
            key: Arc::new(key),
            clock: Clock::system(0),
            ca_pem: String::from_utf8_lossy(ca).into(),
            reset_key,
            identity: Arc::new(identity),
        })
    }

    /// The same, judged and judging by `clock`.
    pub fn with_clock(self, clock: Arc<Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The clock that handshakes with these credentials judge by.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// What the own certificate says beside the identity.
    pub fn leaf(&self) -> Leaf {
        let leaf = self.key.cert.first().and_then(identity::leaf);
        leaf.expect("a certificate without a readable leaf makes no credentials")
    }

    /// Who the own certificate speaks for.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Seconds since 1970 until which the own certificate is valid, for a warning in time.
    pub fn valid_until_unix_s(&self) -> i64 {
        i64::try_from(self.leaf().not_after_unix_s).unwrap_or(i64::MAX)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// The trust anchors in a PEM text, as a store and as they are.
pub(crate) fn trust_anchors(ca: &[u8]) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), CredentialsError> {
    let anchors = certificates("CA file", ca)?;
    let mut roots = RootCertStore::empty();
    for anchor in &anchors {
        roots.add(anchor.clone()).map_err(CredentialsError::Anchor)?;
    }
    Ok((roots, anchors))
}

fn certificates(what: &'static str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| CredentialsError::Pem { what, source })?;
    if found.is_empty() { Err(CredentialsError::Empty(what)) } else { Ok(found) }
}

#[cfg(unix)]
fn check_closed(key: &Path) -> Result<(), CredentialsError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(key).map_err(|source| CredentialsError::Read { path: key.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(CredentialsError::KeyExposed { path: key.to_owned(), mode }) }
}

#[cfg(not(unix))]
fn check_closed(_key: &Path) -> Result<(), CredentialsError> {
    Ok(())
}
