//! What the presets cost: training samples a second and inference latency, one thread, both backends.
//!
//! `cargo bench -p starling-model --bench presets`; an argument keeps the presets whose name contains it. Inputs are
//! uniform noise of 28×28. Time is the thread's CPU time where Linux tells it (so neighbours on the machine count less), and
//! a figure is the best of several windows.
//! `benches/peers/torch_presets.py` measures PyTorch the same way.

use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use starling_model::{Memory, Network, TrainPath};
use starling_spec::init::initial_parameters;
use starling_spec::{TaskFile, TaskPlan};

const WINDOW_S: f64 = 0.7;
const WINDOWS: usize = 3;
const REPEATS: usize = 4;

/// Seconds that this thread has computed, or that have passed since `start`.
fn seconds(start: Instant) -> f64 {
    let nanoseconds = std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    nanoseconds.map_or_else(|| start.elapsed().as_secs_f64(), |nanoseconds| nanoseconds / 1e9)
}

fn plan(preset: &str, backend: &str, batch: usize) -> TaskPlan {
    let text = format!(
        "name = \"bench\"\nkind = \"classification\"\n[data]\nformat = \"idx\"\ntrain = \"x\"\nshape = [1, 28, 28]\n\
         [model]\npreset = \"{preset}\"\nbackend = \"{backend}\"\n[train]\nlr = 0.01\nbatch = {batch}\nepochs = 1\n"
    );
    let task = TaskFile::parse(&text, &[]).expect("a task");
    TaskPlan::new(&task, 1).expect("a plan")
}

fn noise(samples: usize) -> (Vec<f32>, Vec<u32>) {
    let mut random = starling_spec::random::Random::new(1, starling_spec::random::Purpose::Noise, &[]);
    let features = (0..samples * 784).map(|_| random.unit_f32()).collect();
    (features, (0..samples).map(|row| u32::try_from(row % 10).expect("small")).collect())
}

/// The shortest time that `work` took a unit, in seconds, when it does `units` of them at a time.
fn best(units: usize, mut work: impl FnMut()) -> f64 {
    work();
    let mut best = f64::INFINITY;
    for _ in 0..WINDOWS {
        let (origin, mut rounds) = (Instant::now(), 0usize);
        let start = seconds(origin);
        let mut spent = 0.0;
        while spent < WINDOW_S {
            // Several at a time: asking for the time costs some microseconds.
            for _ in 0..REPEATS {
                work();
            }
            rounds += REPEATS;
            spent = seconds(origin) - start;
        }
        best = best.min(spent / (rounds * units) as f64);
    }
    best
}

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    println!(
        "{:14} {:8} {:>14} {:>14} {:>12} {:>12}",
        "preset", "backend", "train b10 /s", "train b32 /s", "infer1 µs", "infer64 µs"
    );
    for preset in ["fedavg-2nn", "lenet-300-100", "lenet-5", "fedavg-cnn"] {
        if !preset.contains(&wanted) {
            continue;
        }
        for backend in ["ndarray", "flex", "auto"] {
            let mut rates = Vec::new();
            for batch in [10usize, 32] {
                let plan = plan(preset, backend, batch);
                let samples = batch * 4;
                let (features, classes) = noise(samples);
                let data = Memory::classes(784, features, classes);
                let rows: Vec<u32> = (0..u32::try_from(samples).expect("small")).collect();
                let mut parameters = initial_parameters(&plan.manifest().expect("a manifest"), 1);
                let mut network = Network::new(&plan).expect("a network");
                let (path, stop) = (TrainPath { device: 0, round: 1 }, AtomicBool::new(false));
                rates.push(
                    1.0 / best(samples, || {
                        black_box(network.train(&mut parameters, &data, &rows, path, &stop).expect("it trains"));
                    }),
                );
            }
            let plan = plan(preset, backend, 32);
            let network = Network::new(&plan).expect("a network");
            let parameters = initial_parameters(&plan.manifest().expect("a manifest"), 1);
            let predict = network.predictor(&parameters).expect("parameters");
            let mut latencies = Vec::new();
            for batch in [1usize, 64] {
                let (features, _) = noise(batch);
                latencies.push(
                    1e6 * best(1, || {
                        black_box(predict(&features).expect("it predicts"));
                    }),
                );
            }
            println!(
                "{preset:14} {backend:8} {:14.0} {:14.0} {:12.0} {:12.0}",
                rates[0], rates[1], latencies[0], latencies[1]
            );
        }
    }
}
