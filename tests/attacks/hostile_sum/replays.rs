//! What was said in an attempt before is said again in a later one, or the attempt itself is asked for again.

use starling_wire::{Decline, Refusal, SecureLetter, ToClient};

use super::attempt::{Asked, Attempt, members, place, roster};
use super::scene::{DEVICES, Said, Scene, VICTIM};

/// Two attempts up to the roster; the first one has been given up.
async fn two() -> (Scene, Attempt, Attempt) {
    let mut scene = Scene::new().await;
    let first = scene.begin(1).await;
    for index in 0..DEVICES {
        scene.send(index, &ToClient::RoundEnd(first.address, Refusal::StaleAttempt)).await;
    }
    let second = scene.begin(2).await;
    (scene, first, second)
}

async fn left_for(mut scene: Scene, attempt: &Attempt, letter: &SecureLetter, reason: Refusal) {
    assert_eq!(scene.ask(attempt, VICTIM, letter).await, Said::Left(Decline::Secure(reason)));
    let honest = attempt.honest(&scene, VICTIM);
    scene.goes_on(attempt, &[honest]).await;
}

#[tokio::test]
async fn a_members_keys_of_an_earlier_attempt() {
    let (scene, first, second) = two().await;
    let (old, mut letter) = (first.honest(&scene, VICTIM), second.honest(&scene, VICTIM));
    let (old, mut all) = (members(&old.message), members(&letter.message));
    let at = place(&all, scene.id(1));
    all[at].clone_from(&old[at]);
    letter.message = roster(&second.setup, all);
    left_for(scene, &second, &letter, Refusal::SecureStaleMember).await;
}

#[tokio::test]
async fn the_cohort_of_an_earlier_attempt() {
    let (scene, first, second) = two().await;
    let letter = first.honest(&scene, VICTIM);
    left_for(scene, &second, &letter, Refusal::SecureOtherAttempt).await;
}

#[tokio::test]
async fn an_attempt_that_the_device_has_left() {
    let mut scene = Scene::new().await;
    let mut attempt = scene.begin(1).await;
    scene.until(&mut attempt, Asked::Survivors).await;
    let letter = attempt.honest(&scene, VICTIM);
    scene.send(VICTIM, &ToClient::RoundEnd(attempt.address, Refusal::RoundClosed)).await;
    let start = scene.start(1);
    let said = scene.tell_start(VICTIM, &start).await;
    assert_eq!(said, Said::Left(Decline::Secure(Refusal::SecureReplayedRound)));
    scene.goes_on(&attempt, &[letter]).await;
}

#[tokio::test]
async fn an_attempt_before_the_latest() {
    let (mut scene, first, second) = two().await;
    scene.send(VICTIM, &ToClient::RoundEnd(second.address, Refusal::RoundClosed)).await;
    let start = scene.start(1);
    let said = scene.tell_start(VICTIM, &start).await;
    assert_eq!(said, Said::Left(Decline::Secure(Refusal::SecureReplayedRound)));
    let letters = [first.honest(&scene, VICTIM)];
    scene.goes_on(&second, &letters).await;
}
