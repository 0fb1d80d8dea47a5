//! The lossless difference between two encoded vectors of the same length, for devices that hold a recent version.
//!
//! ```text
//! 0  1  planes P: 1, 2 or 4
//! then for each plane p = 0 … P−1, which holds bytes p, p+P, p+2P … of the difference:
//!    1  method: 0 stored, 1 entropy coded as symbols of 8 bits ([`crate::rans`])
//!    8  length of what follows, little-endian
//!    …  the plane
//! ```
//!
//! With one plane the difference is `new − old` byte by byte, modulo 256: levels of `q8` move by ±1, which as a byte is one
//! of two values. With 2 or 4 (`f16`, `f32`) it is `new XOR old`: signs and exponents rarely change, so their planes are
//! nearly all zero, while the low bits are noise and are stored. Which layout fits is found on a sample, so the caller need
//! not name the codec.
//!
//! A receiver decodes into planes whose sizes follow from the version that it holds: a bomb cannot make it allocate more.

use crate::error::DecodeError;
use crate::rans;

/// Bytes of a plane's method and length.
const PLANE_HEADER_BYTES: usize = 9;
const STORED: u8 = 0;
const CODED: u8 = 1;

/// Bits of a plane's symbols: bytes.
const SYMBOL_BITS: u8 = 8;

/// Bytes of the difference that the choices are made on.
const SAMPLE_BYTES: usize = 64 * 1024;

/// The difference that leads from `old` to `new`; `None` when they differ in length or when it would not be smaller than
/// `new` itself.
pub fn encode(old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    if old.len() != new.len() || new.is_empty() {
        return None;
    }
    // The middle: at the ends stand exponents and biases, which are not like the rest. Aligned for every layout.
    let start = (new.len().saturating_sub(SAMPLE_BYTES) / 2) & !3;
    let end = new.len().min(start + SAMPLE_BYTES);
    let (old_sample, new_sample) = (&old[start..end], &new[start..end]);
    let planes = [1usize, 2, 4].into_iter().min_by_key(|planes| write(old_sample, new_sample, *planes).len())?;
    let difference = write(old, new, planes);
    (difference.len() < new.len()).then_some(difference)
}

/// The bytes that `difference` leads to from `old`; `length` is what the caller has been told they take.
///
/// # Errors
/// [`DecodeError`] when the length is not that of `old`, or the difference is malformed. Nothing larger than `length` is
/// allocated.
pub fn apply(old: &[u8], difference: &[u8], length: usize) -> Result<Vec<u8>, DecodeError> {
    if old.len() != length {
        return Err(DecodeError::Length { expected: old.len(), got: length });
    }
    let (&planes, mut rest) = difference.split_first().ok_or(TRUNCATED)?;
    let planes = usize::from(planes);
    if !matches!(planes, 1 | 2 | 4) {
        return Err(DecodeError::Malformed("a difference has 1, 2 or 4 planes"));
    }
    let mut new = vec![0u8; length];
    let mut decoded = Vec::new();
    for plane in 0..planes {
        let count = plane_len(length, planes, plane);
        let (header, body) = rest.split_at_checked(PLANE_HEADER_BYTES).ok_or(TRUNCATED)?;
        let (method, bytes) = header.split_first_chunk::<1>().ok_or(TRUNCATED)?;
        let bytes = bytes.first_chunk::<8>().ok_or(TRUNCATED)?;
        let bytes = usize::try_from(u64::from_le_bytes(*bytes)).map_err(|_| TRUNCATED)?;
        let (body, after) = body.split_at_checked(bytes).ok_or(TRUNCATED)?;
        rest = after;
        let values = match method[0] {
            STORED => body,
            CODED => {
                decoded.resize(count, 0);
                let mut reader = rans::Decoder::new(SYMBOL_BITS, body);
                reader.read(&mut decoded)?;
                if !reader.rest().is_empty() {
                    return Err(DecodeError::Malformed("bytes follow a plane of a difference"));
                }
                decoded.as_slice()
            }
            _ => return Err(DecodeError::Malformed("a plane of a difference is stored or coded")),
        };
        if values.len() != count {
            return Err(DecodeError::Malformed("a plane of a difference has the wrong length"));
        }
        put_plane(old, values, planes, plane, &mut new);
    }
    if rest.is_empty() { Ok(new) } else { Err(DecodeError::Malformed("bytes follow a difference's last plane")) }
}

const TRUNCATED: DecodeError = DecodeError::Malformed("a difference ends too early");

/// Bytes `plane`, `plane + planes`, … of `length`.
fn plane_len(length: usize, planes: usize, plane: usize) -> usize {
    (length + planes - 1 - plane) / planes
}

fn write(old: &[u8], new: &[u8], planes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(new.len() / 4 + PLANE_HEADER_BYTES * planes + 1);
    out.push(u8::try_from(planes).expect("1, 2 or 4"));
    let mut values = Vec::new();
    for plane in 0..planes {
        take_plane(old, new, planes, plane, &mut values);
        let sample = &values[..values.len().min(SAMPLE_BYTES / 4)];
        // A plane of noise would cost the time of compression twice and gain nothing.
        let promising = coded(sample).len() < sample.len() * 7 / 8;
        let coded = if promising { coded(&values) } else { Vec::new() };
        let (method, body) = if promising && coded.len() < values.len() { (CODED, &coded) } else { (STORED, &values) };
        out.push(method);
        out.extend_from_slice(&(body.len() as u64).to_le_bytes());
        out.extend_from_slice(body);
    }
    out
}

fn take_plane(old: &[u8], new: &[u8], planes: usize, plane: usize, values: &mut Vec<u8>) {
    values.clear();
    match planes {
        2 => take_stride::<2>(old, new, plane, values),
        4 => take_stride::<4>(old, new, plane, values),
        _ => values.extend(new.iter().zip(old).map(|(new, old)| new.wrapping_sub(*old))),
    }
}

fn take_stride<const PLANES: usize>(old: &[u8], new: &[u8], plane: usize, values: &mut Vec<u8>) {
    let (old, old_tail) = old.as_chunks::<PLANES>();
    let (new, new_tail) = new.as_chunks::<PLANES>();
    values.extend(new.iter().zip(old).map(|(new, old)| new[plane] ^ old[plane]));
    values.extend(new_tail.get(plane).zip(old_tail.get(plane)).map(|(new, old)| new ^ old));
}

/// Fills in what `values`, exactly as many as the plane has, say about `new`.
fn put_plane(old: &[u8], values: &[u8], planes: usize, plane: usize, new: &mut [u8]) {
    match planes {
        2 => put_stride::<2>(old, values, plane, new),
        4 => put_stride::<4>(old, values, plane, new),
        _ => {
            for ((new, old), value) in new.iter_mut().zip(old).zip(values) {
                *new = old.wrapping_add(*value);
            }
        }
    }
}

fn put_stride<const PLANES: usize>(old: &[u8], values: &[u8], plane: usize, new: &mut [u8]) {
    let (old, old_tail) = old.as_chunks::<PLANES>();
    let (new, new_tail) = new.as_chunks_mut::<PLANES>();
    for ((new, old), value) in new.iter_mut().zip(old).zip(values) {
        new[plane] = old[plane] ^ value;
    }
    if let (Some(new), Some(old), Some(value)) = (new_tail.get_mut(plane), old_tail.get(plane), values.get(new.len())) {
        *new = old ^ value;
    }
}

/// `values` entropy coded.
fn coded(values: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len() / 4);
    rans::encode(SYMBOL_BITS, values, &mut out);
    out
}
