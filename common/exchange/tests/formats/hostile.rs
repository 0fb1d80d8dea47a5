//! Files from strangers: an error each time, never a panic, and no allocation that the file does not pay for.

use std::collections::BTreeMap;

use proptest::prelude::*;
use starling_exchange::{ExchangeError, HEADER_BYTES_MAX, Layout, read_metadata, read_safetensors, write_safetensors};
use starling_spec::TaskKind;
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>()) {
        let network = small();
        let metadata = BTreeMap::from([("plan".to_owned(), "{}".to_owned())]);
        let mut bytes = write_safetensors(&network.manifest, &numbers(&network.manifest), &metadata);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let cut = cut.index(bytes.len());
        for bytes in [&bytes[..], &bytes[..cut]] {
            for layout in [Layout::Starling, Layout::Torch] {
                if let Ok(parameters) = read_safetensors(bytes, &network.manifest, layout) {
                    prop_assert_eq!(parameters.len(), network.manifest.len());
                    prop_assert!(parameters.iter().all(|value| value.is_finite()));
                }
            }
            let _ = read_metadata(bytes);
        }
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_safetensors(&bytes, &small().manifest, Layout::Torch);
        // A header of a plausible length and arbitrary letters.
        let mut framed = (bytes.len() as u64).to_le_bytes().to_vec();
        framed.extend(&bytes);
        let _ = read_safetensors(&framed, &small().manifest, Layout::Starling);
    }
}
