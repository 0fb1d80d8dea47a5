//! A clipping norm that follows the updates' norms: where it goes, what the noise on its count is, and what that leaves for the updates.

#![allow(clippy::cast_possible_truncation, reason = "figures of tests stay far within their types")]

use starling_privacy::noise::Simulated;
use starling_spec::random::{Purpose, Random};
use starling_spec::{TaskFile, TaskPlan};
use starling_update::{Fold, Local, LocalFigures, RoundNumbers, SecureSums, admit, norm, seal_private};
use starling_wire::{Address, DeviceId, Digest, RunId, TaskId, UpdateReport};

const REPORT: UpdateReport = UpdateReport { weight: 1, train_loss: 0.5, steps: 1, within_clip: false };
const ADDRESS: Address = Address { task: TaskId([0; 16]), run: RunId(1), round: 1, attempt: 1 };
const DEVICES: usize = 40;

fn plan(privacy: &str) -> TaskPlan {
    let evaluation = if privacy.contains("evaluation_noise") { "holdout = 0.1\nevaluate_every = 1" } else { "" };
    let text = format!(
        r#"
        name = "t"
        kind = "classification"
        [data]
        format = "csv"
        train = "embedded:optdigits"
        shape = [64]
        [model]
        layers = [{{ linear = {{ out = 30 }} }}, "relu", {{ linear = {{ out = 10 }} }}]
        [update]
        codec = "q8"
        [federation]
        devices = {DEVICES}
        {evaluation}
        [privacy]
        weights = "uniform"
        {privacy}
        "#
    );
    TaskPlan::new(&TaskFile::parse(&text, &[]).expect("a task"), 1).expect("a plan")
}

fn numbers(plan: &TaskPlan, clip: Option<f64>) -> RoundNumbers {
    RoundNumbers::of(plan, clip, 1000).expect("numbers")
}

/// Device `index`'s update in `round`: its norm is one of those from 0.5 to 1.5, evenly.
fn delta(parameters: usize, round: u32, index: usize) -> Vec<f32> {
    let mut random = Random::new(u64::from(round), Purpose::Noise, &[index as u64]);
    let values: Vec<f32> = (0..parameters).map(|_| random.normal() as f32).collect();
    let factor = (0.5 + (index as f64 + 0.5) / DEVICES as f64) / norm(&values);
    values.iter().map(|value| (f64::from(*value) * factor) as f32).collect()
}

/// The next clipping norm after a round with a central sum of these devices' updates, and the master that the round leaves of zeros.
fn central(plan: &TaskPlan, clip: f64, round: u32, devices: usize) -> (f64, Vec<f32>) {
    let RoundNumbers { plan, numerics, noisy, .. } = numbers(plan, Some(clip));
    let mut fold = Fold::new(&numerics);
    for index in 0..devices {
        let delta = delta(numerics.parameters(), round, index);
        let sealed = seal_private(&plan, &REPORT, &delta, 1, &mut Simulated::new(1, &[])).expect("sealed");
        let device = DeviceId([u8::try_from(index).expect("few"); 16]);
        let update = admit(device, &sealed.header(&ADDRESS), sealed.bytes().clone(), sealed.digest(), &numerics);
        fold.add(&update.expect("it is within the norm")).expect("once");
    }
    let mut master = vec![0.0; numerics.parameters()];
    let words = |_| Simulated::new(round.into(), &[]);
    let next = noisy.expect("central noise").apply(fold, round, 1.0, words, &mut master);
    (next.expect("the norm adapts"), master)
}

const CLIPPING_ALONE: &str = r#"
    dp = { mode = "central", clip = 0.1, noise_multiplier = 0.0, delta = 1e-5 }
    adaptive_clip = { quantile = 0.75, clip_max = 10.0 }
"#;

#[test]
fn without_noise_the_norm_grows_until_it_is_the_quantile() {
    let plan = plan(CLIPPING_ALONE);
    let (first, _) = central(&plan, 0.1, 1, DEVICES);
    assert!((first / 0.1 - (0.2f64 * 0.75).exp()).abs() < 1e-12, "nobody was within it: {first}");
    let mut clip = 0.1;
    for round in 1..=60 {
        (clip, _) = central(&plan, clip, round, DEVICES);
    }
    // Three quarters of the norms are below 1.25.
    assert!((clip - 1.25).abs() < 0.03, "{clip}");
    let (capped, _) = central(&plan, 10.0, 1, 0);
    assert!((capped - 10.0).abs() < 1e-12, "a round of nobody says nothing: {capped}");
}

#[test]
fn the_cap_holds_whatever_the_count_says() {
    let plan = plan(&CLIPPING_ALONE.replace("10.0", "0.105"));
    let (next, _) = central(&plan, 0.1, 1, DEVICES);
    assert!((next - 0.105).abs() < 1e-12, "{next}");
}

#[test]
fn noise_is_split_between_the_count_and_the_updates_as_the_paper_says() {
    let plan = plan(
        "dp = { mode = \"central\", clip = 0.3, noise_multiplier = 4.0, delta = 1e-5 }\n\
         adaptive_clip = { rate = 0.1, clip_max = 16.0, count_noise = 3.0 }",
    );
    // Rounds of nobody: what the norm does is noise, divided by the devices that are there.
    let parameters = numbers(&plan, Some(0.3)).numerics.parameters() as f64;
    let rounds = 400u32;
    let (mut count_squares, mut update_squares) = (0.0, 0.0);
    for round in 1..=rounds {
        let (next, master) = central(&plan, 0.3, round, 1);
        // C'/C = e^(−rate · (b̃ − 1/2)), and the one device was beyond the norm.
        let devices = 0.5 - (next / 0.3).ln() / 0.1;
        count_squares += devices * devices;
        update_squares += norm(&master).powi(2) / parameters;
    }
    let count_deviation = (count_squares / f64::from(rounds)).sqrt();
    // 400 draws: a standard error of 3.5 %.
    assert!((count_deviation / 3.0 - 1.0).abs() < 0.12, "{count_deviation} devices, stated 3");
    let update_deviation = (update_squares / f64::from(rounds)).sqrt();
    // z_Δ = (4⁻² − 6⁻²)^(−1/2) = 5.3666.
    let stated = 5.366_563_145_999_495 * 0.3;
    assert!((update_deviation / stated - 1.0).abs() < 0.005, "{update_deviation}, stated {stated}");
}

const SHARES: &str = r#"
    secure_aggregation = true
    cohort_min = 20
    corrupt = 0.1
    dp = { mode = "distributed", clip = 1.0, noise_multiplier = 2.0, delta = 1e-5 }
    adaptive_clip = { rate = 1.0, clip_max = 1e6, count_noise = 2.0 }
"#;

fn vector(sums: &SecureSums, round: u32, index: usize, figures: Option<&LocalFigures>) -> Vec<i64> {
    let delta = delta(sums.numerics().parameters(), round, index);
    let mut words = Simulated::new(round.into(), &[index as u64]);
    let local = Local { delta: &delta, report: &REPORT, figures };
    sums.encode(local, &Digest([7; 32]), index as u64, &mut words).expect("a vector")
}

#[test]
fn the_count_goes_through_a_noisy_secure_sum_with_the_noise_that_it_states() {
    let plan = plan(SHARES);
    // From 20 devices on, of which at most four are not honest: of forty, the noise is √(40/16) times as much.
    let sums = numbers(&plan, Some(1.0)).secure.expect("secure sums");
    let bare = plan_without_count();
    let beside = sums.numerics().coordinates() - bare.numerics().coordinates();
    assert!((1..=3000).contains(&beside), "{beside} coordinates for one bit");
    let rounds = 200;
    let mut squares = 0.0;
    let mut mean = 0.0;
    for round in 1..=rounds {
        let mut sum = vec![0i64; sums.numerics().coordinates()];
        for index in 0..DEVICES {
            sum.iter_mut().zip(vector(&sums, round, index, None)).for_each(|(sum, value)| *sum += value);
        }
        let summed = sums.decode(&sum, &Digest([7; 32]), DEVICES).expect("a sum");
        let share = summed.within_clip.expect("it is counted");
        let next = sums.next_clip(&summed).expect("it adapts");
        assert!((next - (-(share - 0.5)).exp()).abs() < 1e-9, "{next} after {share}");
        // Half of the norms are below 1.
        let devices = (share - 0.5) * DEVICES as f64;
        mean += devices / f64::from(rounds);
        squares += devices * devices / f64::from(rounds);
    }
    let stated = 2.0 * (DEVICES as f64 / 16.0).sqrt();
    // 200 draws: standard errors of 5 % of the deviation, and of 0.22 devices.
    assert!((squares.sqrt() / stated - 1.0).abs() < 0.16, "{} devices, stated {stated}", squares.sqrt());
    assert!(mean.abs() < 0.8, "{mean}");
}

#[test]
fn accuracies_go_through_it_too_and_leave_what_they_need_of_the_noise_to_the_count() {
    let more = SHARES.replace("delta = 1e-5 }", "delta = 1e-5, evaluation_noise = 4.0 }");
    let plan = plan(&more);
    let sums = numbers(&plan, Some(1.0)).secure.expect("secure sums");
    let (mut squares, mut means) = ([0.0; 2], [0.0; 2]);
    let rounds = 200;
    for round in 1..=rounds {
        let mut sum = vec![0i64; sums.numerics().coordinates()];
        for index in 0..DEVICES {
            // 0, 25, 50 and 75 %, evenly.
            let figures = LocalFigures { examples: 8, correct: 2 * (index as u64 % 4), loss_sum: 0.0 };
            sum.iter_mut().zip(vector(&sums, round, index, Some(&figures))).for_each(|(sum, value)| *sum += value);
        }
        let summed = sums.decode(&sum, &Digest([7; 32]), DEVICES).expect("a sum");
        let figures = sums.judged(&summed, 1).expect("version 1 is judged");
        assert_eq!((figures.loss, figures.worst_tenth), (None, None), "nothing else is said");
        let shares = [summed.within_clip.expect("counted") - 0.5, figures.accuracy.expect("classes") - 0.375];
        for (at, share) in shares.into_iter().enumerate() {
            let devices = share * DEVICES as f64;
            means[at] += devices / f64::from(rounds);
            squares[at] += devices * devices / f64::from(rounds);
        }
    }
    for (at, stated) in [2.0, 4.0].into_iter().enumerate() {
        let stated = stated * (DEVICES as f64 / 16.0).sqrt();
        // 200 draws: standard errors of 5 % of the deviation, and of 7 % of it on the mean.
        assert!(
            (squares[at].sqrt() / stated - 1.0).abs() < 0.16,
            "{at}: {} devices, stated {stated}",
            squares[at].sqrt()
        );
        assert!(means[at].abs() < 0.25 * stated, "{at}: {}", means[at]);
    }
}

fn plan_without_count() -> std::sync::Arc<SecureSums> {
    let text: String = SHARES.lines().filter(|line| !line.contains("adaptive_clip")).collect::<Vec<_>>().join("\n");
    numbers(&plan(&text), None).secure.expect("secure sums")
}

#[test]
fn inv9_devices_that_were_told_different_norms_cannot_be_combined() {
    let plan = plan(SHARES);
    let setup = |clip| numbers(&plan, Some(clip)).secure.expect("secure sums").setup(ADDRESS, Digest([1; 32])).digest();
    assert_eq!(setup(1.0), setup(1.0));
    assert_ne!(setup(1.0), setup(1.1));
}
