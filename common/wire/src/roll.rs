//! What goes with a roster so that a device can see who of it is enrolled: records of the audit log under a checkpoint that a witness has
//! co-signed. What they say is `starling-audit`'s; here they are bytes.
//!
//! ```text
//! 0  2  bytes of the log's public key, little-endian, then its text
//! …  2  bytes of the signed checkpoint, then its text
//! …  2  enrolments
//! …  …  each: 2 bytes of length and the record; 1 byte: hashes of its path, and 32 bytes each
//! ```

use crate::ids::Digest;
use crate::reader::{Malformed, Reader};

/// Bytes of a public key of a log: a name of at most 128 bytes, its id and 44 characters of key.
pub const LOG_KEY_BYTES_MAX: usize = 256;

/// Bytes of a checkpoint with all signatures that a note can bear.
pub const CHECKPOINT_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a record of the audit log.
pub const ENROLMENT_BYTES_MAX: usize = 1024;

/// Hashes from a record to the root: enough for a log of 2^40 records.
pub const PATH_HASHES_MAX: usize = 40;

/// Rolls of one letter: witnesses come at different times, and each signs the log as it is then.
pub const ROLLS_MAX: usize = 3;

/// Bytes that a letter of a cohort of `cohort_max` may take for its rolls.
pub const fn rolls_bytes_max(cohort_max: usize) -> usize {
    let enrolment = 2 + ENROLMENT_BYTES_MAX + 1 + PATH_HASHES_MAX * 32;
    ROLLS_MAX * (6 + LOG_KEY_BYTES_MAX + CHECKPOINT_BYTES_MAX + cohort_max.saturating_mul(enrolment))
}

/// A record that says which key a device has, and the way from it to the root of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// The record: the bytes of its leaf.
    pub record: Vec<u8>,
    /// The hashes from the leaf up.
    pub path: Vec<Digest>,
}

/// The devices of a roster whose enrolment is under one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roll {
    /// The log's public key, as it is written.
    pub key: String,
    /// The checkpoint, with its signatures.
    pub checkpoint: String,
    /// The enrolments.
    pub enrolments: Vec<Enrolment>,
}

impl Roll {
    /// Whether a letter has room for it.
    pub fn is_bounded(&self) -> bool {
        let fits = |enrolment: &Enrolment| {
            enrolment.record.len() <= ENROLMENT_BYTES_MAX && enrolment.path.len() <= PATH_HASHES_MAX
        };
        self.key.len() <= LOG_KEY_BYTES_MAX
            && self.checkpoint.len() <= CHECKPOINT_BYTES_MAX
            && self.enrolments.len() <= usize::from(u16::MAX)
            && self.enrolments.iter().all(fits)
    }

    /// # Panics
    /// If it is not bounded.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        assert!(self.is_bounded(), "who makes a roll keeps to its bounds");
        let length = |length: usize| u16::try_from(length).expect("bounded").to_le_bytes();
        for text in [&self.key, &self.checkpoint] {
            out.extend_from_slice(&length(text.len()));
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(&length(self.enrolments.len()));
        for Enrolment { record, path } in &self.enrolments {
            out.extend_from_slice(&length(record.len()));
            out.extend_from_slice(record);
            out.push(u8::try_from(path.len()).expect("at most 40"));
            path.iter().for_each(|hash| out.extend_from_slice(&hash.0));
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let key = text(reader, LOG_KEY_BYTES_MAX)?;
        let checkpoint = text(reader, CHECKPOINT_BYTES_MAX)?;
        let count = reader.u16()?;
        let mut enrolments = Vec::new();
        for _ in 0..count {
            let record = within(reader, ENROLMENT_BYTES_MAX)?.to_vec();
            let hashes = usize::from(reader.u8()?);
            if hashes > PATH_HASHES_MAX {
                return Err(Malformed("a path through the audit log is longer than any"));
            }
            let path = (0..hashes).map(|_| reader.digest()).collect::<Result<_, _>>()?;
            enrolments.push(Enrolment { record, path });
        }
        Ok(Self { key, checkpoint, enrolments })
    }
}

fn within<'a>(reader: &mut Reader<'a>, bytes_max: usize) -> Result<&'a [u8], Malformed> {
    let length = usize::from(reader.u16()?);
    if length > bytes_max {
        return Err(Malformed("a part of a roll is longer than any"));
    }
    reader.bytes(length)
}

fn text(reader: &mut Reader<'_>, bytes_max: usize) -> Result<String, Malformed> {
    let bytes = within(reader, bytes_max)?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed("a part of a roll is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roll() -> Roll {
        let enrolment = |length: usize| Enrolment { record: vec![7; length], path: vec![Digest([9; 32]); length % 3] };
        Roll {
            key: "log+00000000+key".into(),
            checkpoint: "log\n1\nroot\n".into(),
            enrolments: vec![enrolment(0), enrolment(400), enrolment(ENROLMENT_BYTES_MAX)],
        }
    }

    fn bytes(roll: &Roll) -> Vec<u8> {
        let mut out = Vec::new();
        roll.write(&mut out);
        out
    }

    #[test]
    fn a_roll_is_read_back_and_no_part_of_one_is() {
        let written = bytes(&roll());
        let mut reader = Reader::new(&written);
        assert_eq!(Roll::read(&mut reader), Ok(roll()));
        assert_eq!(reader.rest_len(), 0);
        for cut in 0..written.len() {
            assert!(Roll::read(&mut Reader::new(&written[..cut])).is_err(), "{cut}");
        }
    }

    #[test]
    fn inv8_lengths_beyond_their_limits_are_refused_before_what_they_announce_is_read() {
        let beyond = |bytes: &[u8]| Roll::read(&mut Reader::new(bytes)).expect_err("too long").to_string();
        assert!(beyond(&[1, 1]).contains("longer than any"), "a key of 257 bytes");
        assert!(beyond(&[0, 0, 1, 64]).contains("longer than any"), "a checkpoint of 16,385 bytes");
        assert!(beyond(&[0, 0, 0, 0, 1, 0, 1, 4]).contains("longer than any"), "a record of 1,025 bytes");
        assert!(beyond(&[0, 0, 0, 0, 1, 0, 0, 0, 41]).contains("longer than any"), "a path of 41 hashes");
        assert!(beyond(&[1, 0, 255]).contains("no text"));
    }

    #[test]
    fn the_longest_rolls_fit_what_a_letter_has_room_for() {
        let longest = Enrolment { record: vec![0; ENROLMENT_BYTES_MAX], path: vec![Digest([0; 32]); PATH_HASHES_MAX] };
        let roll = Roll {
            key: "k".repeat(LOG_KEY_BYTES_MAX),
            checkpoint: "c".repeat(CHECKPOINT_BYTES_MAX),
            enrolments: vec![longest; 5],
        };
        assert_eq!(ROLLS_MAX * bytes(&roll).len(), rolls_bytes_max(5));
    }
}
