//! A bad mobile link: losses, delay, overtaking, and a new address in the middle of a round.

use starling_testkit::fleet::{number, rounds};
use starling_testkit::{Conditions, Link};
use starling_wire::Role;

use crate::world;

#[test]
fn a_device_behind_a_lossy_link_that_changes_its_address_takes_part() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let mut fleet = world::fleet(15, 2);
    fleet.start_aggregator();
    let link = runtime.block_on(Link::start(fleet.address(), 15, Conditions::MOBILE)).expect("a socket");
    fleet.start_device(0);
    let issued = fleet.pki.issue(Role::Device, 1);
    let config = fleet.configure_client_towards("mobile", &issued, 1, link.address());
    let _mobile = fleet.spawn_client("mobile", &config);
    let run = fleet.start_run(&world::task(2, 10_000, 2, "quorum = 1.0\n"), 15);
    fleet.wait_rounds(run, 2);
    link.rebind();
    let before = rounds(&fleet.wait_rounds(run, 1)).len();
    let status = fleet.wait_rounds(run, before + 3);
    world::assert_rounds_sound(&status);
    for round in rounds(&status) {
        assert_eq!(number(round, "contributors"), 2, "the bad link loses packets, not updates: {status:#}");
    }
    let (passed, lost) = link.counts();
    assert!(lost > 0, "the link did its work: {passed} passed");
}
