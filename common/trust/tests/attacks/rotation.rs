//! Roots: rotation, stale roots, and what is left of a stolen key.

use starling_trust::{Statement, Subject};
use starling_wire::Distrust;

use crate::world::{DAY, NOON, ROLES, Roles, TASK, World, bundle, reason, root, signed};

const ROTATED: Roles = Roles { root: (&[2, 3, 4], 2), freshness: (&[11], 1), publishers: (&[21, 22, 23], 2) };

#[test]
fn a_root_needs_the_old_keys_and_the_new_ones() {
    let world = World::new();
    let origin = world.device.origin();
    for (signers, why) in [(&[1, 2][..], "old alone"), (&[3, 4], "new alone"), (&[2], "one of both"), (&[], "nobody")] {
        let second = root(2, origin, ROTATED, signers);
        assert_eq!(reason(&world.device, &bundle(&[&second])), Distrust::TooFewSignatures, "{why}");
    }
    let outcome = world.device.take(&bundle(&[&root(2, origin, ROTATED, &[2, 3])]), Subject::Release, TASK, NOON);
    assert_eq!(outcome.trusted.root().head().version, 2, "keys 2 and 3 are of both");
}

#[test]
fn a_chain_of_roots_is_walked_and_a_gap_is_refused() {
    let world = World::new();
    let origin = world.device.origin();
    let (second, third) = (root(2, origin, ROTATED, &[2, 3]), root(3, origin, ROLES, &[2, 3]));
    assert_eq!(reason(&world.device, &bundle(&[&third])), Distrust::RootGap);
    let outcome = world.device.take(&bundle(&[&third, &second, &world.first]), Subject::Release, TASK, NOON);
    assert_eq!(outcome.trusted.root().head().version, 3, "in whatever order they come");
    // An older root in a bundle is passed over; the device does not go back.
    let again = outcome.trusted.take(&bundle(&[&second]), Subject::Release, TASK, NOON);
    assert_eq!(again.trusted.root().head().version, 3);
}

#[test]
fn a_stale_root_is_noticed() {
    let world = World::new();
    let release = world.release(1, &[20, 21]);
    let mut current = world.current_of(1, &release);
    current.root_version = 2;
    let current = signed(Statement::Current(current), &[10]);
    assert_eq!(reason(&world.device, &bundle(&[&current, &release])), Distrust::StaleRoot);
    // And a root that has run out lets nothing in.
    let outcome = world.device.take(&world.delivery(1), Subject::Release, TASK, NOON + 366 * DAY);
    assert_eq!(outcome.permit.expect_err("expired").reason(), Distrust::Expired);
}

#[test]
fn a_root_of_another_fleet_is_refused() {
    let world = World::new();
    assert_eq!(
        reason(&world.device, &bundle(&[&root(2, starling_wire::Digest([9; 32]), ROTATED, &[2, 3])])),
        Distrust::OtherOrigin
    );
}

#[test]
fn stolen_keys_are_worth_nothing_after_a_rotation_and_what_they_poisoned_is_forgotten() {
    let world = World::new();
    // The thief has a threshold of publishers and freshness, and uses up every version there is.
    let mut artefact = world.artefact(Subject::Release, TASK, u64::MAX, b"a backdoor");
    artefact.head.issued_unix_s = NOON;
    let poison = signed(Statement::Artefact(artefact), &[20, 21]);
    let mut current = world.current_of(u64::MAX, &poison);
    (current.head.issued_unix_s, current.head.expires_unix_s) = (NOON + 3_000 * DAY, NOON + 4_000 * DAY);
    let ahead = signed(Statement::Current(current.clone()), &[10]);
    assert_eq!(
        reason(&world.device, &bundle(&[&ahead, &poison])),
        Distrust::Expired,
        "a far time makes its own release expire"
    );
    (current.head.issued_unix_s, current.head.expires_unix_s) = (NOON, NOON + 4_000 * DAY);
    let delivered = bundle(&[&signed(Statement::Current(current), &[10]), &poison]);
    let poisoned = world.device.take(&delivered, Subject::Release, TASK, NOON + DAY);
    assert!(poisoned.permit.is_ok(), "a threshold was stolen");

    // The root's keys were not: they take the word from 10 and 20.
    let second = root(2, world.device.origin(), ROTATED, &[2, 3]);
    let release = world.release(1, &[21, 23]);
    let good = signed(Statement::Current(world.current_of(1, &release)), &[11]);
    let rescued = poisoned.trusted.take(&bundle(&[&second, &good, &release]), Subject::Release, TASK, NOON + DAY);
    assert_eq!(rescued.permit.expect("believed again").artefact().head.version, 1);
    assert_eq!(reason(&rescued.trusted, &delivered), Distrust::TooFewSignatures, "the thief's documents count no more");
}
