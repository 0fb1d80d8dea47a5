//! Sealing, admission and the fold, as a whole: what goes in, what is refused and with which code, and that the aggregate is a
//! function of the set of updates.

use bytes::Bytes;
use proptest::prelude::*;
use starling_spec::random::{Purpose, Random};
use starling_spec::{CodecSpec, UpdateSettings};
use starling_update::{
    Admitted, Fold, FoldError, Numerics, NumericsError, SealError, Version, VersionError, admit, admit_header,
    difference, rounding_key, seal,
};
use starling_wire::{Address, BlobHeader, BlobKind, CodecId, DeviceId, Digest, Refusal, RunId, TaskId, UpdateReport};

const ADDRESS: Address = Address { task: TaskId([7; 16]), run: RunId(3), round: 9, attempt: 2 };
const PREAMBLE: usize = 17;
const Q8: CodecSpec = CodecSpec::Quantised(8);

fn numerics(codec: CodecSpec, parameters: usize) -> Numerics {
    let settings = UpdateSettings { codec, down: codec, value_max_log2: 4, weight_max: 1000 };
    Numerics::new(&settings, parameters, 50).expect("in range")
}

fn device(index: u32) -> DeviceId {
    DeviceId::seeded(1, index)
}

fn delta(seed: u64, count: usize) -> Vec<f32> {
    let mut random = Random::new(seed, Purpose::Noise, &[]);
    #[allow(clippy::cast_possible_truncation, reason = "test values are rounded on purpose")]
    (0..count).map(|_| (random.normal() * 0.1) as f32).collect()
}

fn update(index: u32, weight: u32, codec: CodecSpec, count: usize) -> (BlobHeader, Bytes) {
    let report = UpdateReport { weight, train_loss: 0.5, steps: 3, within_clip: false };
    let key = rounding_key(5, device(index), ADDRESS.round);
    let sealed = seal(&report, &delta(u64::from(index), count), codec, key).expect("finite");
    (sealed.header(&ADDRESS), sealed.bytes().clone())
}

fn admitted(index: u32, weight: u32, codec: CodecSpec, count: usize) -> Admitted {
    let (header, body) = update(index, weight, codec, count);
    let digest = Digest::of(&body);
    admit(device(index), &header, body, digest, &numerics(codec, count)).expect("an honest update")
}

/// `body` under a header that says so.
fn admit_body(header: &BlobHeader, body: Vec<u8>, numerics: &Numerics) -> Result<Admitted, Refusal> {
    let digest = Digest::of(&body);
    let header = BlobHeader { length: body.len() as u64, digest, ..header.clone() };
    admit(device(0), &header, Bytes::from(body), digest, numerics)
}

fn mean(fold: &Fold, count: usize) -> Vec<u32> {
    let mut master = vec![0f32; count];
    fold.apply_mean(&mut master);
    master.iter().map(|value| value.to_bits()).collect()
}

fn codec() -> impl Strategy<Value = CodecSpec> {
    prop::sample::select(vec![CodecSpec::F32, CodecSpec::F16, Q8, CodecSpec::Quantised(3), CodecSpec::Quantised(13)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn inv1_the_aggregate_is_a_function_of_the_set(
        codec in codec(),
        weights in prop::collection::vec(1u32..=1000, 1..12),
        order in any::<u64>(),
        detour in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let count = 300;
        let numerics = numerics(codec, count);
        let updates: Vec<Admitted> =
            (0u32..).zip(&weights).map(|(index, weight)| admitted(index, *weight, codec, count)).collect();
        let mut straight = Fold::new(&numerics);
        for update in &updates {
            straight.add(update).expect("new");
        }

        // Another order, with one update taken out and put back, and every update sent twice.
        let mut shuffled: Vec<&Admitted> = updates.iter().collect();
        Random::new(order, Purpose::Shuffle, &[]).shuffle(&mut shuffled);
        let mut other = Fold::new(&numerics);
        for update in &shuffled {
            other.add(update).expect("new");
            prop_assert_eq!(other.add(update), Err(FoldError::Duplicate(update.device())));
        }
        let taken = shuffled[detour.index(shuffled.len())];
        other.remove(taken).expect("it is in");
        prop_assert_eq!(other.remove(taken), Err(FoldError::NotContributed(taken.device())));
        other.add(taken).expect("it is out");
        prop_assert_eq!(other.partial(), straight.partial());
        prop_assert_eq!(mean(&other, count), mean(&straight, count));

        // Two servers that fold a part each.
        let (left, right) = shuffled.split_at(cut.index(shuffled.len()));
        let [mut left, right] = [left, right].map(|part| {
            let mut fold = Fold::new(&numerics);
            part.iter().for_each(|update| fold.add(update).expect("new"));
            fold
        });
        left.merge(right.partial()).expect("disjoint");
        prop_assert_eq!(left.partial(), straight.partial());
        prop_assert_eq!(left.weight_sum(), u64::from(weights.iter().sum::<u32>()));
        prop_assert_eq!(left.contributors().len(), weights.len());
    }

    #[test]
    fn the_mean_is_fedavg_within_the_fixed_point(weights in prop::collection::vec(1u32..=1000, 1..10)) {
        let count = 200;
        let mut fold = Fold::new(&numerics(CodecSpec::F32, count));
        let mut expected = vec![0f64; count];
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (index, weight) in (0u32..).zip(&weights) {
            fold.add(&admitted(index, *weight, CodecSpec::F32, count)).expect("new");
            for (sum, value) in expected.iter_mut().zip(delta(u64::from(index), count)) {
                *sum += f64::from(*weight) * f64::from(value) / total;
            }
        }
        let mut master = vec![1f32; count];
        fold.apply_mean(&mut master);
        for (value, expected) in master.iter().zip(expected) {
            let exact = 1.0 + expected;
            prop_assert!((f64::from(*value) - exact).abs() <= f64::from(f32::EPSILON) * exact.abs());
        }
    }
}

#[test]
fn inv2_a_device_contributes_at_most_once() {
    let mut fold = Fold::new(&numerics(Q8, 40));
    fold.add(&admitted(1, 10, Q8, 40)).expect("first");
    let before = fold.partial();
    // Even with other bytes.
    let (header, body) = update(2, 700, Q8, 40);
    let digest = Digest::of(&body);
    let again = admit(device(1), &header, body, digest, &numerics(Q8, 40)).expect("well formed");
    assert_eq!(fold.add(&again), Err(FoldError::Duplicate(device(1))));
    assert_eq!(FoldError::Duplicate(device(1)).refusal(), Refusal::Duplicate);
    assert_eq!(fold.remove(&again), Err(FoldError::NotContributed(device(1))), "only the same bytes come out");
    assert_eq!(fold.partial(), before);
    assert_eq!(fold.merge(before.clone()), Err(FoldError::Duplicate(device(1))));
    assert_eq!(fold.partial(), before);
}

#[test]
fn a_fold_takes_no_more_than_its_plan_reckoned_with() {
    let settings = UpdateSettings { codec: Q8, down: Q8, value_max_log2: 4, weight_max: 1000 };
    let numerics = Numerics::new(&settings, 40, 2).expect("in range");
    let mut fold = Fold::new(&numerics);
    for index in 0..3 {
        let (header, body) = update(index, 10, Q8, 40);
        let digest = Digest::of(&body);
        let update = admit(device(index), &header, body, digest, &numerics).expect("well formed");
        let expected = if index < 2 { Ok(()) } else { Err(FoldError::Full(2)) };
        assert_eq!(fold.add(&update), expected);
    }
}

#[test]
fn a_partial_of_another_plan_is_refused() {
    let mut fold = Fold::new(&numerics(Q8, 40));
    let other = Fold::new(&numerics(Q8, 41)).partial();
    assert!(matches!(fold.merge(other), Err(FoldError::OtherPlan(_))));
    let settings = UpdateSettings { codec: Q8, down: Q8, value_max_log2: 3, weight_max: 1000 };
    let other = Fold::new(&Numerics::new(&settings, 40, 50).expect("in range")).partial();
    assert!(matches!(fold.merge(other), Err(FoldError::OtherPlan(_))));
}

#[test]
fn a_step_is_its_rate_times_the_mean() {
    let mut fold = Fold::new(&numerics(CodecSpec::F32, 40));
    fold.add(&admitted(1, 10, CodecSpec::F32, 40)).expect("new");
    fold.add(&admitted(2, 30, CodecSpec::F32, 40)).expect("new");
    let step = |rate: f64| {
        let mut master = vec![0f32; 40];
        fold.apply_step(rate, &mut master);
        master
    };
    let mut mean = vec![0f32; 40];
    fold.apply_mean(&mut mean);
    assert_eq!(step(1.0), mean);
    // A power of two changes no digit.
    assert_eq!(step(0.25), mean.iter().map(|value| value * 0.25).collect::<Vec<_>>());
}

#[test]
fn an_empty_fold_changes_nothing() {
    let mut master = vec![0.25f32; 40];
    Fold::new(&numerics(Q8, 40)).apply_mean(&mut master);
    assert_eq!(master, vec![0.25; 40]);
}

#[test]
fn inv8_a_header_is_refused_before_its_body() {
    let numerics = numerics(Q8, 40);
    let (header, _) = update(0, 10, Q8, 40);
    assert_eq!(admit_header(&header, &numerics), Ok(()));
    assert_eq!(numerics.update_body_length_bounds(), header.length..=header.length);
    let with = |change: &dyn Fn(&mut BlobHeader)| {
        let mut changed = header.clone();
        change(&mut changed);
        admit_header(&changed, &numerics)
    };
    assert_eq!(with(&|header| header.kind = BlobKind::Model), Err(Refusal::UnexpectedFrame));
    assert_eq!(with(&|header| header.codec = CodecId { family: 1, parameter: 0 }), Err(Refusal::CodecMismatch));
    assert_eq!(with(&|header| header.codec = CodecId { family: 3, parameter: 99 }), Err(Refusal::CodecMismatch));
    assert_eq!(with(&|header| header.length += 1), Err(Refusal::LengthMismatch));
    assert_eq!(with(&|header| header.length = u64::MAX), Err(Refusal::LengthMismatch));
}

#[test]
fn inv3_what_is_not_as_the_plan_says_is_refused_by_name() {
    for codec in [CodecSpec::F32, CodecSpec::F16, Q8, CodecSpec::Quantised(5)] {
        let numerics = numerics(codec, 300);
        let (header, body) = update(0, 10, codec, 300);
        let refusal = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = body.to_vec();
            change(&mut bytes);
            admit_body(&header, bytes, &numerics).err()
        };
        assert_eq!(refusal(&|_| ()), None);
        for weight in [0u32, 1001, u32::MAX] {
            assert_eq!(
                refusal(&|body| body[4..8].copy_from_slice(&weight.to_le_bytes())),
                Some(Refusal::WeightOutOfRange)
            );
        }
        for loss in [f32::NAN, f32::INFINITY] {
            assert_eq!(refusal(&|body| body[8..12].copy_from_slice(&loss.to_le_bytes())), Some(Refusal::NotFinite));
        }
        for length in [0u32, 12, 14, 512, 513, u32::MAX] {
            let change = |body: &mut Vec<u8>| body[0..4].copy_from_slice(&length.to_le_bytes());
            assert_eq!(refusal(&change), Some(Refusal::MalformedUpdate));
        }
        assert_eq!(refusal(&|body| body[16] = 2), Some(Refusal::MalformedUpdate), "neither within the norm nor beyond");
        let digest = Digest::of(b"something else");
        assert_eq!(admit(device(0), &header, body.clone(), digest, &numerics).err(), Some(Refusal::DigestMismatch));
    }
    let (header, body) = update(0, 10, CodecSpec::F32, 300);
    let with_value = |value: f32| {
        let mut bytes = body.to_vec();
        bytes[PREAMBLE + 40..PREAMBLE + 44].copy_from_slice(&value.to_le_bytes());
        admit_body(&header, bytes, &numerics(CodecSpec::F32, 300)).err()
    };
    assert_eq!(with_value(16.0), None);
    assert_eq!(with_value(16.000_002), Some(Refusal::OutOfRange));
    assert_eq!(with_value(f32::NAN), Some(Refusal::NotFinite));
    assert_eq!(with_value(f32::NEG_INFINITY), Some(Refusal::NotFinite));
    let (header, body) = update(0, 10, Q8, 300);
    let with_exponent = |exponent: i8| {
        let mut bytes = body.to_vec();
        bytes[PREAMBLE + 1] = exponent.cast_unsigned();
        admit_body(&header, bytes, &numerics(Q8, 300)).err()
    };
    assert_eq!(with_exponent(-3), None);
    assert_eq!(with_exponent(-1), Some(Refusal::OutOfRange));
    assert_eq!(with_exponent(127), Some(Refusal::MalformedUpdate));
}

#[test]
fn inv8_a_body_cut_at_any_byte_is_refused() {
    let numerics = numerics(Q8, 40);
    let (header, body) = update(0, 10, Q8, 40);
    for cut in 0..body.len() {
        let short = body.slice(..cut);
        let digest = Digest::of(&short);
        assert_eq!(
            admit(device(0), &header, short, digest, &numerics).err(),
            Some(Refusal::LengthMismatch),
            "cut at {cut}"
        );
        assert_eq!(admit_body(&header, body[..cut].to_vec(), &numerics).err(), Some(Refusal::LengthMismatch));
    }
    assert_eq!(admit_body(&header, [&body[..], &[0]].concat(), &numerics).err(), Some(Refusal::LengthMismatch));
}

#[test]
fn inv12_a_hundred_thousand_mutated_bodies_never_panic() {
    let mut random = Random::new(77, Purpose::Noise, &[]);
    let codecs = [CodecSpec::F32, CodecSpec::F16, Q8, CodecSpec::Quantised(2), CodecSpec::Quantised(11)];
    let honest: Vec<_> = codecs.iter().map(|codec| (numerics(*codec, 70), update(0, 10, *codec, 70))).collect();
    let mut folded = 0u32;
    for turn in 0..100_000usize {
        let (numerics, (header, body)) = &honest[turn % honest.len()];
        let mut bytes = body.to_vec();
        for _ in 0..=random.below(4) {
            let place = usize::try_from(random.below(bytes.len() as u64)).expect("small");
            bytes[place] = random.next_u64().to_le_bytes()[0];
        }
        if let Ok(update) = admit_body(header, bytes, numerics) {
            // What was let in can be folded, and taken out without a trace.
            let mut fold = Fold::new(numerics);
            let empty = fold.partial();
            fold.add(&update).expect("new");
            let mut master = vec![0f32; 70];
            fold.apply_mean(&mut master);
            assert!(master.iter().all(|value| value.abs() <= 16.0));
            fold.remove(&update).expect("in");
            assert_eq!(fold.partial(), empty);
            folded += 1;
        }
    }
    assert!(folded > 10_000 && folded < 100_000, "{folded} were let in");
}

#[test]
fn what_cannot_be_sealed_says_why() {
    let report = UpdateReport { weight: 1, train_loss: 0.5, steps: 3, within_clip: false };
    assert!(matches!(seal(&report, &[f32::NAN], Q8, 1), Err(SealError::Encode(_))));
    let nothing = UpdateReport { weight: 0, ..report };
    assert!(matches!(seal(&nothing, &[0.0], Q8, 1), Err(SealError::NoWeight)));
    let diverged = UpdateReport { train_loss: f32::NAN, ..report };
    assert!(matches!(seal(&diverged, &[0.0], Q8, 1), Err(SealError::Loss(_))));
}

#[test]
fn a_body_has_the_bytes_that_the_protocol_document_draws() {
    let report = UpdateReport { weight: 600, train_loss: 0.5, steps: 30, within_clip: false };
    let sealed = seal(&report, &[1.5, -2.0], CodecSpec::F32, 1).expect("finite");
    let mut expected = vec![13, 0, 0, 0]; // the report's length
    expected.extend([0x58, 0x02, 0, 0]); // weight 600
    expected.extend([0, 0, 0, 0x3f]); // train_loss 0.5
    expected.extend([30, 0, 0, 0]); // steps
    expected.push(0); // within_clip
    expected.extend([0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0]); // 1.5, -2
    assert_eq!(sealed.bytes()[..], expected);
    assert_eq!(sealed.digest(), Digest::of(&expected));
    let header = sealed.header(&ADDRESS);
    assert_eq!((header.run, header.round, header.attempt, header.offset), (RunId(3), 9, 2, 0));
    assert_eq!(BlobHeader::from_bytes(&header.to_bytes()), Ok(header));
}

#[test]
fn settings_without_room_are_refused() {
    let settings = UpdateSettings { codec: Q8, down: Q8, value_max_log2: 4, weight_max: 1 << 24 };
    assert!(Numerics::new(&settings, 10, 1 << 16).is_ok());
    assert!(matches!(Numerics::new(&settings, 10, 1 << 17), Err(NumericsError::FixedPoint(_))));
    assert!(matches!(Numerics::new(&settings, 0, 1), Err(NumericsError::Parameters(0))));
    let heavy = UpdateSettings { weight_max: 0, ..settings };
    assert!(matches!(Numerics::new(&heavy, 10, 1), Err(NumericsError::WeightMax(0))));
}

#[test]
fn a_version_is_read_back_whole_or_from_a_difference() {
    for codec in [CodecSpec::F32, CodecSpec::F16, Q8] {
        let master = delta(1, 5000);
        let moved: Vec<f32> = master.iter().zip(delta(2, 5000)).map(|(value, step)| value + step * 0.001).collect();
        let old = Version::publish(4, master, codec).expect("finite");
        let new = Version::publish(5, moved, codec).expect("finite");
        assert_eq!(new.reference().version, 5);
        let values = Version::decode(&new.reference(), new.encoded(), 5000).expect("its own bytes");
        assert_eq!(values.len(), 5000);
        if codec == CodecSpec::F32 {
            assert_eq!(values, new.master());
        }
        // The decoded version published again is the same version: devices and server agree on it.
        assert_eq!(Version::publish(5, values, codec).expect("finite").digest(), new.digest());

        let difference = difference::encode(old.encoded(), new.encoded()).expect("close versions");
        let rebuilt = Version::rebuild(&new.reference(), old.encoded(), &difference).expect("applies");
        assert_eq!(rebuilt, new.encoded()[..]);
        let wrong = Version::rebuild(&old.reference(), old.encoded(), &difference);
        assert_eq!(wrong, Err(VersionError::Digest(4)));
        assert!(matches!(Version::decode(&new.reference(), new.encoded(), 4999), Err(VersionError::Decode { .. })));
    }
}
