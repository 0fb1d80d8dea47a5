//! Outputs of every layer against numpy (tests/vectors/forward.py).

use serde_json::Value;
use starling_model::Network;
use starling_spec::TaskKind;

use crate::{BACKENDS, plan};

#[allow(clippy::cast_possible_truncation, reason = "vectors are compared at the precision of the network")]
fn floats(value: &Value) -> Vec<f32> {
    value.as_array().expect("a list").iter().map(|value| value.as_f64().expect("a number") as f32).collect()
}

#[test]
fn outputs_are_those_of_numpy() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../vectors/forward.json")).expect("cases");
    assert_eq!(cases.len(), 7);
    for case in &cases {
        let kind: TaskKind = serde_json::from_value(case["kind"].clone()).expect("a kind");
        let shape: Vec<usize> = serde_json::from_value(case["shape"].clone()).expect("a shape");
        let expected = floats(&case["outputs"]);
        for backend in BACKENDS {
            let network = Network::new(&plan(kind, &shape, &case["layers"].to_string(), backend)).expect("a network");
            let outputs = network.predict(&floats(&case["parameters"]), &floats(&case["inputs"])).expect("outputs");
            assert_eq!(outputs.len(), expected.len(), "{}", case["name"]);
            for (index, (output, expected)) in outputs.iter().zip(&expected).enumerate() {
                let error = (output - expected).abs();
                assert!(error < 2e-5, "{} on {backend:?}: output {index} is {output}, not {expected}", case["name"]);
            }
        }
    }
}
