//! Checking proofs: RFC 9162, sections 2.1.3.2 and 2.1.4.2, step by step. It shares no code with what makes them, so a mistake there does
//! not hide itself here.

use ring::digest::{Context, SHA256};
use starling_wire::Digest;

/// Hashes of the longest proof: one a level of a tree of 2^64 leaves, and one more in a consistency proof.
pub const PROOF_HASHES_MAX: usize = 65;

/// Why a proof is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf would lie outside the tree.
    #[error("the log has {size} records, so there is no record {index}")]
    Outside {
        /// The leaf.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// The later tree is smaller than the earlier one.
    #[error("the log had {old} records before and has {new} now: an append-only log never shrinks")]
    Shrunk {
        /// Leaves before.
        old: u64,
        /// Leaves now.
        new: u64,
    },
    /// Too few or too many hashes.
    #[error("the proof has {0} hashes, which is not the number for a tree of this size")]
    Length(usize),
    /// The hashes lead to another root.
    #[error("the proof leads to another root than the one that is signed")]
    Root,
    /// The hashes do not lead to the root that was known before.
    #[error("the log is not a continuation of the one that was seen before: records were changed or taken out")]
    OldRoot,
}

fn leaf_of(data: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&[0x00]);
    context.update(data);
    Digest::from_ring(&context.finish()).0
}

fn parent(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&[0x01]);
    context.update(left);
    context.update(right);
    Digest::from_ring(&context.finish()).0
}

/// Checks that the leaf `data` stands at `index` in the tree of `size` leaves whose root is `root`.
///
/// # Errors
/// [`ProofError`] when the proof does not show it.
pub fn inclusion(data: &[u8], index: u64, size: u64, root: &Digest, proof: &[Digest]) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Outside { index, size });
    }
    let (mut fn_, mut sn) = (index, size - 1);
    let mut r = leaf_of(data);
    for Digest(p) in proof {
        if sn == 0 {
            return Err(ProofError::Length(proof.len()));
        }
        if fn_ & 1 == 1 || fn_ == sn {
            r = parent(p, &r);
            while fn_ & 1 == 0 && fn_ != 0 {
                fn_ >>= 1;
                sn >>= 1;
            }
        } else {
            r = parent(&r, p);
        }
        fn_ >>= 1;
        sn >>= 1;
    }
    if sn != 0 {
        return Err(ProofError::Length(proof.len()));
    }
    if r == root.0 { Ok(()) } else { Err(ProofError::Root) }
}

/// Checks that the tree of `new` leaves with `new_root` begins with that of `old` leaves with `old_root`.
///
/// # Errors
/// [`ProofError`] when the proof does not show it.
pub fn consistency(
    old: u64,
    old_root: &Digest,
    new: u64,
    new_root: &Digest,
    proof: &[Digest],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Shrunk { old, new });
    }
    if old == 0 || old == new {
        return match proof {
            [] if old == new && old_root != new_root => Err(ProofError::OldRoot),
            [] if old == 0 && old_root.0 != Digest::of(&[]).0 => Err(ProofError::OldRoot),
            [] => Ok(()),
            _ => Err(ProofError::Length(proof.len())),
        };
    }
    // A full old tree is its own first node.
    let mut path = proof.iter().map(|Digest(hash)| hash);
    let first = if old.is_power_of_two() { Some(&old_root.0) } else { path.next() };
    let first = first.ok_or(ProofError::Length(proof.len()))?;
    let (mut fn_, mut sn) = (old - 1, new - 1);
    while fn_ & 1 == 1 {
        fn_ >>= 1;
        sn >>= 1;
    }
    let (mut fr, mut sr) = (*first, *first);
    for c in path {
        if sn == 0 {
            return Err(ProofError::Length(proof.len()));
        }
        if fn_ & 1 == 1 || fn_ == sn {
            fr = parent(c, &fr);
            sr = parent(c, &sr);
            while fn_ & 1 == 0 && fn_ != 0 {
                fn_ >>= 1;
                sn >>= 1;
            }
        } else {
            sr = parent(&sr, c);
        }
        fn_ >>= 1;
        sn >>= 1;
    }
    if sn != 0 {
        return Err(ProofError::Length(proof.len()));
    }
    if fr != old_root.0 {
        return Err(ProofError::OldRoot);
    }
    if sr == new_root.0 { Ok(()) } else { Err(ProofError::Root) }
}
