//! What a round is said to ask of a device.

use starling_wire::{Decline, Refusal, SecureLetter};

use super::attempt::{Asked, members, roster};
use super::refused;
use super::scene::{DEVICES, Said, Scene, VICTIM};

/// The victim is told another weight cap than the plan's.
async fn weighs(weight_max: u32) {
    let mut scene = Scene::new().await;
    let start = scene.start(1);
    let mut attempt = super::Attempt::new(&scene, &start);
    for index in 1..DEVICES {
        let said = scene.tell_start(index, &start).await;
        attempt.take_keys(&scene, index, said);
    }
    attempt.close();
    let mut lie = start;
    lie.weight_max = weight_max;
    let said = scene.tell_start(VICTIM, &lie).await;
    assert_eq!(said, Said::Left(Decline::Secure(Refusal::SecureInflatedWeight)));
    let roster = attempt.honest(&scene, 1);
    scene.goes_on(&attempt, &[roster]).await;
}

#[tokio::test]
async fn the_victim_weighs_more_than_the_plan_allows() {
    weighs(1 << 20).await;
}

#[tokio::test]
async fn the_victim_weighs_less_so_that_others_are_the_sum() {
    weighs(1).await;
}

#[tokio::test]
async fn the_others_weigh_next_to_nothing() {
    refused(Asked::Roster, Refusal::SecureOtherAttempt, |_, attempt, honest| {
        // A setup whose sum would be the victim's update alone, as far as its digits go.
        let setup = starling_secagg::Setup { weight_max: 1, ..attempt.setup };
        let message = roster(&setup, members(&honest.message));
        vec![SecureLetter { message, ..honest }]
    })
    .await;
}
