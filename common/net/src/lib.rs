//! Connections between devices and aggregators: QUIC with mutual TLS 1.3, control frames, blobs, back-off.
//!
//! The only crate that knows quinn and rustls; both stay behind the types below.
//!
//! ```text
//!   Credentials ──► Endpoint ──dial──► Link ──hello──► Control (one bidirectional stream of frames)
//!    ca.pem            │                └─send_blob / accept_blob (one unidirectional stream a blob)
//!    certificate.pem   └──accept──► Incoming: a Link, or why the handshake failed
//!    key.pem
//! ```
//!
//! Who a peer is, is read once from its certificate (invariant 9). Each side checks the chain to its `ca.pem`; a dialer
//! also demands the role of an aggregator, while a listener lets every role of its CA finish the handshake and
//! [`hello::greet_device`] refuses the wrong ones with a reason. Whatever ends a connection (a TLS alert, an
//! application's close code, silence) is told as a [`CloseReason`], the same on both sides.
//!
//! What a peer can cost (invariants 6 and 8) is listed in [`limits`]. With TLS 1.3 a refused dialer sees its handshake
//! succeed, so nothing is certain before [`hello::greet_aggregator`] has returned.
//!
//! ```no_run
//! # async fn example(files: starling_net::TlsFiles, address: std::net::SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
//! use starling_net::{Credentials, Endpoint, Path, Transport, greet_aggregator};
//!
//! let endpoint = Endpoint::dialer(address, &Credentials::load(&files)?, &Transport::on(Path::Internet))?;
//! let link = endpoint.dial(address).await?;
//! let (control, welcome) = greet_aggregator(&link, "example 1.0").await?;
//! # drop((control, welcome));
//! # Ok(())
//! # }
//! ```
//!
//! This crate decides nothing about rounds, stores nothing, and never reconnects by itself: it offers [`Backoff`].

pub mod admin;
pub mod backoff;
pub mod blob;
pub mod certified;
pub mod clock;
pub mod control;
pub mod credentials;
pub mod endpoint;
pub mod hello;
mod identity;
pub mod join;
pub mod limits;
pub mod link;
pub mod measure;
pub mod reason;
mod socket;
pub mod transport;
mod verify;

pub use admin::{AdminLink, AdminStream};
pub use backoff::Backoff;
pub use blob::{BlobError, IncomingBlob, ReceiveError, TransferError, resume_offset};
pub use certified::Certified;
pub use clock::Clock;
pub use control::{Control, ControlError, ControlReceiver, ControlSender};
pub use credentials::{Credentials, CredentialsError, TlsFiles};
pub use endpoint::{BindError, Endpoint, HandshakeFailure, Incoming};
pub use hello::{GreetError, greet_aggregator, greet_device, greet_device_if};
pub use identity::Leaf;
pub use join::{AskError, JoinLink};
pub use link::{DialError, Link, Traffic};
pub use reason::CloseReason;
pub use transport::{Path, Transport};
