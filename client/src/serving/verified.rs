//! From bytes and what was said of them to a release that is believed: the one way there.
//!
//! [`Verified`] has no other constructor, and only it can be installed. [`Basis`] says why it is believed: because publishers signed
//! for these bytes, now or when they came, or, where the owner has pinned no root of trust, because the connection's certificate is an
//! aggregator's.

use starling_compress::Release;
use starling_trust::Permit;
use starling_wire::{Digest, ReleaseOffer, ReleaseRefusal};

use crate::trust::{Keeper, NotTaken};

/// Why bytes are believed.
#[derive(Clone, Copy)]
pub(crate) enum Basis<'a> {
    /// No root of trust is pinned.
    Offer,
    /// A statement permits exactly these bytes to be taken in.
    Permit(&'a Permit),
    /// They were verified when they came.
    Held(&'a Keeper),
}

/// A release whose bytes are those that were announced, and which is one of the task's.
#[derive(Debug)]
pub(crate) struct Verified {
    offer: ReleaseOffer,
    release: Release,
    signed: Option<starling_trust::Verified>,
}

impl Verified {
    /// Announcement and release.
    pub(crate) fn into_parts(self) -> (ReleaseOffer, Release) {
        (self.offer, self.release)
    }

    /// The proof that publishers signed for it, if it had to be signed.
    pub(crate) fn signed(&self) -> Option<&starling_trust::Verified> {
        self.signed.as_ref()
    }
}

/// Checks `bytes` against `basis` and `offer`: signed or held, length, SHA-256, the format with its own digest, and the task's name.
///
/// # Errors
/// The first [`ReleaseRefusal`] that applies. Whether the engine can run it is seen when it is prepared.
pub(crate) fn verify(offer: &ReleaseOffer, bytes: &[u8], basis: Basis<'_>) -> Result<Verified, ReleaseRefusal> {
    let refused = |why: NotTaken| why.release();
    let signed = match basis {
        Basis::Offer => None,
        Basis::Permit(permit) => Some(permit.verify(bytes).map_err(|why| refused(why.into()))?),
        Basis::Held(keeper) => Some(keeper.held(&offer.task, bytes).map_err(refused)?),
    };
    if bytes.len() as u64 != offer.length || Digest::of(bytes) != offer.digest {
        return Err(ReleaseRefusal::DigestMismatch);
    }
    let release = Release::from_bytes(bytes).map_err(|error| {
        tracing::warn!(task = offer.task, version = offer.version, %error, "a release cannot be read");
        ReleaseRefusal::Damaged
    })?;
    if release.name != offer.task {
        return Err(ReleaseRefusal::WrongTask);
    }
    Ok(Verified { offer: offer.clone(), release, signed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::model::tests::{offer, release_bytes};

    #[test]
    fn only_the_announced_bytes_of_a_release_of_the_task_are_verified() {
        let bytes = release_bytes(1.0);
        let said = offer(1, &bytes);
        assert_eq!(verify(&said, &bytes, Basis::Offer).expect("good").into_parts().0, said);
        for cut in 0..bytes.len() {
            assert_eq!(verify(&said, &bytes[..cut], Basis::Offer).expect_err("cut"), ReleaseRefusal::DigestMismatch);
            // The same bytes, announced as they are: the format finds the damage.
            let cut = &bytes[..cut];
            assert_eq!(verify(&offer(1, cut), cut, Basis::Offer).expect_err("cut"), ReleaseRefusal::Damaged);
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(verify(&said, &damaged, Basis::Offer).expect_err("damaged"), ReleaseRefusal::DigestMismatch);
            assert_eq!(
                verify(&offer(1, &damaged), &damaged, Basis::Offer).expect_err("damaged"),
                ReleaseRefusal::Damaged
            );
        }
        let other = ReleaseOffer { task: "other".into(), ..said };
        assert_eq!(verify(&other, &bytes, Basis::Offer).expect_err("another task's"), ReleaseRefusal::WrongTask);
    }
}
