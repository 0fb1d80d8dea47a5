//! Latency of releases with seeded random weights: p50, p99 and the fastest of 10,000 runs of one sample over varied inputs.
//!
//! `cargo run --release -p starling-engine --example latency [portable|avx2|avx512] [part of a name]`

#[path = "../tests/support/releases.rs"]
mod releases;

use std::time::Instant;

use releases::{BINARY_MLP, images, integers, layers, preset_release, pruned, release};
use starling_compress::Release;
use starling_engine::{Engine, Inference, Level, multiply_accumulates};
use starling_spec::TaskKind;

const RUNS: usize = 10_000;
const INPUTS: usize = 512;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let level = match arguments.next().as_deref() {
        Some("portable") => Level::Portable,
        Some("avx2") => Level::Avx2,
        _ => Level::Avx512,
    };
    let wanted = arguments.next().unwrap_or_default();
    // What MNIST and Fashion-MNIST have of ink: 19 % and 50 %.
    let features = images(INPUTS, 0.5, 1);
    let normals = releases::random_normals(1024 * INPUTS, 5);
    println!("{:<36} {:>9} {:>9} {:>9} {:>12} {:>12}", "", "p50 µs", "p99 µs", "least µs", "weights B", "MACs");
    let measure = |name: &str, release: &dyn Fn() -> Release, features: &[f32]| {
        if name.contains(&wanted) {
            run(name, &release(), features, level);
        }
    };
    for name in ["lenet-300-100", "lenet-5", "fedavg-cnn"] {
        let shares: &[f64] = if name == "lenet-300-100" { &[0.08, 0.09, 0.26] } else { &[0.66, 0.12, 0.08, 0.19] };
        let float = || preset_release(name, 3);
        measure(&format!("{name} f32"), &float, &features);
        measure(&format!("{name} int8"), &|| integers(float(), 8, &features), &features);
        measure(&format!("{name} int4"), &|| integers(float(), 4, &features), &features);
        measure(&format!("{name} pruned as Han et al."), &|| pruned(float(), |at| shares[at]), &features);
        measure(&format!("{name} pruned to a third of it"), &|| pruned(float(), |at| shares[at] / 3.0), &features);
    }
    measure(
        "784-300-100-10 binary",
        &|| release(TaskKind::Classification, &[1, 28, 28], layers(BINARY_MLP), 3),
        &features,
    );
    let square = |layer: &str| release(TaskKind::Classification, &[1024], layers(layer), 4);
    measure("1024x1024 f32", &|| square(r#"[{"linear": {"out": 1024}}]"#), &normals);
    measure("1024x1024 int8", &|| integers(square(r#"[{"linear": {"out": 1024}}]"#), 8, &normals), &normals);
    measure("1024x1024 binary", &|| square(r#"["sign", {"linear": {"out": 1024, "binary": true}}]"#), &normals);
}

#[allow(clippy::cast_precision_loss, reason = "nanoseconds for people")]
fn run(name: &str, release: &Release, features: &[f32], level: Level) {
    let mut engine = Engine::with_level(release, level).expect("a release");
    let (sample, mut outputs) = (engine.input_len(), Vec::new());
    let mut times: Vec<u128> = (0..RUNS)
        .map(|run| {
            let at = run % (features.len() / sample) * sample;
            outputs.clear();
            let start = Instant::now();
            engine.run_into(&features[at..at + sample], &mut outputs).expect("finite features");
            start.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    let micros = |at: usize| times[at] as f64 / 1000.0;
    println!(
        "{name:<36} {:>9.2} {:>9.2} {:>9.2} {:>12} {:>12}",
        micros(RUNS / 2),
        micros(RUNS / 100 * 99),
        micros(0),
        engine.weight_bytes(),
        multiply_accumulates(release).expect("a release"),
    );
}
