//! The control stream: length-prefixed frames in both directions, in order.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use starling_wire::frame::{self, FRAME_LENGTH_BYTES, FrameError};
use starling_wire::{Refusal, decode, encode};
use tokio::time::{Instant, timeout_at};

use crate::limits::FRAME_TIMEOUT;
use crate::reason::CloseReason;

/// Control frames go before blobs of the same connection.
const CONTROL_PRIORITY: i32 = 1;

/// Both halves of a control stream.
#[derive(Debug)]
pub struct Control<Out, In> {
    /// The half that sends.
    pub sender: ControlSender<Out>,
    /// The half that receives.
    pub receiver: ControlReceiver<In>,
}

/// The half of a control stream that sends messages of type `Out`.
#[derive(Debug)]
pub struct ControlSender<Out> {
    stream: SendStream,
    /// What a cancelled `send` left unsent: the rest of a frame cannot be taken back.
    unsent: Bytes,
    messages: PhantomData<fn(Out)>,
}

/// The half of a control stream that receives messages of type `In`.
#[derive(Debug)]
pub struct ControlReceiver<In> {
    stream: RecvStream,
    /// What has arrived of the current frame, first its length, then its body. Never longer than a frame.
    partial: Vec<u8>,
    /// The length of the body, once it is known.
    body_bytes: Option<usize>,
    /// When the current frame has to be complete.
    deadline: Option<Instant>,
    messages: PhantomData<fn() -> In>,
}

/// Why a control stream failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The connection is over.
    #[error("{0}")]
    Closed(CloseReason),
    /// The peer's frame is too large or no message.
    #[error("a control frame of the peer is refused")]
    Frame(#[source] FrameError),
    /// Our own message fits into no frame.
    #[error("a control message cannot be sent")]
    Unsendable(#[source] FrameError),
    /// The peer ended the stream inside a frame.
    #[error("the control stream ended inside a frame, after {0} bytes of it")]
    HalfFrame(usize),
    /// The rest of a frame did not come, or was not taken, in time.
    #[error("a control frame made no progress for {} s", FRAME_TIMEOUT.as_secs())]
    Stalled,
    /// The peer ended its half of the stream without a close code.
    #[error("the peer abandoned the control stream")]
    Abandoned,
}

impl ControlError {
    /// What to close the connection with, or what the peer closed it with.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            ControlError::Closed(reason) => reason.refusal,
            ControlError::Frame(FrameError::TooLarge(_)) => Some(Refusal::FrameTooLarge),
            ControlError::Frame(_) | ControlError::HalfFrame(_) => Some(Refusal::MalformedFrame),
            ControlError::Stalled => Some(Refusal::Stalled),
            ControlError::Unsendable(_) => Some(Refusal::Internal),
            ControlError::Abandoned => Some(Refusal::UnexpectedFrame),
        }
    }
}

impl<Out: Serialize, In: DeserializeOwned> Control<Out, In> {
    pub(crate) fn new(send: SendStream, receive: RecvStream) -> Self {
        // Fails only on a stream that is finished, which this one is not.
        let _ = send.set_priority(CONTROL_PRIORITY);
        Self {
            sender: ControlSender { stream: send, unsent: Bytes::new(), messages: PhantomData },
            receiver: ControlReceiver {
                stream: receive,
                partial: Vec::new(),
                body_bytes: None,
                deadline: None,
                messages: PhantomData,
            },
        }
    }

    /// The halves, for two tasks.
    pub fn split(self) -> (ControlSender<Out>, ControlReceiver<In>) {
        (self.sender, self.receiver)
    }

    /// [`ControlSender::send`].
    ///
    /// # Errors
    /// See there.
    pub async fn send(&mut self, message: &Out) -> Result<(), ControlError> {
        self.sender.send(message).await
    }

    /// [`ControlReceiver::recv`].
    ///
    /// # Errors
    /// See there.
    pub async fn recv(&mut self) -> Result<Option<In>, ControlError> {
        self.receiver.recv().await
    }
}

impl<Out: Serialize> ControlSender<Out> {
    /// Hands `message` to the transport, which may wait for the peer to read. When cancelled, the message may be lost
    /// or may still go out, but never half of it: the next call sends the rest first.
    ///
    /// # Errors
    /// When the connection is over, the peer does not read, or the message fits into no frame.
    pub async fn send(&mut self, message: &Out) -> Result<(), ControlError> {
        self.flush().await?;
        self.unsent = encode(message).map_err(ControlError::Unsendable)?.into();
        self.flush().await
    }

    /// Ends the stream after the last message; the peer's `recv` then returns `None`.
    pub fn finish(&mut self) {
        // Fails only when the peer has stopped the stream: there is nobody to tell then.
        let _ = self.stream.finish();
    }

    /// Waits until the peer's transport has everything, or the connection is over.
    pub(crate) async fn delivered(&self) {
        // Either way nothing is left to wait for.
        let _ = self.stream.stopped().await;
    }

    async fn flush(&mut self) -> Result<(), ControlError> {
        let mut deadline = Instant::now() + FRAME_TIMEOUT;
        while !self.unsent.is_empty() {
            match timeout_at(deadline, self.stream.write(&self.unsent)).await {
                Ok(Ok(written)) => {
                    self.unsent.advance(written);
                    deadline = Instant::now() + FRAME_TIMEOUT;
                }
                Ok(Err(WriteError::ConnectionLost(error))) => return Err(ControlError::Closed(error.into())),
                Ok(Err(_)) => return Err(ControlError::Abandoned),
                Err(_) => return Err(ControlError::Stalled),
            }
        }
        Ok(())
    }
}

impl<In: DeserializeOwned> ControlReceiver<In> {
    /// The next message; `None` when the peer has ended the stream between two frames. Cancel-safe. It waits for a
    /// frame's first byte without limit (the connection has its own idle time-out), and for the rest at most
    /// [`FRAME_TIMEOUT`].
    ///
    /// # Errors
    /// When the connection is over or the peer's bytes are no frame; then the stream is of no further use.
    pub async fn recv(&mut self) -> Result<Option<In>, ControlError> {
        loop {
            let wanted = FRAME_LENGTH_BYTES + self.body_bytes.unwrap_or(0);
            if self.partial.len() == wanted {
                match self.body_bytes {
                    None => {
                        let prefix = [self.partial[0], self.partial[1], self.partial[2], self.partial[3]];
                        self.body_bytes = Some(frame::body_length(prefix).map_err(ControlError::Frame)?);
                        continue;
                    }
                    Some(_) => {
                        let message = decode(&self.partial[FRAME_LENGTH_BYTES..]).map_err(ControlError::Frame)?;
                        self.partial.clear();
                        // An idle connection keeps no large frame's memory.
                        self.partial.shrink_to(256);
                        (self.body_bytes, self.deadline) = (None, None);
                        return Ok(Some(message));
                    }
                }
            }
            let read = self.stream.read_chunk(wanted - self.partial.len(), true);
            let chunk = match self.deadline {
                None => read.await,
                Some(deadline) => timeout_at(deadline, read).await.map_err(|_| ControlError::Stalled)?,
            };
            match chunk {
                Ok(Some(chunk)) => self.partial.extend_from_slice(&chunk.bytes),
                Ok(None) if self.partial.is_empty() => return Ok(None),
                Ok(None) => return Err(ControlError::HalfFrame(self.partial.len())),
                Err(ReadError::ConnectionLost(error)) => return Err(ControlError::Closed(error.into())),
                Err(_) => return Err(ControlError::Abandoned),
            }
            self.deadline.get_or_insert_with(|| Instant::now() + FRAME_TIMEOUT);
        }
    }
}
