//! A device that is killed, or whose disk is put back to an older copy, is asked again for what it was in the middle of.

use starling_wire::{Decline, Refusal};

use super::attempt::Asked;
use super::scene::{Said, Scene, VICTIM};

#[tokio::test]
async fn inv5_a_device_that_was_killed_says_what_it_said_and_masks_nothing() {
    let mut scene = Scene::new().await;
    let mut attempt = scene.begin(1).await;
    let cohort = attempt.honest(&scene, VICTIM);
    scene.until(&mut attempt, Asked::Envelopes).await;
    scene.kill(VICTIM);
    scene.start_device(VICTIM).await;
    let start = scene.start(1);
    let keys = scene.tell_start(VICTIM, &start).await.message();
    let shares = scene.ask(&attempt, VICTIM, &cohort).await.message();
    assert_eq!(attempt.said_by(VICTIM), [keys, shares], "byte for byte");
    let envelopes = attempt.honest(&scene, VICTIM);
    let said = scene.ask(&attempt, VICTIM, &envelopes).await;
    assert_eq!(said, Said::Left(Decline::Secure(Refusal::SecureBurned)), "its keys died with the process");
    scene.goes_on(&attempt, &[cohort, envelopes]).await;
}

#[tokio::test]
async fn inv5_a_disk_from_the_middle_of_an_attempt_says_no_more_than_was_said_until_then() {
    let mut scene = Scene::new().await;
    let attempt = scene.begin(1).await;
    let cohort = attempt.honest(&scene, VICTIM);
    let (state, old) = (scene.state(VICTIM), scene.fleet.folder().join("old"));
    scene.kill(VICTIM);
    scene.copy_state(&state, &old);
    scene.start_device(VICTIM).await;
    let start = scene.start(1);
    let keys = scene.tell_start(VICTIM, &start).await.message();
    assert_eq!(attempt.said_by(VICTIM), [&keys[..]], "byte for byte");
    // It is asked for more, cannot, and the disk forgets that it was asked.
    let burned = Said::Left(Decline::Secure(Refusal::SecureBurned));
    assert_eq!(scene.ask(&attempt, VICTIM, &cohort).await, burned);
    scene.kill(VICTIM);
    scene.copy_state(&old, &state);
    scene.start_device(VICTIM).await;
    assert_eq!(scene.tell_start(VICTIM, &start).await.message(), keys, "byte for byte");
    assert_eq!(scene.ask(&attempt, VICTIM, &cohort).await, burned);
    scene.goes_on(&attempt, &[cohort]).await;
}

#[tokio::test]
async fn a_disk_from_before_the_attempt_makes_other_keys_and_shares_nothing_under_the_old_ones() {
    let mut scene = Scene::new().await;
    let (state, old) = (scene.state(VICTIM), scene.fleet.folder().join("old"));
    scene.kill(VICTIM);
    scene.copy_state(&state, &old);
    scene.start_device(VICTIM).await;
    let mut attempt = scene.begin(1).await;
    let cohort = attempt.honest(&scene, VICTIM);
    // As far as its masked update: what a second vector under the same masks would be subtracted from.
    scene.until(&mut attempt, Asked::Survivors).await;
    scene.kill(VICTIM);
    scene.copy_state(&old, &state);
    scene.start_device(VICTIM).await;
    let start = scene.start(1);
    let keys = scene.tell_start(VICTIM, &start).await.message();
    assert_ne!(keys, attempt.said_by(VICTIM)[0], "the disk cannot know that there were keys");
    let said = scene.ask(&attempt, VICTIM, &cohort).await;
    assert_eq!(said, Said::Left(Decline::Secure(Refusal::SecureOwnKeysChanged)));
    scene.goes_on(&attempt, &[cohort]).await;
}
