//! Every decoder: one encoding only, and no input that makes it panic or hold more than it was given.

use proptest::prelude::*;
use starling_trust::{Bundle, Document, Subject, Trusted};

use crate::world::{DAY, NOON, TASK, World};

/// xorshift64: the inputs are the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }
}

#[test]
fn inv8_mutated_bytes_never_panic_and_never_pass() {
    let world = World::new();
    let delivery = [world.first.to_bytes(), world.delivery(1)].concat();
    let state = world.device_at(1).to_bytes();
    let honest = world.device.take(&delivery, Subject::Release, TASK, NOON + DAY).permit.expect("honest");
    let mut noise = Noise(0x5EED);
    for _ in 0..100_000 {
        let mut bytes = if noise.below(2) == 0 { delivery.clone() } else { state.clone() };
        for _ in 0..=noise.below(4) {
            let at = noise.below(bytes.len());
            match noise.below(4) {
                0 => bytes[at] = u8::try_from(noise.next() & 0xff).expect("one byte"),
                1 => bytes.truncate(at.max(1)),
                2 => {
                    bytes.insert(at, 0xff);
                }
                _ => {
                    let end = (at + noise.below(8)).min(bytes.len());
                    bytes[at..end].fill(0xff);
                }
            }
        }
        if let Ok(bundle) = Bundle::parse(&bytes) {
            assert_eq!(bundle.to_bytes().expect("within the limits it was read with"), bytes, "one encoding");
        }
        if let Ok(trusted) = Trusted::from_bytes(&bytes) {
            assert_eq!(trusted.to_bytes(), bytes, "one encoding");
        }
        if let Ok(permit) = world.device.take(&bytes, Subject::Release, TASK, NOON + DAY).permit {
            assert_eq!(permit, honest, "whatever passes is what was signed");
        }
    }
}

proptest! {
    #[test]
    fn inv8_any_bytes_are_refused_or_are_the_one_encoding(
        kind in 0u8..6, count in 0u16..4, body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = b"StTr\x01".to_vec();
        bytes.push(kind);
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(body.len()).expect("short").to_le_bytes());
        bytes.extend_from_slice(&body);
        if let Ok(document) = Document::parse(&bytes) {
            prop_assert_eq!(document.to_bytes(), bytes);
        }
    }

    #[test]
    fn versions_only_ever_increase(versions in proptest::collection::vec(1u64..6, 1..12)) {
        let world = World::new();
        let (mut device, mut highest) = (world.device.clone(), 0);
        for version in versions {
            let outcome = device.take(&world.delivery(version), Subject::Release, TASK, NOON + DAY);
            prop_assert_eq!(outcome.permit.is_ok(), version >= highest);
            highest = highest.max(version);
            device = outcome.trusted;
        }
    }
}
