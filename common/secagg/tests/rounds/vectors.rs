//! An attempt of three devices, message by message, against an independent computation of the same: `tests/python/attempt.py`, which is
//! written from `docs/PROTOCOL.md`.

use starling_wire::Digest;

use crate::world::{World, input, nobody, setup};

const SETUP: &str = "46604abb49c12f7c127769ff890336798bfe2a623edff12d418f6ea16aa9c5e6";
const SESSION: &str = "37f455d33bfe7496632353b9f6dc8b58085c4f3eb979585825ebad15e0ee0cf5";
const SHARE: [&str; 3] = [
    "41ab307f0a6a29bd4f6821cf8cf58d9dafcd69d1bef8408a7e41a1cd76de5994",
    "702d72b46049964337baed9760f12ad1482e4b6aa05c21d36e6bf3955ede8937",
    "742cdcadfb9c8648a9b363d7e11765e013a0c67645471015694168e0f5520c06",
];
const MASKED: [&str; 3] = [
    "cfc49fa260b9d9e18ea7e2503a600818da93170e08d0f6c86af97c64bd78281b",
    "8fa737fb25ba5f9298ee4d246be9c21ee51b46d59c366c4d81bfdf02a1471831",
    "f8f5650b6310a70fc9ed1549388684d2992082b090be82c24856e7b339905c37",
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
