//! What an aggregator lets into its fold: everything that could go wrong is found here.

use bytes::Bytes;
use starling_compress::{check, codec_id, decode_into};
use starling_wire::frame::{self, FRAME_LENGTH_BYTES};
use starling_wire::limits::PREAMBLE_BYTES_MAX;
use starling_wire::{BlobHeader, BlobKind, DeviceId, Digest, Refusal, UpdateReport};

use crate::bounded::norm;
use crate::numerics::Numerics;
use crate::sealed::PREAMBLE_BYTES;

/// An update that may be folded. Only [`admit`] makes one (invariant 3).
#[derive(Debug, Clone)]
pub struct Admitted {
    device: DeviceId,
    report: UpdateReport,
    body: Bytes,
    digest: Digest,
    numerics: Numerics,
}

/// Admits or refuses an update on its header alone, before a byte of the body is read.
///
/// # Errors
/// [`Refusal::UnexpectedFrame`] for another kind of blob, [`Refusal::CodecMismatch`], [`Refusal::LengthMismatch`].
pub fn admit_header(header: &BlobHeader, numerics: &Numerics) -> Result<(), Refusal> {
    if header.kind != BlobKind::Update {
        return Err(Refusal::UnexpectedFrame);
    }
    if header.codec != codec_id(numerics.codec()) {
        return Err(Refusal::CodecMismatch);
    }
    if !numerics.update_body_length_bounds().contains(&header.length) {
        return Err(Refusal::LengthMismatch);
    }
    Ok(())
}

/// Admits or refuses a whole update. `device` is who the certificate says, and `computed` the digest of `body` as it was
/// computed while the bytes came in.
///
/// # Errors
/// What [`admit_header`] refuses, and a wrong digest, a report that does not decode, a weight of zero or over the cap, and every
/// payload that [`starling_compress::check`] finds fault with or that decodes to a norm beyond the plan's.
pub fn admit(
    device: DeviceId,
    header: &BlobHeader,
    body: Bytes,
    computed: Digest,
    numerics: &Numerics,
) -> Result<Admitted, Refusal> {
    admit_header(header, numerics)?;
    if body.len() as u64 != header.length {
        return Err(Refusal::LengthMismatch);
    }
    if computed != header.digest {
        return Err(Refusal::DigestMismatch);
    }
    let report = report(&body)?;
    if !(1..=numerics.weight_max()).contains(&report.weight) {
        return Err(Refusal::WeightOutOfRange);
    }
    if !report.train_loss.is_finite() {
        return Err(Refusal::NotFinite);
    }
    let payload = body.get(PREAMBLE_BYTES..).ok_or(Refusal::MalformedUpdate)?;
    check(numerics.codec(), payload, numerics.parameters(), numerics.fixed()).map_err(|error| error.refusal())?;
    if let Some(norm_max) = numerics.norm_max() {
        let mut values = vec![0.0; numerics.parameters()];
        decode_into(numerics.codec(), payload, &mut values).map_err(|error| error.refusal())?;
        if norm(&values) > norm_max {
            return Err(Refusal::OutOfRange);
        }
    }
    Ok(Admitted { device, report, body, digest: computed, numerics: *numerics })
}

/// The report in front of a body. Its length is fixed, so any other is refused: the payload would start elsewhere.
fn report(body: &[u8]) -> Result<UpdateReport, Refusal> {
    let (prefix, rest) = body.split_first_chunk::<FRAME_LENGTH_BYTES>().ok_or(Refusal::MalformedUpdate)?;
    let length = frame::body_length(*prefix).map_err(|_| Refusal::MalformedUpdate)?;
    if length > PREAMBLE_BYTES_MAX || length + FRAME_LENGTH_BYTES != PREAMBLE_BYTES {
        return Err(Refusal::MalformedUpdate);
    }
    let report = rest.get(..length).ok_or(Refusal::MalformedUpdate)?;
    frame::decode(report).map_err(|_| Refusal::MalformedUpdate)
}

impl Admitted {
    /// Whose update it is.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// What it says of itself.
    pub fn report(&self) -> &UpdateReport {
        &self.report
    }

    /// The digest of its body.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes of its body, which stay in memory as long as this value.
    pub fn body_len(&self) -> usize {
        self.body.len()
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.body[PREAMBLE_BYTES..]
    }

    pub(crate) fn numerics(&self) -> &Numerics {
        &self.numerics
    }
}
