//! A sealed blob: chunks of 64 KiB, each sealed with its place, so that it is read and written with one chunk in memory.
//!
//! ```text
//!  0  4  "SB1" and a zero
//!  4  4  generation of the data key
//!  8 32  salt, random: the file's key is HKDF(blobs key, salt, "blob")
//! 40 48  the name (32 bytes of SHA-256) sealed, so that a listing needs the header alone
//! 88  …  chunks: up to 65,536 bytes and a tag of 16 each; all but the last are full, the last may be empty
//! ```
//!
//! It is the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015): the nonce of a chunk is its index and whether it is
//! the last, the associated data are store, compartment and name. Chunks that are swapped, missing, doubled or of another blob do not open, and a
//! file that ends early has no last chunk. The key is the file's own, so nonces never meet those of another file.

use std::io::{self, ErrorKind, Read, Write};

use zeroize::Zeroizing;

use super::scope::Scope;
use crate::keys::error::KeyError;
use crate::keys::secret::{NONCE_BYTES, Secret, TAG_BYTES, random};

/// Bytes of plaintext in a chunk.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

const MAGIC: &[u8; 4] = b"SB1\0";
const FIXED_BYTES: usize = 40;
/// Bytes in front of the chunks.
pub(crate) const HEADER_BYTES: usize = FIXED_BYTES + 32 + TAG_BYTES;
/// No chunk has this index: it is the name's.
const NAME_INDEX: u64 = u64::MAX;

/// Why a blob could not be opened.
#[derive(Debug)]
pub(crate) enum StreamError {
    /// It cannot be read.
    Io(io::Error),
    /// It is not what was sealed under this name.
    Damaged,
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::UnexpectedEof { Self::Damaged } else { Self::Io(error) }
    }
}

/// The key of one file, and what its chunks are bound to.
struct FileKey {
    key: Secret,
    associated: Vec<u8>,
}

impl FileKey {
    fn new(scope: &Scope, generation: u32, fixed: &[u8; FIXED_BYTES]) -> Option<Self> {
        let blobs = &scope.generation(generation)?.blobs;
        let associated = [&fixed[..], &scope.store, &scope.tag].concat();
        Some(Self { key: blobs.derive(&fixed[8..40], "blob"), associated })
    }

    fn bound_to(mut self, name: &[u8; 32]) -> Self {
        self.associated.extend_from_slice(name);
        self
    }
}

fn nonce(index: u64, last: bool) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[3..11].copy_from_slice(&index.to_be_bytes());
    nonce[11] = u8::from(last);
    nonce
}

/// Seals `bytes` under `name` into `out`.
pub(crate) fn seal(
    scope: &Scope,
    name: &[u8; 32],
    bytes: &[u8],
    out: &mut impl Write,
) -> Result<io::Result<()>, KeyError> {
    let (generation, _) = scope.newest();
    let mut fixed = [0; FIXED_BYTES];
    fixed[..4].copy_from_slice(MAGIC);
    fixed[4..8].copy_from_slice(&generation.to_le_bytes());
    fixed[8..].copy_from_slice(&random::<32>()?);
    let key = FileKey::new(scope, generation, &fixed).expect("the newest generation is there");
    Ok(seal_with(key, name, &fixed, bytes, out))
}

fn seal_with(
    key: FileKey,
    name: &[u8; 32],
    fixed: &[u8; FIXED_BYTES],
    bytes: &[u8],
    out: &mut impl Write,
) -> io::Result<()> {
    let mut buffer = Zeroizing::new(Vec::with_capacity(CHUNK_BYTES + TAG_BYTES));
    buffer.extend_from_slice(name);
    key.key.seal(nonce(NAME_INDEX, true), &key.associated, &mut buffer, 0);
    out.write_all(fixed)?;
    out.write_all(&buffer)?;
    let key = key.bound_to(name);
    let chunks = bytes.len().div_ceil(CHUNK_BYTES).max(1);
    for index in 0..chunks {
        let from = index * CHUNK_BYTES;
        buffer.clear();
        buffer.extend_from_slice(&bytes[from..bytes.len().min(from + CHUNK_BYTES)]);
        key.key.seal(nonce(index as u64, index + 1 == chunks), &key.associated, &mut buffer, 0);
        out.write_all(&buffer)?;
    }
    Ok(())
}

/// Reads the name in the header, and the key for what follows.
fn open_header(scope: &Scope, file: &mut impl Read) -> Result<([u8; 32], FileKey), StreamError> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header)?;
    let (fixed, sealed) = header.split_first_chunk_mut::<FIXED_BYTES>().expect("the header is longer");
    if fixed[..4] != MAGIC[..] {
        return Err(StreamError::Damaged);
    }
    let generation = u32::from_le_bytes(fixed[4..8].try_into().expect("four bytes"));
    let key = FileKey::new(scope, generation, fixed).ok_or(StreamError::Damaged)?;
    let name = key.key.open(nonce(NAME_INDEX, true), &key.associated, sealed).ok_or(StreamError::Damaged)?;
    let name: [u8; 32] = (&*name).try_into().map_err(|_| StreamError::Damaged)?;
    Ok((name, key))
}

/// Which blob a file holds.
pub(crate) fn name_of(scope: &Scope, file: &mut impl Read) -> Result<[u8; 32], StreamError> {
    open_header(scope, file).map(|(name, _)| name)
}

/// Opens the blob `name` from a file of `file_bytes` bytes.
pub(crate) fn open(
    scope: &Scope,
    name: &[u8; 32],
    file_bytes: u64,
    file: &mut impl Read,
) -> Result<Vec<u8>, StreamError> {
    let sealed = file_bytes.checked_sub(HEADER_BYTES as u64).ok_or(StreamError::Damaged)?;
    let (found, key) = open_header(scope, file)?;
    if found != *name {
        return Err(StreamError::Damaged);
    }
    let key = key.bound_to(name);
    let chunk = (CHUNK_BYTES + TAG_BYTES) as u64;
    let chunks = sealed.div_ceil(chunk).max(1);
    let mut left = usize::try_from(sealed).map_err(|_| StreamError::Damaged)?;
    let aead = key.key.aead();
    // Every byte of it is in the file, whose length the system has told.
    let mut out = Vec::with_capacity(left);
    for index in 0..chunks {
        let start = out.len();
        let length = left.min(CHUNK_BYTES + TAG_BYTES);
        out.resize(start + length, 0);
        file.read_exact(&mut out[start..])?;
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce(index, index + 1 == chunks));
        let opened = aead
            .open_in_place(nonce, ring::aead::Aad::from(&key.associated), &mut out[start..])
            .map_err(|_| StreamError::Damaged)?
            .len();
        out.truncate(start + opened);
        left -= length;
    }
    Ok(out)
}
