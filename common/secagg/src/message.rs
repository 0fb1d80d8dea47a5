//! The messages of an attempt as bytes. `docs/PROTOCOL.md` draws them.
//!
//! Every message starts with format, kind, and the digest of what it belongs to: the setup while keys are advertised, afterwards the session (setup
//! and roster). Lengths follow from what the receiver knows already, and are compared before anything is allocated (invariant 8).

use starling_wire::{DeviceId, Digest};

use crate::bitmap::Bitmap;
use crate::identity::Signature;
use crate::limits::{ENVELOPE_BYTES, HEADER_BYTES, MEMBER_BYTES, SHARE_BYTES, SIGNATURE_BYTES};
use crate::refused::Refused;
use starling_wire::Reader;

const FORMAT: u8 = 1;

/// The kinds of messages, in the order of the phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Device: its keys, signed.
    Advertise = 1,
    /// Aggregator: everybody's keys.
    Roster = 2,
    /// Device: an envelope for each neighbour.
    Share = 3,
    /// Aggregator: the envelopes for one device.
    Deliver = 4,
    /// Device: its masked vector.
    Masked = 5,
    /// Aggregator: who survived.
    Survivors = 6,
    /// Device: its signature of the survivor list.
    Confirm = 7,
    /// Aggregator: the neighbours' signatures, and which shares it needs.
    Unmask = 8,
    /// Device: those shares.
    Reveal = 9,
}

fn header(kind: Kind, about: &Digest, body: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + body);
    out.extend_from_slice(&[FORMAT, kind as u8]);
    out.extend_from_slice(&about.0);
    out
}

/// The body of a message of this kind about this attempt.
pub(crate) fn body<'a>(bytes: &'a [u8], kind: Kind, about: &Digest) -> Result<Reader<'a>, Refused> {
    let mut reader = Reader::new(bytes);
    let [format, got] = reader.array()?;
    if format != FORMAT {
        return Err(Refused::Malformed("its format is not 1; update this side"));
    }
    if got != kind as u8 {
        return Err(Refused::OutOfTurn("another kind was expected"));
    }
    if reader.digest()? != *about {
        return Err(Refused::OtherAttempt);
    }
    Ok(reader)
}

/// What a device says of itself: for which round, from which model, with which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) device: DeviceId,
    pub(crate) round: u32,
    pub(crate) attempt: u16,
    pub(crate) model: Digest,
    pub(crate) mask_key: [u8; 32],
    pub(crate) envelope_key: [u8; 32],
    pub(crate) signature: Signature,
}

impl Member {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.device.0);
        out.extend_from_slice(&self.round.to_le_bytes());
        out.extend_from_slice(&self.attempt.to_le_bytes());
        out.extend_from_slice(&self.model.0);
        out.extend_from_slice(&self.mask_key);
        out.extend_from_slice(&self.envelope_key);
        out.extend_from_slice(&self.signature);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, Refused> {
        Ok(Self {
            device: DeviceId(reader.array()?),
            round: reader.u32()?,
            attempt: reader.u16()?,
            model: reader.digest()?,
            mask_key: reader.array()?,
            envelope_key: reader.array()?,
            signature: reader.array()?,
        })
    }

    pub(crate) fn advertise(&self, setup: &Digest) -> Vec<u8> {
        let mut out = header(Kind::Advertise, setup, MEMBER_BYTES);
        self.put(&mut out);
        out
    }

    pub(crate) fn read(bytes: &[u8], setup: &Digest) -> Result<Self, Refused> {
        let mut reader = body(bytes, Kind::Advertise, setup)?;
        let member = Self::take(&mut reader)?;
        reader.end()?;
        Ok(member)
    }
}

pub(crate) fn write_roster(setup: &Digest, members: &[Member]) -> Vec<u8> {
    let mut out = header(Kind::Roster, setup, 2 + members.len() * MEMBER_BYTES);
    let count = u16::try_from(members.len()).expect("a cohort has at most COHORT_MAX devices");
    out.extend_from_slice(&count.to_le_bytes());
    members.iter().for_each(|member| member.put(&mut out));
    out
}

pub(crate) fn read_roster(bytes: &[u8], setup: &Digest, cohort_max: usize) -> Result<Vec<Member>, Refused> {
    let mut reader = body(bytes, Kind::Roster, setup)?;
    let count = usize::from(reader.u16()?);
    if count > cohort_max {
        return Err(Refused::CohortTooLarge { got: count, allowed: cohort_max });
    }
    if reader.rest_len() != count * MEMBER_BYTES {
        return Err(Refused::Malformed("a roster is not as long as its count says"));
    }
    (0..count).map(|_| Member::take(&mut reader)).collect()
}

/// An encrypted pair of shares.
pub(crate) type Envelope = [u8; ENVELOPE_BYTES];

/// One envelope for each neighbour in ascending order, and a commitment to the seed of the self mask.
pub(crate) struct Shared {
    pub(crate) commitment: Digest,
    pub(crate) envelopes: Vec<Envelope>,
}

impl Shared {
    pub(crate) fn write(&self, session: &Digest) -> Vec<u8> {
        let mut out = header(Kind::Share, session, 32 + self.envelopes.len() * ENVELOPE_BYTES);
        out.extend_from_slice(&self.commitment.0);
        self.envelopes.iter().for_each(|envelope| out.extend_from_slice(envelope));
        out
    }

    pub(crate) fn read(bytes: &[u8], session: &Digest, degree: usize) -> Result<Self, Refused> {
        let mut reader = body(bytes, Kind::Share, session)?;
        if reader.rest_len() != 32 + degree * ENVELOPE_BYTES {
            return Err(Refused::Malformed("there is not one envelope for each neighbour"));
        }
        let commitment = reader.digest()?;
        let envelopes = (0..degree).map(|_| reader.array()).collect::<Result<_, _>>()?;
        Ok(Self { commitment, envelopes })
    }
}

/// The envelopes for one device, from those of its neighbours that have shared.
pub(crate) struct Delivered {
    pub(crate) present: Bitmap,
    pub(crate) envelopes: Vec<Envelope>,
}

impl Delivered {
    pub(crate) fn write(&self, session: &Digest) -> Vec<u8> {
        let mut out = header(Kind::Deliver, session, self.envelopes.len() * (ENVELOPE_BYTES + 1) + 1);
        out.extend_from_slice(self.present.as_bytes());
        self.envelopes.iter().for_each(|envelope| out.extend_from_slice(envelope));
        out
    }

    pub(crate) fn read(bytes: &[u8], session: &Digest, degree: usize) -> Result<Self, Refused> {
        let mut reader = body(bytes, Kind::Deliver, session)?;
        let present = Bitmap::read(&mut reader, degree)?;
        if reader.rest_len() != present.count() * ENVELOPE_BYTES {
            return Err(Refused::Malformed("there is not one envelope for each neighbour that is named"));
        }
        let envelopes = (0..present.count()).map(|_| reader.array()).collect::<Result<_, _>>()?;
        Ok(Self { present, envelopes })
    }
}

pub(crate) fn masked_header(session: &Digest, packed_len: usize) -> Vec<u8> {
    header(Kind::Masked, session, packed_len)
}

pub(crate) fn read_masked<'a>(bytes: &'a [u8], session: &Digest) -> Result<&'a [u8], Refused> {
    Ok(body(bytes, Kind::Masked, session)?.remainder())
}

pub(crate) fn write_survivors(session: &Digest, survivors: &Bitmap) -> Vec<u8> {
    let mut out = header(Kind::Survivors, session, survivors.as_bytes().len());
    out.extend_from_slice(survivors.as_bytes());
    out
}

pub(crate) fn read_survivors(bytes: &[u8], session: &Digest, devices: usize) -> Result<Bitmap, Refused> {
    let mut reader = body(bytes, Kind::Survivors, session)?;
    let survivors = Bitmap::read(&mut reader, devices)?;
    reader.end()?;
    Ok(survivors)
}

pub(crate) fn write_confirmation(session: &Digest, signature: &Signature) -> Vec<u8> {
    let mut out = header(Kind::Confirm, session, SIGNATURE_BYTES);
    out.extend_from_slice(signature);
    out
}

pub(crate) fn read_confirmation(bytes: &[u8], session: &Digest) -> Result<Signature, Refused> {
    let mut reader = body(bytes, Kind::Confirm, session)?;
    let signature = reader.array()?;
    reader.end()?;
    Ok(signature)
}

/// Which shares the aggregator needs of a device, and the proof that its neighbours have seen the same survivors.
pub(crate) struct Unmasking {
    /// The neighbours that confirmed, by their position among the neighbours.
    pub(crate) confirmed: Bitmap,
    pub(crate) signatures: Vec<Signature>,
    /// Shares of the seeds of self masks; positions among the holders, who are the neighbours and, last, the device itself.
    pub(crate) seeds: Bitmap,
    /// Shares of mask keys, likewise.
    pub(crate) keys: Bitmap,
}

impl Unmasking {
    pub(crate) fn write(&self, session: &Digest) -> Vec<u8> {
        let mut out = header(Kind::Unmask, session, self.signatures.len() * (SIGNATURE_BYTES + 1));
        out.extend_from_slice(self.confirmed.as_bytes());
        out.extend_from_slice(self.seeds.as_bytes());
        out.extend_from_slice(self.keys.as_bytes());
        self.signatures.iter().for_each(|signature| out.extend_from_slice(signature));
        out
    }

    pub(crate) fn read(bytes: &[u8], session: &Digest, degree: usize) -> Result<Self, Refused> {
        let mut reader = body(bytes, Kind::Unmask, session)?;
        let confirmed = Bitmap::read(&mut reader, degree)?;
        let seeds = Bitmap::read(&mut reader, degree + 1)?;
        let keys = Bitmap::read(&mut reader, degree + 1)?;
        if reader.rest_len() != confirmed.count() * SIGNATURE_BYTES {
            return Err(Refused::Malformed("there is not one signature for each neighbour that is named"));
        }
        let signatures = (0..confirmed.count()).map(|_| reader.array()).collect::<Result<_, _>>()?;
        Ok(Self { confirmed, signatures, seeds, keys })
    }
}

/// The shares that were asked for: of seeds first, then of keys, each in ascending order of position.
pub(crate) fn write_reveal(session: &Digest, shares: &[[u8; SHARE_BYTES]]) -> Vec<u8> {
    let mut out = header(Kind::Reveal, session, shares.len() * SHARE_BYTES);
    shares.iter().for_each(|share| out.extend_from_slice(share));
    out
}

pub(crate) fn read_reveal(bytes: &[u8], session: &Digest, count: usize) -> Result<Vec<[u8; SHARE_BYTES]>, Refused> {
    let mut reader = body(bytes, Kind::Reveal, session)?;
    if reader.rest_len() != count * SHARE_BYTES {
        return Err(Refused::Malformed("there is not one share for each that was asked for"));
    }
    (0..count).map(|_| Ok(reader.array()?)).collect()
}
