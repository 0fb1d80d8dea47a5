//! Error feedback: nothing that a device has learned is lost or said twice, to the last bit and over any number of rounds.

use proptest::prelude::*;
use starling_compress::decode_into;
use starling_spec::CodecSpec;
use starling_spec::random::{Purpose, Random};
use starling_update::{Residual, ResidualError, SealError, seal, seal_with_feedback};
use starling_wire::UpdateReport;

const REPORT: UpdateReport = UpdateReport { weight: 10, train_loss: 0.5, steps: 3, within_clip: false };
const PREAMBLE: usize = 17;

/// `value · 2^40`, which has to be an integer: computed on the float's bits, not by the arithmetic under test.
fn exact_units(value: f32) -> i128 {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32;
    let fraction = i128::from(bits & 0x7f_ffff) | if exponent > 0 { 1 << 23 } else { 0 };
    let shift = exponent.max(1) - 150 + 40;
    let magnitude = if shift >= 0 {
        fraction << shift
    } else {
        let shift = u32::try_from(-shift).expect("negative").min(126);
        assert_eq!(fraction & ((1 << shift) - 1), 0, "{value} is no multiple of 2^-40");
        fraction >> shift
    };
    if bits >> 31 == 1 { -magnitude } else { magnitude }
}

/// The difference of two weights, as training gives it: a multiple of 2^-40 while the weights are not tiny.
#[allow(clippy::cast_possible_truncation, reason = "test values are rounded on purpose")]
fn trained_delta(random: &mut Random, count: usize, scale: f64) -> Vec<f32> {
    (0..count)
        .map(|_| {
            let on_grid = (random.normal() * scale * 1_099_511_627_776.0).round() / 1_099_511_627_776.0;
            let value = on_grid as f32;
            if value.abs() < 1.0 / 65_536.0 { 0.0 } else { value }
        })
        .collect()
}

fn sent(bytes: &[u8], codec: CodecSpec, count: usize) -> Vec<f32> {
    let mut values = vec![0f32; count];
    decode_into(codec, &bytes[PREAMBLE..], &mut values).expect("an honest update");
    values
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn two_hundred_rounds_lose_nothing(seed in any::<u64>(), count in 1usize..400, share in 1u32..=500_000, scale in -12i32..6) {
        let codec = CodecSpec::TopK(share);
        let mut random = Random::new(seed, Purpose::Noise, &[]);
        let (mut learned, mut said) = (vec![0i128; count], vec![0i128; count]);
        let mut residual = Residual::zero(count);
        for round in 0..200 {
            let delta = trained_delta(&mut random, count, 2f64.powi(scale));
            let (sealed, left) = seal_with_feedback(&REPORT, &delta, codec, round, &residual).expect("finite");
            let sent = sent(sealed.bytes(), codec, count);
            for (index, (delta, sent)) in delta.iter().zip(&sent).enumerate() {
                let (delta, sent) = (exact_units(*delta), exact_units(*sent));
                let before = delta + i128::from(residual.units()[index]);
                prop_assert_eq!(sent + i128::from(left.units()[index]), before);
                learned[index] += delta;
                said[index] += sent;
            }
            // As a device does that is restarted between the rounds.
            residual = Residual::from_bytes(&left.to_bytes(), count).expect("what was written");
            prop_assert_eq!(&residual, &left);
        }
        for ((learned, said), owed) in learned.iter().zip(&said).zip(residual.units()) {
            prop_assert_eq!(*learned, said + i128::from(*owed));
        }
    }

    #[test]
    fn whatever_the_deltas_a_round_is_off_by_half_a_step(seed in any::<u64>(), bits in 1u8..=4) {
        let count = 300;
        let mut random = Random::new(seed, Purpose::Noise, &[]);
        let mut residual = Residual::zero(count);
        for codec in [CodecSpec::TopK(30_000), CodecSpec::Eden(bits), CodecSpec::Entropy(8), CodecSpec::F16] {
            #[allow(clippy::cast_possible_truncation, reason = "test values are rounded on purpose")]
            let delta: Vec<f32> = (0..count).map(|_| (random.normal() * 1e-5) as f32).collect();
            let (sealed, left) = seal_with_feedback(&REPORT, &delta, codec, seed, &residual).expect("finite");
            for (index, sent) in sent(sealed.bytes(), codec, count).iter().enumerate() {
                let step = 2f64.powi(-40);
                let before = f64::from(delta[index]) + residual.units()[index] as f64 * step;
                let after = f64::from(*sent) + left.units()[index] as f64 * step;
                prop_assert!((before - after).abs() <= 1.001 * step);
            }
            residual = left;
        }
    }
}

#[test]
fn what_is_small_is_said_in_the_end() {
    // One value is always the largest; the others are sent when their debts have outgrown it.
    let codec = CodecSpec::TopK(250_000);
    let delta = [0.5f32, 0.125, -0.125, 0.0625];
    let mut residual = Residual::zero(4);
    let mut total = [0f64; 4];
    for round in 0..64 {
        let (sealed, left) = seal_with_feedback(&REPORT, &delta, codec, round, &residual).expect("finite");
        for (total, sent) in total.iter_mut().zip(sent(sealed.bytes(), codec, 4)) {
            *total += f64::from(sent);
        }
        residual = left;
    }
    for (total, delta) in total.iter().zip(delta) {
        assert!((total / 64.0 - f64::from(delta)).abs() < 0.03, "{total} after 64 rounds of {delta}");
    }
}

#[test]
fn without_debts_feedback_is_a_plain_seal() {
    let delta = trained_delta(&mut Random::new(3, Purpose::Noise, &[]), 1000, 0.01);
    for codec in ["topk:0.04", "q8", "q8+ec", "eden:1"].map(|codec| codec.parse().expect("a codec")) {
        let (sealed, _) = seal_with_feedback(&REPORT, &delta, codec, 9, &Residual::zero(1000)).expect("finite");
        assert_eq!(sealed.bytes(), seal(&REPORT, &delta, codec, 9).expect("finite").bytes());
    }
    let (_, left) = seal_with_feedback(&REPORT, &delta, CodecSpec::F32, 9, &Residual::zero(1000)).expect("finite");
    assert_eq!(left, Residual::zero(1000));
}

#[test]
fn what_cannot_be_owed_is_refused() {
    let codec = CodecSpec::TopK(40_000);
    let seal = |delta: &[f32], residual: &Residual| seal_with_feedback(&REPORT, delta, codec, 1, residual);
    let other = seal(&[0.0; 3], &Residual::zero(4));
    assert!(matches!(other, Err(SealError::Residual { expected: 3, got: 4 })));
    for value in [f32::NAN, f32::INFINITY, f32::MAX, -2_097_152.0] {
        assert!(matches!(seal(&[0.0, value], &Residual::zero(2)), Err(SealError::Encode(_))), "{value}");
    }
    // Debts that only ever grow end in an error, not in a wrapped sum.
    let mut residual = Residual::zero(100);
    let delta = vec![2_097_151.0f32; 100];
    let end = (0..10).find_map(|_| match seal(&delta, &residual) {
        Ok((_, left)) => {
            residual = left;
            None
        }
        Err(error) => Some(error),
    });
    assert!(matches!(end, Some(SealError::Encode(_))));
}

#[test]
fn bytes_that_are_no_residual_of_the_model_are_refused() {
    let delta = trained_delta(&mut Random::new(3, Purpose::Noise, &[]), 50, 0.01);
    let (_, residual) =
        seal_with_feedback(&REPORT, &delta, CodecSpec::TopK(40_000), 9, &Residual::zero(50)).expect("finite");
    let bytes = residual.to_bytes();
    assert_eq!(Residual::from_bytes(&bytes, 50), Ok(residual));
    assert_eq!(Residual::from_bytes(&bytes, 51), Err(ResidualError::Parameters { expected: 51, got: 50 }));
    for cut in 0..bytes.len() {
        let error = Residual::from_bytes(&bytes[..cut], 50).expect_err("it is cut");
        assert_eq!(error == ResidualError::Format, cut < 48, "{cut}");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(Residual::from_bytes(&changed, 50).is_err(), "byte {at}");
    }
    assert_eq!(Residual::from_bytes(&Residual::zero(7).to_bytes(), 7), Ok(Residual::zero(7)));
    assert_eq!(Residual::from_bytes(&Residual::zero(0).to_bytes(), 0), Ok(Residual::zero(0)));
}
