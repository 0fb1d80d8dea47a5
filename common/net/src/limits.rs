//! Every bound on what a peer can make this crate hold or wait for, with its derivation (invariant 6).

use std::time::Duration;

use starling_wire::limits::{BIDI_STREAMS_MAX, UNI_STREAMS_MAX};

/// How long a handshake may take. Three round trips at a bad mobile link's 2 s, and as much again for lost packets.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(12);

/// Handshakes that run at the same time. Each costs about 2 ms of CPU, so that a full set takes a quarter of a second.
pub const HANDSHAKES_MAX: usize = 128;

/// From this many running handshakes on, a dialer has to prove its address first (a QUIC retry), so that packets with
/// a forged source cannot fill the set.
pub const HANDSHAKES_BEFORE_RETRY: usize = HANDSHAKES_MAX / 2;

/// Handshakes that are done and wait for [`crate::Endpoint::accept`].
pub const ACCEPTED_WAITING_MAX: usize = 64;

/// First packets that wait for a free handshake; more are refused with `Busy`. A start of 1,000 devices at once fits.
pub const INCOMING_WAITING_MAX: usize = 4096;

/// Bytes that one of those may send ahead: a client hello of two packets, and some.
pub const INCOMING_BYTES_MAX: u64 = 8 * 1024;

/// Bytes that all of those may send ahead together.
pub const INCOMING_BYTES_TOTAL_MAX: u64 = 16 * 1024 * 1024;

/// How long a dialer waits for the welcome after its hello.
pub const WELCOME_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a connection of a joining machine may take from its handshake to its answer: two round trips and an fsync.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the rest of a control frame may take after its first byte, and how long a control frame may wait for the
/// peer to read. A frame is at most 61 KiB: slower than 2 KiB/s is no link to train over.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a blob's header may take after its stream was opened: 64 bytes in the stream's first packet.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a sender waits for the peer to take the next [`SEND_PIECE_BYTES`] of a blob.
pub const SEND_PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that a receiver must get within each progress time-out, or all that is left: one byte a minute is no progress.
pub const PROGRESS_BYTES_MIN: usize = 16 * 1024;

/// Bytes of a blob handed to the transport at a time.
pub const SEND_PIECE_BYTES: usize = 256 * 1024;

/// Bytes that a peer may send on one stream before we have read them: 512 KiB carry 40 Mbit/s over a round trip
/// of 100 ms, and twice as much gains nothing on one machine. What a stalled or refused blob can cost is this, and never the length in its header.
pub const STREAM_WINDOW_BYTES: u32 = 512 * 1024;

/// Bytes that a peer may send on all of its streams together before we have read them. Every stream's window at once,
/// the control stream's too: with less, blobs that wait to be read would use up the credit of the one being read, and
/// a receiver that takes them in turn would wait for ever.
pub const CONNECTION_WINDOW_BYTES: u32 = (UNI_STREAMS_MAX + BIDI_STREAMS_MAX) * STREAM_WINDOW_BYTES;

/// Bytes that we may have under way to a peer. They are shared with every other connection that gets the same blob.
pub const SEND_WINDOW_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes of TLS handshake messages out of order: a chain of certificates takes 2 KiB.
pub const CRYPTO_BYTES_MAX: usize = 32 * 1024;

/// Bytes of the kernel's buffers in each direction: with the default (208 KiB) 10,000 packets were lost in one run.
pub const SOCKET_BUFFER_BYTES: i32 = 4 * 1024 * 1024;

/// Characters of a peer's own words that reach a log.
pub const REASON_CHARS_MAX: usize = 200;

const _: () = assert!(HANDSHAKES_BEFORE_RETRY < HANDSHAKES_MAX, "retries start before the set is full");
