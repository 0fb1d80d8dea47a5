//! Release files from someone who means harm: whatever the bytes, reading them ends soon, in little memory, with a release or an
//! error. Their digests are made right again, since an attacker can do that too.

use ring::digest::{SHA256, digest};
use starling_compress::method::binary::binary;
use starling_compress::method::codebook::cluster;
use starling_compress::method::quantise::{fixed_point, half, integer};
use starling_compress::{Compressed, InputRange, Release, ReleaseError, Values};
use starling_spec::random::{Purpose, Random};
use starling_spec::{Layer, Scale, TaskKind};

/// A small network in which every form of tensor occurs, sparse ones by both coders of positions.
fn release(seed: u64) -> Release {
    let layers: Vec<Layer> = serde_json::from_str(
        r#"[{"conv2d":{"out":3,"kernel":3}},"relu","flatten",{"linear":{"out":4}},"sign",{"linear":{"out":3,"binary":true}}]"#,
    )
    .expect("layers");
    let (kind, shape) = (TaskKind::Classification, vec![1, 5, 5]);
    let mut release = Release {
        name: "hostile".into(),
        kind,
        shape,
        scale: Scale::Unit,
        standardise: None,
        layers,
        tensors: Vec::new(),
        inputs: Vec::new(),
    };
    let mut random = Random::new(seed, Purpose::Noise, &[]);
    for tensor in &release.network().expect("a network").manifest.tensors {
        #[allow(clippy::cast_possible_truncation, reason = "a float for a test")]
        let values: Vec<f32> = (0..tensor.len()).map(|_| random.normal() as f32).collect();
        let kept: Vec<bool> = values.iter().map(|value| value.abs() > 1.2).collect();
        let chosen: Vec<f32> = values.iter().copied().filter(|value| value.abs() > 1.2).collect();
        let kept_indices = Compressed::sparse(Values::F32(values.clone()), &kept).kept;
        release.tensors.push(match (tensor.name.as_str(), seed % 3) {
            ("5.linear.weight", _) => Compressed { kept: None, values: binary(&values, &tensor.shape) },
            ("0.conv2d.weight", 0) | ("3.linear.weight", 1) => {
                Compressed { kept: kept_indices, values: cluster(&chosen, 4) }
            }
            ("0.conv2d.weight", 1) | ("3.linear.weight", 2) => {
                Compressed::sparse(integer(&values, &tensor.shape, 4, true), &kept)
            }
            (_, 0) => Compressed { kept: None, values: fixed_point(&values, 6) },
            (_, 1) => Compressed { kept: None, values: half(&values) },
            _ => Compressed::dense(values),
        });
        release.inputs.push(tensor.name.ends_with("weight").then_some(InputRange { low: -1.0, high: 2.0 }));
    }
    release
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len().saturating_sub(8);
    let digest = digest(&SHA256, &bytes[..end]);
    bytes.truncate(end);
    bytes.extend(&digest.as_ref()[..8]);
    bytes
}

/// What some limits let through is still a release: it can be written again and expands to its network's parameters.
fn check(read: Result<Release, ReleaseError>) -> bool {
    match read {
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
        Ok(release) => {
            let network = release.network().expect("a network");
            assert_eq!(release.parameters(&network).len(), network.manifest.len());
            true
        }
    }
}

#[test]
fn a_million_mutated_releases_are_read_or_refused() {
    let files: Vec<Vec<u8>> = (0..3).map(|seed| release(seed).to_bytes()).collect();
    for (seed, file) in (0..).zip(&files) {
        assert_eq!(Release::from_bytes(file), Ok(release(seed)));
    }
    let runs = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let mut random = Random::new(1, Purpose::Noise, &[]);
    let mut below = |bound: usize| usize::try_from(random.below(bound as u64)).expect("an index");
    let mut read = 0;
    for run in 0..runs {
        let mut bytes = files[run % files.len()].clone();
        // Most mutations spare the head: without one, no tensor is ever reached.
        let head = 6 + usize::from(bytes[5]);
        let start = if below(10) == 0 { 4 } else { head };
        for _ in 0..=below(3) {
            let at = start + below(bytes.len() - 8 - start);
            match below(5) {
                0 => bytes[at] = [0, 0xff, 0x7f, 0x80, 1][below(5)],
                1 => bytes[at] ^= 1 << below(8),
                2 => drop(bytes.remove(at)),
                3 => bytes.insert(at, below(256).to_le_bytes()[0]),
                _ => bytes.truncate(at + 8),
            }
            if bytes.len() < head + 9 {
                break;
            }
        }
        read += usize::from(check(Release::from_bytes(&sealed(bytes))));
    }
    // Values may change without harm to the form, so some are read; most are refused.
    assert!(read > runs / 100 && read < runs, "{read} of {runs} were read");
    assert_memory();
}

/// Heads that ask for as much as they may.
#[test]
fn the_largest_model_that_a_short_file_may_hold_is_bounded() {
    let mut release = release(0);
    release.layers =
        serde_json::from_str(r#"[{"linear":{"out":2048,"bias":false}},{"linear":{"out":8}}]"#).expect("layers");
    release.shape = vec![2039];
    let network = release.network().expect("a network");
    assert!(network.manifest.len() > 4_190_000);
    let kept = Some(vec![]);
    let empty = || Compressed { kept: kept.clone(), values: Values::Codebook { centroids: vec![1.0], codes: vec![] } };
    release.tensors = network.manifest.tensors.iter().map(|_| empty()).collect();
    release.inputs = vec![None; release.tensors.len()];
    let bytes = release.to_bytes();
    assert!(bytes.len() < 200, "{} bytes", bytes.len());
    assert_eq!(Release::from_bytes(&bytes).as_ref(), Ok(&release));
    release.shape = vec![2060];
    let larger = release.to_bytes();
    assert!(matches!(Release::from_bytes(&larger), Err(ReleaseError::Parameters { .. })));
    assert_memory();
}

/// The process as a whole stays small.
fn assert_memory() {
    #[cfg(target_os = "linux")]
    {
        let status = std::fs::read_to_string("/proc/self/status").expect("its own status");
        let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("its peak");
        let peak: usize = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        assert!(peak < 200_000, "a peak of {peak} KiB");
    }
}
