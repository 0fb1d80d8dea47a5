//! The root: one record that says how many commits there were and sums up every other record, so that an older, a missing or a
//! doubled record shows when the store is opened.
//!
//! The sum is a multiset hash, MSet-Add-Hash of Clarke et al. (2003): `Σ HMAC(set key, version ‖ tag ‖ name)` over all records, added
//! lane by lane modulo 2⁶⁴. It changes with one addition and one subtraction for each record that a commit changes. The key is secret and
//! the sum itself is sealed, so nobody without the keys can look for records that cancel out.
//!
//! **What it does not show**: a whole folder that was replaced by an older copy of itself is consistent. [`Anchor`] is for that: a
//! caller who keeps the newest one elsewhere (a TPM counter, the operator's machine, the other side of a connection) finds out.

use serde::{Deserialize, Serialize};

/// The content of the root record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    /// Commits so far; the version of what the last one wrote.
    pub(crate) commits: u64,
    /// Records sealed so far, under whichever key.
    pub(crate) seals: u64,
    /// Records there are, without this one.
    pub(crate) records: u64,
    sum: [u64; 4],
}

/// How far a store has come: a seam for a counter that is kept elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Commits so far. A store that shows fewer than were seen before has been rolled back.
    pub commits: u64,
}

impl Root {
    /// A record is there.
    pub(crate) fn add(&mut self, element: &[u8; 32]) {
        self.each(element, u64::wrapping_add);
        self.records = self.records.wrapping_add(1);
    }

    /// A record is there no more.
    pub(crate) fn remove(&mut self, element: &[u8; 32]) {
        self.each(element, u64::wrapping_sub);
        self.records = self.records.wrapping_sub(1);
    }

    fn each(&mut self, element: &[u8; 32], with: impl Fn(u64, u64) -> u64) {
        for (lane, bytes) in self.sum.iter_mut().zip(element.as_chunks::<8>().0) {
            *lane = with(*lane, u64::from_le_bytes(*bytes));
        }
    }

    /// Whether both sum up the same records.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        self.records == other.records && self.sum == other.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_a_set_in_any_order() {
        let (mut one, mut other) = (Root::default(), Root::default());
        let elements: Vec<[u8; 32]> = (0..5).map(|seed| [seed * 51; 32]).collect();
        elements.iter().for_each(|element| one.add(element));
        elements.iter().rev().for_each(|element| other.add(element));
        assert!(one.agrees(&other));
        other.remove(&elements[2]);
        assert!(!one.agrees(&other));
        other.add(&elements[3]);
        assert!(!one.agrees(&other), "one is missing, another is there twice");
    }
}
