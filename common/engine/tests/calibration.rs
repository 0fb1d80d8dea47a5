//! Ranges and counts, on networks whose inputs can be told by hand.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/releases.rs"]
mod releases;

use releases::{layers, preset_release, pruned, release};
use starling_compress::{Compressed, InputRange};
use starling_engine::{calibrate, multiply_accumulates};
use starling_spec::TaskKind::{Classification, NextToken};

#[test]
fn ranges_are_those_of_the_inputs_of_each_weight() {
    let json = r#"["flatten", {"linear": {"out": 2}}, "relu", {"residual": {"layers": ["tanh", {"linear": {"out": 2}}]}}, {"linear": {"out": 2}}]"#;
    let mut release = release(Classification, &[2], layers(json), 1);
    // x ↦ (x₀ − x₁, 2 x₁), then ReLU, then x + 0, then the last layer.
    release.tensors[0] = Compressed::dense(vec![1.0, 0.0, -1.0, 2.0]);
    release.tensors[1] = Compressed::dense(vec![0.0, 0.0]);
    release.tensors[2] = Compressed::dense(vec![0.0; 4]);
    release.tensors[3] = Compressed::dense(vec![0.0; 2]);
    let ranges = calibrate(&release, &[-3.0, 4.0, 5.0, 1.0]).unwrap();
    assert_eq!(ranges.len(), 6);
    assert_eq!(ranges[0], Some(InputRange { low: -3.0, high: 5.0 }));
    let inner = ranges[2].unwrap();
    assert!(inner.low == 0.0 && (inner.high - 8f32.tanh()).abs() < 1e-6, "{inner:?}");
    assert_eq!(ranges[4], Some(InputRange { low: 0.0, high: 8.0 }));
    assert!([1, 3, 5].iter().all(|bias| ranges[*bias].is_none()), "biases have no inputs");
}

#[test]
fn what_has_no_integer_form_gets_no_range() {
    let json = r#"[{"depthwise_conv2d": {"kernel": 3}}, {"conv2d": {"out": 2, "kernel": 1}}, "global_avg_pool"]"#;
    let image = release(Classification, &[2, 5, 5], layers(json), 1);
    let ranges = calibrate(&image, &releases::random_normals(100, 1)).unwrap();
    assert!(ranges[0].is_none() && ranges[2].is_some());
    let json = r#"[{"embedding": {"tokens": 4, "out": 4}}, {"gru": {"out": 4}}, {"self_attention": {"heads": 2}}, {"linear": {"out": 4}}]"#;
    let text = release(NextToken, &[3], layers(json), 1);
    let ranges = calibrate(&text, &[0.0, 1.0, 2.0, 3.0, 3.0, 3.0]).unwrap();
    let with: Vec<usize> = (0..ranges.len()).filter(|index| ranges[*index].is_some()).collect();
    assert_eq!(with, [ranges.len() - 2], "only the linear layer's weight");
    assert!(calibrate(&text, &[0.0, 1.0]).is_err() && calibrate(&text, &[0.0, 1.0, 4.0]).is_err());
}

#[test]
fn products_are_counted_by_hand() {
    for (name, expected) in [("lenet-300-100", 266_200), ("lenet-5", 2_293_000), ("fedavg-cnn", 12_273_152)] {
        assert_eq!(multiply_accumulates(&preset_release(name, 1)).unwrap(), expected, "{name}");
    }
    let half = pruned(preset_release("lenet-300-100", 1), |_| 0.5);
    assert_eq!(multiply_accumulates(&half).unwrap(), 133_100);
    let json = r#"[{"embedding": {"tokens": 4, "out": 6}}, {"gru": {"out": 8}}, {"self_attention": {"heads": 2}}, {"linear": {"out": 4}}]"#;
    let text = release(NextToken, &[5], layers(json), 1);
    let gru = 5 * (6 * 24 + 8 * 24);
    let attention = 5 * (8 * 24 + 8 * 8) + 15 * 2 * 8;
    assert_eq!(multiply_accumulates(&text).unwrap(), gru + attention + 5 * 8 * 4);
}
