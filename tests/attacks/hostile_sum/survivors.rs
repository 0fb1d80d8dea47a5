//! Who is said to have survived, and to whom.

use starling_wire::{Decline, Refusal};

use super::attempt::Asked;
use super::scene::{DEVICES, Said, Scene, VICTIM};
use super::{refused, set};

/// Where the bitmap of a survivor list begins.
const SURVIVORS_AT: usize = 34;

/// Who is left out.
const LEFT_OUT: u32 = 3;

/// The survivor list without some devices.
fn without(scene: &Scene, mut list: Vec<u8>, left_out: &[u32]) -> Vec<u8> {
    for (place, index) in scene.in_order().into_iter().enumerate() {
        if left_out.contains(&index) {
            set(&mut list, SURVIVORS_AT, place, false);
        }
    }
    list
}

#[tokio::test]
async fn different_devices_are_shown_different_survivors() {
    let mut scene = Scene::new().await;
    let mut attempt = scene.begin(1).await;
    scene.until(&mut attempt, Asked::Survivors).await;
    let honest = attempt.honest(&scene, VICTIM);
    // The victim confirms everybody, so it would reveal everybody's seed; the others a list without one of them, of which they would reveal
    // the key: together both shares of that device.
    scene.ask(&attempt, VICTIM, &honest).await.message();
    let mut other = honest.clone();
    other.message = without(&scene, other.message, &[LEFT_OUT]);
    let mut request = [&[1, 8][..], &honest.message[2..SURVIVORS_AT], &[0, 0b1111, 0]].concat();
    let neighbours = scene.in_order().into_iter().filter(|index| *index != VICTIM && *index != LEFT_OUT);
    for index in neighbours.collect::<Vec<_>>() {
        let confirmed = scene.ask(&attempt, index, &other).await.message();
        set(&mut request, SURVIVORS_AT, scene.position(index, VICTIM), true);
        request.extend_from_slice(&confirmed[34..]);
    }
    let letter = starling_wire::SecureLetter { message: request, ..Default::default() };
    let said = scene.ask(&attempt, VICTIM, &letter).await;
    assert_eq!(said, Said::Left(Decline::Secure(Refusal::SecureSurvivorsDisagree)));
    scene.goes_on(&attempt, &[letter]).await;
}

#[tokio::test]
async fn a_second_list_comes_after_a_revocation() {
    refused(Asked::Survivors, Refusal::SecureSecondSurvivors, |scene, _, honest| {
        let mut second = honest.clone();
        second.message = without(scene, second.message, &[LEFT_OUT]);
        vec![honest, second]
    })
    .await;
}

#[tokio::test]
async fn two_devices_survive() {
    refused(Asked::Survivors, Refusal::SecureTooFewSurvivors, |scene, _, mut honest| {
        honest.message = without(scene, honest.message, &[LEFT_OUT, LEFT_OUT - 1]);
        vec![honest]
    })
    .await;
}

#[tokio::test]
async fn the_victim_is_said_not_to_have_survived() {
    refused(Asked::Survivors, Refusal::SecureNotASurvivor, |scene, _, mut honest| {
        honest.message = without(scene, honest.message, &[VICTIM]);
        vec![honest]
    })
    .await;
}

#[tokio::test]
async fn a_survivor_has_shared_nothing_with_the_victim() {
    let mut scene = Scene::new().await;
    let mut attempt = scene.begin(1).await;
    scene.until(&mut attempt, Asked::Envelopes).await;
    // One of three envelopes is kept back from the victim, which then masks without that device.
    let everybody = attempt.honest(&scene, VICTIM);
    let mut fewer = everybody.clone();
    let kept_back = scene.position(LEFT_OUT, VICTIM);
    set(&mut fewer.message, 34, kept_back, false);
    let len = starling_secagg::limits::ENVELOPE_BYTES;
    let from = 35 + kept_back * len;
    fewer.message.drain(from..from + len);
    let masked = scene.ask(&attempt, VICTIM, &fewer).await.message();
    attempt.take(&scene, VICTIM, masked);
    for index in 1..DEVICES {
        let letter = attempt.honest(&scene, index);
        let masked = scene.ask(&attempt, index, &letter).await.message();
        attempt.take(&scene, index, masked);
    }
    attempt.close();
    let list = attempt.honest(&scene, VICTIM);
    let said = scene.ask(&attempt, VICTIM, &list).await;
    assert_eq!(said, Said::Left(Decline::Secure(Refusal::SecureSurvivorNeverShared)));
    scene.goes_on(&attempt, &[list]).await;
}

#[tokio::test]
async fn shares_are_asked_for_before_anybody_has_confirmed() {
    refused(Asked::Survivors, Refusal::SecureOutOfTurn, |_, _, mut honest| {
        let session = honest.message[2..SURVIVORS_AT].to_vec();
        honest.message = [&[1, 8][..], &session, &[0, 0b1111, 0]].concat();
        vec![honest]
    })
    .await;
}
