//! Ten attacks on the delivery of models, and their kin. Those on statements are refused before a byte is fetched: the next that the
//! device says is that it refuses.

use starling_trust::{Current, Entry, Named, Statement, Subject};
use starling_wire::{BlobHeader, Digest, Distrust, ReleaseOffer};

use crate::hostile::header;
use crate::publisher::{DAY_S, ENOUGH, ROTATED, TASK, bundle, key, now_unix_s, release_bytes, signed};
use crate::scene::{OLD, Scene, offer};

const NEW: u64 = OLD + 1;

/// A new version, well signed, whose bytes the device asks for; and what vouches for it.
fn fetched(scene: &mut Scene, bytes: &[u8]) -> (ReleaseOffer, Vec<u8>) {
    let release = scene.publisher.release(NEW, bytes, ENOUGH);
    let bundle = bundle(&[&scene.publisher.current(NEW, &release), &release]);
    let offer = offer(NEW, bytes);
    scene.offer(&offer, bundle.clone());
    assert_eq!(scene.hostile.fetch().digest, offer.digest);
    (offer, bundle)
}

#[test]
fn attack_1_rollback_an_older_release_that_was_once_good() {
    let mut scene = Scene::new(101);
    let bytes = release_bytes(2.0);
    let older = scene.publisher.release(OLD - 1, &bytes, ENOUGH);
    // Even the freshness key cannot bring it back.
    let current = scene.publisher.current(OLD + 9, &older);
    scene.offer_signed(OLD - 1, &bytes, &[&current, &older]);
    scene.assert_refused(Distrust::Rollback);
}

#[test]
fn attack_2_freeze_a_freshness_statement_that_has_run_out() {
    let mut scene = Scene::new(102);
    let bytes = release_bytes(2.0);
    let release = scene.publisher.release(NEW, &bytes, ENOUGH);
    let mut head = scene.publisher.head(NEW, DAY_S);
    (head.issued_unix_s, head.expires_unix_s) = (now_unix_s() - 8 * DAY_S, now_unix_s() - DAY_S);
    let named = Named { version: NEW, digest: release.digest() };
    let entries = vec![Entry { task: TASK.into(), release: Some(named), plan: None }];
    let current = signed(Statement::Current(Current { head, root_version: 1, entries }), &[10]);
    scene.offer_signed(NEW, &bytes, &[&current, &release]);
    scene.assert_refused(Distrust::Expired);
}

#[test]
fn attack_3_mix_and_match_a_good_release_with_a_good_statement_of_another() {
    let mut scene = Scene::new(103);
    let (second, third) = (release_bytes(2.0), release_bytes(3.0));
    let named = scene.publisher.release(NEW, &second, ENOUGH);
    let other = scene.publisher.release(NEW + 1, &third, ENOUGH);
    let current = scene.publisher.current(NEW, &named);
    scene.offer_signed(NEW + 1, &third, &[&current, &other]);
    scene.assert_refused(Distrust::NotCurrent);
}

#[test]
fn attack_4_truncation_the_transfer_ends_before_the_signed_length() {
    let mut scene = Scene::new(104);
    let bytes = release_bytes(2.0);
    let (offer, _) = fetched(&mut scene, &bytes);
    scene.hostile.serve(&header(&offer), &bytes[..bytes.len() - 1]);
    scene.assert_refused(Distrust::TooShort);
}

#[test]
fn attack_5_endless_data_stop_at_the_signed_length() {
    let mut scene = Scene::new(105);
    let bytes = release_bytes(2.0);
    let (offer, bundle) = fetched(&mut scene, &bytes);
    let sent = scene.hostile.pour(&header(&offer), &bytes);
    assert!(sent < 16 << 20, "{sent} bytes were taken of {} that were signed", offer.length);
    scene.assert_refused(Distrust::TooLong);

    // A header that declares more is refused before its body is read.
    scene.offer(&offer, bundle);
    assert_eq!(scene.hostile.fetch().digest, offer.digest);
    let sent = scene.hostile.pour(&BlobHeader { length: 1 << 30, ..header(&offer) }, &bytes);
    assert!(sent < 16 << 20, "{sent} bytes were taken of a blob that is refused on its header");
    scene.assert_refused(Distrust::TooLong);
}

#[test]
fn attack_6_bit_flip_in_the_bytes_that_come() {
    let mut scene = Scene::new(106);
    let mut bytes = release_bytes(2.0);
    let (offer, _) = fetched(&mut scene, &bytes);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    scene.hostile.serve(&header(&offer), &bytes);
    scene.assert_refused(Distrust::DigestMismatch);
}

#[test]
fn attack_7_wrong_key_a_signature_that_passes_for_a_publishers() {
    let mut scene = Scene::new(107);
    let bytes = release_bytes(2.0);
    let honest = scene.publisher.release(NEW, &bytes, ENOUGH);
    let current = scene.publisher.current(NEW, &honest);
    let offer = offer(NEW, &bytes);
    // The thief's own key has signed, under the name of key 20.
    let mut forged = scene.publisher.release(NEW, &bytes, &[40]).to_bytes();
    let signature = forged.len() - 96;
    forged[signature..signature + 32].copy_from_slice(&Digest::of(key(20).public().bytes()).0);
    scene.offer(&offer, [current.to_bytes(), forged].concat());
    scene.assert_refused(Distrust::WrongSignature);
}

#[test]
fn attack_8_too_few_signatures_one_publisher_and_a_stranger() {
    let mut scene = Scene::new(108);
    let bytes = release_bytes(2.0);
    let release = scene.publisher.release(NEW, &bytes, &[20, 40]);
    let current = scene.publisher.current(NEW, &release);
    scene.offer_signed(NEW, &bytes, &[&current, &release]);
    scene.assert_refused(Distrust::TooFewSignatures);
}

#[test]
fn attack_9_stale_root_the_rotation_is_held_back() {
    let mut scene = Scene::new(109);
    let bytes = release_bytes(2.0);
    let release = scene.publisher.release(NEW, &bytes, ENOUGH);
    // The freshness statement is one made after the rotation.
    let current = scene.publisher.current_for(NEW, DAY_S, 2, &release);
    scene.offer_signed(NEW, &bytes, &[&current, &release]);
    scene.assert_refused(Distrust::StaleRoot);
    // With the root, it is the old keys that are refused, and the new ones believed.
    let root = scene.publisher.rotated();
    scene.offer_signed(NEW, &bytes, &[&root, &current, &scene.publisher.release(NEW, &bytes, &[20])]);
    scene.assert_refused(Distrust::TooFewSignatures);
    let release = scene.publisher.release(NEW, &bytes, &ROTATED[1..]);
    let current = scene.publisher.current_for(NEW + 1, DAY_S, 2, &release);
    let offer = scene.offer_signed(NEW, &bytes, &[&current, &release]);
    scene.deliver(&offer, &bytes);
    let trust = scene.status().and_then(|status| status.trust).expect("a root is pinned");
    assert_eq!(trust.root_version, 2);
}

#[test]
fn attack_10_wrong_task_a_good_release_of_another_task() {
    let mut scene = Scene::new(110);
    let bytes = release_bytes(2.0);
    let valve = signed(Statement::Artefact(scene.publisher.artefact(Subject::Release, "valve", NEW, &bytes)), ENOUGH);
    let current = scene.publisher.current(NEW, &valve);
    scene.offer_signed(NEW, &bytes, &[&current, &valve]);
    scene.assert_refused(Distrust::WrongTask);
}

#[test]
fn nothing_unsigned_and_nothing_otherwise_announced_than_signed_is_fetched() {
    let mut scene = Scene::new(111);
    let bytes = release_bytes(2.0);
    scene.offer(&offer(NEW, &bytes), Vec::new());
    scene.assert_refused(Distrust::Unsigned);
    let release = scene.publisher.release(NEW, &bytes, ENOUGH);
    let documents = bundle(&[&scene.publisher.current(NEW, &release), &release]);
    for announced in [
        offer(NEW + 1, &bytes),
        offer(NEW, &release_bytes(3.0)),
        ReleaseOffer { length: bytes.len() as u64 + 1, ..offer(NEW, &bytes) },
    ] {
        scene.offer(&announced, documents.clone());
        scene.assert_refused(Distrust::NotAsSigned);
    }
    scene.offer(&offer(NEW, &bytes), b"StTr, but nothing that follows".to_vec());
    scene.assert_refused(Distrust::Malformed);
    // A plan's statement is no release's, though the bytes are the same.
    let plan = scene.publisher.plan(NEW, &bytes, ENOUGH);
    scene.offer_signed(NEW, &bytes, &[&scene.publisher.current(NEW + 1, &plan), &plan]);
    scene.assert_refused(Distrust::Malformed);
    // And two releases under one number are not believed.
    let other = scene.publisher.release(NEW, &release_bytes(4.0), ENOUGH);
    scene.offer_signed(NEW, &release_bytes(4.0), &[&scene.publisher.current(NEW + 2, &other), &other]);
    scene.assert_refused(Distrust::Equivocation);
}
