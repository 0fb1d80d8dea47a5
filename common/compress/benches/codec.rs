//! Codecs at the size of `fedavg-cnn`, one thread: parameters a second to encode, check, decode and fold, and what a
//! difference between two versions costs and weighs.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use starling_compress::{
    CodecSpec, FixedPoint, FoldSign, Rounding, check, decode_into, difference, encode_into, fold_into,
};
use starling_spec::random::{Purpose, Random};

const PARAMETERS: usize = 1_663_370;

fn normal(seed: u64, scale: f64) -> Vec<f32> {
    let mut random = Random::new(seed, Purpose::Noise, &[]);
    #[allow(clippy::cast_possible_truncation, reason = "bench values are rounded to f32 on purpose")]
    (0..PARAMETERS).map(|_| (random.normal() * scale) as f32).collect()
}

fn codecs(criterion: &mut Criterion) {
    let values = normal(1, 0.01);
    let fixed = FixedPoint::new(4, 10 << 20).expect("in range");
    for codec in [
        CodecSpec::F32,
        CodecSpec::F16,
        CodecSpec::Quantised(4),
        CodecSpec::Quantised(8),
        CodecSpec::Quantised(12),
        CodecSpec::Quantised(16),
    ] {
        let mut group = criterion.benchmark_group(codec.to_string());
        group.throughput(Throughput::Elements(PARAMETERS as u64)).sample_size(20);
        let mut bytes = Vec::new();
        for (name, rounding) in
            [("encode_stochastic", Rounding::Stochastic { key: 7 }), ("encode_nearest", Rounding::Nearest)]
        {
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    bytes.clear();
                    encode_into(codec, black_box(&values), rounding, &mut bytes).expect("finite values");
                });
            });
        }
        group.bench_function("check", |bencher| {
            bencher.iter(|| check(codec, black_box(&bytes), PARAMETERS, &fixed));
        });
        let mut decoded = vec![0f32; PARAMETERS];
        group.bench_function("decode", |bencher| {
            bencher.iter(|| decode_into(codec, black_box(&bytes), &mut decoded));
        });
        let mut accumulators = vec![0i64; PARAMETERS];
        group.bench_function("fold", |bencher| {
            bencher.iter(|| fold_into(codec, black_box(&bytes), &fixed, 600, FoldSign::Add, &mut accumulators));
        });
        group.finish();
    }
}

fn differences(criterion: &mut Criterion) {
    let master = normal(2, 0.05);
    let moved: Vec<f32> = master.iter().zip(normal(3, 0.0005)).map(|(value, step)| value + step).collect();
    for codec in [CodecSpec::F32, CodecSpec::F16, CodecSpec::Quantised(8)] {
        let encode = |values: &[f32]| {
            let mut bytes = Vec::new();
            encode_into(codec, values, Rounding::Nearest, &mut bytes).expect("finite values");
            bytes
        };
        let (old, new) = (encode(&master), encode(&moved));
        let difference = difference::encode(&old, &new).expect("close versions differ little");
        #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
        let bits = difference.len() as f64 * 8.0 / PARAMETERS as f64;
        let mut group = criterion.benchmark_group(format!("difference_{codec}_{bits:.2}_bits"));
        group.throughput(Throughput::Elements(PARAMETERS as u64)).sample_size(10);
        group.bench_function("encode", |bencher| bencher.iter(|| difference::encode(black_box(&old), &new)));
        group.bench_function("apply", |bencher| {
            bencher.iter(|| difference::apply(black_box(&old), &difference, new.len()))
        });
        group.finish();
    }
}

criterion_group!(benches, codecs, differences);
criterion_main!(benches);
