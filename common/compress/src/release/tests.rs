use proptest::prelude::*;
use starling_spec::random::{Purpose, Random};
use starling_spec::{Layer, Scale, TaskKind, preset};

use super::*;
use crate::method::binary::binary;
use crate::method::codebook::cluster;
use crate::method::prune::{Criterion, Shares, mask, prunable};
use crate::method::quantise::{fixed_point, half, integer};
use crate::tensor::Values;

fn gauss(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed, Purpose::Noise, &[]);
    #[allow(clippy::cast_possible_truncation, reason = "a float for a test")]
    (0..count).map(|_| random.normal() as f32 * 0.1).collect()
}

fn empty(shape: &[usize], layers: Vec<Layer>) -> Release {
    Release {
        name: "a test".into(),
        kind: TaskKind::Classification,
        shape: shape.into(),
        scale: Scale::Unit,
        standardise: None,
        layers,
        tensors: Vec::new(),
        inputs: Vec::new(),
    }
}

/// A release of `layers` with random weights; `form` says how each tensor is written.
fn release(
    shape: &[usize],
    layers: Vec<Layer>,
    seed: u64,
    form: impl Fn(usize, &[f32], &[usize]) -> Compressed,
) -> Release {
    let mut release = empty(shape, layers);
    let network = release.network().expect("a network");
    let parameters = gauss(network.manifest.len(), seed);
    for (index, tensor) in network.manifest.tensors.iter().enumerate() {
        release.tensors.push(form(index, &parameters[tensor.range()], &tensor.shape));
        release.inputs.push(index.is_multiple_of(2).then_some(InputRange { low: 0.0, high: 1.5 }));
    }
    release
}

const MIXED: &str = r#"[{"conv2d":{"out":5,"kernel":3}},"batch_norm","relu",{"max_pool2d":2},"flatten",{"linear":{"out":12}},"relu",
    {"linear":{"out":4,"bias":false}}]"#;

fn mixed() -> Vec<Layer> {
    serde_json::from_str(MIXED).expect("layers")
}

/// Every form, sparse where `share` is below 1.
fn compress(which: usize, share: f64, values: &[f32], shape: &[usize]) -> Compressed {
    let mut kept = vec![true; values.len()];
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].abs().total_cmp(&values[*b].abs()));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
    let pruned = ((1.0 - share) * values.len() as f64) as usize;
    for index in &order[..pruned] {
        kept[*index] = false;
    }
    let chosen: Vec<f32> = values.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(value, _)| *value).collect();
    let sparse = |values| Compressed::sparse(values, &kept);
    match which % 8 {
        0 => sparse(Values::F32(values.to_vec())),
        1 => sparse(half(values)),
        2 => sparse(fixed_point(values, 6)),
        3 => sparse(fixed_point(values, 15)),
        4 => sparse(integer(values, shape, 4, true)),
        5 => sparse(integer(values, shape, 8, false)),
        6 => {
            let indices = Compressed::sparse(Values::F32(values.to_vec()), &kept).kept;
            Compressed { kept: indices, values: cluster(&chosen, 9) }
        }
        _ => Compressed { kept: None, values: binary(values, shape) },
    }
}

/// A release again with a correct digest, whatever was done to it.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len().saturating_sub(DIGEST_LEN));
    let digest = digest(&SHA256, &bytes);
    bytes.extend(&digest.as_ref()[..DIGEST_LEN]);
    bytes
}

#[test]
fn every_form_comes_back() {
    for which in 0..8 {
        for share in [1.0, 0.5, 0.03] {
            let original = release(&[2, 8, 8], mixed(), which as u64, |index, values, shape| {
                compress(which + index * usize::from(share > 0.9), share, values, shape)
            });
            let bytes = original.to_bytes();
            assert_eq!(Release::from_bytes(&bytes).as_ref(), Ok(&original), "form {which}, share {share}");
        }
    }
}

#[test]
fn odd_tensors_come_back() {
    let of = |tensor: Compressed| {
        let mut release = empty(&[3], serde_json::from_str(r#"[{"linear":{"out":2,"bias":false}}]"#).expect("layers"));
        release.tensors.push(tensor);
        release.inputs.push(None);
        let bytes = release.to_bytes();
        assert_eq!(Release::from_bytes(&bytes).as_ref(), Ok(&release));
        bytes
    };
    let codes =
        |centroids, kept: Option<Vec<u32>>, codes| Compressed { kept, values: Values::Codebook { centroids, codes } };
    of(codes(vec![0.5], None, vec![0; 6]));
    of(codes(vec![0.5, -0.25, 0.0], None, vec![0, 1, 2, 2, 1, 0]));
    of(codes(vec![-2.0, -1.0], Some(vec![0, 5]), vec![1, 0]));
    of(codes(vec![1.0], Some(vec![]), vec![]));
    of(Compressed { kept: Some(vec![0, 1, 2, 3, 4, 5]), values: Values::F32(vec![0.0, -0.0, 1e-40, 3e38, -1.0, 0.1]) });
    of(Compressed {
        kept: None,
        values: Values::Fixed { places: -126, bits: 16, levels: vec![-32768, 32767, 0, 1, -1, 7] },
    });
    of(Compressed {
        kept: None,
        values: Values::Fixed { places: 126, bits: 16, levels: vec![-32768, 32767, 3, 1, -1, 7] },
    });
    of(Compressed {
        kept: Some(vec![4]),
        values: Values::Integer { bits: 8, scales: vec![0.1, 0.2], levels: vec![-127] },
    });
    of(Compressed { kept: None, values: Values::Integer { bits: 2, scales: vec![1.0], levels: vec![0; 6] } });
    of(Compressed { kept: None, values: Values::Binary { scales: vec![0.25], positive: vec![true; 6] } });
}

/// The whole file of a small release, byte by byte: what a reader in another language has to agree with.
#[test]
fn the_file_is_as_it_was() {
    let mut release = empty(&[2], serde_json::from_str(r#"[{"linear":{"out":2}}]"#).expect("layers"));
    release.name = "tiny".into();
    release.tensors = vec![
        Compressed {
            kept: Some(vec![0, 3]),
            values: Values::Codebook { centroids: vec![-0.5, 0.25], codes: vec![1, 0] },
        },
        Compressed { kept: None, values: Values::Fixed { places: 4, bits: 4, levels: vec![7, -2] } },
    ];
    release.inputs = vec![Some(InputRange { low: 0.0, high: 1.0 }), None];
    let before = [
        0x53, 0x54, 0x52, 0x4c, // "STRL"
        0x01, // version
        0x25, // 37 bytes of head
    ];
    let head = [
        0x8d, 0xd1, 0xa1, 0x0d, 0x00, 0x00, 0x08, 0x03, 0xc1, 0x9d, 0xba, 0x0f, 0x03, 0x60, 0x50, 0x18, 0xb6, 0xc7,
        0x55, 0x54, 0x34, 0x9d, 0xe0, 0x93, 0x3f, 0xca, 0x6d, 0xcf, 0x05, 0x20, 0x28, 0x77, 0x59, 0x72, 0xd0, 0xda,
        0x03,
    ];
    let after = [
        0x07, // seven bytes of bits:
        0x91, // a code book, positions mixed, values packed, an input range
        0x10, // 0 0010: two kept weights; 000: two centroids, …
        0x0c, // … less one, 00001; 1 and 0: their codes; 0: the next tag, …
        0x80, // … 1000000: fixed point, all kept, packed; 0: the places, …
        0x08, // … 0000100: 4; 0: the bits, …
        0x7e, // … 011: 4, less one; 1111: 7; 0: −2, …
        0xc0, // … 110: 6 = 8 − 2; filled up with zeros
        0x79, 0x24, 0xeb, 0xda, 0x86, // mixed: the positions, 0 and 1, −0.5 and 0.25
    ];
    let digest = [0xd9, 0x70, 0xf9, 0x7f, 0xfc, 0xc9, 0x88, 0x50];
    let file = [&before[..], &head, &after, &digest].concat();
    assert_eq!(Release::from_bytes(&file).as_ref(), Ok(&release));
    // Another deflate may write another head, to the same effect.
    let written = release.to_bytes();
    assert_eq!((&written[..5], &written[6 + usize::from(written[5])..][..after.len()]), (&before[..5], &after[..]));
}

#[test]
fn a_lenet_with_two_percent_of_its_weights_is_a_hundred_times_smaller() {
    let layers = preset::layers("lenet-300-100").expect("a preset");
    let mut release = empty(&[1, 28, 28], layers);
    let network = release.network().expect("a network");
    let mut parameters = gauss(network.manifest.len(), 1);
    let found = mask(&network, &parameters, Criterion::Magnitude, &Shares::PerLayer(vec![0.02, 0.04, 0.2]));
    found.apply(&mut parameters);
    for (index, tensor) in network.manifest.tensors.iter().enumerate() {
        let values = &parameters[tensor.range()];
        release.inputs.push(None);
        release.tensors.push(if prunable(&network).contains(&index) {
            let kept: Vec<bool> = found.kept()[tensor.range()].to_vec();
            let chosen: Vec<f32> = values.iter().copied().filter(|value| *value != 0.0).collect();
            let kept = Compressed::sparse(Values::F32(values.to_vec()), &kept).kept;
            Compressed { kept, values: cluster(&chosen, 16) }
        } else {
            Compressed { kept: None, values: fixed_point(values, 6) }
        });
    }
    let bytes = release.to_bytes();
    assert_eq!(Release::from_bytes(&bytes).as_ref(), Ok(&release));
    // Random positions: nothing for contexts to find. H(2 %) alone takes 4,158 bytes of the first layer.
    assert!(bytes.len() < 4 * network.manifest.len() / 100, "{} bytes", bytes.len());
    let report = release.inspect();
    assert_eq!((report[0].name.as_str(), report[0].form.as_str()), ("1.linear.weight", "codebook16"));
    assert_eq!((report[0].weights, report[0].kept, report[0].bytes_f32), (235_200, 4704, 940_800));
    let tensors: usize = report.iter().map(|tensor| tensor.bytes).sum();
    assert!(bytes.len() - tensors < 100, "{} bytes beside the tensors", bytes.len() - tensors);
}

#[test]
fn a_float_release_is_no_larger_than_its_floats() {
    let original = release(&[2, 8, 8], mixed(), 3, |_, values, _| Compressed::dense(values.to_vec()));
    let bytes = original.to_bytes();
    let network = original.network().expect("a network");
    assert!(bytes.len() < 4 * network.manifest.len(), "{}", bytes.len());
    assert_eq!(Release::from_bytes(&bytes).expect("a release").parameters(&network), original.parameters(&network));
}

#[test]
fn what_is_no_release_is_named() {
    let original = release(&[2, 8, 8], mixed(), 3, |index, values, shape| compress(index, 0.5, values, shape));
    let bytes = original.to_bytes();
    assert_eq!(Release::from_bytes(b""), Err(ReleaseError::Magic));
    assert_eq!(Release::from_bytes(b"STRL"), Err(ReleaseError::Digest));
    let mut later = bytes.clone();
    later[4] = 2;
    assert_eq!(Release::from_bytes(&later), Err(ReleaseError::Version { got: 2, read: 1 }));
    for position in 5..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x10;
        assert_eq!(Release::from_bytes(&damaged), Err(ReleaseError::Digest), "byte {position}");
        assert!(Release::from_bytes(&bytes[..position]).is_err(), "cut at {position}");
        assert_ne!(
            Release::from_bytes(&sealed(bytes[..position].to_vec())).as_ref(),
            Ok(&original),
            "cut at {position}"
        );
    }
    let mut longer = bytes;
    for _ in 0..5 {
        longer.insert(longer.len() - DIGEST_LEN, 7);
    }
    assert_eq!(Release::from_bytes(&sealed(longer)), Err(ReleaseError::LeftOver));
}

#[test]
fn a_small_file_cannot_ask_for_a_large_model() {
    let layers: Vec<Layer> =
        serde_json::from_str(r#"[{"linear":{"out":30000}},{"linear":{"out":10000}}]"#).expect("layers");
    let head = Head {
        name: "bomb".into(),
        kind: TaskKind::Classification,
        shape: vec![1000],
        scale: Scale::None,
        standardise: None,
        layers,
    };
    let mut file = MAGIC.to_vec();
    file.push(VERSION);
    let head = head.to_bytes();
    file.push(u8::try_from(head.len()).expect("a short head"));
    file.extend(head);
    file.push(0);
    file.extend([0; DIGEST_LEN]);
    match Release::from_bytes(&sealed(file)) {
        Err(ReleaseError::Parameters { parameters: 330_040_000, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_head_that_inflates_without_end_is_refused() {
    let json = format!(r#"{{"name":"{}"}}"#, "a".repeat(1 << 22));
    let mut deflate = flate2::Compress::new(flate2::Compression::best(), false);
    let mut bytes = Vec::with_capacity(1 << 16);
    deflate.compress_vec(json.as_bytes(), &mut bytes, flate2::FlushCompress::Finish).expect("deflate");
    assert!(bytes.len() < 1 << 14, "a bomb");
    let error = Head::from_bytes(&bytes).expect_err("too long");
    assert!(error.contains("longer than 262144"), "{error}");
}

#[test]
fn an_error_names_its_tensor() {
    let original = release(&[2, 8, 8], mixed(), 3, |_, values, _| Compressed::dense(values.to_vec()));
    let mut bytes = original.to_bytes();
    let head = usize::from(bytes[5]) | usize::from(bytes[6]) << 7;
    let start = if bytes[5] & 0x80 == 0 { 6 + usize::from(bytes[5]) } else { 7 + (head & 0x7f | (head >> 7) << 7) };
    // The first tag: a form of 7.
    let tag =
        (start..start + 6).find(|at| bytes[*at] == 0b0000_0001 || bytes[*at] == 0b0000_0101).expect("the first tag");
    bytes[tag] |= 0xe0;
    match Release::from_bytes(&sealed(bytes)) {
        Err(ReleaseError::Tensor { name, problem }) => {
            assert_eq!((name.as_str(), problem), ("0.conv2d.weight", "a form that does not exist"));
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    /// Whatever the weights, shares and forms: the same release comes back.
    #[test]
    fn any_release_comes_back(seed in any::<u64>(), forms in prop::collection::vec(0usize..8, 12), share in 0.0f64..1.1) {
        let original = release(&[2, 8, 8], mixed(), seed, |index, values, shape| compress(forms[index], share.min(1.0), values, shape));
        let read = Release::from_bytes(&original.to_bytes());
        prop_assert_eq!(read.as_ref(), Ok(&original));
    }
}
