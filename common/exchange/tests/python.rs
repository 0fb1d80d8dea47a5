//! What others make of our files: networks of every layer, checked by onnxruntime, the onnx and safetensors packages, a numpy
//! reference and, where it is installed, torch.
//!
//! The packages come from the package registry into a virtual environment under the target folder, once. Where that is not
//! possible the test says so and passes; with `STARLING_PYTHON=required` it fails instead. `STARLING_PYTHON=PATH` uses that
//! interpreter, which must have the packages of `tests/python/requirements.txt`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use starling_exchange::{
    Layout, computed_parameters, read_safetensors, write_onnx, write_safetensors, write_torch_safetensors,
};
use starling_spec::random::{Purpose, Random};
use starling_spec::shape::{Network, infer};
use starling_spec::{Layer, ParamRole, TaskKind};

const CLASSES: TaskKind = TaskKind::Classification;

/// Networks that together have every layer, each where its settings matter.
const CASES: &[(&str, TaskKind, &[usize], &str)] = &[
    (
        "dense",
        CLASSES,
        &[9],
        r#"[{"linear":{"out":7}},"relu",{"dropout":0.3},{"linear":{"out":5,"bias":false}},"tanh",
        "batch_norm",{"linear":{"out":3}},"sigmoid",{"dropout":0.1}]"#,
    ),
    (
        "digits",
        CLASSES,
        &[1, 8, 8],
        r#"[{"conv2d":{"out":6,"kernel":3,"padding":"same"}},"batch_norm","relu",
        {"max_pool2d":2},{"conv2d":{"out":4,"kernel":3,"bias":false}},"gelu","flatten",{"linear":{"out":10}}]"#,
    ),
    (
        "strides",
        CLASSES,
        &[3, 11, 9],
        r#"[{"conv2d":{"out":6,"kernel":5,"stride":2,"padding":"same"}},
        {"depthwise_conv2d":{"kernel":3,"padding":"same"}},"sigmoid",{"group_norm":{"groups":3}},
        {"avg_pool2d":{"size":3,"stride":2}},{"depthwise_conv2d":{"kernel":1,"bias":false}},"global_avg_pool",
        {"linear":{"out":2}}]"#,
    ),
    (
        "pools",
        CLASSES,
        &[2, 10, 7],
        r#"[{"max_pool2d":{"size":3,"stride":2}},{"conv2d":{"out":4,"kernel":2}},
        {"avg_pool2d":{"size":2,"stride":1}},{"group_norm":{"groups":1}},"flatten",{"linear":{"out":3}}]"#,
    ),
    (
        "signal",
        CLASSES,
        &[4, 20],
        r#"[{"conv1d":{"out":6,"kernel":5,"stride":2,"padding":"same"}},"batch_norm","tanh",
        {"max_pool1d":{"size":3,"stride":1}},{"conv1d":{"out":6,"kernel":2,"bias":false}},{"avg_pool1d":2},
        {"group_norm":{"groups":2}},"layer_norm","global_avg_pool",{"linear":{"out":4}}]"#,
    ),
    (
        "residual",
        CLASSES,
        &[2, 6, 6],
        r#"[{"residual":{"layers":[{"conv2d":{"out":2,"kernel":3,"padding":"same"}},
        "batch_norm","relu",{"residual":{"layers":["relu"]}}]}},{"residual":{"layers":[{"dropout":0.5}]}},
        {"residual":{"layers":[]}},"flatten",{"residual":{"layers":[{"linear":{"out":72}},"gelu"]}},{"linear":{"out":2}},
        {"residual":{"layers":["tanh"]}}]"#,
    ),
    (
        "binary",
        CLASSES,
        &[2, 8, 8],
        r#"[{"conv2d":{"out":4,"kernel":3,"bias":false}},"batch_norm","sign",
        {"conv2d":{"out":4,"kernel":3,"padding":"same","bias":false,"binary":true}},"batch_norm","flatten","sign",
        {"linear":{"out":8,"binary":true}},"batch_norm","sign",{"linear":{"out":3}}]"#,
    ),
    (
        "binary-signal",
        CLASSES,
        &[2, 9],
        r#"["sign",{"conv1d":{"out":4,"kernel":3,"binary":true}},"flatten","sign",
        {"linear":{"out":2}}]"#,
    ),
    (
        "text-gru",
        TaskKind::NextToken,
        &[7],
        r#"[{"embedding":{"tokens":13,"out":5}},{"gru":{"out":6}},
        {"linear":{"out":9}},"relu",{"gru":{"out":4}},{"linear":{"out":13}}]"#,
    ),
    (
        "text-attention",
        TaskKind::NextToken,
        &[6],
        r#"[{"embedding":{"tokens":11,"out":8,"positions":true}},
        {"residual":{"layers":["layer_norm",{"self_attention":{"heads":2}}]}},
        {"residual":{"layers":["layer_norm",{"linear":{"out":16}},"gelu",{"linear":{"out":8,"bias":false}}]}},
        {"self_attention":{"heads":1,"causal":false}},{"linear":{"out":11}}]"#,
    ),
    ("text-classes", CLASSES, &[5], r#"[{"embedding":{"tokens":17,"out":4}},"flatten",{"linear":{"out":3}}]"#),
    ("regression", TaskKind::Regression, &[3, 4], r#"[{"gru":{"out":4}},"flatten",{"linear":{"out":1}}]"#),
];

struct Case {
    name: &'static str,
    layers: Vec<Layer>,
    network: Network,
    parameters: Vec<f32>,
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = CASES
        .iter()
        .map(|(name, kind, shape, layers)| case(name, *kind, shape, serde_json::from_str(layers).expect("layers")))
        .collect();
    for name in ["lenet-300-100", "lenet-5", "fedavg-cnn"] {
        cases.push(case(name, CLASSES, &[1, 28, 28], starling_spec::preset::layers(name).expect("a preset")));
    }
    cases
}

fn case(name: &'static str, kind: TaskKind, shape: &[usize], layers: Vec<Layer>) -> Case {
    let network = infer(kind, shape, &layers).expect("a network");
    let parameters = numbers(&network);
    Case { name, layers, network, parameters }
}

/// Random parameters at the scale of trained ones, without a constant anywhere: scales around 1, variances above 0, and a weight
/// of 0 where binary layers have to decide.
fn numbers(network: &Network) -> Vec<f32> {
    let mut parameters = Vec::with_capacity(network.manifest.len());
    for (index, tensor) in network.manifest.tensors.iter().enumerate() {
        let mut random = Random::new(3, Purpose::Initialise, &[index as u64]);
        let fan_in = (tensor.len() / tensor.shape[if tensor.shape.len() == 2 { 1 } else { 0 }]).max(4);
        let bound = (6.0 / fan_in as f32).sqrt();
        for position in 0..tensor.len() {
            let uniform = 2.0 * random.unit_f32() - 1.0;
            parameters.push(match tensor.role {
                ParamRole::Statistic if tensor.name.ends_with("variance") => 1.1 + uniform,
                _ if tensor.name.ends_with("scale") => 1.0 + 0.5 * uniform,
                _ if tensor.shape.len() == 1 => 0.3 * uniform,
                _ if position == 1 => 0.0,
                _ => bound * uniform,
            });
        }
    }
    parameters
}

fn write(folder: &Path, case: &Case) {
    let Case { name, layers, network, parameters } = case;
    let computed = computed_parameters(network, parameters);
    let layers = serde_json::to_string(layers).expect("JSON");
    let metadata = BTreeMap::from([("layers".to_owned(), layers.clone())]);
    let about = format!(r#"{{"layers":{layers},"shape":{:?},"output":{:?}}}"#, network.input, network.output);
    let file = |extension: &str| folder.join(format!("{name}.{extension}"));
    let put = |extension: &str, bytes: &[u8]| fs::write(file(extension), bytes).expect("a file");
    put("onnx", &write_onnx(network, parameters, name).expect("an ONNX file"));
    put("safetensors", &write_safetensors(&network.manifest, parameters, &metadata));
    put("torch.safetensors", &write_torch_safetensors(&network.manifest, &computed, &metadata).expect("a file"));
    put("json", about.as_bytes());
}

fn keys(layers: &[Layer], found: &mut BTreeSet<&'static str>) {
    for layer in layers {
        found.insert(layer.key());
        if let Layer::Residual(residual) = layer {
            keys(&residual.layers, found);
        }
    }
}

/// An interpreter with the packages, or why there is none.
fn interpreter() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("STARLING_PYTHON").filter(|path| path != "required") {
        return Ok(path.into());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/environment.sh");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let output = Command::new("sh").arg(script).arg(folder).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().into()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

#[test]
fn every_layer_has_a_case() {
    let mut found = BTreeSet::new();
    for case in cases() {
        keys(&case.layers, &mut found);
    }
    // The number of keys is held by starling-spec's own test of every layer.
    assert_eq!(found.len(), 23, "{found:?}");
}

#[test]
fn the_same_network_gives_the_same_bytes() {
    for case in cases() {
        let write = || write_onnx(&case.network, &case.parameters, case.name).expect("an ONNX file");
        assert_eq!(write(), write(), "{}", case.name);
    }
}

#[test]
fn other_tools_read_the_files_and_compute_the_same() {
    let python = match interpreter() {
        Ok(python) => python,
        Err(reason) => {
            let required = std::env::var_os("STARLING_PYTHON").is_some_and(|value| value == "required");
            assert!(!required, "no Python environment: {reason}");
            eprintln!(
                "SKIPPED: nobody but us has read the ONNX and safetensors files; no Python environment: {reason}"
            );
            return;
        }
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("exchange");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    let cases = cases();
    for case in &cases {
        write(&folder, case);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/check.py");
    let output = Command::new(python).arg("-B").arg(script).arg(&folder).output().expect("python runs");
    let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complaint}");
    eprintln!("{}", said.trim());
    // With torch, what went through its modules comes back the same.
    for case in &cases {
        let Ok(bytes) = fs::read(folder.join(format!("{}.saved.safetensors", case.name))) else { continue };
        let read = read_safetensors(&bytes, &case.network.manifest, Layout::Torch).expect("torch's file");
        assert_eq!(read, computed_parameters(&case.network, &case.parameters), "{}", case.name);
    }
}
