//! More administrators than there are places: who is too many is told so, and neither devices nor the local socket notice.

use std::path::Path;

use serde_json::json;
use starling_aggregator::{AdminError, Daemon};
use starling_testkit::fleet::{PATIENCE, rounds};
use starling_testkit::until;
use starling_wire::Refusal;

use crate::scene::{Scene, text};

/// Places, as docs/THREAT_MODEL.md has them.
const PLACES: usize = 16;

fn arrive(scene: &Scene, identity: &Path) -> Result<Daemon, AdminError> {
    let daemon = Daemon::remote(&scene.address().to_string(), identity)?;
    daemon.ask(&json!({ "verb": "run-list" })).map(|_| daemon)
}

#[test]
fn inv6_administrators_beyond_their_places_are_refused_and_devices_go_on() {
    let scene = Scene::new("");
    scene.enrol("pump", 0, 1);
    let mut client = scene.run("pump");
    scene.start_run(1, 1_000_000, "");
    scene.wait_rounds(1);
    let auditor = scene.path("auditor");
    scene.ask(&["operator", "issue", "auditor", "--name", "auditor", "--out", text(&auditor)]);
    let mut there: Vec<_> = (0..PLACES).map(|_| arrive(&scene, &auditor).expect("there is a place")).collect();
    for _ in 0..3 {
        let refused = arrive(&scene, &auditor).err().expect("one too many");
        assert!(!refused.is_denied(), "it is not for good: {refused}");
        let said = std::iter::successors(Some(&refused as &dyn std::error::Error), |error| error.source());
        let said: Vec<_> = said.map(ToString::to_string).collect();
        assert!(said.join(": ").contains(Refusal::Busy.text()), "{said:?}");
    }
    scene.wait_operator_sees(Refusal::Busy, "auditor auditor");
    there.iter().for_each(|daemon| _ = daemon.ask(&json!({ "verb": "run-list" })).expect("who is in stays in"));

    // The fleet does not notice: rounds go on, another device comes in, and the machine's own user is heard.
    let before = rounds(&scene.status()).len();
    scene.wait_rounds(before + 2);
    assert!(client.exited().is_none(), "{}", client.transcript());
    scene.enrol("late", 0, 1);
    let _late = scene.run("late");
    scene.wait_connected("late");

    // A place that is given back is somebody else's.
    drop(there.pop());
    until("a place to be free", PATIENCE, || arrive(&scene, &auditor).ok());
}
