//! A freeze that lasts: nothing newer comes, and what says what is newest runs out while the device runs.

use starling_testkit::fleet::PATIENCE;
use starling_testkit::until;
use starling_wire::{Distrust, ReleaseRefusal, Standing};

use crate::publisher::{DAY_S, ENOUGH, bundle, release_bytes};
use crate::scene::{OLD, Scene, offer};

/// Long enough to fetch and install a small release on a busy machine.
const SHORT_S: u64 = 6;

/// A device that serves a release whose freshness statement soon runs out, at the moment when it has.
fn frozen(seed: u64, more: &str) -> Scene {
    let mut scene = Scene::connected(seed, more);
    let bytes = release_bytes(1.0);
    let release = scene.publisher.release(OLD, &bytes, ENOUGH);
    let current = scene.publisher.current_for(1, SHORT_S, 1, &release);
    let offer = scene.offer_signed(OLD, &bytes, &[&current, &release]);
    scene.deliver(&offer, &bytes);
    scene.ask(OLD);
    // Nobody asks it: the device says so by itself.
    let report = scene.report();
    assert_eq!(report.standing, Standing::Refused(ReleaseRefusal::Untrusted(Distrust::Expired)));
    scene
}

/// A newer freshness statement ends it.
fn thaw(scene: &mut Scene) {
    let bytes = release_bytes(1.0);
    let release = scene.publisher.release(OLD + 1, &bytes, ENOUGH);
    let current = scene.publisher.current_for(2, DAY_S, 1, &release);
    scene.offer(&offer(OLD + 1, &bytes), bundle(&[&current, &release]));
    let report = scene.report();
    assert_eq!((report.standing, report.serves), (Standing::Served, Some(OLD + 1)), "the same file, vouched for anew");
    scene.ask(OLD + 1);
    until("the end of the freeze in the status", PATIENCE, || {
        scene.status()?.trust.filter(|trust| !trust.expired && !trust.stopped)
    });
}

#[test]
fn a_device_that_is_frozen_says_so_and_keeps_the_old_model() {
    let mut scene = frozen(201, "");
    scene.ask(OLD);
    let trust = until("the freeze in the status", PATIENCE, || scene.status()?.trust.filter(|trust| trust.expired));
    assert!(!trust.stopped, "the default is to keep what serves");
    // Also after a restart, which finds nothing newer.
    scene.restart();
    scene.ask(OLD);
    thaw(&mut scene);
}

#[test]
fn a_device_whose_owner_wants_it_stops_when_it_is_frozen_until_something_newer_comes() {
    let mut scene = frozen(202, "on_expiry = \"stop\"");
    let why = scene.predict().expect_err("nothing is served");
    assert!(why.contains("has run out"), "{why}");
    until("the stop in the status", PATIENCE, || scene.status()?.trust.filter(|trust| trust.stopped));
    thaw(&mut scene);
}
