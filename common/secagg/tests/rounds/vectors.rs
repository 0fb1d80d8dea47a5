//! An attempt of three devices, message by message, against an independent computation of the same: `tests/python/attempt.py`, which is
//! written from `docs/PROTOCOL.md`.

use starling_wire::Digest;

use crate::world::{World, input, nobody, setup};

const SETUP: &str = "b22dd41c05dbeed562c6d82ca8d979b554e6ad06685bef8b3f6f843cdcb2e857";
const SESSION: &str = "d67f56e1e983fb722d250bbc08de0b7b8aff1a3f36f86407f8303038d89d49dc";
const SHARE: [&str; 3] = [
    "263343b8cbe608d3f9ed8d946cb2c12588cb8d04f01eab6567e6d2f3aaf42941",
    "da696b60e596caababe63b8324bd32709fb4bb565edad3989d762626d2600afd",
    "7bb8498097785b7839e5c2959f813b9f687016fdfd3ea8241efaed1c6d219ad7",
];
const MASKED: [&str; 3] = [
    "99bb292cd3dbeb0e2bbf38a26841d0ef24a06805bd19823b041262076049ec59",
    "2f76a4cb8af47287ff0d416f6ae880fefd034e4e3dde16515bc12f4fd47a95bd",
    "f28c541ff7a8d55f808b49975bec4a1f62541c64f6550c842edb00d13bb3d446",
];

#[test]
fn inv9_keys_shares_and_masks_are_those_of_an_independent_computation() {
    let setup = setup(3, 50, 100);
    assert_eq!(setup.digest().to_string(), SETUP);
    let mut world = World::new(&setup, 3, 1, &nobody);
    world.share(&nobody).expect("three devices");
    assert_eq!(world.aggregator.session().expect("a roster").to_string(), SESSION);
    let roster = world.roster.clone();
    for ((id, device), (share, masked)) in world.devices.iter_mut().zip(SHARE.into_iter().zip(MASKED)) {
        assert_eq!(device.session().expect("a roster").to_string(), SESSION);
        let shared = device.handle_roster(&roster, &world.fleet).expect("the same roster").persisted();
        assert_eq!(Digest::of(&shared).to_string(), share);
        let message = device.mask(&input(&setup, id, 1)).expect("an input").persisted();
        assert_eq!(Digest::of(&message).to_string(), masked);
    }
}
