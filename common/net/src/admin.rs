//! An administrator's connection: an ALPN of its own, mutual TLS as for devices, and requests one after another, each on a stream of its own.
//!
//! ```text
//!  administrator                                aggregator
//!    │ TLS: ALPN starling-admin/1                  │ both sides show a certificate
//!    │                     may that role come in? ─ no: close(code)
//!    ├═ stream: request, and what follows it ═════▶│
//!    │◀═══════════════ answer, and what follows it ┤
//! ```
//!
//! It can do nothing that a device can: it is an [`AdminLink`], not a [`crate::Link`], and has neither control messages nor blobs. There is no
//! hello: who the administrator is, is in the certificate, and the version is the ALPN's. As everywhere with TLS 1.3 a dialer that is refused
//! learns of it at its first read.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use quinn::{RecvStream, SendStream};
use starling_wire::{Identity, Refusal};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::identity::Leaf;
use crate::link::Link;
use crate::reason::CloseReason;

/// One end of an administrator's connection. Clones share it.
#[derive(Clone)]
pub struct AdminLink {
    link: Link,
}

/// One request and its answer: bytes both ways. Shutting it down ends this side's half; dropping it gives the rest up.
#[derive(Debug)]
pub struct AdminStream {
    send: SendStream,
    receive: RecvStream,
}

impl AdminLink {
    pub(crate) fn new(link: Link) -> Self {
        Self { link }
    }

    /// Who the peer is, as its certificate says (invariant 9).
    pub fn peer(&self) -> &Identity {
        self.link.peer()
    }

    /// What else the peer's certificate says.
    pub fn peer_leaf(&self) -> &Leaf {
        self.link.peer_leaf()
    }

    /// Where the peer is now.
    pub fn remote_addr(&self) -> SocketAddr {
        self.link.remote_addr()
    }

    /// A number that tells this connection from every other of this process.
    pub fn number(&self) -> usize {
        self.link.number()
    }

    /// Opens the stream of the next request; waits until the one before is over.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn open(&self) -> Result<AdminStream, CloseReason> {
        let (send, receive) = self.link.connection.open_bi().await?;
        Ok(AdminStream { send, receive })
    }

    /// The stream of the peer's next request. Cancel-safe.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn accept(&self) -> Result<AdminStream, CloseReason> {
        let (send, receive) = self.link.connection.accept_bi().await?;
        Ok(AdminStream { send, receive })
    }

    /// Ends the connection with a reason and words of its own.
    pub fn close_with(&self, refusal: Refusal, text: &str) {
        self.link.close_with(refusal, text);
    }

    /// Ends the connection with a reason.
    pub fn close(&self, refusal: Refusal) {
        self.link.close(refusal);
    }

    /// Ends the connection because the work is done.
    pub fn finish(&self) {
        self.link.finish();
    }

    /// Waits for the end of the connection.
    pub fn closed(&self) -> impl Future<Output = CloseReason> + Send + 'static {
        self.link.closed()
    }

    /// Why the connection is over, if it is.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.link.close_reason()
    }
}

impl fmt::Debug for AdminLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminLink").field("peer", self.peer()).field("remote", &self.remote_addr()).finish()
    }
}

impl AsyncRead for AdminStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.receive).poll_read(context, into)
    }
}

impl AsyncWrite for AdminStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(context)
    }
}

/// Whether a listener's connection is of this kind.
pub(crate) fn is_administering(connection: &quinn::Connection) -> bool {
    let data =
        connection.handshake_data().and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
    data.is_some_and(|data| data.protocol.as_deref() == Some(starling_wire::ADMIN_ALPN))
}
