//! Every bound on what a peer can make us hold, with its derivation (invariant 6).

/// Bytes of one control frame, its length prefix left out. The largest frames are a [`crate::ToClient::Plan`], whose plan and
/// bundle take [`PLAN_BYTES_MAX`] together, and a [`crate::ToClient::Release`], whose bundle may take as much; the rest of both
/// stays far below 1 KiB.
pub const FRAME_BYTES_MAX: usize = PLAN_BYTES_MAX + 1024;

/// Bytes of a run's plan (model spec and training settings as JSON) and of what was signed of it. A residual network of 100 layers
/// takes 6 KiB, a bundle of three roots and ten tasks 5 KiB.
pub const PLAN_BYTES_MAX: usize = 60 * 1024;

/// Bytes of a name: task, device, software version. Long enough for a host name (253), short enough for a log line.
pub const NAME_BYTES_MAX: usize = 256;

/// Tasks that one device may offer itself for.
pub const TASKS_PER_DEVICE_MAX: usize = 64;

/// Parameters of one model: 2³⁰. An accumulator of that many takes 8 GiB; `u32` indices still reach every one.
pub const PARAMETERS_MAX: usize = 1 << 30;

/// Bytes of one blob: the largest model in the widest codec and its preamble.
pub const BLOB_BYTES_MAX: u64 = 4 * (PARAMETERS_MAX as u64) + 4096;

/// Bytes of a release: 2²⁸. The largest float model of 60 million parameters fits, and a device's memory is asked for no more.
pub const RELEASE_BYTES_MAX: u64 = 1 << 28;

/// Unidirectional streams that a device may have open at once: the update it sends now, and one that is resent.
pub const UNI_STREAMS_MAX: u32 = 4;

/// Bidirectional streams that a device may have open at once: the control stream.
pub const BIDI_STREAMS_MAX: u32 = 1;

/// Bytes of an update's preamble: a [`crate::UpdateReport`] is far smaller, and a length above this is refused unread.
pub const PREAMBLE_BYTES_MAX: usize = 512;

/// The largest weight (examples) that a plan may allow: 2²⁴. A `u32` product with an 8-bit level stays exact, and a
/// cohort of 2¹⁶ such devices leaves the fold 22 bits of fixed point for |x| ≤ 1.
pub const WEIGHT_MAX: u32 = 1 << 24;

/// Bytes of a certificate chain or of a set of trust anchors in PEM: a leaf and its issuer take 1.5 KiB, two roots as much.
pub const CHAIN_BYTES_MAX: usize = 16 * 1024;

const _: () = assert!(2 * CHAIN_BYTES_MAX + 1024 < FRAME_BYTES_MAX, "a credential fits in a frame");
const _: () = assert!(FRAME_BYTES_MAX < u16::MAX as usize, "a frame's length fits in 16 bits");
const _: () = assert!(RELEASE_BYTES_MAX <= BLOB_BYTES_MAX, "a release travels as a blob");
const _: () = assert!(BLOB_BYTES_MAX < 1 << 40, "an encoded length survives a float of 53 bits");
