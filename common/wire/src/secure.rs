//! How messages of a secure sum travel. What they say is `starling-secagg`'s; here they are bytes.
//!
//! To the aggregator a message fits in a frame. What comes back can be longer, a roster with everybody's certificates above all, so it
//! is a letter that is cut into parts:
//!
//! ```text
//! 0  4  bytes of the message, little-endian
//! 4  …  the message
//! …  2  certificates
//! …  …  each: 2 bytes of length, then DER
//! …  …  rolls to the end, where witnesses watch the audit log (`roll.rs`)
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::Address;
use crate::reader::{Malformed, Reader};
use crate::roll::{ROLLS_MAX, Roll, rolls_bytes_max};

/// Bytes of one part of a letter, so that its frame stays far below the limit.
pub const PART_BYTES_MAX: usize = 32 * 1024;

/// Bytes of one device's certificate: ours take about 600.
pub const CERTIFICATE_BYTES_MAX: usize = 2048;

/// Certificates of one device's chain: its own, the issuing key's, and one to spare for a roll-over.
pub const CHAIN_MAX: usize = 3;

/// Bytes of a letter to one device of a cohort of `cohort_max`: in a roster an entry of 182 bytes and a certificate for each, and in a
/// delivery an envelope of 88. Rolls come on top.
pub fn letter_bytes_max(cohort_max: u32) -> usize {
    let cohort_max = cohort_max as usize;
    4096 + cohort_max.saturating_mul(256 + CHAIN_MAX * CERTIFICATE_BYTES_MAX) + rolls_bytes_max(cohort_max)
}

/// What a device sends in a stage of a secure sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecureMail {
    /// The round.
    pub address: Address,
    /// The message.
    #[serde(with = "serde_bytes")]
    pub message: Vec<u8>,
    /// With its keys, the device's certificate and those between it and the CA: at most [`CHAIN_MAX`] of at most
    /// [`CERTIFICATE_BYTES_MAX`] bytes.
    pub chain: Vec<serde_bytes::ByteBuf>,
}

impl SecureMail {
    /// Whether the chain is one that a roster has room for.
    pub fn is_bounded(&self) -> bool {
        self.chain.len() <= CHAIN_MAX && self.chain.iter().all(|certificate| certificate.len() <= CERTIFICATE_BYTES_MAX)
    }
}

/// A part of a letter to a device. Parts come in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurePart {
    /// The round.
    pub address: Address,
    /// Bytes of the whole letter.
    pub total: u32,
    /// Where in it this part begins.
    pub offset: u32,
    /// The part.
    pub bytes: Bytes,
}

/// What an aggregator sends in a stage of a secure sum.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecureLetter {
    /// The message.
    pub message: Vec<u8>,
    /// Certificates of the devices that it names, so that signatures can be checked against the CA.
    pub certificates: Vec<Vec<u8>>,
    /// Which of them are in the audit log, for devices whose owners name witnesses: at most [`ROLLS_MAX`].
    pub rolls: Vec<Roll>,
}

/// The parts of a letter. They share its memory.
///
/// # Panics
/// If the letter has 4 GiB or more.
pub fn parts(letter: Bytes, address: Address) -> impl Iterator<Item = SecurePart> {
    let total = u32::try_from(letter.len()).expect("a letter has less than 4 GiB");
    let count = letter.len().div_ceil(PART_BYTES_MAX);
    (0..count).map(move |part| {
        let from = part * PART_BYTES_MAX;
        let bytes = letter.slice(from..letter.len().min(from + PART_BYTES_MAX));
        SecurePart { address, total, offset: u32::try_from(from).expect("below the total"), bytes }
    })
}

impl SecureLetter {
    /// The letter as parts.
    ///
    /// # Panics
    /// If a certificate is longer than [`CERTIFICATE_BYTES_MAX`], or a roll than its bounds: whoever took them in has checked that.
    pub fn parts(&self, address: Address) -> impl Iterator<Item = SecurePart> {
        parts(self.to_bytes(), address)
    }

    /// The letter as bytes, of which [`parts`] makes parts: one copy is enough for all who get the same letter.
    ///
    /// # Panics
    /// As [`Self::parts`].
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        out.extend_from_slice(&u32::try_from(self.message.len()).expect("a message has less than 4 GiB").to_le_bytes());
        out.extend_from_slice(&self.message);
        out.extend_from_slice(&u16::try_from(self.certificates.len()).expect("a cohort fits in 16 bits").to_le_bytes());
        for certificate in &self.certificates {
            assert!(certificate.len() <= CERTIFICATE_BYTES_MAX, "certificates are checked when they come in");
            let length = u16::try_from(certificate.len()).expect("at most 2,048");
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(certificate);
        }
        self.rolls.iter().for_each(|roll| roll.write(&mut out));
        out.into()
    }

    /// Reads a letter that has come whole.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let length = reader.u32()? as usize;
        let message = reader.bytes(length)?.to_vec();
        let count = usize::from(reader.u16()?);
        let mut certificates = Vec::new();
        for _ in 0..count {
            let length = usize::from(reader.u16()?);
            if length > CERTIFICATE_BYTES_MAX {
                return Err(Malformed("a certificate is longer than any of ours"));
            }
            certificates.push(reader.bytes(length)?.to_vec());
        }
        let mut rolls = Vec::new();
        while reader.rest_len() > 0 && rolls.len() < ROLLS_MAX {
            rolls.push(Roll::read(&mut reader)?);
        }
        reader.end()?;
        Ok(Self { message, certificates, rolls })
    }
}

/// A letter that is coming in.
#[derive(Debug, Default)]
pub struct Letters {
    address: Option<Address>,
    total: usize,
    bytes: Vec<u8>,
}

impl Letters {
    /// Takes a part in, and gives the letter once it is whole. A first part begins a new letter; a part that does not follow the one before
    /// drops what there was.
    ///
    /// # Errors
    /// [`Malformed`]: a letter longer than `bytes_max`, a part out of place, or a letter that is none.
    pub fn take(&mut self, part: SecurePart, bytes_max: usize) -> Result<Option<SecureLetter>, Malformed> {
        let (total, offset) = (part.total as usize, part.offset as usize);
        if offset == 0 {
            *self = Self { address: Some(part.address), total, bytes: Vec::new() };
        }
        let follows = self.address == Some(part.address) && total == self.total && offset == self.bytes.len();
        let fits =
            total <= bytes_max && !part.bytes.is_empty() && part.bytes.len() <= total - self.bytes.len().min(total);
        if !follows || !fits {
            *self = Self::default();
            return Err(Malformed("a part of a letter is out of place, or the letter longer than the cohort allows"));
        }
        self.bytes.extend_from_slice(&part.bytes);
        if self.bytes.len() < total {
            return Ok(None);
        }
        let letter = SecureLetter::from_bytes(&self.bytes);
        *self = Self::default();
        letter.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{RunId, TaskId};

    fn address(attempt: u16) -> Address {
        Address { task: TaskId([1; 16]), run: RunId(2), round: 3, attempt }
    }

    fn letter() -> SecureLetter {
        let certificates = vec![vec![1; 600], Vec::new(), vec![2; 2048]];
        SecureLetter { message: vec![7; 70_000], certificates, rolls: Vec::new() }
    }

    fn with_rolls(count: usize) -> SecureLetter {
        let roll = || Roll { key: "key".into(), checkpoint: "checkpoint".into(), enrolments: Vec::new() };
        SecureLetter { rolls: (0..count).map(|_| roll()).collect(), ..letter() }
    }

    #[test]
    fn a_letter_in_parts_is_the_letter() {
        let mut letters = Letters::default();
        let parts: Vec<SecurePart> = letter().parts(address(1)).collect();
        assert_eq!(parts.len(), 3);
        let mut whole = None;
        for part in parts {
            assert_eq!(whole, None);
            whole = letters.take(part, 1 << 20).expect("in order");
        }
        assert_eq!(whole, Some(letter()));
        let bytes = letter().to_bytes();
        let own = |part: &SecurePart| bytes.as_ptr_range().contains(&part.bytes.as_ptr());
        assert!(super::parts(bytes.clone(), address(1)).all(|part| own(&part)), "parts are no copies");
        let empty = SecureLetter::default();
        let only = empty.parts(address(1)).next().expect("one part");
        assert_eq!(letters.take(only, 64).expect("whole"), Some(empty));
    }

    #[test]
    fn rolls_follow_the_certificates_and_cost_nothing_where_there_are_none() {
        for count in 0..=ROLLS_MAX {
            let written = with_rolls(count).to_bytes();
            assert_eq!(SecureLetter::from_bytes(&written), Ok(with_rolls(count)));
            assert_eq!(written.len(), letter().to_bytes().len() + count * (2 + 3 + 2 + 10 + 2));
        }
        assert!(SecureLetter::from_bytes(&with_rolls(ROLLS_MAX + 1).to_bytes()).is_err(), "one roll too many");
    }

    #[test]
    fn inv8_a_letter_longer_than_its_cohort_allows_is_refused_at_its_first_part() {
        let first = letter().parts(address(1)).next().expect("a part");
        let mut letters = Letters::default();
        assert!(letters.take(first.clone(), first.total as usize - 1).is_err());
        assert!(letters.bytes.capacity() == 0, "nothing was kept");
        assert!(letters.take(first.clone(), first.total as usize).is_ok());
    }

    #[test]
    fn parts_out_of_place_are_refused() {
        let parts: Vec<SecurePart> = letter().parts(address(1)).collect();
        let mut letters = Letters::default();
        assert!(letters.take(parts[1].clone(), 1 << 20).is_err(), "there was no first part");
        letters.take(parts[0].clone(), 1 << 20).expect("the first");
        let other = SecurePart { address: address(2), ..parts[1].clone() };
        assert!(letters.take(other, 1 << 20).is_err(), "of another attempt");
        assert!(letters.take(parts[1].clone(), 1 << 20).is_err(), "what there was is dropped");
        for cut in [0, 3, 5, 100] {
            assert!(SecureLetter::from_bytes(&letter().to_bytes()[..cut]).is_err());
        }
        assert!(SecureLetter::from_bytes(&[&letter().to_bytes()[..], &[0]].concat()).is_err());
    }
}
