//! The fixed header in front of every blob. It is admitted or refused before a byte of the body is read.
//!
//! ```text
//!  0  2  magic "St"            16  4  round
//!  2  1  header version (1)    20  2  attempt
//!  3  1  kind                  22  2  reserved, zero
//!  4  1  codec family          24  8  length of the body in bytes; high 24 bits zero
//!  5  1  codec parameter       32 32  SHA-256 of the whole body
//!  6  2  reserved, zero
//!  8  4  run
//! 12  4  offset of the first byte sent, in units of 1 KiB
//! ```
//!
//! All integers are little-endian.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, RunId};
use crate::limits::BLOB_BYTES_MAX;

/// Bytes of a [`BlobHeader`].
pub const BLOB_HEADER_BYTES: usize = 64;

/// The unit of [`BlobHeader::offset`]: a transfer resumes at a multiple of this.
pub const RESUME_UNIT_BYTES: u64 = 1024;

const MAGIC: [u8; 2] = *b"St";
const HEADER_VERSION: u8 = 1;

/// What a blob holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[non_exhaustive]
pub enum BlobKind {
    /// A model version, whole.
    Model = 1,
    /// A model version as a difference from the one that the device holds.
    Difference = 2,
    /// A device's update.
    Update = 3,
    /// A release of a task.
    Release = 4,
    /// Activations on their way between devices.
    Activation = 5,
    /// A device's update under the masks of a secure sum.
    Masked = 6,
}

/// A codec as it travels: the family and its parameter. `starling-compress` gives it meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CodecId {
    /// 1 f32, 2 f16, 3 qB.
    pub family: u8,
    /// Bits a value for qB, otherwise zero.
    pub parameter: u8,
}

/// The header of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobHeader {
    /// What it holds.
    pub kind: BlobKind,
    /// How its values are encoded.
    pub codec: CodecId,
    /// The run it belongs to.
    pub run: RunId,
    /// The round it belongs to.
    pub round: u32,
    /// The attempt it belongs to.
    pub attempt: u16,
    /// Where in the body this transfer starts, a multiple of [`RESUME_UNIT_BYTES`].
    pub offset: u64,
    /// Bytes of the whole body.
    pub length: u64,
    /// The digest of the whole body.
    pub digest: Digest,
}

/// A header that is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The first two bytes are wrong.
    #[error("not a Starling blob: wrong magic bytes")]
    Magic,
    /// Another version of the header.
    #[error("blob header version {0} is not spoken here")]
    Version(u8),
    /// An unknown kind.
    #[error("unknown blob kind {0}")]
    Kind(u8),
    /// Reserved bytes that are not zero.
    #[error("reserved bytes of a blob header are not zero")]
    Reserved,
    /// A length over the limit.
    #[error("a blob of {0} bytes is larger than any allowed one")]
    Length(u64),
    /// An offset beyond the body.
    #[error("a blob's offset lies beyond its length")]
    Offset,
}

impl BlobHeader {
    /// The bytes of the header.
    ///
    /// # Panics
    /// If the offset is no multiple of [`RESUME_UNIT_BYTES`]: every caller rounds it down first.
    pub fn to_bytes(&self) -> [u8; BLOB_HEADER_BYTES] {
        assert!(self.offset.is_multiple_of(RESUME_UNIT_BYTES), "offsets are rounded down to a unit");
        let offset_units = u32::try_from(self.offset / RESUME_UNIT_BYTES).expect("a blob has fewer than 2^32 units");
        let mut bytes = [0u8; BLOB_HEADER_BYTES];
        bytes[0..2].copy_from_slice(&MAGIC);
        bytes[2] = HEADER_VERSION;
        bytes[3] = self.kind as u8;
        bytes[4] = self.codec.family;
        bytes[5] = self.codec.parameter;
        bytes[8..12].copy_from_slice(&self.run.0.to_le_bytes());
        bytes[12..16].copy_from_slice(&offset_units.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.round.to_le_bytes());
        bytes[20..22].copy_from_slice(&self.attempt.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.length.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.digest.0);
        bytes
    }

    /// The header in `bytes`.
    ///
    /// # Errors
    /// [`HeaderError`] names the field that no honest peer sends.
    pub fn from_bytes(bytes: &[u8; BLOB_HEADER_BYTES]) -> Result<Self, HeaderError> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[0..2] != MAGIC {
            return Err(HeaderError::Magic);
        }
        if bytes[2] != HEADER_VERSION {
            return Err(HeaderError::Version(bytes[2]));
        }
        let kind = match bytes[3] {
            1 => BlobKind::Model,
            2 => BlobKind::Difference,
            3 => BlobKind::Update,
            4 => BlobKind::Release,
            5 => BlobKind::Activation,
            6 => BlobKind::Masked,
            other => return Err(HeaderError::Kind(other)),
        };
        if u16_at(6) != 0 || u16_at(22) != 0 {
            return Err(HeaderError::Reserved);
        }
        let length = u64::from(u32_at(24)) | u64::from(u32_at(28)) << 32;
        if length > BLOB_BYTES_MAX {
            return Err(HeaderError::Length(length));
        }
        let offset = u64::from(u32_at(12)) * RESUME_UNIT_BYTES;
        if offset > length {
            return Err(HeaderError::Offset);
        }
        let mut digest = [0u8; 32];
        digest.copy_from_slice(&bytes[32..64]);
        Ok(Self {
            kind,
            codec: CodecId { family: bytes[4], parameter: bytes[5] },
            run: RunId(u32_at(8)),
            round: u32_at(16),
            attempt: u16_at(20),
            offset,
            length,
            digest: Digest(digest),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BlobHeader {
        BlobHeader {
            kind: BlobKind::Update,
            codec: CodecId { family: 3, parameter: 8 },
            run: RunId(0x0102_0304),
            round: 7,
            attempt: 2,
            offset: 2048,
            length: 1_663_370,
            digest: Digest([0xab; 32]),
        }
    }

    #[test]
    fn a_header_has_the_bytes_that_the_protocol_document_draws() {
        let mut expected = Vec::new();
        expected.extend_from_slice(b"St"); // magic
        expected.extend_from_slice(&[1, 3, 3, 8, 0, 0]); // version, update, qB, 8 bits, reserved
        expected.extend_from_slice(&[4, 3, 2, 1]); // run
        expected.extend_from_slice(&[2, 0, 0, 0]); // offset: 2 units of 1 KiB
        expected.extend_from_slice(&[7, 0, 0, 0, 2, 0, 0, 0]); // round, attempt, reserved
        expected.extend_from_slice(&[0x8a, 0x61, 0x19, 0, 0, 0, 0, 0]); // 1,663,370 bytes
        expected.extend_from_slice(&[0xab; 32]);
        assert_eq!(header().to_bytes().to_vec(), expected);
    }

    #[test]
    fn a_header_reads_what_it_writes() {
        assert_eq!(BlobHeader::from_bytes(&header().to_bytes()), Ok(header()));
    }

    #[test]
    fn inv8_a_length_over_the_limit_is_refused_from_the_header_alone() {
        let mut bytes = header().to_bytes();
        bytes[31] = 0xff;
        assert!(matches!(BlobHeader::from_bytes(&bytes), Err(HeaderError::Length(_))));
    }
}
