//! Files from strangers: an error each time, never a panic, and no allocation that the file does not pay for.

use std::collections::BTreeMap;

use starling_exchange::{
    ExchangeError, HEADER_BYTES_MAX, Layout, read_metadata, read_safetensors, write_safetensors,
    write_torch_safetensors,
};
use starling_spec::TaskKind;
use starling_spec::random::{Purpose, Random};
use starling_spec::shape::Network;

use crate::{Stored, file, network, numbers};

fn small() -> Network {
    network(TaskKind::Classification, &[3], r#"[{"linear":{"out":2}},"batch_norm"]"#)
}

fn with_header(header: &str, values: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; values]].concat()
}

fn refused(bytes: &[u8]) -> ExchangeError {
    let manifest = small().manifest;
    let torch = read_safetensors(bytes, &manifest, Layout::Torch).expect_err("refused");
    assert!(torch.to_string().len() < 4096, "a message stays short");
    let error = read_safetensors(bytes, &manifest, Layout::Starling).expect_err("refused");
    assert!(error.to_string().len() < 4096, "a message stays short");
    error
}

#[test]
fn inv08_the_length_of_a_header_is_compared_with_its_limit_first() {
    for length in [HEADER_BYTES_MAX + 1, 1 << 40, u64::MAX] {
        let error = refused(&length.to_le_bytes());
        assert_eq!(error, ExchangeError::HeaderTooLarge { bytes: length, limit: HEADER_BYTES_MAX });
        assert_eq!(read_metadata(&length.to_le_bytes()), Err(error));
    }
}

#[test]
fn broken_files_say_what_they_are() {
    for bytes in [vec![], vec![0; 7], vec![0; 8], with_header("[]", 0), with_header("{", 0), with_header("\u{fe}", 3)] {
        assert!(matches!(refused(&bytes), ExchangeError::Format(_)), "{bytes:?}");
    }
}

#[test]
fn offsets_that_lie_are_refused() {
    let entry = |shape: &str, from: u64, to: u64| {
        format!(r#"{{"0.linear.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}}}"#)
    };
    for (header, values) in [
        (entry("[3,2]", 0, 24), 23),
        (entry("[3,2]", 0, 24), 25),
        (entry("[3,2]", 4, 28), 28),
        (entry("[3,2]", 24, 0), 24),
        (entry("[3,2]", 0, u64::MAX), 24),
        (entry("[18446744073709551615,2]", 0, 24), 24),
        (entry("[4294967296,4294967296,4]", 0, 24), 24),
        (entry("[-3,2]", 0, 24), 24),
    ] {
        assert!(matches!(refused(&with_header(&header, values)), ExchangeError::Format(_)), "{header}");
    }
}

#[test]
fn long_and_strange_names_do_not_fill_the_message() {
    let long = "x".repeat(1 << 20);
    refused(&file(&[Stored::blank(&long, &[3, 2])]));
    refused(&with_header(&format!(r#"{{"{long}":{{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}}}"#), 8));
    refused(&with_header(&format!(r#"{{"a":{{"dtype":"{long}","shape":[1],"data_offsets":[0,4]}}}}"#), 4));
    let error = refused(&file(&[Stored::blank("\u{1b}[31m\n", &[3, 2])])).to_string();
    assert!(!error.contains('\u{1b}') && !error.contains('\n'), "{error:?}");
    let many: Vec<_> = (0..20_000).map(|index| Stored::blank(&format!("layer{index}.weight"), &[1])).collect();
    refused(&file(&many));
    refused(&file(&(0..500).map(|dots| Stored::blank(&".".repeat(dots), &[])).collect::<Vec<_>>()));
}

/// A fuzz smoke: a million files that were valid before something happened to them.
#[test]
fn a_million_damaged_files_never_panic() {
    let network = small();
    let metadata = BTreeMap::from([("plan".to_owned(), "{}".to_owned())]);
    let parameters = numbers(&network.manifest);
    let ours = write_safetensors(&network.manifest, &parameters, &metadata);
    let torch = write_torch_safetensors(&network.manifest, &parameters, &metadata).expect("a file");
    let mut random = Random::new(11, Purpose::Noise, &[]);
    let mut read = 0u32;
    for round in 0..1_000_000 {
        let (seed, layout) = if round % 2 == 0 { (&ours, Layout::Starling) } else { (&torch, Layout::Torch) };
        let mut bytes = seed.clone();
        for _ in 0..=random.below(3) {
            damage(&mut bytes, &mut random);
        }
        if let Ok(parameters) = read_safetensors(&bytes, &network.manifest, layout) {
            assert_eq!(parameters.len(), network.manifest.len());
            assert!(parameters.iter().all(|value| value.is_finite()));
            read += 1;
        }
    }
    // Some only changed a weight: those are read, and the rest is refused.
    assert!((10_000..500_000).contains(&read), "{read} were read");
}

/// Changes, inserts, removes, repeats or cuts off a few bytes; digits and brackets more often than chance would.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    const TELLING: &[u8] = b"0123456789[]{},:\"\\-.eF";
    let mut below = |bound: usize| usize::try_from(random.below(bound.max(1) as u64)).expect("an index");
    let place = below(bytes.len());
    let byte = if below(2) == 0 { TELLING[below(TELLING.len())] } else { below(256).to_le_bytes()[0] };
    match below(6) {
        0 | 1 if place < bytes.len() => bytes[place] = byte,
        2 => bytes.insert(place, byte),
        3 if place < bytes.len() => drop(bytes.remove(place)),
        4 => {
            let end = (place + below(64)).min(bytes.len());
            let piece = bytes[place..end].to_vec();
            let at = below(bytes.len());
            bytes.splice(at..at, piece);
        }
        _ if below(8) == 0 => bytes.truncate(place),
        // The header's length.
        _ => {
            let at = below(8);
            if let Some(length) = bytes.get_mut(at) {
                *length = byte;
            }
        }
    }
}
