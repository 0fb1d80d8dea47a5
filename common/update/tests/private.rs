//! Updates of a bounded norm and means with noise: what leaves a device, what is refused, and what a round of zeros adds up to.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures of tests stay far within their types"
)]

use starling_privacy::noise::Simulated;
use starling_spec::random::{Purpose, Random};
use starling_spec::{CodecSpec, TaskFile, TaskPlan};
use starling_update::{
    Fold, Node, NoisyMean, Numerics, Sealed, admit, norm, norm_max, seal, seal_bounded, seal_private,
};
use starling_wire::{Address, DeviceId, Refusal, RunId, TaskId, UpdateReport};

const REPORT: UpdateReport = UpdateReport { weight: 1, train_loss: 0.5, steps: 1, within_clip: false };
const ADDRESS: Address = Address { task: TaskId([0; 16]), run: RunId(1), round: 1, attempt: 1 };
const CLIP: f64 = 0.3;

/// A private plan of some 199,210 parameters, with changes.
fn plan(changes: &[(&str, &str)]) -> TaskPlan {
    let text = r#"
        name = "t"
        kind = "classification"
        [data]
        format = "csv"
        train = "embedded:optdigits"
        shape = [784]
        [model]
        layers = [{ linear = { out = 200 } }, "relu", { linear = { out = 200 } }, "relu", { linear = { out = 10 } }]
        [federation]
        devices = 1000
        participation = "poisson"
        fraction = 0.1
        [privacy]
        weights = "uniform"
        dp = { mode = "central", clip = 0.3, noise_multiplier = 2.0, delta = 1e-5 }
    "#;
    let changes: Vec<_> = changes.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    TaskPlan::new(&TaskFile::parse(text, &changes).expect("a task"), 1).expect("a plan")
}

fn numerics(plan: &TaskPlan) -> Numerics {
    let parameters = plan.manifest().expect("a manifest").len();
    Numerics::new(&plan.update, parameters, 1000).expect("numbers").with_norm_max(norm_max(plan))
}

fn admitted(sealed: &Sealed, numerics: &Numerics) -> Result<starling_update::Admitted, Refusal> {
    admit(DeviceId([1; 16]), &sealed.header(&ADDRESS), sealed.bytes().clone(), sealed.digest(), numerics)
}

/// Values of a heavy tail, as updates have.
fn delta(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed, Purpose::Noise, &[]);
    (0..count).map(|_| (random.normal() * 0.01 * (1.0 + 9.0 * random.unit_f64().powi(8))) as f32).collect()
}

/// The norm of what `sealed` decodes to, through a fold of its own.
fn decoded_norm(sealed: &Sealed, numerics: &Numerics) -> f64 {
    let numerics = numerics.with_norm_max(None);
    let mut fold = Fold::new(&numerics);
    fold.add(&admitted(sealed, &numerics).expect("well formed")).expect("alone");
    let mut values = vec![0.0; numerics.parameters()];
    fold.apply_mean(&mut values);
    norm(&values)
}

#[test]
fn what_is_decoded_is_within_the_norm_whatever_the_codec() {
    for codec in ["f32", "f16", "q2", "q4", "q8", "q8+ec", "eden:1", "eden:2"] {
        let plan = plan(&[("update.codec", codec)]);
        let numerics = numerics(&plan);
        let codec: CodecSpec = codec.parse().expect("a codec");
        for (seed, factor) in [(1, 1.0f32), (2, 0.01), (3, 1e-3)] {
            let delta: Vec<f32> = delta(numerics.parameters(), seed).iter().map(|value| value * factor).collect();
            let sealed = seal_private(&plan, &REPORT, &delta, seed, &mut Simulated::new(1, &[])).expect("sealed");
            let norm = decoded_norm(&sealed, &numerics);
            assert!(norm <= CLIP * (1.0 + 1e-6), "{codec}: {norm}");
            assert!(norm > 0.0, "{codec}: nothing is left");
            admitted(&sealed, &numerics).expect("it is within the bound");
            // An update that is small already is not touched.
            let plain = seal(&REPORT, &delta, codec, seed).expect("sealed");
            if decoded_norm(&plain, &numerics) <= CLIP * 0.999 {
                assert_eq!(plain.digest(), sealed.digest(), "{codec}");
            }
        }
    }
}

#[test]
fn an_update_beyond_the_norm_is_refused() {
    let plan = plan(&[]);
    let numerics = numerics(&plan);
    let mut values = vec![0.0f32; numerics.parameters()];
    values[7] = 0.3001;
    let beyond = seal(&REPORT, &values, CodecSpec::F32, 1).expect("sealed");
    assert_eq!(admitted(&beyond, &numerics).expect_err("beyond"), Refusal::OutOfRange);
    let clipped = seal_bounded(&REPORT, &values, CodecSpec::F32, 1, CLIP).expect("sealed");
    assert!((decoded_norm(&clipped, &numerics) - CLIP).abs() < 1e-5);
    admitted(&clipped, &numerics).expect("within");
    // Nor does one device count for two.
    let heavy =
        seal(&UpdateReport { weight: 2, ..REPORT }, &vec![0.0; values.len()], CodecSpec::F32, 1).expect("sealed");
    assert_eq!(admitted(&heavy, &numerics).expect_err("heavy"), Refusal::WeightOutOfRange);
}

/// The master after a round of nobody: noise alone.
fn zeros(plan: &TaskPlan, round: u32, seed: u64) -> Vec<f64> {
    step_of_zeros(plan, round, 1.0, seed)
}

fn step_of_zeros(plan: &TaskPlan, round: u32, rate: f64, seed: u64) -> Vec<f64> {
    let numerics = numerics(plan);
    let noisy = NoisyMean::of(plan, &numerics).expect("it fits").expect("central noise");
    let mut master = vec![0.0; numerics.parameters()];
    let words = |node: Node| Simulated::new(seed, &[u64::from(node.level), u64::from(node.index)]);
    noisy.apply(Fold::new(&numerics), round, rate, words, &mut master);
    master.iter().map(|value| f64::from(*value)).collect()
}

fn deviation(values: &[f64]) -> f64 {
    (values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64).sqrt()
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / a.len() as f64 / deviation(a) / deviation(b)
}

#[test]
fn a_round_of_zeros_has_the_stated_noise_and_no_other_rounds() {
    let plan = plan(&[]);
    // z · clip / (q · N): nobody in the round changes nothing of the denominator.
    let stated = 2.0 * CLIP / 100.0;
    let (first, second) = (zeros(&plan, 1, 1), zeros(&plan, 2, 1));
    for round in [&first, &second] {
        assert!((deviation(round) / stated - 1.0).abs() < 0.005, "{} of {stated}", deviation(round));
    }
    let error = 4.0 / (first.len() as f64).sqrt();
    assert!(correlation(&first, &second).abs() < error, "rounds share noise");
    assert!(correlation(&first, &zeros(&plan, 1, 2)).abs() < error, "sources share noise");
    // The noise is on the sum, so a step of another length is a step of that noise, not of more or less private noise.
    let half = step_of_zeros(&plan, 1, 0.5, 1);
    assert!(first.iter().zip(&half).all(|(whole, half)| whole * 0.5 == *half));
    assert!(zeros(&self::plan(&[("privacy.dp.noise_multiplier", "0")]), 1, 1).iter().all(|value| *value == 0.0));
}

#[test]
fn noise_of_a_tree_grows_with_the_digits_of_the_round_and_not_with_the_round() {
    let tree = "{ tree = { participations_max = 1, separation_min = 1 } }";
    let plan = plan(&[("privacy.dp.mechanism", tree), ("federation.participation", "any")]);
    let stated = 2.0 * CLIP / 100.0;
    let mut prefix = vec![0.0; numerics(&plan).parameters()];
    for round in 1..=8u32 {
        prefix.iter_mut().zip(zeros(&plan, round, 1)).for_each(|(sum, value)| *sum += value);
        let expected = stated * f64::from(round.count_ones()).sqrt();
        assert!((deviation(&prefix) / expected - 1.0).abs() < 0.01, "round {round}: {}", deviation(&prefix));
    }
}

#[test]
fn local_noise_is_the_devices_own() {
    let changes = [("privacy.dp.mode", "local"), ("federation.participation", "any")];
    let plan = plan(&changes);
    let numerics = numerics(&plan);
    assert!(NoisyMean::of(&plan, &numerics).expect("fits").is_none(), "the aggregator adds none");
    let zero = vec![0.0; numerics.parameters()];
    let sealed = seal_private(&plan, &REPORT, &zero, 1, &mut Simulated::new(1, &[])).expect("sealed");
    let deviation = decoded_norm(&sealed, &numerics) / (zero.len() as f64).sqrt();
    assert!((deviation / (2.0 * CLIP) - 1.0).abs() < 0.005, "{deviation}");
    let other = seal_private(&plan, &REPORT, &zero, 1, &mut Simulated::new(2, &[])).expect("sealed");
    assert_ne!(sealed.digest(), other.digest(), "the source decides");
}
