//! The numeric path of a secure sum: what goes in comes out, within bounds that are known beforehand.

use std::path::Path;

use proptest::prelude::*;
use starling_privacy::noise::{ShareError, Simulated};
use starling_secagg::RingVector;
use starling_spec::random::{Purpose, Random};
use starling_update::CodecSpec;
use starling_update::ring::{RingError, RingNumerics, RingReport, RingSettings, Shares, Tallies, ring_bits};
use starling_wire::Digest;

fn settings(bits: u8) -> RingSettings {
    RingSettings {
        codec: CodecSpec::Quantised(bits),
        clip: 2.0,
        weight_max: 600,
        subset_per_million: 1_000_000,
        cohort_max: 20,
        tallies: Some(Tallies { metrics_max: vec![1000, 1_000_000] }),
        noise: None,
    }
}

/// A normal vector of this L2 norm.
fn delta(count: usize, norm: f64, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed, Purpose::Noise, &[]);
    let values: Vec<f64> = (0..count).map(|_| random.normal()).collect();
    let factor = norm / values.iter().map(|value| value * value).sum::<f64>().sqrt();
    #[allow(clippy::cast_possible_truncation, reason = "a test's delta")]
    values.iter().map(|value| (value * factor) as f32).collect()
}

fn report(examples: u32) -> RingReport<'static> {
    RingReport { examples, metrics: &[7, 123_456], shares: [0.5; 2] }
}

/// Where no noise is asked for.
fn no_words() -> Simulated {
    Simulated::new(0, &[])
}

fn shared(seed: u64) -> Digest {
    Digest::of(&seed.to_le_bytes())
}

/// The sum as the ring computes it: packed vectors, added modulo 2^w.
fn ring_sum(numerics: &RingNumerics, vectors: &[Vec<i64>]) -> Vec<i64> {
    let mut sum = RingVector::zero(numerics.ring(), numerics.coordinates());
    for vector in vectors {
        let mut packed = Vec::new();
        RingVector::from_signed(numerics.ring(), vector).pack_into(&mut packed);
        sum.add_packed(&packed).expect("the same ring");
    }
    sum.to_signed()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn the_mean_is_weighted_by_examples_up_to_the_cap() {
    let numerics = RingNumerics::new(&settings(16), 3000).expect("good settings");
    let examples = [10u32, 300, 600, 5000];
    let deltas: Vec<Vec<f32>> = (0u64..).zip(examples).map(|(seed, _)| delta(3000, 1.0, seed)).collect();
    let vectors: Vec<Vec<i64>> = (0u64..)
        .zip(deltas.iter().zip(examples))
        .map(|(key, (delta, examples))| {
            numerics.encode(delta, report(examples), &shared(1), key, &mut no_words()).expect("a good delta")
        })
        .collect();
    let mean = numerics.decode(&ring_sum(&numerics, &vectors), &shared(1), 4).expect("a sum");
    // 5,000 examples count as 600.
    assert_eq!((mean.weight_sum, mean.within_clip), (10 + 300 + 600 + 600, Some(1.0)));
    assert_eq!(mean.metrics, [28, 493_824]);
    let weights = [10.0, 300.0, 600.0, 600.0].map(|weight: f64| weight / 1510.0);
    let error: f64 = (0..3000)
        .map(|index| {
            let expected: f64 =
                deltas.iter().zip(weights).map(|(delta, weight)| weight * f64::from(delta[index])).sum();
            (f64::from(mean.mean[index]) - expected).powi(2)
        })
        .sum();
    assert!(error.sqrt() < 1e-3 * norm(&mean.mean), "{}", error.sqrt());
}

#[test]
fn an_update_beyond_the_norm_is_clipped_after_its_weight() {
    let numerics = RingNumerics::new(&settings(16), 1000).expect("good settings");
    // Norm 30, but 30 of 600 examples: 1.5 after the weight, within the norm of 2.
    let light =
        numerics.encode(&delta(1000, 30.0, 1), report(30), &shared(1), 1, &mut no_words()).expect("a good delta");
    let mean = numerics.decode(&light, &shared(1), 1).expect("a sum");
    assert_eq!((mean.weight_sum, mean.within_clip), (30, Some(1.0)));
    assert!((norm(&mean.mean) / 30.0 - 1.0).abs() < 1e-3);
    // The same with all examples is cut to the norm, in its direction.
    let heavy =
        numerics.encode(&delta(1000, 30.0, 1), report(600), &shared(1), 1, &mut no_words()).expect("a good delta");
    let mean = numerics.decode(&heavy, &shared(1), 1).expect("a sum");
    assert_eq!((mean.weight_sum, mean.within_clip), (600, Some(0.0)));
    assert!((norm(&mean.mean) / 2.0 - 1.0).abs() < 1e-3);
    let cosine: f64 = mean.mean.iter().zip(delta(1000, 1.0, 1)).map(|(a, b)| f64::from(*a) * f64::from(b)).sum();
    assert!(cosine / 2.0 > 0.9999);
}

#[test]
fn rounding_costs_what_a_uniform_quantiser_costs() {
    // An independent closed form: stochastic rounding of a coordinate whose fraction is uniform has variance scale²/6. 4,096 coordinates, 100
    // vectors of the full norm; the scale is small against a deviation, so fractions are uniform and hardly anything is cut.
    for bits in [6, 8, 12] {
        let one = RingSettings { weight_max: 1, ..settings(bits) };
        let numerics = RingNumerics::new(&one, 4096).expect("good settings");
        let mut error = 0.0;
        for seed in 0..100 {
            let delta = delta(4096, 2.0, seed);
            let vector =
                numerics.encode(&delta, report(1), &shared(seed), seed, &mut no_words()).expect("a good delta");
            let mean = numerics.decode(&vector, &shared(seed), 4).expect("a sum");
            error += mean.mean.iter().zip(&delta).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / 100.0;
        }
        let expected = numerics.scale().powi(2) / 6.0 * 4096.0;
        assert!((error / expected - 1.0).abs() < 0.05, "{bits}: {error} {expected}");
        assert!(numerics.cut_expected() < if bits < 8 { 20.0 } else { 2.0 }, "{}", numerics.cut_expected());
    }
}

#[test]
fn the_integer_norm_keeps_its_bound_whatever_the_delta() {
    for bits in [2, 4, 8, 16] {
        for count in [1, 8, 100, 1000, 5000] {
            let numerics = RingNumerics::new(&settings(bits), count).expect("good settings");
            let mut one_place = vec![0.0; count];
            one_place[count / 2] = 1e6;
            for (seed, delta) in (0u64..).zip([one_place, vec![-1e3; count], vec![1e-6; count], delta(count, 2.0, 1)]) {
                let vector =
                    numerics.encode(&delta, report(600), &shared(seed), seed, &mut no_words()).expect("a good delta");
                let norm_squared: u64 = vector.iter().map(|level| level.unsigned_abs().pow(2)).sum();
                assert!(norm_squared <= numerics.norm_squared_max(), "{bits} {count} {seed}");
            }
        }
    }
}

#[test]
fn a_subset_is_the_same_for_all_and_the_rest_stays_zero() {
    let tenth = RingSettings { subset_per_million: 100_000, ..settings(8) };
    let numerics = RingNumerics::new(&tenth, 2000).expect("good settings");
    let deltas = [delta(2000, 1.0, 1), delta(2000, 1.0, 2)];
    let vectors: Vec<Vec<i64>> = (0u64..)
        .zip(&deltas)
        .map(|(key, delta)| {
            numerics.encode(delta, report(600), &shared(5), key, &mut no_words()).expect("a good delta")
        })
        .collect();
    assert_eq!(vectors[0].len(), numerics.coordinates());
    let mean = numerics.decode(&ring_sum(&numerics, &vectors), &shared(5), 4).expect("a sum");
    let touched: Vec<usize> = (0..2000).filter(|index| mean.mean[*index] != 0.0).collect();
    assert!((195..=200).contains(&touched.len()), "{}", touched.len());
    let error: f64 = touched
        .iter()
        .map(|index| f64::from(mean.mean[*index] - (deltas[0][*index] + deltas[1][*index]) / 2.0).powi(2))
        .sum();
    let energy: f64 = touched.iter().map(|index| f64::from(mean.mean[*index]).powi(2)).sum();
    assert!(error < 0.2 * energy, "{error} {energy}");
    // Another commitment, another subset.
    let other = numerics.decode(&ring_sum(&numerics, &vectors), &shared(6), 4).expect("a sum");
    assert!((0..2000).filter(|index| other.mean[*index] != 0.0).ne(touched));
}

/// Noise of 1.5 norms over the smallest sum, in which eight devices keep their share to themselves.
fn noisy(bits: u8) -> RingSettings {
    RingSettings {
        tallies: None,
        weight_max: 1,
        noise: Some(Shares { noise_multiplier: 1.5, honest: 8, count_noise: None, share_noise: [None; 2] }),
        ..settings(bits)
    }
}

#[test]
fn without_noise_nothing_wraps_and_no_bit_is_spare() {
    let numerics = RingNumerics::new(&settings(4), 100).expect("good settings");
    let edge = i64::try_from(numerics.value_max()).expect("small");
    for side in [edge, -edge] {
        let vectors = vec![vec![side; numerics.coordinates()]; 20];
        assert_eq!(ring_sum(&numerics, &vectors), vec![20 * side; numerics.coordinates()]);
    }
    assert_eq!(numerics.sum_max(), 20 * numerics.value_max());
    assert!(2 * numerics.sum_max() + 1 > 1 << (numerics.ring().width() - 1));
}

#[test]
fn the_sum_of_updates_has_at_least_the_noise_that_is_charged_whoever_drops_out() {
    const PARAMETERS: usize = 50_000;
    let numerics = RingNumerics::new(&noisy(4), PARAMETERS).expect("good settings");
    assert_eq!(numerics.coordinates(), PARAMETERS, "nothing is tallied: the noise would drown it");
    // What an update weighs at most, in units of the scale; it is what the noise is measured by.
    let norm_max = (numerics.norm_squared_max() as f64).sqrt();
    assert!(norm_max * numerics.scale() > 2.0 && norm_max * numerics.scale() < 2.2, "{}", norm_max * numerics.scale());
    let vectors: Vec<Vec<i64>> = (0..20)
        .map(|device| {
            let zeros = vec![0.0; PARAMETERS];
            let mut words = Simulated::new(9, &[device]);
            numerics
                .encode(
                    &zeros,
                    RingReport { examples: 1, metrics: &[], shares: [0.5; 2] },
                    &shared(1),
                    device,
                    &mut words,
                )
                .expect("zeros")
        })
        .collect();
    for survivors in [8, 13, 20] {
        let sum = ring_sum(&numerics, &vectors[..survivors]);
        let squares: f64 = sum.iter().map(|value| (*value as f64).powi(2)).sum();
        let deviation = (squares / PARAMETERS as f64).sqrt();
        let stated = 1.5 * norm_max * (survivors as f64 / 8.0).sqrt();
        // Three standard errors of a deviation over so many coordinates are one part in a hundred.
        assert!((deviation / stated - 1.0).abs() < 0.01, "{survivors}: {deviation}, stated {stated}");
        // The mean is over those who are there, and has the noise's share in units of the parameters.
        let mean = numerics.decode(&sum, &shared(1), survivors).expect("a sum");
        assert_eq!((mean.weight_sum, mean.within_clip), (survivors as i128, None));
        let expected = deviation * numerics.scale() * (PARAMETERS as f64).sqrt() / survivors as f64;
        assert!((norm(&mean.mean) / expected - 1.0).abs() < 1e-3, "{} {expected}", norm(&mean.mean));
    }
}

#[test]
fn noise_is_drawn_anew_from_the_words_it_is_given_and_hides_the_update() {
    let numerics = RingNumerics::new(&noisy(8), 2000).expect("good settings");
    let encode = |delta: &[f32], words: u64| {
        let report = RingReport { examples: 1, metrics: &[], shares: [0.5; 2] };
        numerics.encode(delta, report, &shared(1), 3, &mut Simulated::new(words, &[])).expect("a good delta")
    };
    let (update, zeros) = (delta(2000, 2.0, 1), vec![0.0; 2000]);
    assert_ne!(encode(&update, 1), encode(&update, 2));
    // The same words, the same noise: what is left is the update, within its bound.
    let left: u64 = encode(&update, 1).iter().zip(encode(&zeros, 1)).map(|(a, b)| (a - b).pow(2).unsigned_abs()).sum();
    assert!(left > 0 && left <= numerics.norm_squared_max());
}

#[test]
fn a_ring_has_room_for_the_noise_of_a_sum_and_not_for_that_of_each_term() {
    let numerics = RingNumerics::new(&noisy(4), 50_000).expect("good settings");
    assert!(numerics.sum_max() < 20 * numerics.value_max() / 3);
    assert!(2 * numerics.sum_max() + 1 > 1 << (numerics.ring().width() - 1), "no bit is spare");
    let fine = RingSettings {
        noise: Some(Shares { noise_multiplier: 0.01, honest: 20, count_noise: None, share_noise: [None; 2] }),
        ..noisy(2)
    };
    let error = RingNumerics::new(&fine, 100).expect_err("shares of a fraction of a unit");
    assert!(matches!(error, RingError::Noise { honest: 20, reason: ShareError::Fine(_) }), "{error}");
}

#[test]
fn bad_settings_and_deltas_are_refused_by_name() {
    let good = settings(8);
    for (wrong, name) in [
        (RingSettings { clip: 0.0, ..good.clone() }, "clip"),
        (RingSettings { clip: f64::NAN, ..good.clone() }, "clip"),
        (RingSettings { weight_max: 0, ..good.clone() }, "weight_max"),
        (RingSettings { subset_per_million: 0, ..good.clone() }, "subset_per_million"),
        (RingSettings { cohort_max: 0, ..good.clone() }, "cohort_max"),
        (RingSettings { tallies: Some(Tallies { metrics_max: vec![0] }), ..good.clone() }, "metrics_max"),
    ] {
        match RingNumerics::new(&wrong, 10) {
            Err(RingError::Setting { name: got, .. }) => assert_eq!(got, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let wide = RingSettings { cohort_max: u32::MAX, codec: CodecSpec::Quantised(16), ..noisy(16) };
    let wide = RingSettings {
        noise: Some(Shares { noise_multiplier: 2f64.powi(42), honest: 1, count_noise: None, share_noise: [None; 2] }),
        ..wide
    };
    assert_eq!(RingNumerics::new(&wide, 10).err(), Some(RingError::TooWide { cohort_max: u32::MAX }));
    let numerics = RingNumerics::new(&good, 3).expect("good settings");
    let encode = |delta: &[f32], report| numerics.encode(delta, report, &shared(1), 1, &mut no_words()).err();
    assert_eq!(encode(&[0.0, f32::NAN, 0.0], report(1)), Some(RingError::NotFinite { index: 1 }));
    assert_eq!(encode(&[0.0; 2], report(1)), Some(RingError::Length { expected: 3, got: 2 }));
    assert_eq!(encode(&[0.0; 3], report(0)), Some(RingError::NoExamples));
    let liar = RingReport { examples: 1, metrics: &[1001, 0], shares: [0.5; 2] };
    assert_eq!(encode(&[0.0; 3], liar), Some(RingError::Bound { what: "a metric", got: 1001, bound: 1000 }));
    assert_eq!(
        numerics.decode(&[0; 2], &shared(1), 4).err(),
        Some(RingError::Length { expected: numerics.coordinates(), got: 2 })
    );
    assert_eq!(numerics.decode(&vec![0; numerics.coordinates()], &shared(1), 4).err(), Some(RingError::NoExamples));
}

/// The table of `docs/PRIVACY.md` says what the code does.
#[test]
fn the_privacy_document_lists_which_codecs_can_be_summed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/PRIVACY.md");
    let document = std::fs::read_to_string(path).expect("privacy is documented");
    let codecs = [
        ("f32", "f32"),
        ("f16", "f16"),
        ("qB", "q8"),
        ("qB+ec", "q8+ec"),
        ("eden:B", "eden:2"),
        ("topk:F", "topk:0.01"),
    ];
    for (written, codec) in codecs {
        let codec: CodecSpec = codec.parse().expect("a codec");
        let cells = match ring_bits(codec) {
            Ok(bits) => {
                assert_eq!(codec, CodecSpec::Quantised(bits));
                format!("| `{written}` | yes | yes | ")
            }
            Err(RingError::Codec { reason, .. }) => format!("| `{written}` | yes | no | {reason} |"),
            Err(other) => panic!("{other}"),
        };
        assert!(document.contains(&cells), "docs/PRIVACY.md lacks the row {cells}");
        assert_eq!(RingNumerics::new(&RingSettings { codec, ..settings(8) }, 10).is_ok(), ring_bits(codec).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_coordinate_is_within_the_bound_and_the_sum_is_exact(
        bits in 2u8..=16, count in 1usize..300, subset in 1u32..=1_000_000, devices in 1usize..=20, seed in any::<u64>()
    ) {
        let numerics = RingNumerics::new(&RingSettings { subset_per_million: subset, ..settings(bits) }, count).expect("good settings");
        let mut random = Random::new(seed, Purpose::Shuffle, &[]);
        let vectors: Vec<Vec<i64>> = (0..devices as u64).map(|device| {
            let delta = delta(count, 10f64.powf(4.0 * random.unit_f64() - 2.0), seed ^ device);
            let examples = 1 + u32::try_from(random.below(2000)).expect("small");
            numerics.encode(&delta, report(examples), &shared(seed), device, &mut no_words()).expect("a good delta")
        }).collect();
        for vector in &vectors {
            prop_assert_eq!(vector.len(), numerics.coordinates());
            prop_assert!(vector.iter().all(|level| level.unsigned_abs() <= numerics.value_max()));
        }
        let plain: Vec<i64> = (0..numerics.coordinates()).map(|index| vectors.iter().map(|vector| vector[index]).sum()).collect();
        prop_assert_eq!(ring_sum(&numerics, &vectors), plain);
    }
}
