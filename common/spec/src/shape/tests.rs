use proptest::prelude::*;

use super::*;
use crate::manifest::ParamRole;

fn network(kind: TaskKind, shape: &[usize], layers: &str) -> Result<Network, SpecError> {
    infer(kind, shape, &serde_json::from_str::<Vec<Layer>>(layers).expect("layers"))
}

fn problem(shape: &[usize], layers: &str) -> String {
    network(TaskKind::Classification, shape, layers).expect_err("it does not fit").to_string()
}

#[test]
fn sizes_flow_through_convolutions_and_pools() {
    let layers = r#"[{"conv2d":{"out":8,"kernel":3,"stride":2,"padding":"same"}},{"max_pool2d":{"size":3,"stride":2}},
        {"depthwise_conv2d":{"kernel":3}},"batch_norm","relu","global_avg_pool",{"linear":{"out":4}}]"#;
    let network = network(TaskKind::Classification, &[3, 28, 28], layers).expect("a network");
    let shapes: Vec<_> = network.nodes.iter().map(|node| node.output.clone()).collect();
    let expected: [&[usize]; 7] = [&[8, 14, 14], &[8, 6, 6], &[8, 4, 4], &[8, 4, 4], &[8, 4, 4], &[8], &[4]];
    assert_eq!(shapes, expected);
    let names: Vec<_> = network.manifest.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names[0], "0.conv2d.weight");
    assert_eq!(names[4..8], ["3.batch_norm.scale", "3.batch_norm.shift", "3.batch_norm.mean", "3.batch_norm.variance"]);
    assert_eq!(network.manifest.tensors[6].role, ParamRole::Statistic);
    assert_eq!(network.manifest.len(), 8 * 3 * 9 + 8 + 8 * 9 + 8 + 4 * 8 + 8 * 4 + 4);
    for pair in network.manifest.tensors.windows(2) {
        assert_eq!(pair[0].range().end, pair[1].offset, "no gaps");
    }
}

#[test]
fn texts_and_sequences() {
    let layers = r#"[{"embedding":{"tokens":256,"out":8,"positions":true}},
        {"residual":{"layers":["layer_norm",{"self_attention":{"heads":2}}]}},{"gru":{"out":16}},{"linear":{"out":256}}]"#;
    let network = network(TaskKind::NextToken, &[80], layers).expect("a network");
    assert_eq!(network.output, [80, 256]);
    assert_eq!(network.manifest.tensors[3].name, "1.0.layer_norm.shift");
}

#[test]
fn a_layer_that_does_not_fit_is_named_with_its_shape() {
    assert_eq!(
        problem(&[64], r#"[{"linear":{"out":9}},{"conv2d":{"out":2,"kernel":3}}]"#),
        "model.layers[1] (conv2d): it takes the shape [channels, height, width], and [9] reaches it"
    );
    assert_eq!(
        problem(&[1, 4, 4], r#"["relu",{"residual":{"layers":["relu",{"conv2d":{"out":2,"kernel":5}}]}}]"#),
        "model.layers[1.1] (conv2d): a window of 5 does not fit into [1, 4, 4]"
    );
    assert_eq!(
        problem(&[6], r#"[{"residual":{"layers":[{"linear":{"out":5}}]}}]"#),
        "model.layers[0] (residual): its layers turn [6] into [5]; they must keep the shape"
    );
    assert!(problem(&[1, 8, 8], r#"[{"conv2d":{"out":2,"kernel":4,"padding":"same"}}]"#).contains("odd kernel"));
    assert!(problem(&[6, 8], r#"[{"group_norm":{"groups":4}}]"#).contains("do not divide 6 channels"));
    assert!(problem(&[6], r#"[{"dropout":1.0}]"#).contains("below 1"));
    assert!(problem(&[6], r#"["relu",{"embedding":{"tokens":9,"out":2}}]"#).contains("first layer"));
    assert!(problem(&[6, 5], r#"[{"linear":{"out":2}}]"#).contains("a classification needs [classes]"));
}

#[test]
fn inv8_a_plan_cannot_ask_for_more_than_the_limits() {
    let huge = format!(r#"[{{"linear":{{"out":{}}}}}]"#, usize::MAX);
    assert!(problem(&[6], &huge).contains("parameters"));
    assert!(problem(&[1 << 20], r#"[{"linear":{"out":2000}}]"#).contains("1073741824 parameters"));
    let deep = (0..20).fold(r#""relu""#.to_owned(), |inner, _| format!(r#"{{"residual":{{"layers":[{inner}]}}}}"#));
    assert!(problem(&[6], &format!("[{deep}]")).contains("residuals inside each other"));
    let many = vec![r#""relu""#; LAYERS_MAX + 1].join(",");
    assert!(problem(&[6], &format!("[{many}]")).contains("layers"));
    assert!(infer(TaskKind::Classification, &[usize::MAX, 2], &[Layer::Flatten]).is_err());
}

#[test]
fn the_digest_tells_networks_apart() {
    let digest = |layers| network(TaskKind::Classification, &[4], layers).expect("a network").manifest.digest();
    assert_eq!(digest(r#"[{"linear":{"out":3}}]"#), digest(r#"[{"linear":{"out":3}},"relu"]"#));
    assert_ne!(digest(r#"[{"linear":{"out":3}}]"#), digest(r#"[{"linear":{"out":2}}]"#));
    assert_ne!(digest(r#"[{"linear":{"out":3}}]"#), digest(r#"[{"linear":{"out":3,"bias":false}}]"#));
}

proptest! {
    /// Whatever the numbers, inference answers and never panics.
    #[test]
    fn any_numbers_are_answered(
        shape in prop::collection::vec(prop_oneof![0usize..40, any::<usize>()], 0..4),
        kernel in prop_oneof![0usize..9, any::<usize>()],
        stride in prop_oneof![0usize..4, any::<usize>()],
        out in prop_oneof![0usize..9, any::<usize>()],
        same in any::<bool>(),
    ) {
        let padding = if same { "same" } else { "valid" };
        let conv = format!(r#"{{"out":{out},"kernel":{kernel},"stride":{stride},"padding":"{padding}"}}"#);
        for layers in [
            format!(r#"[{{"conv1d":{conv}}},"flatten",{{"linear":{{"out":{out}}}}}]"#),
            format!(r#"[{{"conv2d":{conv}}},{{"max_pool2d":{{"size":{kernel},"stride":{stride}}}}},"flatten"]"#),
            format!(r#"[{{"embedding":{{"tokens":{out},"out":{out}}}}},{{"gru":{{"out":{out}}}}},{{"self_attention":{{"heads":{stride}}}}}]"#),
        ] {
            for kind in [TaskKind::Classification, TaskKind::Regression, TaskKind::NextToken] {
                let layers: Vec<Layer> = serde_json::from_str(&layers).expect("layers");
                if let Ok(network) = infer(kind, &shape, &layers) {
                    prop_assert!(network.manifest.len() <= PARAMETERS_MAX);
                }
            }
        }
    }
}
