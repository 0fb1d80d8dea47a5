//! From bytes and what was said of them to a release that is believed: the one way there.
//!
//! [`Verified`] has no other constructor, and only it can be installed. Whoever offers releases is believed today because
//! the connection's certificate is an aggregator's; the signature of a publisher will be checked here, in [`verify`], for
//! releases from the network and from the disk alike.

use starling_compress::Release;
use starling_wire::{Digest, ReleaseOffer, ReleaseRefusal};

/// A release whose bytes are those that were announced, and which is one of the task's.
#[derive(Debug)]
pub(crate) struct Verified {
    offer: ReleaseOffer,
    release: Release,
}

impl Verified {
    /// Announcement and release.
    pub(crate) fn into_parts(self) -> (ReleaseOffer, Release) {
        (self.offer, self.release)
    }
}

/// Checks `bytes` against `offer`: length, SHA-256, the format with its own digest, and the task's name.
///
/// # Errors
/// The first [`ReleaseRefusal`] that applies. Whether the engine can run it is seen when it is prepared.
pub(crate) fn verify(offer: &ReleaseOffer, bytes: &[u8]) -> Result<Verified, ReleaseRefusal> {
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
    Ok(Verified { offer: offer.clone(), release })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::model::tests::{offer, release_bytes};

    #[test]
    fn only_the_announced_bytes_of_a_release_of_the_task_are_verified() {
        let bytes = release_bytes(1.0);
        let said = offer(1, &bytes);
        assert_eq!(verify(&said, &bytes).expect("good").into_parts().0, said);
        for cut in 0..bytes.len() {
            assert_eq!(verify(&said, &bytes[..cut]).expect_err("cut"), ReleaseRefusal::DigestMismatch);
            // The same bytes, announced as they are: the format finds the damage.
            let cut = &bytes[..cut];
            assert_eq!(verify(&offer(1, cut), cut).expect_err("cut"), ReleaseRefusal::Damaged);
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(verify(&said, &damaged).expect_err("damaged"), ReleaseRefusal::DigestMismatch);
            assert_eq!(verify(&offer(1, &damaged), &damaged).expect_err("damaged"), ReleaseRefusal::Damaged);
        }
        let other = ReleaseOffer { task: "other".into(), ..said };
        assert_eq!(verify(&other, &bytes).expect_err("another task's"), ReleaseRefusal::WrongTask);
    }
}
