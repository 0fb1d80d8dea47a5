//! Payloads from someone who means harm: whatever the bytes, every decoder ends, in little memory, with values or an error, and
//! what is let into a fold keeps its bounds. Digests are made right again, since an attacker can do that too.

use bytes::Bytes;
use starling_compress::{
    FixedPoint, FoldSign, Rounding, check, decode_into, difference, encode_into, encoded_len_bounds, fold_into, rans,
};
use starling_spec::random::{Purpose, Random};
use starling_spec::{CodecSpec, UpdateSettings};
use starling_update::{Fold, Numerics, Residual, admit, seal, seal_with_feedback};
use starling_wire::{Address, BlobHeader, DeviceId, Digest, RunId, TaskId, UpdateReport};

const CODECS: [&str; 12] =
    ["f32", "f16", "q2", "q8", "q13", "q2+ec", "q5+ec", "q8+ec", "eden:1", "eden:4", "topk:0.04", "topk:0.5"];
const VALUE_MAX_LOG2: i8 = 4;
const COUNTS: [usize; 4] = [1, 7, 300, 600];
const REPORT: UpdateReport = UpdateReport { weight: 10, train_loss: 0.5, steps: 3, within_clip: false };
const PREAMBLE: usize = 17;

struct Source(Random);

impl Source {
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.below(bound.max(1) as u64)).expect("an index")
    }

    fn byte(&mut self) -> u8 {
        self.below(256).to_le_bytes()[0]
    }

    #[allow(clippy::cast_possible_truncation, reason = "test values are rounded on purpose")]
    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.0.normal() * 0.1) as f32).collect()
    }

    /// One to four changes; now and then nothing of what was is left.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        if self.below(20) == 0 {
            let length = self.below(2 * bytes.len() + 8);
            *bytes = (0..length).map(|_| self.byte()).collect();
        }
        for _ in 0..=self.below(3) {
            // Heads and tails are where the lengths and the padding are.
            let near = if self.below(3) == 0 { bytes.len().min(16) } else { bytes.len() };
            let at = if self.below(8) == 0 { bytes.len().saturating_sub(1) } else { self.below(near) };
            match self.below(8) {
                0..=2 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                3 | 4 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, 0xfe][self.below(6)],
                5 if at < bytes.len() => drop(bytes.remove(at)),
                6 => bytes.insert(at, self.byte()),
                _ => bytes.truncate(at + self.below(9)),
            }
        }
    }
}

/// One payload of a codec, as it was encoded.
struct Payload {
    codec: CodecSpec,
    count: usize,
    bytes: Vec<u8>,
}

fn payloads(source: &mut Source) -> Vec<Payload> {
    let mut payloads = Vec::new();
    for codec in CODECS.map(|codec| codec.parse().expect("a codec")) {
        for count in COUNTS {
            let mut bytes = Vec::new();
            encode_into(codec, &source.values(count), Rounding::Stochastic { key: 7 }, &mut bytes).expect("finite");
            payloads.push(Payload { codec, count, bytes });
        }
    }
    payloads
}

fn runs(optimised: usize) -> usize {
    if cfg!(debug_assertions) { optimised / 50 } else { optimised }
}

/// The process as a whole stays small.
fn assert_memory() {
    #[cfg(target_os = "linux")]
    {
        let status = std::fs::read_to_string("/proc/self/status").expect("its own status");
        let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("its peak");
        let peak: usize = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        assert!(peak < 64_000, "a peak of {peak} KiB");
    }
}

#[test]
fn a_mutated_payload_is_refused_or_keeps_the_folds_bounds() {
    let mut source = Source(Random::new(1, Purpose::Noise, &[]));
    let fixed = FixedPoint::new(VALUE_MAX_LOG2, 10_000).expect("in range");
    let payloads = payloads(&mut source);
    let (mut taken, runs) = (0, runs(1_000_000));
    for run in 0..runs {
        let Payload { codec, count, bytes } = &payloads[run % payloads.len()];
        let (codec, count, mut bytes) = (*codec, *count, bytes.clone());
        source.mutate(&mut bytes);
        let mut values = vec![0f32; count];
        let decoded = decode_into(codec, &bytes, &mut values);
        if !encoded_len_bounds(codec, count).contains(&bytes.len()) {
            assert!(decoded.is_err(), "{codec}: a length that no encoder writes");
        }
        if decoded.is_ok() {
            assert!(values.iter().all(|value| value.is_finite()), "{codec}");
        }
        if check(codec, &bytes, count, &fixed).is_err() {
            continue;
        }
        taken += 1;
        assert_eq!(decoded, Ok(()), "{codec}: what may be folded can be decoded");
        assert!(values.iter().all(|value| value.abs() <= 16.0), "{codec}: a value over the plan's bound");
        let mut sums: Vec<i64> = (0..count as u64).map(|index| (index << 40).cast_signed()).collect();
        fold_into(codec, &bytes, &fixed, 1000, FoldSign::Add, &mut sums);
        let limit = (1000i64 << VALUE_MAX_LOG2) << fixed.fraction_bits();
        for (sum, start) in sums.iter().zip((0i64..).map(|index| index << 40)) {
            assert!((sum - start).abs() <= limit, "{codec}: more than the plan reckoned with");
        }
        fold_into(codec, &bytes, &fixed, 1000, FoldSign::Subtract, &mut sums);
        assert!(sums.iter().zip(0i64..).all(|(sum, index)| *sum == index << 40), "{codec}");
    }
    assert!(taken > runs / 20 && taken < runs / 10 * 9, "{taken} of {runs} were taken");
    assert_memory();
}

#[test]
fn a_mutated_update_is_admitted_or_refused() {
    let mut source = Source(Random::new(2, Purpose::Noise, &[]));
    let address = Address { task: TaskId([0; 16]), run: RunId(1), round: 1, attempt: 1 };
    let updates: Vec<(Numerics, BlobHeader, Vec<u8>)> = CODECS
        .iter()
        .flat_map(|codec| COUNTS.map(|count| (codec.parse::<CodecSpec>().expect("a codec"), count)))
        .map(|(codec, count)| {
            let settings =
                UpdateSettings { codec, down: CodecSpec::F32, value_max_log2: VALUE_MAX_LOG2, weight_max: 1000 };
            let numerics = Numerics::new(&settings, count, 10).expect("in range");
            let sealed = seal(&REPORT, &source.values(count), codec, 7).expect("finite");
            (numerics, sealed.header(&address), sealed.bytes().to_vec())
        })
        .collect();
    let (mut admitted, runs) = (0, runs(1_000_000));
    for run in 0..runs {
        let (numerics, header, body) = &updates[run % updates.len()];
        let mut body = body.clone();
        if source.below(2) == 0 {
            let mut payload = body.split_off(PREAMBLE);
            source.mutate(&mut payload);
            body.append(&mut payload);
        } else {
            source.mutate(&mut body);
        }
        let digest = Digest::of(&body);
        let length = if source.below(50) == 0 { u64::MAX - run as u64 } else { body.len() as u64 };
        let header = BlobHeader { length, digest, ..header.clone() };
        if let Ok(update) = admit(DeviceId([1; 16]), &header, Bytes::from(body), digest, numerics) {
            admitted += 1;
            let mut fold = Fold::new(numerics);
            fold.add(&update).expect("the first");
            let mut master = vec![0f32; numerics.parameters()];
            fold.apply_mean(&mut master);
            assert!(master.iter().all(|value| value.abs() <= 16.0), "{}", numerics.codec());
        }
    }
    assert!(admitted > runs / 50 && admitted < runs, "{admitted} of {runs} were admitted");
    assert_memory();
}

#[test]
fn mutated_differences_symbols_and_residuals_are_read_or_refused() {
    let mut source = Source(Random::new(3, Purpose::Noise, &[]));
    let encode = |values: &[f32], codec| {
        let mut bytes = Vec::new();
        encode_into(codec, values, Rounding::Nearest, &mut bytes).expect("finite");
        bytes
    };
    let differences: Vec<(Vec<u8>, Vec<u8>)> = [CodecSpec::F32, CodecSpec::F16, CodecSpec::Quantised(8)]
        .into_iter()
        .map(|codec| {
            let old = source.values(1200);
            let new: Vec<f32> = old.iter().map(|value| value * 1.004).collect();
            let (old, new) = (encode(&old, codec), encode(&new, codec));
            let difference = difference::encode(&old, &new).expect("close");
            (old, difference)
        })
        .collect();
    let symbols: Vec<(u8, Vec<u8>)> = (2..=8)
        .map(|bits| {
            let symbols: Vec<u8> =
                (0..700).map(|_| source.byte() & source.byte() & source.byte() >> (8 - bits)).collect();
            let mut bytes = Vec::new();
            rans::encode(bits, &symbols, &mut bytes);
            (bits, bytes)
        })
        .collect();
    let delta = source.values(120);
    let feedback = seal_with_feedback(&REPORT, &delta, CodecSpec::TopK(40_000), 1, &Residual::zero(120));
    let residual = feedback.expect("finite").1.to_bytes();

    let (mut read, runs) = ([0usize; 3], runs(1_000_000));
    for run in 0..runs {
        let (old, difference) = &differences[run % differences.len()];
        let mut bytes = difference.clone();
        source.mutate(&mut bytes);
        if let Ok(new) = difference::apply(old, &bytes, old.len()) {
            assert_eq!(new.len(), old.len());
            read[0] += 1;
        }

        let (bits, coded) = &symbols[run % symbols.len()];
        let mut bytes = coded.clone();
        source.mutate(&mut bytes);
        let mut out = [0u8; 700];
        if rans::Decoder::new(*bits, &bytes).read(&mut out).is_ok() {
            assert!(out.iter().all(|symbol| u32::from(*symbol) >> bits == 0));
            read[1] += 1;
        }

        let mut bytes = residual.clone();
        source.mutate(&mut bytes);
        if bytes.len() >= 48 {
            let digest = Digest::of_parts(&[&bytes[..16], &bytes[48..]]);
            bytes[16..48].copy_from_slice(&digest.0);
        }
        if let Ok(residual) = Residual::from_bytes(&bytes, 120) {
            assert_eq!(residual.len(), 120);
            // It may be hostile, but not so that what comes of it panics.
            let _ = seal_with_feedback(&REPORT, &delta, CodecSpec::TopK(40_000), 1, &residual);
            assert_eq!(Residual::from_bytes(&residual.to_bytes(), 120), Ok(residual));
            read[2] += 1;
        }
    }
    assert!(read.iter().all(|read| *read > runs / 1000 && *read < runs), "{read:?} of {runs} were read");
    assert_memory();
}
