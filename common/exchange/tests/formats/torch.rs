//! PyTorch's layout: names, transposes and the order of modules.

use std::collections::BTreeMap;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use starling_exchange::{Layout, read_safetensors, write_torch_safetensors};
use starling_spec::TaskKind;

use crate::{Stored, file, network, numbers};

/// Every layer that has tensors; a text's and an image's.
const TEXT: &str = r#"[{"embedding":{"tokens":11,"out":6,"positions":true}},{"gru":{"out":8}},
    {"residual":{"layers":["layer_norm",{"self_attention":{"heads":2}}]}},{"linear":{"out":11,"bias":false}}]"#;
const IMAGE: &str = r#"[{"conv2d":{"out":4,"kernel":3}},"batch_norm","relu",{"depthwise_conv2d":{"kernel":3}},
    {"group_norm":{"groups":2}},"flatten",{"dropout":0.5},{"linear":{"out":3}}]"#;
const SIGNAL: &str = r#"[{"conv1d":{"out":4,"kernel":3}},"flatten",{"linear":{"out":2}}]"#;

fn stored(manifest: &starling_spec::ParamManifest, rename: impl Fn(&str) -> String) -> Vec<Stored> {
    let bytes = write_torch_safetensors(manifest, &numbers(manifest), &BTreeMap::new()).expect("a file");
    let read = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensors = read.tensors().into_iter().map(|(name, view)| Stored {
        name: rename(&name),
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    });
    tensors.collect()
}

#[test]
fn names_and_shapes_are_those_of_a_sequential() {
    let text = network(TaskKind::NextToken, &[5], TEXT);
    let image = network(TaskKind::Classification, &[2, 7, 7], IMAGE);
    let mut found: Vec<_> = stored(&text.manifest, str::to_owned)
        .into_iter()
        .chain(stored(&image.manifest, |name| format!("image.{name}")))
        .map(|tensor| format!("{} {:?}", tensor.name, tensor.shape))
        .collect();
    found.sort();
    let mut expected = [
        "0.weight [11, 6]",
        "0.positions [5, 6]",
        "1.weight_ih_l0 [24, 6]",
        "1.bias_ih_l0 [24]",
        "1.weight_hh_l0 [24, 8]",
        "1.bias_hh_l0 [24]",
        "2.0.weight [8]",
        "2.0.bias [8]",
        "2.1.in_proj_weight [24, 8]",
        "2.1.in_proj_bias [24]",
        "2.1.out_proj.weight [8, 8]",
        "2.1.out_proj.bias [8]",
        "3.weight [11, 8]",
        "image.0.weight [4, 2, 3, 3]",
        "image.0.bias [4]",
        "image.1.weight [4]",
        "image.1.bias [4]",
        "image.1.running_mean [4]",
        "image.1.running_var [4]",
        "image.3.weight [4, 1, 3, 3]",
        "image.3.bias [4]",
        "image.4.weight [4]",
        "image.4.bias [4]",
        "image.7.weight [3, 36]",
        "image.7.bias [3]",
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn a_linear_weight_is_transposed() {
    let network = network(TaskKind::Classification, &[3], r#"[{"linear":{"out":2,"bias":false}}]"#);
    let bytes = file(&[Stored::f32("0.weight", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])]);
    let read = read_safetensors(&bytes, &network.manifest, Layout::Torch).expect("weights");
    assert_eq!(read, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
}

#[test]
fn every_layer_goes_out_and_comes_back() {
    for (kind, shape, layers) in [
        (TaskKind::NextToken, &[5][..], TEXT),
        (TaskKind::Classification, &[2, 7, 7], IMAGE),
        (TaskKind::Classification, &[2, 7], SIGNAL),
    ] {
        let network = network(kind, shape, layers);
        let parameters = numbers(&network.manifest);
        let bytes = write_torch_safetensors(&network.manifest, &parameters, &BTreeMap::new()).expect("a file");
        assert_eq!(read_safetensors(&bytes, &network.manifest, Layout::Torch).expect("weights"), parameters);
        // As part of a larger model, and with a counter that is no weight.
        let mut tensors = stored(&network.manifest, |name| format!("module.net.{name}"));
        let counter = vec![1, 0, 0, 0, 0, 0, 0, 0];
        let name = "module.net.1.num_batches_tracked".into();
        tensors.push(Stored { name, dtype: Dtype::I64, shape: vec![], bytes: counter });
        assert_eq!(read_safetensors(&file(&tensors), &network.manifest, Layout::Torch).expect("weights"), parameters);
    }
}

#[test]
fn modules_with_names_of_their_own_are_found_by_shape_and_number() {
    let layers = r#"[{"conv2d":{"out":4,"kernel":3,"padding":"same"}},"relu",
        {"conv2d":{"out":4,"kernel":3,"padding":"same"}},"relu",{"conv2d":{"out":4,"kernel":3,"padding":"same"}},
        "flatten",{"linear":{"out":3}}]"#;
    let network = network(TaskKind::Classification, &[4, 3, 3], layers);
    let parameters = numbers(&network.manifest);
    // 10 comes after 9 though not in the alphabet.
    let renames = [("0.", "block.conv8."), ("2.", "block.conv9."), ("4.", "block.conv10."), ("6.", "head.")];
    let rename = |name: &str| {
        let (from, to) = renames.iter().find(|(from, _)| name.starts_with(from)).expect("a layer");
        name.replacen(from, to, 1)
    };
    let bytes = file(&stored(&network.manifest, rename));
    assert_eq!(read_safetensors(&bytes, &network.manifest, Layout::Torch).expect("weights"), parameters);

    // Names that say nothing of the order are not guessed at.
    let renames = [("0.", "first."), ("2.", "second."), ("4.", "third."), ("6.", "head.")];
    let rename = |name: &str| {
        let (from, to) = renames.iter().find(|(from, _)| name.starts_with(from)).expect("a layer");
        name.replacen(from, to, 1)
    };
    let bytes = file(&stored(&network.manifest, rename));
    let error = read_safetensors(&bytes, &network.manifest, Layout::Torch).expect_err("refused").to_string();
    for part in ["first", "second", "0, 2, 4"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn attention_under_other_names_keeps_its_output_projection() {
    let layers = r#"[{"embedding":{"tokens":5,"out":4}},{"self_attention":{"heads":1}},{"linear":{"out":5}}]"#;
    let network = network(TaskKind::NextToken, &[3], layers);
    let parameters = numbers(&network.manifest);
    let renames = [("0.", "tokens."), ("1.", "block.attention."), ("2.", "head.")];
    let rename = |name: &str| {
        let (from, to) = renames.iter().find(|(from, _)| name.starts_with(from)).expect("a layer");
        name.replacen(from, to, 1)
    };
    let bytes = file(&stored(&network.manifest, rename));
    assert_eq!(read_safetensors(&bytes, &network.manifest, Layout::Torch).expect("weights"), parameters);
}

#[test]
fn what_does_not_fit_is_named_with_both_shapes() {
    let layers = r#"[{"linear":{"out":4}},"relu",{"linear":{"out":2}}]"#;
    let network = network(TaskKind::Classification, &[3], layers);
    let read = |tensors: &[Stored]| {
        let error = read_safetensors(&file(tensors), &network.manifest, Layout::Torch).expect_err("refused");
        error.to_string()
    };
    let head = || [Stored::blank("2.weight", &[2, 4]), Stored::blank("2.bias", &[2])];
    // The names are the positions: the tensor at fault is known.
    let [weight, bias] = head();
    let error = read(&[Stored::blank("0.weight", &[3, 4]), Stored::blank("0.bias", &[4]), weight, bias]);
    assert!(error.contains("\"0.weight\"") && error.contains("[3, 4]") && error.contains("[4, 3]"), "{error}");
    // They are not: the layer that found no module is.
    let [weight, bias] = head();
    let error = read(&[Stored::blank("in.weight", &[5, 3]), Stored::blank("in.bias", &[5]), weight, bias]);
    for part in ["0.linear", "[4, 3]", "\"in\"", "[5, 3]"] {
        assert!(error.contains(part), "{error}");
    }
    // One module too many.
    let [weight, bias] = head();
    let more = Stored::blank("extra.bias", &[9]);
    let error = read(&[Stored::blank("0.weight", &[4, 3]), Stored::blank("0.bias", &[4]), weight, bias, more]);
    assert!(error.contains("extra.bias") && error.contains("[9]"), "{error}");
}
