//! The exchange by which a machine without a certificate gets one: one question and one answer on a connection of its
//! own kind.
//!
//! ```text
//!  joiner                                        aggregator
//!    │ TLS: ALPN starling-join/1, no certificate    │ shows its chain with the root behind it
//!    │ is the root the one of the join string? ──── no: alert 48, and nothing was said
//!    ├─ ToAuthority (signed, bound to this session) ▶│
//!    │◀─────────────────────────────── FromAuthority ┤
//!    └─ close                                        │
//! ```
//!
//! Such a connection can do nothing else: it is a [`JoinLink`], not a [`crate::Link`], and has neither control messages nor
//! blobs. It is over after [`JOIN_TIMEOUT`].

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use ring::hmac;
use ring::rand::SystemRandom;
use starling_wire::enrol::CHANNEL_BYTES;
use starling_wire::{FromAuthority, Refusal, ToAuthority};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::control::{Control, ControlError};
use crate::credentials::{Credentials, trust_anchors};
use crate::endpoint::BindError;
use crate::hello::GreetError;
use crate::limits::{HANDSHAKE_TIMEOUT, JOIN_TIMEOUT};
use crate::link::{DialError, channel};
use crate::reason::{CloseReason, DONE, code};
use crate::transport::Transport;
use crate::verify::{self, Trust};
use crate::{CredentialsError, socket};

/// A connection of a machine that shows no certificate.
pub struct JoinLink {
    connection: quinn::Connection,
}

/// By what a machine knows the aggregator that it asks.
#[derive(Debug, Clone)]
pub enum Authority<'a> {
    /// By the first half of SHA-256 of the root's SubjectPublicKeyInfo, from a join string.
    Fingerprint([u8; 16]),
    /// By the trust anchors in this PEM text, from an earlier certificate.
    CaPem(&'a str),
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The trust anchors cannot be used.
    #[error(transparent)]
    Anchors(#[from] CredentialsError),
    /// No connection, or not to whom it should be.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection ended before the answer.
    #[error("the aggregator did not answer: {0}")]
    Ended(CloseReason),
}

impl AskError {
    /// The refusal, if it was one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            AskError::Dial(error) => error.refusal(),
            AskError::Ended(reason) => reason.refusal,
            AskError::Bind(_) | AskError::Anchors(_) => None,
        }
    }
}

/// Asks the aggregator at `remote`, once. `question` gets what binds it to the session. Nothing leaves before the
/// aggregator has shown that it belongs to `authority`.
///
/// # Errors
/// [`AskError`] says whether the aggregator was not there, was another one, or hung up.
pub async fn ask(
    remote: SocketAddr,
    authority: &Authority<'_>,
    clock: &Arc<Clock>,
    transport: &Transport,
    question: impl FnOnce(&[u8; CHANNEL_BYTES]) -> ToAuthority,
) -> Result<FromAuthority, AskError> {
    let trust = match authority {
        Authority::Fingerprint(half) => Trust::Fingerprint(*half),
        Authority::CaPem(pem) => Trust::Anchors(Arc::new(trust_anchors(pem.as_bytes())?.0)),
    };
    let no_suite = |error: quinn::crypto::rustls::NoInitialCipherSuite| rustls::Error::General(error.to_string());
    let tls = verify::joiner_config(trust, clock.clone()).map_err(BindError::Tls)?;
    let tls = QuicClientConfig::try_from(tls).map_err(no_suite).map_err(BindError::Tls)?;
    let config = transport.client_config(Arc::new(tls));
    let endpoint = endpoint(remote, transport)?;
    let connecting = endpoint
        .connect_with(config, remote, verify::SERVER_NAME)
        .map_err(|source| DialError::Impossible { remote, source })?;
    let connection = match timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(quinn::ConnectionError::TimedOut)) | Err(_) => return Err(DialError::NoAnswer { remote }.into()),
        Ok(Err(error)) => return Err(DialError::Refused { remote, reason: error.into() }.into()),
    };
    let exchange = async {
        let (send, receive) = connection.open_bi().await.map_err(|error| ControlError::Closed(error.into()))?;
        let mut control: Control<ToAuthority, FromAuthority> = Control::new(send, receive);
        control.send(&question(&channel(&connection))).await?;
        control.recv().await
    };
    let answer = timeout(JOIN_TIMEOUT, exchange).await;
    let ended = |refusal, text: &str| AskError::Ended(CloseReason { refusal, by_peer: true, text: text.to_owned() });
    let answer = match answer {
        Ok(Ok(Some(answer))) => Ok(answer),
        Ok(Err(ControlError::Closed(reason))) => Err(AskError::Ended(reason)),
        Ok(Ok(None)) => Err(connection
            .close_reason()
            .map_or_else(|| ended(None, "it ended the stream without a word"), |error| AskError::Ended(error.into()))),
        Ok(Err(error)) => Err(ended(error.refusal(), &error.to_string())),
        Err(_) => Err(ended(Some(Refusal::Stalled), "no answer came in time")),
    };
    connection.close(quinn::VarInt::from_u32(DONE), b"");
    endpoint.wait_idle().await;
    answer
}

/// A socket for one question. It listens to nobody, so its key for resets is as good as any.
fn endpoint(remote: SocketAddr, transport: &Transport) -> Result<quinn::Endpoint, BindError> {
    let address = socket::any_port(remote);
    let fail = |source| BindError::Socket { address, source };
    let reset_key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
        .map_err(|_| fail(std::io::Error::other("the system's random number generator failed")))?;
    let socket = socket::bind(address).map_err(fail)?;
    quinn::Endpoint::new(transport.endpoint_config(&reset_key), None, socket, Arc::new(quinn::TokioRuntime))
        .map_err(fail)
}

impl JoinLink {
    pub(crate) fn new(connection: quinn::Connection) -> Self {
        Self { connection }
    }

    /// Where the machine is.
    pub fn remote_addr(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// What a request has to be bound to.
    pub fn channel(&self) -> [u8; CHANNEL_BYTES] {
        channel(&self.connection)
    }

    /// Ends the connection without hearing the question.
    pub fn refuse(&self, refusal: Refusal) {
        self.connection.close(code(refusal), refusal.text().as_bytes());
    }

    /// Waits for the question, and answers it with what `decide` says. Returns the refusal that the machine was told, if
    /// it was one.
    ///
    /// # Errors
    /// [`GreetError`] when the machine asked nothing that can be understood, or is gone; the connection is closed.
    pub async fn answer<F: Future<Output = FromAuthority>>(
        self,
        decide: impl FnOnce(ToAuthority) -> F,
    ) -> Result<Option<Refusal>, GreetError> {
        let fail = |refusal: Refusal, text: String| {
            self.connection.close(code(refusal), text.as_bytes());
            GreetError { reason: CloseReason { refusal: Some(refusal), by_peer: false, text } }
        };
        let exchange = async {
            let (send, receive) =
                self.connection.accept_bi().await.map_err(|error| ControlError::Closed(error.into()))?;
            let mut control: Control<FromAuthority, ToAuthority> = Control::new(send, receive);
            let Some(question) = control.recv().await? else { return Ok(None) };
            let answer = decide(question).await;
            control.send(&answer).await?;
            control.sender.finish();
            control.sender.delivered().await;
            Ok::<_, ControlError>(Some(answer))
        };
        match timeout(JOIN_TIMEOUT, exchange).await {
            Ok(Ok(Some(FromAuthority::Refused(refusal)))) => {
                self.connection.close(code(refusal), refusal.text().as_bytes());
                Ok(Some(refusal))
            }
            Ok(Ok(Some(_))) => {
                // The machine closes when it has read the answer; one that does not is closed here.
                let _ = timeout(HANDSHAKE_TIMEOUT, self.connection.closed()).await;
                self.connection.close(quinn::VarInt::from_u32(DONE), b"");
                Ok(None)
            }
            Ok(Ok(None)) => Err(fail(Refusal::UnexpectedFrame, "the machine asked nothing".to_owned())),
            Ok(Err(ControlError::Closed(reason))) => Err(GreetError { reason }),
            Ok(Err(error)) => Err(fail(error.refusal().unwrap_or(Refusal::UnexpectedFrame), error.to_string())),
            Err(_) => Err(fail(Refusal::Stalled, "the exchange took too long".to_owned())),
        }
    }
}

impl fmt::Debug for JoinLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinLink").field("remote", &self.remote_addr()).finish()
    }
}

/// Whether a listener's connection is of this kind.
pub(crate) fn is_joining(connection: &quinn::Connection) -> bool {
    let data =
        connection.handshake_data().and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
    data.is_some_and(|data| data.protocol.as_deref() == Some(starling_wire::JOIN_ALPN))
}

/// The trust anchors of own credentials, for a question after the certificate has expired.
impl Credentials {
    /// What the own side trusts, in PEM as it was read.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}
