//! A release file that was written once and is read for ever: the format cannot change without anybody saying so.
//!
//! `golden/release-1.strl` holds every form that a tensor can take. It is never written anew. A change of the format that is meant
//! raises the version in its fifth byte, goes on reading this file, and adds a file of its own beside it.

use starling_compress::{Compressed, InputRange, Release, Values};
use starling_spec::{Layer, Scale, TaskKind};

const FILE: &[u8] = include_bytes!("golden/release-1.strl");

/// SHA-256 of the file, so that nobody replaces it in passing.
const DIGEST: &str = "f99ba1714d6b204ace40501d5b2c1d9adea0b8f55954dac432865b32d1eaf1c7";

const LAYERS: &str = r#"[{"conv2d":{"out":4,"kernel":3}},"batch_norm","relu","flatten",{"linear":{"out":6}},"batch_norm","sign",
    {"linear":{"out":6,"binary":true}},"relu",{"linear":{"out":3}}]"#;

/// Whole numbers from −32 to 31 without a pattern that a coder could profit from.
fn numbers(count: usize, seed: usize) -> Vec<i8> {
    (0..count).map(|index| i8::try_from((index * index * 37 + index * 11 + seed) % 64).expect("small") - 32).collect()
}

fn floats(count: usize, seed: usize) -> Vec<f32> {
    numbers(count, seed).into_iter().map(|number| f32::from(number) / 64.0).collect()
}

/// What the file says, value by value: no quantiser has a hand in it.
fn golden() -> Release {
    let dense = |values| Compressed { kept: None, values };
    let (scales, bits) = (vec![0.5, 0.25, 0.125, 1.0], 8);
    let some: Vec<u32> = (0..216).filter(|index| index % 7 == 2 || index % 11 == 0).collect();
    let codes = numbers(some.len(), 5).iter().map(|number| number.unsigned_abs() % 4).collect();
    let few = vec![0, 3, 4, 9, 16];
    let tensors = vec![
        dense(Values::Integer { bits, scales, levels: numbers(72, 1) }),
        dense(Values::Fixed { places: 7, bits: 6, levels: vec![-31, 0, 5, 31] }),
        dense(Values::F16(floats(4, 2))),
        dense(Values::F32(vec![0.1, -0.2, 3.4e-5, 0.0])),
        dense(Values::F16(vec![0.0, 1.0, -2.5, 0.375])),
        dense(Values::F32(vec![1.0, 0.3, 2.7, 1e6])),
        Compressed { kept: Some(some), values: Values::Codebook { centroids: vec![-0.5, -0.125, 0.25, 1.5], codes } },
        dense(Values::F16(floats(6, 3))),
        dense(Values::F16(floats(6, 4))),
        dense(Values::F16(floats(6, 5))),
        dense(Values::F16(floats(6, 6))),
        dense(Values::F32(vec![1.0; 6])),
        dense(Values::Binary {
            scales: vec![0.5, 0.25, 0.75, 1.0, 0.125, 2.0],
            positive: numbers(36, 7).into_iter().map(|number| number > 0).collect(),
        }),
        dense(Values::Fixed { places: -3, bits: 12, levels: vec![-2047, 1, 0, 2047, 100, -100] }),
        Compressed {
            kept: Some(few),
            values: Values::Integer { bits: 4, scales: vec![0.0625], levels: vec![7, -7, 1, 3, -2] },
        },
        dense(Values::F16(vec![0.5, -0.5, 0.0])),
    ];
    let mut inputs = vec![None; tensors.len()];
    inputs[0] = Some(InputRange { low: -0.5, high: 1.0 });
    inputs[14] = Some(InputRange { low: 0.0, high: 12.5 });
    Release {
        name: "golden µ".into(),
        kind: TaskKind::Classification,
        shape: vec![2, 5, 5],
        scale: Scale::Standardise,
        standardise: None,
        layers: serde_json::from_str::<Vec<Layer>>(LAYERS).expect("layers"),
        tensors,
        inputs,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_file_of_version_1_is_read_for_ever() {
    assert_eq!(hex(ring::digest::digest(&ring::digest::SHA256, FILE).as_ref()), DIGEST, "the file itself was changed");
    assert_eq!(FILE[..5], *b"STRL\x01");
    assert_eq!(Release::from_bytes(FILE).as_ref(), Ok(&golden()));
}

/// The same model makes the same file: releases are named by their digests. A writer that finds a shorter form on purpose may
/// change this test; it may not change the file.
#[test]
fn inv11_the_model_in_it_is_written_as_it_was() {
    assert_eq!(golden().to_bytes(), FILE, "the writer gives other bytes than it did");
}
