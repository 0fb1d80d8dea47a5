//! Where trust begins, and what whoever forwards bundles can do with them.

use starling_trust::{Bundle, Kind, Subject, Trusted};
use starling_wire::{Digest, Distrust};

use crate::world::{DAY, MODEL, NOON, ROLES, Roles, TASK, World, bundle, reason, root};

const ROTATED: Roles = Roles { root: (&[2, 3, 4], 2), freshness: (&[11], 1), publishers: (&[21, 22, 23], 2) };

#[test]
fn a_chain_of_roots_is_pinned_in_whatever_order_and_a_broken_one_is_not() {
    let world = World::new();
    let second = root(2, world.device.origin(), ROTATED, &[2, 3]);
    let chain = Trusted::pin(&bundle(&[&second, &world.first])).expect("a chain");
    assert_eq!((chain.root().head().version, chain.origin()), (2, world.device.origin()));
    assert_eq!(Trusted::pin(&second.to_bytes()).expect("a later root").origin(), world.device.origin());
    let why = |documents: &[u8]| Trusted::pin(documents).expect_err("no root to pin").reason();
    assert_eq!(why(b""), Distrust::Malformed);
    assert_eq!(why(&root(1, Digest([0; 32]), ROLES, &[1]).to_bytes()), Distrust::TooFewSignatures);
    let stranger = root(2, world.device.origin(), ROTATED, &[3, 4]);
    assert_eq!(why(&bundle(&[&world.first, &stranger])), Distrust::TooFewSignatures);
    assert_eq!(why(&bundle(&[&world.first, &root(3, world.device.origin(), ROTATED, &[2, 3])])), Distrust::RootGap);
    assert_eq!(why(&world.delivery(1)), Distrust::WrongKind);
}

#[test]
fn an_older_pin_changes_nothing_a_newer_one_is_the_owners_word_and_another_fleets_begins_anew() {
    let world = World::new();
    let device = world.device_at(3);
    let second = root(2, world.device.origin(), ROTATED, &[2, 3]);
    assert_eq!(device.clone().under(world.device.clone()), device);
    let rotated = device.clone().under(Trusted::pin(&second.to_bytes()).expect("a root"));
    assert_eq!(rotated.root().head().version, 2);
    assert!(rotated.held(Subject::Release, TASK, MODEL).is_ok(), "what serves goes on");
    assert_eq!(rotated.clone().under(world.device.clone()), rotated, "the owner's file was left as it was");
    let foreign = root(1, Digest([0; 32]), ROTATED, &[2, 3]);
    let foreign = Trusted::pin(&foreign.to_bytes()).expect("a root");
    assert_eq!(device.under(foreign.clone()), foreign);
}

#[test]
fn a_bundle_is_renewed_without_a_key_and_what_devices_would_say_is_foreseen() {
    let world = World::new();
    let (release, second) = (world.release(1, &[20, 21]), root(2, world.device.origin(), ROLES, &[1, 2]));
    let old = Bundle { documents: vec![world.first.clone(), world.current(1, &release), release.clone()] };
    let newer = Bundle { documents: vec![world.first.clone(), second, world.current(2, &release)] };
    let renewed = old.renewed(&newer);
    assert_eq!((renewed.of(Kind::Root).count(), renewed.of(Kind::Current).count()), (2, 1));
    let bytes = renewed.to_bytes().expect("small");
    let taken = world.device.take(&bytes, Subject::Release, TASK, NOON + DAY);
    assert!(taken.permit.is_ok());
    assert_eq!(taken.trusted.current().map(|current| current.head.version), Some(2));
    assert_eq!(renewed.artefact(Subject::Release).map(|artefact| &*artefact.task), Some(TASK));
    assert_eq!(renewed.artefact(Subject::Plan), None);

    let foreseen = |bundle: &Bundle, task, at| bundle.foresee(Subject::Release, task, at).map_err(|why| why.reason());
    assert!(foreseen(&renewed, TASK, NOON + DAY).is_ok());
    assert_eq!(foreseen(&renewed, TASK, NOON + 30 * DAY), Err(Distrust::Expired));
    assert_eq!(foreseen(&renewed, "pump-other", NOON + DAY), Err(Distrust::WrongTask));
    let rootless = Bundle { documents: vec![world.current(1, &release), release] };
    assert_eq!(foreseen(&rootless, TASK, NOON + DAY), Err(Distrust::Malformed));
    // What was held is superseded once something newer is named, and not before.
    let device = world.device_at(1);
    let held = device.held(Subject::Release, TASK, MODEL).expect("held");
    assert!(!device.is_superseded(&held));
    let next = world.release(2, &[20, 21]);
    let named = device.take(&bundle(&[&world.current(3, &next)]), Subject::Release, TASK, NOON + DAY);
    assert!(named.trusted.is_superseded(&held));
    assert_eq!(reason(&device, &bundle(&[&world.current(3, &next)])), Distrust::Malformed, "it lacks the statement");
    assert_eq!(device.expires_unix_s(), Some(NOON + 7 * DAY), "the freshness statement's week");
}
