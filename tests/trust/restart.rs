//! What a device believes outlives it.

use starling_wire::Distrust;

use crate::publisher::{ENOUGH, ROTATED, bundle, release_bytes};
use crate::scene::{OLD, Scene, offer};

#[test]
fn inv5_versions_and_roots_only_increase_over_restarts_and_the_old_model_serves_from_the_disk() {
    let mut scene = Scene::new(301);
    let root = scene.publisher.rotated();
    let bytes = release_bytes(2.0);
    let before = scene.publisher.release(OLD + 1, &bytes, &[20]);
    // A rotation comes with a bundle that is refused: the root is kept.
    let current = scene.publisher.current(OLD + 1, &before);
    scene.offer_signed(OLD + 1, &bytes, &[&root, &current, &before]);
    scene.assert_refused(Distrust::TooFewSignatures);
    let newer = scene.publisher.release(OLD + 3, &bytes, &ROTATED[..2]);
    let current = scene.publisher.current_for(OLD + 3, 1_000, 2, &newer);
    // Seen, though its bytes never come.
    scene.offer(&offer(OLD + 3, &bytes), bundle(&[&current, &newer]));
    scene.hostile.fetch();

    scene.restart();
    let trust = scene.status().and_then(|status| status.trust).expect("a root is pinned");
    assert_eq!((trust.root_version, trust.freshness_version), (2, Some(OLD + 3)));
    for (version, signers, reason) in
        [(OLD + 2, &ROTATED[..2], Distrust::Rollback), (OLD + 4, ENOUGH, Distrust::TooFewSignatures)]
    {
        let release = scene.publisher.release(version, &bytes, signers);
        let current = scene.publisher.current_for(OLD + 9, 1_000, 2, &release);
        // The old freshness statement is the one that counts where the new one is refused.
        scene.offer_signed(version, &bytes, &[&current, &release]);
        scene.assert_refused(reason);
    }
    // Only now what was seen before the restart comes whole.
    let newest = scene.publisher.release(OLD + 5, &bytes, &ROTATED[1..]);
    let current = scene.publisher.current_for(OLD + 10, 1_000, 2, &newest);
    let offer = scene.offer_signed(OLD + 5, &bytes, &[&current, &newest]);
    scene.deliver(&offer, &bytes);
}
