//! What plain quinn moves, for comparison: one stream, nothing hashed, nothing kept.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::limits::SEND_PIECE_BYTES;
use crate::link::Link;
use crate::reason::CloseReason;

/// Sends `length` zeros from one end of a connection to the other, both in this process, and says how long it took.
/// The same transport settings as every other link, but neither header nor digest nor buffer: the ceiling for
/// [`Link::send_blob`].
///
/// # Errors
/// Why the connection ended.
pub async fn plain_transfer(from: &Link, to: &Link, length: u64) -> Result<Duration, CloseReason> {
    let piece = Bytes::from(vec![0u8; SEND_PIECE_BYTES]);
    let piece_bytes = SEND_PIECE_BYTES as u64;
    let started = Instant::now();
    let send = async {
        let mut stream = from.connection.open_uni().await?;
        let mut left = length;
        while left > 0 {
            let now = left.min(piece_bytes);
            let piece = piece.slice(..usize::try_from(now).expect("no more than a piece"));
            stream.write_chunk(piece).await.map_err(|error| ended(from, &error))?;
            left -= now;
        }
        // Fails when the receiver has stopped the stream, which this one does not.
        let _ = stream.finish();
        Ok::<_, CloseReason>(())
    };
    let receive = async {
        let mut stream = to.connection.accept_uni().await?;
        let mut chunks: [Bytes; 32] = std::array::from_fn(|_| Bytes::new());
        while stream.read_chunks(&mut chunks).await.map_err(|error| ended(to, &error))?.is_some() {}
        Ok::<_, CloseReason>(())
    };
    tokio::try_join!(send, receive)?;
    Ok(started.elapsed())
}

fn ended(link: &Link, error: &dyn std::error::Error) -> CloseReason {
    link.close_reason().unwrap_or_else(|| CloseReason { refusal: None, by_peer: false, text: error.to_string() })
}
