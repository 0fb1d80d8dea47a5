//! An update's way at the size of `fedavg-cnn`, one thread: seal, admit (digest given), fold, mean, publish.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use starling_privacy::noise::Simulated;
use starling_spec::random::{Purpose, Random};
use starling_spec::{CodecSpec, UpdateSettings};
use starling_update::ring::{RingNumerics, RingReport, RingSettings, Tallies};
use starling_update::{Fold, Numerics, Version, admit, seal};
use starling_wire::{Address, DeviceId, Digest, RunId, TaskId, UpdateReport};

const PARAMETERS: usize = 1_663_370;

fn path(criterion: &mut Criterion) {
    let mut random = Random::new(1, Purpose::Noise, &[]);
    #[allow(clippy::cast_possible_truncation, reason = "bench values are rounded to f32 on purpose")]
    let delta: Vec<f32> = (0..PARAMETERS).map(|_| (random.normal() * 0.01) as f32).collect();
    let address = Address { task: TaskId([0; 16]), run: RunId(1), round: 1, attempt: 1 };
    let report = UpdateReport { weight: 600, train_loss: 0.5, steps: 60, within_clip: false };
    for codec in [CodecSpec::F32, CodecSpec::F16, CodecSpec::Quantised(8)] {
        let settings = UpdateSettings { codec, down: codec, value_max_log2: 4, weight_max: 1 << 20 };
        let numerics = Numerics::new(&settings, PARAMETERS, 10).expect("in range");
        let sealed = seal(&report, &delta, codec, 7).expect("finite");
        let header = sealed.header(&address);
        let admitted = || {
            let body = sealed.bytes().clone();
            admit(DeviceId([1; 16]), &header, body, sealed.digest(), &numerics).expect("honest")
        };

        let mut group = criterion.benchmark_group(codec.to_string());
        group.throughput(Throughput::Elements(PARAMETERS as u64)).sample_size(20);
        group.bench_function("seal", |bencher| bencher.iter(|| seal(&report, black_box(&delta), codec, 7)));
        group.bench_function("admit", |bencher| bencher.iter(|| black_box(admitted())));
        let update = admitted();
        let mut fold = Fold::new(&numerics);
        group.throughput(Throughput::Elements(2 * PARAMETERS as u64));
        group.bench_function("add_and_remove", |bencher| {
            bencher.iter(|| {
                fold.add(black_box(&update)).expect("not in");
                fold.remove(&update).expect("in");
            });
        });
        fold.add(&update).expect("not in");
        let mut master = vec![0f32; PARAMETERS];
        group.throughput(Throughput::Elements(PARAMETERS as u64));
        group.bench_function("apply_mean", |bencher| bencher.iter(|| fold.apply_mean(black_box(&mut master))));
        group.bench_function("publish", |bencher| {
            bencher.iter_batched(
                || delta.clone(),
                |master| Version::publish(1, master, codec),
                criterion::BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

/// What a secure sum's numbers cost a device, and its aggregator once a round: `fedavg-2nn`, 20 devices.
fn ring(criterion: &mut Criterion) {
    const SMALL: usize = 199_210;
    let mut random = Random::new(1, Purpose::Noise, &[]);
    let delta: Vec<f32> = (0..SMALL).map(|_| random.unit_f32() - 0.5).collect();
    for (name, bits, subset_per_million) in [("ring q8", 8, 1_000_000), ("ring q8, a tenth", 8, 100_000)] {
        let settings = RingSettings {
            codec: CodecSpec::Quantised(bits),
            clip: 1.0,
            weight_max: 1000,
            subset_per_million,
            cohort_max: 20,
            tallies: Some(Tallies { metrics_max: vec![] }),
            noise: None,
        };
        let numerics = RingNumerics::new(&settings, SMALL).expect("good settings");
        let (report, shared) = (RingReport { examples: 100, metrics: &[], shares: [0.5; 2] }, Digest([1; 32]));
        let encode = || {
            numerics.encode(black_box(&delta), report, &shared, 7, &mut Simulated::new(0, &[])).expect("a good delta")
        };
        let vector = encode();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(SMALL as u64)).sample_size(20);
        group.bench_function("encode", |bencher| bencher.iter(encode));
        group.bench_function("decode", |bencher| bencher.iter(|| numerics.decode(black_box(&vector), &shared, 1)));
        group.finish();
    }
}

criterion_group!(benches, path, ring);
criterion_main!(benches);
