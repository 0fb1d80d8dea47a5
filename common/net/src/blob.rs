//! Blobs: one unidirectional stream each, a 64-byte header, then the body from the header's offset on.
//!
//! The header is admitted before the body is read. A receiver's memory grows with the bytes that arrive, so that a
//! header that declares 4 GB costs what its sender really sends, and no more than the window while nobody reads
//! (invariant 8). A transfer that breaks hands back what it has: [`resume_offset`] of it is where the next one starts.

use std::array;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use ring::digest::{Context, SHA256};
use starling_wire::blob::{BLOB_HEADER_BYTES, BlobHeader, RESUME_UNIT_BYTES};
use starling_wire::{Digest, Refusal};
use tokio::time::{Instant, timeout, timeout_at};

use crate::limits::{HEADER_TIMEOUT, PROGRESS_BYTES_MIN, SEND_PIECE_BYTES, SEND_PROGRESS_TIMEOUT, SEND_WINDOW_BYTES};
use crate::link::Link;
use crate::reason::{CloseReason, DONE, code};

/// Pieces of a stream taken at a time: one lock of the connection for many packets.
const CHUNKS: usize = 32;

/// Where a transfer of which `kept` bytes are here resumes.
pub fn resume_offset(kept: usize) -> u64 {
    u64::try_from(kept).expect("a length fits in 64 bits") / RESUME_UNIT_BYTES * RESUME_UNIT_BYTES
}

/// Why a transfer failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The receiver wants no more of it, and says why.
    #[error("the peer refused the blob: {0}")]
    Refused(Refusal),
    /// The other side gave the transfer up without a reason.
    #[error("the peer gave the transfer up")]
    Abandoned,
    /// Too little moved in time.
    #[error("the transfer made no progress in time")]
    Stalled,
    /// The header's length is over this side's limit.
    #[error("the blob declares {length} bytes, at most {length_max} are taken")]
    TooLarge {
        /// What the header says.
        length: u64,
        /// What the caller allows.
        length_max: u64,
    },
    /// The body is longer or shorter than its header says.
    #[error("the blob's body has {actual} bytes or more, its header says {declared}")]
    Length {
        /// Bytes from the offset to the end, by the header.
        declared: u64,
        /// Bytes that came, or that the caller gave.
        actual: u64,
    },
    /// The transfer starts where nothing is kept.
    #[error("the transfer starts at byte {offset}, but only {kept} bytes before it are here")]
    Gap {
        /// Where it starts.
        offset: u64,
        /// What is here.
        kept: u64,
    },
    /// The connection is over.
    #[error("{0}")]
    Closed(CloseReason),
}

impl TransferError {
    /// The reason, if it is one of the closed list.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            TransferError::Refused(refusal) => Some(*refusal),
            TransferError::Stalled => Some(Refusal::Stalled),
            TransferError::TooLarge { .. } | TransferError::Length { .. } => Some(Refusal::LengthMismatch),
            TransferError::Gap { .. } => Some(Refusal::MalformedHeader),
            TransferError::Closed(reason) => reason.refusal,
            TransferError::Abandoned => None,
        }
    }
}

/// A receipt that broke off, and what had arrived. Its `Debug` shows how much, not what (invariant 10).
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("a blob broke off after {} bytes", kept.len())]
pub struct ReceiveError {
    /// Why.
    #[source]
    pub cause: TransferError,
    /// The body's first bytes, for [`IncomingBlob::receive_onto`]. TLS vouches for where they come from; the digest of
    /// the whole vouches for what they are.
    pub kept: Vec<u8>,
}

impl fmt::Debug for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveError").field("cause", &self.cause).field("kept_bytes", &self.kept.len()).finish()
    }
}

/// Why no blob was accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// The connection is over.
    #[error("{0}")]
    Closed(CloseReason),
    /// A stream's header was malformed or late; the stream is stopped, and the connection goes on.
    #[error("a blob's stream is refused: {0}")]
    Refused(Refusal),
    /// The peer gave the stream up within its header.
    #[error("the peer gave a blob up within its header")]
    Abandoned,
}

/// A blob whose header is here and whose body waits. Dropping it stops the stream.
#[derive(Debug)]
pub struct IncomingBlob {
    header: BlobHeader,
    stream: RecvStream,
}

/// A stream whose header is still arriving.
#[derive(Debug)]
pub(crate) struct PendingBlob {
    stream: RecvStream,
    bytes: [u8; BLOB_HEADER_BYTES],
    filled: usize,
    deadline: Instant,
}

impl Link {
    /// Sends a blob: its header, then `body`, the bytes from the header's offset to the end. Returns when the peer's
    /// transport has all of it, or the peer has refused it. The bytes are shared, not copied; dropping the future
    /// breaks the transfer off.
    ///
    /// # Errors
    /// [`TransferError::Refused`] with the receiver's reason, and everything else that can end a transfer.
    pub async fn send_blob(&self, header: &BlobHeader, mut body: Bytes) -> Result<(), TransferError> {
        let (declared, actual) = (header.length - header.offset.min(header.length), length_of(&body));
        if declared != actual {
            return Err(TransferError::Length { declared, actual });
        }
        let stream = timeout(SEND_PROGRESS_TIMEOUT, self.connection.open_uni())
            .await
            .map_err(|_| TransferError::Stalled)?
            .map_err(|error| TransferError::Closed(error.into()))?;
        let mut sending = Sending { stream, complete: false };
        let mut front = Bytes::copy_from_slice(&header.to_bytes());
        loop {
            let piece = body.split_to(SEND_PIECE_BYTES.min(body.len()));
            let mut pieces = [std::mem::take(&mut front), piece];
            timeout(SEND_PROGRESS_TIMEOUT, sending.stream.write_all_chunks(&mut pieces))
                .await
                .map_err(|_| TransferError::Stalled)?
                .map_err(write_error)?;
            if body.is_empty() {
                break;
            }
        }
        // Fails when the peer has stopped the stream: `stopped` tells why.
        let _ = sending.stream.finish();
        // What is still under way may take a time-out for each of its pieces.
        let pieces = u32::try_from(SEND_WINDOW_BYTES.div_ceil(SEND_PIECE_BYTES as u64)).expect("a few pieces");
        let stopped = timeout(SEND_PROGRESS_TIMEOUT * pieces, sending.stream.stopped())
            .await
            .map_err(|_| TransferError::Stalled)?;
        sending.complete = true;
        match stopped {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(stopped_by_peer(code)),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(TransferError::Closed(error.into())),
            Err(quinn::StoppedError::ZeroRttRejected) => Err(TransferError::Abandoned),
        }
    }

    /// The next blob that the peer sends, once its header is here. Cancel-safe.
    ///
    /// # Errors
    /// [`BlobError::Refused`] costs the peer that stream only: call again. [`BlobError::Closed`] is final.
    pub async fn accept_blob(&self) -> Result<IncomingBlob, BlobError> {
        let mut slot = self.pending_blob().lock().await;
        if slot.is_none() {
            let stream = self.connection.accept_uni().await.map_err(|error| BlobError::Closed(error.into()))?;
            let deadline = Instant::now() + HEADER_TIMEOUT;
            *slot = Some(PendingBlob { stream, bytes: [0; BLOB_HEADER_BYTES], filled: 0, deadline });
        }
        let read = slot.as_mut().expect("filled above").read_header().await;
        let mut pending = slot.take().expect("filled above");
        drop(slot);
        match read.and_then(|()| BlobHeader::from_bytes(&pending.bytes).map_err(|_| refused(Refusal::MalformedHeader)))
        {
            Ok(header) => Ok(IncomingBlob { header, stream: pending.stream }),
            Err(error) => {
                if let BlobError::Refused(refusal) = &error {
                    stop(&mut pending.stream, *refusal);
                }
                Err(error)
            }
        }
    }
}

impl PendingBlob {
    async fn read_header(&mut self) -> Result<(), BlobError> {
        while self.filled < BLOB_HEADER_BYTES {
            match timeout_at(self.deadline, self.stream.read(&mut self.bytes[self.filled..])).await {
                Ok(Ok(Some(read))) => self.filled += read,
                Ok(Ok(None)) => return Err(refused(Refusal::MalformedHeader)),
                Ok(Err(ReadError::ConnectionLost(error))) => return Err(BlobError::Closed(error.into())),
                Ok(Err(_)) => return Err(BlobError::Abandoned),
                Err(_) => return Err(refused(Refusal::Stalled)),
            }
        }
        Ok(())
    }
}

impl IncomingBlob {
    /// The header. Admit it before you receive the body.
    pub fn header(&self) -> &BlobHeader {
        &self.header
    }

    /// Takes none of the body, and tells the sender why.
    pub fn refuse(mut self, refusal: Refusal) {
        stop(&mut self.stream, refusal);
    }

    /// The whole body and its SHA-256 as computed here; whether that is the header's is for the caller to check.
    ///
    /// At least [`PROGRESS_BYTES_MIN`] bytes, or the last ones, must come within each `progress_timeout`. Memory grows
    /// with what arrives, up to the header's length, which may not exceed `length_max`.
    ///
    /// # Errors
    /// [`ReceiveError`] has the cause and the bytes so far; the sender has been told.
    pub async fn receive(self, progress_timeout: Duration, length_max: u64) -> Result<(Bytes, Digest), ReceiveError> {
        self.receive_onto(Vec::new(), progress_timeout, length_max).await
    }

    /// The same for a transfer that resumes at its header's offset, after the first bytes in `kept`.
    ///
    /// # Errors
    /// As [`IncomingBlob::receive`]; also when `kept` ends before the offset.
    pub async fn receive_onto(
        mut self,
        kept: Vec<u8>,
        progress_timeout: Duration,
        length_max: u64,
    ) -> Result<(Bytes, Digest), ReceiveError> {
        let mut body = kept;
        match self.read_body(&mut body, progress_timeout, length_max).await {
            Ok(digest) => Ok((Bytes::from(body), digest)),
            Err(cause) => {
                match cause.refusal() {
                    Some(refusal) => stop(&mut self.stream, refusal),
                    None => drop(self.stream),
                }
                Err(ReceiveError { cause, kept: body })
            }
        }
    }

    async fn read_body(
        &mut self,
        body: &mut Vec<u8>,
        progress_timeout: Duration,
        length_max: u64,
    ) -> Result<Digest, TransferError> {
        let BlobHeader { length, offset, .. } = self.header;
        if length > length_max {
            return Err(TransferError::TooLarge { length, length_max });
        }
        let too_large = TransferError::TooLarge { length, length_max: usize::MAX as u64 };
        let whole = usize::try_from(length).map_err(|_| too_large)?;
        let start = usize::try_from(offset).expect("an offset is not beyond its length");
        if start > body.len() {
            return Err(TransferError::Gap { offset, kept: length_of(body) });
        }
        body.truncate(start);
        let mut digest = Context::new(&SHA256);
        digest.update(body);
        let mut chunks: [Bytes; CHUNKS] = array::from_fn(|_| Bytes::new());
        let mut deadline = Instant::now() + progress_timeout;
        let mut progress = 0;
        loop {
            let read = match timeout_at(deadline, self.stream.read_chunks(&mut chunks)).await {
                Ok(Ok(Some(read))) => read,
                Ok(Ok(None)) if body.len() == whole => return Ok(Digest::from_ring(&digest.finish())),
                Ok(Ok(None)) => {
                    return Err(TransferError::Length { declared: length - offset, actual: length_of(body) - offset });
                }
                Ok(Err(ReadError::ConnectionLost(error))) => return Err(TransferError::Closed(error.into())),
                Ok(Err(_)) => return Err(TransferError::Abandoned),
                Err(_) => return Err(TransferError::Stalled),
            };
            let before = body.len();
            for chunk in chunks[..read].iter_mut().map(std::mem::take) {
                let needed = body.len() + chunk.len();
                if needed > whole {
                    return Err(TransferError::Length { declared: length - offset, actual: needed as u64 - offset });
                }
                if needed > body.capacity() {
                    // Doubled as a vector would, but never beyond the length that was admitted.
                    let capacity = body.capacity().saturating_mul(2).max(needed).min(whole);
                    body.reserve_exact(capacity - body.len());
                }
                body.extend_from_slice(&chunk);
            }
            digest.update(&body[before..]);
            progress += body.len() - before;
            if progress >= PROGRESS_BYTES_MIN || body.len() == whole {
                deadline = Instant::now() + progress_timeout;
                progress = 0;
            }
        }
    }
}

/// A stream that is reset unless the transfer came to its end: quinn would otherwise finish it, as if it were whole.
struct Sending {
    stream: SendStream,
    complete: bool,
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.complete {
            // Fails only when there is nothing left to reset.
            let _ = self.stream.reset(VarInt::from_u32(DONE));
        }
    }
}

fn refused(refusal: Refusal) -> BlobError {
    BlobError::Refused(refusal)
}

fn stop(stream: &mut RecvStream, refusal: Refusal) {
    // Fails only when the stream is over: there is nobody to tell then.
    let _ = stream.stop(code(refusal));
}

fn stopped_by_peer(code: VarInt) -> TransferError {
    Refusal::from_code(code.into_inner()).map_or(TransferError::Abandoned, TransferError::Refused)
}

fn write_error(error: WriteError) -> TransferError {
    match error {
        WriteError::Stopped(code) => stopped_by_peer(code),
        WriteError::ConnectionLost(error) => TransferError::Closed(error.into()),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => TransferError::Abandoned,
    }
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a length fits in 64 bits")
}
