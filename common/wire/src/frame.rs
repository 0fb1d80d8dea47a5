//! Control frames: a length (`u32`, little-endian) and a bincode body. The only place in the protocol that knows bincode.
//!
//! bincode takes trailing bytes for granted and checks its limit only while decoding; both are checked here.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian, standard};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::FRAME_BYTES_MAX;

/// Bytes of the length in front of a frame.
pub const FRAME_LENGTH_BYTES: usize = 4;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<FRAME_BYTES_MAX>> =
    standard().with_little_endian().with_fixed_int_encoding().with_limit::<FRAME_BYTES_MAX>();

/// Why bytes are no frame, or a message fits into none.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The body would exceed [`FRAME_BYTES_MAX`].
    #[error("a control frame of {0} bytes exceeds the limit of {FRAME_BYTES_MAX}")]
    TooLarge(usize),
    /// The body is no message.
    #[error("a control frame could not be decoded")]
    Malformed(#[source] bincode::error::DecodeError),
    /// Bytes follow the message.
    #[error("a control frame holds {0} bytes after its message")]
    Trailing(usize),
    /// A message that cannot be encoded.
    #[error("a control message could not be encoded")]
    Unencodable(#[source] bincode::error::EncodeError),
}

/// The whole frame, length first, of `message`.
///
/// # Errors
/// [`FrameError::TooLarge`] when the message exceeds the limit: a peer would refuse it.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let body = bincode::serde::encode_to_vec(message, CONFIG).map_err(FrameError::Unencodable)?;
    if body.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge(body.len()));
    }
    let length = u32::try_from(body.len()).expect("FRAME_BYTES_MAX fits in 32 bits");
    let mut frame = Vec::with_capacity(FRAME_LENGTH_BYTES + body.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// The length of the body that a frame's first four bytes declare.
///
/// # Errors
/// [`FrameError::TooLarge`] before anything of that size is allocated (invariant 8).
pub fn body_length(prefix: [u8; FRAME_LENGTH_BYTES]) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX { Err(FrameError::TooLarge(length)) } else { Ok(length) }
}

/// The message in a frame's body.
///
/// # Errors
/// When the body is no message or holds more than one.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    if body.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge(body.len()));
    }
    let (message, read) = bincode::serde::decode_from_slice(body, CONFIG).map_err(FrameError::Malformed)?;
    if read != body.len() {
        return Err(FrameError::Trailing(body.len() - read));
    }
    Ok(message)
}
