//! Which shares are asked for.

use starling_wire::Refusal;

use super::attempt::Asked;
use super::scene::VICTIM;
use super::{refused, set};

/// The fields of a request among four devices, a byte each: which neighbours confirmed, whose seeds and whose keys are asked for. Signatures
/// follow.
const CONFIRMED_AT: usize = 34;
const SEEDS_AT: usize = 35;
const KEYS_AT: usize = 36;

/// Whose input the aggregator is after.
const PEER: u32 = 1;

#[tokio::test]
async fn both_shares_of_one_device_in_one_request() {
    refused(Asked::Shares, Refusal::SecureBothShares, |scene, _, mut honest| {
        set(&mut honest.message, KEYS_AT, scene.position(PEER, VICTIM), true);
        vec![honest]
    })
    .await;
}

#[tokio::test]
async fn both_shares_of_one_device_in_two_requests() {
    refused(Asked::Shares, Refusal::SecureSecondUnmasking, |scene, _, honest| {
        let mut other = honest.clone();
        let at = scene.position(PEER, VICTIM);
        set(&mut other.message, SEEDS_AT, at, false);
        set(&mut other.message, KEYS_AT, at, true);
        vec![honest, other]
    })
    .await;
}

#[tokio::test]
async fn the_key_of_a_survivor() {
    refused(Asked::Shares, Refusal::SecureForbiddenShare, |scene, _, mut honest| {
        let at = scene.position(PEER, VICTIM);
        set(&mut honest.message, SEEDS_AT, at, false);
        set(&mut honest.message, KEYS_AT, at, true);
        vec![honest]
    })
    .await;
}

#[tokio::test]
async fn too_few_have_confirmed() {
    refused(Asked::Shares, Refusal::SecureTooFewConfirmations, |_, _, mut honest| {
        let last = (0..3).rev().find(|at| honest.message[CONFIRMED_AT] >> at & 1 == 1).expect("somebody confirmed");
        set(&mut honest.message, CONFIRMED_AT, last, false);
        honest.message.truncate(honest.message.len() - starling_secagg::limits::SIGNATURE_BYTES);
        vec![honest]
    })
    .await;
}
