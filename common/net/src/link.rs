//! One authenticated connection.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::VarInt;
use rustls::pki_types::CertificateDer;
use starling_wire::enrol::{CHANNEL_BYTES, CHANNEL_LABEL};
use starling_wire::{Identity, Refusal};
use tokio::sync::Mutex;

use crate::blob::PendingBlob;
use crate::identity::{self, Leaf};
use crate::reason::{CloseReason, DONE, code};

/// A connection to a peer whose certificate has been checked. Clones share it.
#[derive(Clone)]
pub struct Link {
    pub(crate) connection: quinn::Connection,
    shared: Arc<Shared>,
}

struct Shared {
    peer: Identity,
    peer_leaf: Leaf,
    own: Identity,
    /// A blob whose header is still arriving: kept here so that [`Link::accept_blob`] can be cancelled.
    pending: Mutex<Option<PendingBlob>>,
}

/// Why dialing failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// One of the two sides refused the other.
    #[error("no connection to {remote}: {reason}")]
    Refused {
        /// Who was dialed.
        remote: SocketAddr,
        /// Who refused, and why.
        reason: CloseReason,
    },
    /// Nothing came back.
    #[error("{remote} does not answer; is the aggregator running, and does a firewall let UDP through?")]
    NoAnswer {
        /// Who was dialed.
        remote: SocketAddr,
    },
    /// The address cannot be dialed from this socket.
    #[error("{remote} cannot be dialed")]
    Impossible {
        /// Who was dialed.
        remote: SocketAddr,
        /// What quinn said.
        #[source]
        source: quinn::ConnectError,
    },
}

impl DialError {
    /// The refusal, if it was one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            DialError::Refused { reason, .. } => reason.refusal,
            DialError::NoAnswer { .. } | DialError::Impossible { .. } => None,
        }
    }
}

/// Bytes of UDP payload that a connection has moved, headers, retransmissions and handshake included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Packets sent that the peer never acknowledged in time; their contents were sent again.
    pub packets_lost: u64,
}

impl Link {
    /// `None`, and the connection closed, when the peer's certificate has no identity; the verifier has checked that.
    pub(crate) fn new(connection: quinn::Connection, own: &Identity) -> Option<Self> {
        let chain = connection.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        let leaf = chain.as_ref().and_then(|chain| chain.first());
        let Some((peer, peer_leaf)) = leaf.and_then(|leaf| Some((identity::of(leaf)?, identity::leaf(leaf)?))) else {
            connection.close(code(Refusal::NoIdentity), Refusal::NoIdentity.text().as_bytes());
            return None;
        };
        Some(Self {
            connection,
            shared: Arc::new(Shared { peer, peer_leaf, own: own.clone(), pending: Mutex::new(None) }),
        })
    }

    /// Who the peer is, as its certificate says (invariant 9).
    pub fn peer(&self) -> &Identity {
        &self.shared.peer
    }

    /// What else the peer's certificate says.
    pub fn peer_leaf(&self) -> &Leaf {
        &self.shared.peer_leaf
    }

    /// What a signed request on this connection has to be bound to: the same on both sides, and never twice.
    pub fn channel(&self) -> [u8; CHANNEL_BYTES] {
        channel(&self.connection)
    }

    /// Who this side is, as its own certificate says.
    pub fn own(&self) -> &Identity {
        &self.shared.own
    }

    /// Where the peer is now. It may move.
    pub fn remote_addr(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// A number that tells this connection from every other of this process.
    pub fn number(&self) -> usize {
        self.connection.stable_id()
    }

    /// Bytes moved so far.
    pub fn traffic(&self) -> Traffic {
        let stats = self.connection.stats();
        Traffic {
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            packets_lost: stats.path.lost_packets,
        }
    }

    /// Ends the connection with a reason, which the peer gets as the close code. What is under way is dropped.
    pub fn close(&self, refusal: Refusal) {
        self.connection.close(code(refusal), refusal.text().as_bytes());
    }

    /// Ends the connection with a reason and words of its own.
    pub fn close_with(&self, refusal: Refusal, text: &str) {
        self.connection.close(code(refusal), text.as_bytes());
    }

    /// Ends the connection because the work is done.
    pub fn finish(&self) {
        self.connection.close(VarInt::from_u32(DONE), b"");
    }

    /// Waits for the end of the connection. The future holds on to nothing of this link's.
    pub fn closed(&self) -> impl Future<Output = CloseReason> + Send + 'static {
        let connection = self.connection.clone();
        async move { connection.closed().await.into() }
    }

    /// Why the connection is over, if it is.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.connection.close_reason().map(CloseReason::from)
    }

    pub(crate) fn pending_blob(&self) -> &Mutex<Option<PendingBlob>> {
        &self.shared.pending
    }
}

/// Exported from the TLS session (RFC 8446, 7.5).
pub(crate) fn channel(connection: &quinn::Connection) -> [u8; CHANNEL_BYTES] {
    let mut channel = [0; CHANNEL_BYTES];
    let exported = connection.export_keying_material(&mut channel, CHANNEL_LABEL, b"");
    exported.expect("32 bytes can be exported from a session whose handshake is done");
    channel
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("peer", &self.shared.peer).field("remote", &self.remote_addr()).finish()
    }
}
