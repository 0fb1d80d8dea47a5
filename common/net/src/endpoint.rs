//! One UDP socket that listens and dials.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, ServerConfig, TokioRuntime};
use rustls::server::danger::ClientCertVerifier;
use starling_wire::{ADMIN_ALPN, ALPN, Identity, Refusal};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::admin::{self, AdminLink};
use crate::credentials::Credentials;
use crate::join::{self, JoinLink};
use crate::limits::{ACCEPTED_WAITING_MAX, HANDSHAKE_TIMEOUT, HANDSHAKES_BEFORE_RETRY, HANDSHAKES_MAX};
use crate::link::{DialError, Link};
use crate::reason::{CloseReason, DONE, code};
use crate::transport::Transport;
use crate::{socket, verify};

/// A socket with credentials: accepts, dials, or both. Clones share it.
#[derive(Clone)]
pub struct Endpoint {
    inner: quinn::Endpoint,
    shared: Arc<Shared>,
    arrivals: Arc<tokio::sync::Mutex<mpsc::Receiver<Incoming>>>,
}

/// What a listener hands out.
#[derive(Debug)]
pub enum Incoming {
    /// A peer whose certificate is of our CA. Its role and name are still to be checked: [`crate::greet_device`].
    Connected(Link),
    /// A machine that shows no certificate and wants one.
    Joining(JoinLink),
    /// A peer whose certificate is of our CA and who wants to administer. Whether its role may is still to be checked.
    Administering(AdminLink),
    /// A handshake that failed, for the operator's log.
    Failed(HandshakeFailure),
}

/// Who failed to connect, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeFailure {
    /// Where the packets came from.
    pub remote: SocketAddr,
    /// The name in the certificate that was shown, if one was. Nothing vouches for it.
    pub certificate_name: Option<String>,
    /// What went wrong.
    pub reason: CloseReason,
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.certificate_name {
            Some(name) => write!(f, "{} (certificate of {name:?}): {}", self.remote, self.reason),
            None => write!(f, "{} (no certificate shown): {}", self.remote, self.reason),
        }
    }
}

/// Why an endpoint cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be bound.
    #[error("cannot bind UDP {address}; is another process listening there?")]
    Socket {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The credentials make no TLS configuration.
    #[error("the credentials cannot be used for TLS")]
    Tls(#[from] rustls::Error),
}

/// What handshakes need, replaced as a whole when certificates rotate.
struct Terms {
    credentials: Credentials,
    peer_chain: Arc<dyn ClientCertVerifier>,
    client: ClientConfig,
    administrator: ClientConfig,
    /// Everything but the cryptography of a server: its token key has to stay the same from packet to packet.
    server: ServerConfig,
}

struct Shared {
    transport: Transport,
    terms: RwLock<Arc<Terms>>,
    /// The first reason given to [`Endpoint::close`].
    closed: Mutex<Option<Refusal>>,
}

impl Endpoint {
    /// An endpoint that listens on `address` and can dial, too. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the address is taken, or the credentials are unusable.
    pub fn bind(address: SocketAddr, credentials: &Credentials, transport: &Transport) -> Result<Self, BindError> {
        Self::new(address, credentials, transport, true)
    }

    /// An endpoint that only dials, from any free port, addresses of the family of `toward`.
    ///
    /// # Errors
    /// When no socket is to be had, or the credentials are unusable.
    pub fn dialer(toward: SocketAddr, credentials: &Credentials, transport: &Transport) -> Result<Self, BindError> {
        Self::new(socket::any_port(toward), credentials, transport, false)
    }

    fn new(
        address: SocketAddr,
        credentials: &Credentials,
        transport: &Transport,
        listens: bool,
    ) -> Result<Self, BindError> {
        let fail = |source| BindError::Socket { address, source };
        let terms = Terms::new(credentials, transport, None)?;
        let socket = socket::bind(address).map_err(fail)?;
        let server = listens.then(|| terms.server.clone());
        let inner = quinn::Endpoint::new(
            transport.endpoint_config(&credentials.reset_key),
            server,
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(fail)?;
        let shared =
            Arc::new(Shared { transport: *transport, terms: RwLock::new(Arc::new(terms)), closed: Mutex::new(None) });
        let (sender, arrivals) = mpsc::channel(ACCEPTED_WAITING_MAX);
        if listens {
            tokio::spawn(accept_all(inner.clone(), shared.clone(), sender));
        }
        Ok(Self { inner, shared, arrivals: Arc::new(tokio::sync::Mutex::new(arrivals)) })
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// The next peer, or the next failure; `None` once the endpoint is closed. Cancel-safe. Handshakes run on their
    /// own, so that a slow or hostile one delays nobody.
    pub async fn accept(&self) -> Option<Incoming> {
        self.arrivals.lock().await.recv().await
    }

    /// Connects to an aggregator. The aggregator may still refuse: see [`crate::greet_aggregator`].
    ///
    /// # Errors
    /// [`DialError`] tells a refusal from an address that does not answer.
    pub async fn dial(&self, remote: SocketAddr) -> Result<Link, DialError> {
        self.dial_as(remote, |terms| &terms.client).await
    }

    /// Connects to an aggregator to administer it. It may still refuse: the first read says so.
    ///
    /// # Errors
    /// As [`Endpoint::dial`].
    pub async fn dial_admin(&self, remote: SocketAddr) -> Result<AdminLink, DialError> {
        Ok(AdminLink::new(self.dial_as(remote, |terms| &terms.administrator).await?))
    }

    async fn dial_as(&self, remote: SocketAddr, kind: impl Fn(&Terms) -> &ClientConfig) -> Result<Link, DialError> {
        let terms = self.shared.terms();
        let connecting = self
            .inner
            .connect_with(kind(&terms).clone(), remote, verify::SERVER_NAME)
            .map_err(|source| DialError::Impossible { remote, source })?;
        match timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => match Link::new(connection, terms.credentials.identity()) {
                Some(link) => Ok(link),
                None => Err(DialError::Refused {
                    remote,
                    reason: CloseReason { refusal: Some(Refusal::NoIdentity), by_peer: false, text: String::new() },
                }),
            },
            Ok(Err(quinn::ConnectionError::TimedOut)) | Err(_) => Err(DialError::NoAnswer { remote }),
            Ok(Err(error)) => Err(DialError::Refused { remote, reason: error.into() }),
        }
    }

    /// Uses other credentials (a renewed certificate, a new CA) for every handshake from now on. Connections stay.
    ///
    /// # Errors
    /// When the credentials are unusable; the old ones stay in use.
    pub fn replace_credentials(&self, credentials: &Credentials) -> Result<(), BindError> {
        let old = self.shared.terms();
        let new = Terms::new(credentials, &self.shared.transport, Some(&old.server))?;
        *self.shared.terms.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }

    /// The credentials of the next handshake.
    pub fn credentials(&self) -> Credentials {
        self.shared.terms().credentials.clone()
    }

    /// The identity in the own certificate.
    pub fn identity(&self) -> Identity {
        self.shared.terms().credentials.identity().clone()
    }

    /// Connections that are open or in their handshake.
    pub fn links_open(&self) -> usize {
        self.inner.open_connections()
    }

    /// Ends every connection with a reason and accepts no more.
    pub fn close(&self, reason: Refusal) {
        self.shared.closed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.inner.close(code(reason), reason.text().as_bytes());
    }

    /// Ends every connection because the work is done.
    pub fn finish(&self) {
        self.inner.close(quinn::VarInt::from_u32(DONE), b"");
    }

    /// Waits until every connection has told its peer that it is over: await it before the process ends, or peers
    /// learn of the end from silence. Bounded by three probe time-outs, below a second on most paths.
    pub async fn wait_idle(&self) {
        self.inner.wait_idle().await;
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("local", &self.inner.local_addr().ok()).finish_non_exhaustive()
    }
}

impl Shared {
    fn terms(&self) -> Arc<Terms> {
        self.terms.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Terms {
    fn new(
        credentials: &Credentials,
        transport: &Transport,
        old: Option<&ServerConfig>,
    ) -> Result<Self, rustls::Error> {
        let no_suite = |error: quinn::crypto::rustls::NoInitialCipherSuite| rustls::Error::General(error.to_string());
        let peer_chain = verify::peer_chain(credentials)?;
        let dialing = |alpn| {
            let tls = QuicClientConfig::try_from(verify::client_config(credentials, alpn)?).map_err(no_suite)?;
            Ok::<_, rustls::Error>(transport.client_config(Arc::new(tls)))
        };
        let crypto = server_crypto(credentials, peer_chain.clone(), Arc::default())?;
        let server = match old {
            Some(old) => {
                let mut server = old.clone();
                server.crypto = crypto;
                server
            }
            None => transport.server_config(crypto),
        };
        Ok(Self {
            credentials: credentials.clone(),
            peer_chain,
            client: dialing(ALPN)?,
            administrator: dialing(ADMIN_ALPN)?,
            server,
        })
    }

    /// The configuration of one handshake.
    fn server_for(&self, gate: Arc<verify::Gate>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut server = self.server.clone();
        server.crypto = server_crypto(&self.credentials, self.peer_chain.clone(), gate)?;
        Ok(Arc::new(server))
    }
}

fn server_crypto(
    credentials: &Credentials,
    chain: Arc<dyn ClientCertVerifier>,
    gate: Arc<verify::Gate>,
) -> Result<Arc<QuicServerConfig>, rustls::Error> {
    let config = verify::server_config(credentials, chain, gate)?;
    let config = QuicServerConfig::try_from(config).map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(Arc::new(config))
}

/// Takes first packets while a handshake is free, and runs each handshake in its own task.
async fn accept_all(endpoint: quinn::Endpoint, shared: Arc<Shared>, sender: mpsc::Sender<Incoming>) {
    let free = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        // The permit comes first: what has none waits inside quinn, which bounds it by `INCOMING_WAITING_MAX`.
        let permit = free.clone().acquire_owned().await.expect("the semaphore is never closed");
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = sender.closed() => None,
        };
        let Some(incoming) = incoming else { return };
        let crowded = free.available_permits() < HANDSHAKES_MAX - HANDSHAKES_BEFORE_RETRY;
        if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
            // An error would mean that the address is validated already, which was just asked.
            let _ = incoming.retry();
            continue;
        }
        let (terms, sender) = (shared.terms(), sender.clone());
        tokio::spawn(async move {
            let arrival = handshake(incoming, &terms).await;
            // Nobody accepts any longer: the endpoint is gone, and the link goes with it.
            let _ = sender.send(arrival).await;
            drop(permit);
        });
    }
}

async fn handshake(incoming: quinn::Incoming, terms: &Terms) -> Incoming {
    let remote = incoming.remote_address();
    let gate: Arc<verify::Gate> = Arc::default();
    let failed =
        |reason: CloseReason| Incoming::Failed(HandshakeFailure { remote, certificate_name: gate.shown(), reason });
    let ours = |refusal, text: String| CloseReason { refusal, by_peer: false, text };
    let config = match terms.server_for(gate.clone()) {
        Ok(config) => config,
        Err(error) => {
            incoming.refuse();
            return failed(ours(Some(Refusal::Internal), error.to_string()));
        }
    };
    let connecting = match incoming.accept_with(config) {
        Ok(connecting) => connecting,
        Err(error) => return failed(error.into()),
    };
    match timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) if join::is_joining(&connection) => Incoming::Joining(JoinLink::new(connection)),
        Ok(Ok(connection)) => match Link::new(connection, terms.credentials.identity()) {
            Some(link) if admin::is_administering(&link.connection) => Incoming::Administering(AdminLink::new(link)),
            Some(link) => Incoming::Connected(link),
            None => failed(ours(Some(Refusal::NoIdentity), String::new())),
        },
        Ok(Err(error)) => failed(error.into()),
        Err(_) => failed(ours(Some(Refusal::Stalled), "the handshake took too long".to_owned())),
    }
}
