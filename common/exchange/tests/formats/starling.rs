//! Our own layout.

use std::collections::BTreeMap;

use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use starling_exchange::{Layout, read_metadata, read_safetensors, write_safetensors};
use starling_spec::TaskKind;

use crate::{Stored, file, network, numbers};

#[test]
fn what_is_written_is_read_back_bit_by_bit() {
    let layers = r#"[{"conv2d":{"out":3,"kernel":3}},"batch_norm","relu","flatten",{"linear":{"out":2}}]"#;
    let network = network(TaskKind::Classification, &[1, 5, 5], layers);
    let parameters = numbers(&network.manifest);
    let metadata = BTreeMap::from([("plan".to_owned(), "{\"a\": \"ü\"}".to_owned()), ("b".into(), "2".into())]);
    let bytes = write_safetensors(&network.manifest, &parameters, &metadata);
    assert_eq!(bytes, write_safetensors(&network.manifest, &parameters, &metadata), "the same bytes each time");
    assert_eq!(read_safetensors(&bytes, &network.manifest, Layout::Starling).expect("weights"), parameters);
    assert_eq!(read_metadata(&bytes).expect("metadata"), metadata);

    // The format's own crate agrees, and finds the values aligned.
    let read = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    assert_eq!(read.len(), network.manifest.tensors.len());
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    assert_eq!(header % 8, 0);
    for tensor in &network.manifest.tensors {
        let view = read.tensor(&tensor.name).expect("a tensor");
        assert_eq!((view.dtype(), view.shape()), (Dtype::F32, tensor.shape.as_slice()));
        let values: Vec<u8> = parameters[tensor.range()].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(view.data(), values);
    }
}

#[test]
fn a_file_without_metadata_has_none() {
    let network = network(TaskKind::Classification, &[2], r#"[{"linear":{"out":2}}]"#);
    let bytes = write_safetensors(&network.manifest, &numbers(&network.manifest), &BTreeMap::new());
    assert_eq!(read_metadata(&bytes).expect("metadata"), BTreeMap::new());
}

#[test]
fn halves_and_doubles_become_f32() {
    let network = network(TaskKind::Classification, &[1], r#"[{"linear":{"out":2,"bias":false}}]"#);
    let values = [1.5f32, -0.099_975_586];
    for (dtype, bytes) in [
        (Dtype::F16, values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect::<Vec<u8>>()),
        (Dtype::BF16, values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()),
        (Dtype::F64, values.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect()),
    ] {
        let stored = Stored { name: "0.linear.weight".into(), dtype, shape: vec![1, 2], bytes };
        let read = read_safetensors(&file(&[stored]), &network.manifest, Layout::Starling).expect("weights");
        let expected = if dtype == Dtype::BF16 { bf16::from_f32(values[1]).to_f32() } else { values[1] };
        assert_eq!(read, [1.5, expected], "{dtype}");
    }
}

#[test]
fn what_does_not_fit_is_named_with_both_shapes() {
    let network = network(TaskKind::Classification, &[3], r#"[{"linear":{"out":2}}]"#);
    let read = |tensors: &[Stored]| {
        let error = read_safetensors(&file(tensors), &network.manifest, Layout::Starling).expect_err("refused");
        error.to_string()
    };
    let weight = || Stored::blank("0.linear.weight", &[3, 2]);
    let bias = || Stored::blank("0.linear.bias", &[2]);

    let error = read(&[weight()]);
    assert!(error.contains("0.linear.bias") && error.contains("[2]") && error.contains("0.linear.weight"), "{error}");
    let error = read(&[Stored::blank("0.linear.weight", &[2, 3]), bias()]);
    assert!(error.contains("0.linear.weight") && error.contains("[2, 3]") && error.contains("[3, 2]"), "{error}");
    let error = read(&[weight(), bias(), Stored::blank("1.linear.bias", &[7])]);
    assert!(error.contains("1.linear.bias") && error.contains("[7]"), "{error}");
    let integers = Stored { dtype: Dtype::I32, ..bias() };
    let error = read(&[weight(), integers]);
    assert!(error.contains("0.linear.bias") && error.contains("I32"), "{error}");
}

#[test]
fn weights_are_finite() {
    let network = network(TaskKind::Classification, &[1], r#"[{"linear":{"out":2,"bias":false}}]"#);
    let name = "0.linear.weight";
    for values in [[0.0, f32::NAN], [0.0, f32::INFINITY]] {
        let bytes = file(&[Stored::f32(name, &[1, 2], &values)]);
        let error = read_safetensors(&bytes, &network.manifest, Layout::Starling).expect_err("refused").to_string();
        assert!(error.contains(name) && error.contains("value 1"), "{error}");
    }
    // A double that no f32 holds.
    let bytes = [1e300f64, 0.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let stored = Stored { name: name.into(), dtype: Dtype::F64, shape: vec![1, 2], bytes };
    let error = read_safetensors(&file(&[stored]), &network.manifest, Layout::Starling).expect_err("refused");
    assert!(error.to_string().contains("value 0"), "{error}");
}
