//! Who is said to be in the cohort, and with which keys.

use starling_secagg::{Device, Entropy, Guard};
use starling_testkit::Pki;
use starling_wire::{Refusal, Role, SecureLetter};
use zeroize::Zeroizing;

use super::attempt::{Asked, Attempt, members, place, roster};
use super::refused;
use super::scene::{Scene, VICTIM, credentials};

/// Where in a member its key for masks lies.
const MASK_KEY_AT: usize = 54;

/// Another device than the victim.
const OTHER: u32 = 2;

/// An honest letter with other members in its roster.
fn with(attempt: &Attempt, letter: &SecureLetter, members: Vec<Vec<u8>>) -> SecureLetter {
    SecureLetter {
        message: roster(&attempt.setup, members),
        certificates: letter.certificates.clone(),
        rolls: Vec::new(),
    }
}

#[tokio::test]
async fn one_device_is_in_the_cohort_twice() {
    refused(Asked::Roster, Refusal::SecureDuplicateMember, |scene, attempt, honest| {
        let mut members = members(&honest.message);
        let (from, to) = (place(&members, scene.id(OTHER)), place(&members, scene.id(OTHER + 1)));
        members[to] = members[from].clone();
        vec![with(attempt, &honest, members)]
    })
    .await;
}

#[tokio::test]
async fn a_member_has_a_certificate_of_the_aggregators_own_ca() {
    refused(Asked::Roster, Refusal::SecureUncertifiedMember, |scene, attempt, mut honest| {
        // With keys that the aggregator knows the secrets of, and everything signed as it should be.
        let own = Pki::new(41);
        let (key, id) = (credentials(&own, Role::Device, 9), own.identity(Role::Device, 9).id);
        let mut guard = Guard::new(attempt.address.run);
        let entropy = Entropy::new(Zeroizing::new([7; 32]));
        let (_, advertised) =
            Device::begin(&attempt.setup, &scene.sums.policy(0), id, &mut guard, &entropy, &key).expect("keys");
        let mut members = members(&honest.message);
        let replaced = place(&members, scene.id(OTHER));
        members[replaced] = advertised.persisted()[34..].to_vec();
        honest.certificates.extend(key.chain());
        vec![with(attempt, &honest, members)]
    })
    .await;
}

#[tokio::test]
async fn a_members_keys_are_the_aggregators() {
    refused(Asked::Roster, Refusal::SecureSwappedKeys, |scene, attempt, honest| {
        let mut members = members(&honest.message);
        let swapped = place(&members, scene.id(OTHER));
        members[swapped][MASK_KEY_AT..MASK_KEY_AT + 32].fill(9);
        vec![with(attempt, &honest, members)]
    })
    .await;
}

#[tokio::test]
async fn the_devices_own_keys_are_others() {
    refused(Asked::Roster, Refusal::SecureOwnKeysChanged, |scene, attempt, honest| {
        let mut members = members(&honest.message);
        let own = place(&members, scene.id(VICTIM));
        members[own][MASK_KEY_AT..MASK_KEY_AT + 32].fill(9);
        vec![with(attempt, &honest, members)]
    })
    .await;
}

#[tokio::test]
async fn two_devices_are_the_cohort() {
    refused(Asked::Roster, Refusal::SecureTinyCohort, |scene, attempt, honest| {
        let members = members(&honest.message);
        let two = [VICTIM, OTHER].map(|index| members[place(&members, scene.id(index))].clone());
        vec![with(attempt, &honest, two.to_vec())]
    })
    .await;
}

#[tokio::test]
async fn a_second_cohort_is_named() {
    refused(Asked::Roster, Refusal::SecureSecondRoster, |scene, attempt, honest| {
        let mut members = members(&honest.message);
        members.remove(place(&members, scene.id(OTHER)));
        let fewer = with(attempt, &honest, members);
        vec![honest, fewer]
    })
    .await;
}

/// The cohort's setup with the victim's model, and a roster of the others' members and the victim's own.
async fn other_model(rewrite: bool, reason: Refusal) {
    let mut scene = Scene::new().await;
    let start = scene.start(1);
    let mut attempt = Attempt::new(&scene, &start);
    for index in 1..super::scene::DEVICES {
        let said = scene.tell_start(index, &start).await;
        attempt.take_keys(&scene, index, said);
    }
    attempt.close();
    let mut alone = start;
    alone.base = scene.models[1].reference();
    let keys = scene.tell_start(VICTIM, &alone).await.message();
    let setup = scene.sums.setup(start.address, alone.base.digest);
    let others = attempt.honest(&scene, 1);
    let mut all = members(&others.message);
    if rewrite {
        all.iter_mut().for_each(|member| member[22..MASK_KEY_AT].copy_from_slice(&alone.base.digest.0));
    }
    all.push(keys[34..].to_vec());
    let letter = SecureLetter { message: roster(&setup, all), certificates: others.certificates, rolls: Vec::new() };
    let said = scene.ask(&attempt, VICTIM, &letter).await;
    assert_eq!(said, super::Said::Left(starling_wire::Decline::Secure(reason)));
    scene.goes_on(&attempt, &[letter]).await;
}

#[tokio::test]
async fn the_victim_trains_from_a_model_of_its_own() {
    other_model(false, Refusal::SecureOtherModel).await;
}

#[tokio::test]
async fn the_others_are_said_to_train_from_the_victims_model() {
    other_model(true, Refusal::SecureSwappedKeys).await;
}
