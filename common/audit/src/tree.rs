//! The Merkle tree of RFC 6962, section 2.1: how it grows, and how proofs are cut from it.
//!
//! ```text
//! leaf = SHA-256(0x00 ‖ data)        node = SHA-256(0x01 ‖ left ‖ right)        no leaves = SHA-256("")
//! ```
//!
//! A tree of n > 1 leaves splits at the largest power of two below n. [`verify`](crate::verify) has its own hashing and its own
//! way to the root: what is built here is checked by other code.

use starling_wire::Digest;

/// The hash of a leaf that holds `data`.
pub fn leaf_hash(data: &[u8]) -> Digest {
    Digest::of_parts(&[&[0], data])
}

/// The hash of a node over two subtrees.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    Digest::of_parts(&[&[1], &left.0, &right.0])
}

/// A growing tree, held as the roots of its full subtrees: at most 64, whatever its size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    /// The largest first; one for each bit that is set in `size`.
    peaks: Vec<Digest>,
}

impl Frontier {
    /// A tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tree of `size` leaves with these full subtrees, the largest first; `None` when a tree of that size has another number of them.
    pub fn from_peaks(size: u64, peaks: Vec<Digest>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// The roots of its full subtrees, the largest first.
    pub fn peaks(&self) -> &[Digest] {
        &self.peaks
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Digest) {
        self.push_subtree(leaf, 0);
    }

    /// Adds a full subtree of 2^`height` leaves by its root.
    ///
    /// # Panics
    /// If the size so far is no multiple of 2^`height`: the subtree would be none of this tree.
    pub fn push_subtree(&mut self, root: Digest, height: u32) {
        assert!(self.size.is_multiple_of(1 << height), "a full subtree begins at a multiple of its size");
        let mut hash = root;
        let mut above = self.size >> height;
        while above & 1 == 1 {
            let left = self.peaks.pop().expect("each bit that is set in the size has a peak");
            hash = node_hash(&left, &hash);
            above >>= 1;
        }
        self.peaks.push(hash);
        self.size += 1 << height;
    }

    /// The root of the tree as it is.
    pub fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => Digest::of(&[]),
            Some(last) => peaks.fold(*last, |right, left| node_hash(left, &right)),
        }
    }
}

/// Where the leaves of a whole tree can be looked up.
pub trait Nodes {
    /// Why one cannot be read.
    type Error;

    /// The hash of the leaf `index`.
    ///
    /// # Errors
    /// When it cannot be read.
    fn leaf(&self, index: u64) -> Result<Digest, Self::Error>;

    /// The root of the leaves `start..end`, where it is at hand. The range is one that the tree has a node for.
    fn subtree(&self, start: u64, end: u64) -> Option<Digest> {
        let _ = (start, end);
        None
    }
}

impl Nodes for [Digest] {
    type Error = std::convert::Infallible;

    fn leaf(&self, index: u64) -> Result<Digest, Self::Error> {
        Ok(self[usize::try_from(index).expect("an index of a slice in memory")])
    }
}

/// The root of the leaves `start..end`.
///
/// # Errors
/// When a leaf cannot be read.
pub fn range_root<N: Nodes + ?Sized>(nodes: &N, start: u64, end: u64) -> Result<Digest, N::Error> {
    match end.saturating_sub(start) {
        0 => Ok(Digest::of(&[])),
        1 => nodes.leaf(start),
        count => match nodes.subtree(start, end) {
            Some(root) => Ok(root),
            None => {
                let middle = start + split(count);
                Ok(node_hash(&range_root(nodes, start, middle)?, &range_root(nodes, middle, end)?))
            }
        },
    }
}

/// The proof that leaf `index` is in the tree of the first `size` leaves: the neighbours on its way to the root, from the leaf up.
///
/// # Errors
/// When a leaf cannot be read.
///
/// # Panics
/// If `index` is not below `size`.
pub fn inclusion_proof<N: Nodes + ?Sized>(nodes: &N, index: u64, size: u64) -> Result<Vec<Digest>, N::Error> {
    assert!(index < size, "a proof is asked for a leaf of the tree");
    let (mut start, mut end) = (0, size);
    let mut proof = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            proof.push(range_root(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(nodes, start, middle)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of the first `old` leaves is the beginning of that of the first `new`. It is empty where there is
/// nothing to prove: for an empty or an equal tree.
///
/// # Errors
/// When a leaf cannot be read.
///
/// # Panics
/// If `old` is above `new`.
pub fn consistency_proof<N: Nodes + ?Sized>(nodes: &N, old: u64, new: u64) -> Result<Vec<Digest>, N::Error> {
    assert!(old <= new, "a tree only grows");
    let mut proof = Vec::new();
    if old == 0 || old == new {
        return Ok(proof);
    }
    let (mut start, mut end) = (0, new);
    // Whether the verifier knows the old tree's part of start..end already: it is the old root itself.
    let mut known = true;
    while old != end {
        let middle = start + split(end - start);
        if old <= middle {
            proof.push(range_root(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(nodes, start, middle)?);
            start = middle;
            known = false;
        }
    }
    if !known {
        proof.push(range_root(nodes, start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The largest power of two below `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (63 - (count - 1).leading_zeros())
}
