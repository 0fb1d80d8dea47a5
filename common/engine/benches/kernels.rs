//! Latency of releases with seeded random weights, one sample over varied inputs on one thread, and of single layers.
//!
//! `STARLING_LEVEL=avx2` or `portable` holds the engine to lesser instructions.

#[path = "../tests/support/releases.rs"]
mod releases;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use releases::{BINARY_MLP, images, integers, layers, preset_release, pruned, release, rewrite};
use starling_compress::{Compressed, Release, Values};
use starling_engine::{Engine, Inference, Level};
use starling_spec::TaskKind;

/// Inputs that a bench goes through.
const INPUTS: usize = 256;

fn level() -> Level {
    match std::env::var("STARLING_LEVEL").as_deref() {
        Ok("portable") => Level::Portable,
        Ok("avx2") => Level::Avx2,
        _ => Level::Avx512,
    }
}

/// One sample at a time, or `batch`.
fn latency(criterion: &mut Criterion, group: &str, name: &str, release: &Release, features: &[f32], batch: usize) {
    let mut engine = Engine::with_level(release, level()).expect("a release");
    let sample = engine.input_len() * batch;
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(batch as u64)).sample_size(50);
    let (mut at, mut outputs) = (0, Vec::new());
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            at = if at + 2 * sample <= features.len() { at + sample } else { 0 };
            outputs.clear();
            engine.run_into(black_box(&features[at..at + sample]), &mut outputs).expect("finite features");
            outputs[0]
        });
    });
    group.finish();
}

fn networks(criterion: &mut Criterion) {
    let features = images(INPUTS, 0.35, 1);
    for name in ["lenet-300-100", "lenet-5", "fedavg-cnn"] {
        let float = preset_release(name, 3);
        let int8 = integers(preset_release(name, 3), 8, &features);
        let int4 = integers(preset_release(name, 3), 4, &features);
        latency(criterion, name, "f32", &float, &features, 1);
        latency(criterion, name, "int8", &int8, &features, 1);
        latency(criterion, name, "int4", &int4, &features, 1);
        // Deep Compression's shares (Han et al. 2016, tables 2 and 3).
        let shares: &[f64] = match name {
            "lenet-300-100" => &[0.08, 0.09, 0.26],
            _ => &[0.66, 0.12, 0.08, 0.19],
        };
        let sparse = pruned(preset_release(name, 3), |position| shares[position]);
        latency(criterion, name, "pruned", &sparse, &features, 1);
        latency(
            criterion,
            name,
            "pruned_to_a_third",
            &pruned(preset_release(name, 3), |at| shares[at] / 3.0),
            &features,
            1,
        );
        for (form, release) in [("f32", &float), ("int8", &int8), ("pruned", &sparse)] {
            latency(criterion, name, &format!("{form}_batch_64"), release, &features, 64);
        }
    }
    let binary = release(TaskKind::Classification, &[1, 28, 28], layers(BINARY_MLP), 3);
    latency(criterion, "binary_mlp", "binary", &binary, &features, 1);
    latency(criterion, "binary_mlp", "binary_batch_64", &binary, &features, 64);
}

/// A layer of 1024 × 1024 in floats, integers and signs, over inputs without zeros.
fn square(criterion: &mut Criterion) {
    const SIDE: usize = 1024;
    let features = releases::random_normals(SIDE * INPUTS, 5);
    let linear = r#"[{"linear": {"out": 1024}}]"#;
    let float = release(TaskKind::Classification, &[SIDE], layers(linear), 4);
    let signs = r#"["sign", {"linear": {"out": 1024, "binary": true}}]"#;
    let binary = release(TaskKind::Classification, &[SIDE], layers(signs), 4);
    let mut ternary = float.clone();
    rewrite(&mut ternary, &[0], |_, values| {
        let kept = (0..1u32 << 20).filter(|index| index % 20 == 0).collect::<Vec<_>>();
        let values = kept.iter().map(|index| values[*index as usize]).collect();
        Compressed { kept: Some(kept), values: Values::F32(values) }
    });
    latency(criterion, "square_1024", "f32", &float, &features, 1);
    latency(criterion, "square_1024", "int8", &integers(float.clone(), 8, &features), &features, 1);
    latency(criterion, "square_1024", "binary", &binary, &features, 1);
    latency(criterion, "square_1024", "sparse_5_percent", &ternary, &features, 1);
}

criterion_group!(benches, networks, square);
criterion_main!(benches);
