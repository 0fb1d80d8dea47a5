//! Our own convolutions and pools against burn's: the same network on `auto` and on flex.

use starling_model::{Memory, Network};
use starling_spec::init::initial_parameters;
use starling_spec::{Backend, TaskKind};

use crate::{plan, uniform};

/// Outputs and gradients of one network on both, for more samples than an evaluation batch.
fn agree(shape: &[usize], layers: &str) {
    let len = shape.iter().product();
    let rows: Vec<u32> = (0..70).collect();
    let features = uniform(70 * len, 1.0, 40);
    let data = Memory::classes(len, features.clone(), rows.iter().map(|row| row % 3).collect());
    let results = [Backend::Flex, Backend::Auto].map(|backend| {
        let plan = plan(TaskKind::Classification, shape, layers, backend);
        let mut parameters = initial_parameters(&plan.manifest().expect("a manifest"), 1);
        let extras = uniform(parameters.len(), 0.1, 41);
        for (value, extra) in parameters.iter_mut().zip(extras) {
            *value += extra;
        }
        let mut network = Network::new(&plan).expect("a network");
        let outputs = network.predict(&parameters, &features).expect("outputs");
        let alone = network.predict(&parameters, &features[..len]).expect("outputs");
        for (alone, together) in alone.iter().zip(&outputs) {
            assert!((alone - together).abs() < 1e-5, "a sample's outputs are its own");
        }
        let (loss, gradient) = network.loss_gradient(&parameters, &data, &rows).expect("a gradient");
        let evaluated = network.evaluate(&parameters, &data, &rows).expect("figures");
        assert!((evaluated.loss() - loss).abs() < 1e-5);
        (outputs, gradient)
    });
    let [(outputs, gradient), (own_outputs, own_gradient)] = results;
    let near = |a: &[f32], b: &[f32], what: &str| {
        let size = a.iter().fold(0f32, |size, value| size.max(value.abs()));
        assert!(size > 1e-3, "{what} of {layers} say something");
        for (index, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() < 2e-5 * size.max(1.0), "{what} {index} of {layers}: {a} against {b}");
        }
    };
    near(&outputs, &own_outputs, "outputs");
    near(&gradient, &own_gradient, "gradients");
}

#[test]
fn images() {
    for layers in [
        // Padded and strided, with and without bias; what a pool leaves over; a last layer inside the chain.
        r#"[{"conv2d":{"out":5,"kernel":3,"padding":"same"}},"relu",{"max_pool2d":2},{"conv2d":{"out":18,"kernel":3,"stride":2,"bias":false}},"relu","flatten",{"linear":{"out":3}}]"#,
        // Windows that overlap, and windows with gaps.
        r#"[{"conv2d":{"out":4,"kernel":2}},{"max_pool2d":{"size":3,"stride":2}},"relu",{"max_pool2d":{"size":1,"stride":2}},"flatten",{"linear":{"out":3}}]"#,
        // A pool first; a graph between two chains and behind them.
        r#"[{"max_pool2d":2},{"conv2d":{"out":6,"kernel":1}},"batch_norm","relu",{"conv2d":{"out":7,"kernel":3,"padding":"same"}},"global_avg_pool",{"linear":{"out":3}}]"#,
        // A graph first, and one without parameters.
        r#"["tanh",{"max_pool2d":2},"tanh",{"conv2d":{"out":6,"kernel":3}},"flatten",{"linear":{"out":3}}]"#,
        // Convolutions in a residual stay in the graph.
        r#"[{"conv2d":{"out":4,"kernel":3}},{"residual":{"layers":[{"conv2d":{"out":4,"kernel":3,"padding":"same"}},"relu"]}},
            {"depthwise_conv2d":{"kernel":3}},{"conv2d":{"out":3,"kernel":5}},"relu",{"avg_pool2d":2},"flatten",{"linear":{"out":3}}]"#,
        // Nothing but a chain and a flattening.
        r#"[{"conv2d":{"out":3,"kernel":11}},"flatten"]"#,
    ] {
        agree(&[2, 11, 11], layers);
    }
}

#[test]
fn signals() {
    for layers in [
        r#"[{"conv1d":{"out":5,"kernel":3,"padding":"same"}},"relu",{"max_pool1d":2},{"conv1d":{"out":9,"kernel":4,"stride":3}},"flatten",{"linear":{"out":3}}]"#,
        r#"[{"max_pool1d":{"size":3,"stride":1}},{"conv1d":{"out":17,"kernel":1}},"relu","global_avg_pool",{"linear":{"out":3}}]"#,
    ] {
        agree(&[3, 29], layers);
    }
}
