//! A lower bound on ε, measured: one device sends the same known direction in every round in which it takes part, and the attacker, who knows
//! the direction and everybody else's update, tells rounds with it from rounds without it.
//!
//! A mechanism is (ε, δ)-differentially private only if `P(says yes | with) ≤ e^ε · P(says yes | without) + δ` for every test. Counts of
//! right and wrong answers give limits of both probabilities (Clopper and Pearson), and those give an ε that the mechanism has at least (Nasr et
//! al. 2021, "Adversary instantiation"; Jagielski et al. 2020, "Auditing differentially private machine learning").

use anyhow::{Context, Result, ensure};
use starling_privacy::noise::Simulated;
use starling_privacy::{Accountant, SampledGaussian};
use starling_spec::TaskPlan;
use starling_spec::random::{Purpose, Random};
use starling_update::{Admitted, Fold, NoisyMean, Numerics, admit, norm, norm_max, rounding_key, seal_private};
use starling_wire::{DeviceId, UpdateReport};

use crate::interval;
use crate::scene::Trained;
use crate::seen::address;

/// The bound holds with a probability of 95 %: half of the rest for each of the two probabilities.
const TAIL: f64 = 0.025;

/// What an audit found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Audit {
    /// The noise that was drawn, in clipping norms.
    pub noise_multiplier: f64,
    /// Rounds with the canary, and as many without.
    pub rounds: u32,
    /// Rounds with it, of which the test said so.
    pub hits: u32,
    /// Rounds without it, of which the test said the contrary.
    pub false_alarms: u32,
    /// At least this, with 95 % confidence.
    pub epsilon_min: f64,
    /// The most that so many rounds can show, were the test never wrong.
    pub epsilon_visible: f64,
    /// What the accountant says of the plan's noise; infinite without noise.
    pub epsilon_accounted: f64,
}

/// Rounds of `plan` (central noise, every device in each round) with and without a canary beside `others`. The noise that is drawn
/// is `drawn` instead of the plan's, where that is given: a mistake, for the audit to find.
///
/// # Errors
/// What the plan's noise or an update is refused for.
pub fn audit(plan: &TaskPlan, others: &[Trained], rounds: u32, drawn: Option<f64>) -> Result<Audit> {
    let privacy = plan.privacy.as_ref().context("the plan has [privacy]")?;
    let dp = privacy.asked.dp.clone().context("the plan has privacy.dp")?;
    let devices = f64::from(privacy.devices.context("the plan says how many devices there are")?) * privacy.fraction;
    let parameters = others.first().context("a cohort has devices")?.delta.len();
    let cohort_max = u32::try_from(others.len() + 1)?;
    let numerics = Numerics::new(&plan.update, parameters, cohort_max)?.with_norm_max(norm_max(plan));
    let mut faulty = plan.clone();
    if let (Some(drawn), Some(dp)) = (drawn, faulty.privacy.as_mut().and_then(|privacy| privacy.asked.dp.as_mut())) {
        dp.noise_multiplier = drawn;
    }
    let noisy = NoisyMean::of(&faulty, &numerics)?.context("the plan's noise is central")?;
    let multiplier = drawn.unwrap_or(dp.noise_multiplier);

    let direction = direction(plan.seed, parameters, dp.clip);
    let canary = Trained {
        device: DeviceId::seeded(plan.seed, u32::MAX),
        delta: direction.clone(),
        report: UpdateReport { weight: 1, train_loss: 0.0, steps: 1, within_clip: false },
    };
    let admitted = |trained: &Trained| admitted(plan, &numerics, trained);
    let others: Vec<Admitted> = others.iter().map(admitted).collect::<Result<_>>()?;
    let canary = admitted(&canary)?;

    // In clipping norms, without what the attacker knows of the others.
    let along = |mean: &[f32]| {
        let sum: f64 = mean.iter().zip(&direction).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        sum * devices / (dp.clip * dp.clip)
    };
    let round = |number: u32, with: bool, noisy: &NoisyMean| -> Result<f64> {
        let mut fold = Fold::new(&numerics);
        others.iter().chain(with.then_some(&canary)).try_for_each(|update| fold.add(update))?;
        let mut mean = vec![0.0; parameters];
        let stream = u64::from(number) * 2 + u64::from(with);
        noisy.apply(fold, 1, 1.0, |_| Simulated::new(plan.seed, &[3, stream]), &mut mean);
        Ok(along(&mean))
    };
    let mut silent = faulty.clone();
    if let Some(dp) = silent.privacy.as_mut().and_then(|privacy| privacy.asked.dp.as_mut()) {
        dp.noise_multiplier = 0.0;
    }
    let silent = NoisyMean::of(&silent, &numerics)?.context("the plan's noise is central")?;
    let known = round(0, false, &silent)?;

    // Chosen before anything is seen: looking for the best one afterwards would find ε that is not there.
    let threshold = threshold(multiplier, rounds, dp.delta);
    let count = |with: bool| -> Result<u32> {
        let mut count = 0;
        for number in 0..rounds {
            count += u32::from(round(number, with, &noisy)? - known > threshold);
        }
        Ok(count)
    };
    let (hits, false_alarms) = (count(true)?, count(false)?);
    ensure!(rounds > 0, "an audit takes rounds");
    Ok(Audit {
        noise_multiplier: multiplier,
        rounds,
        hits,
        false_alarms,
        epsilon_min: epsilon_min(hits, false_alarms, rounds, dp.delta),
        epsilon_visible: epsilon_min(rounds, 0, rounds, dp.delta),
        epsilon_accounted: accounted(dp.noise_multiplier, dp.delta)?,
    })
}

/// What one round in which everybody is costs.
fn accounted(noise_multiplier: f64, delta: f64) -> Result<f64> {
    if noise_multiplier == 0.0 {
        return Ok(f64::INFINITY);
    }
    Ok(Accountant::Pld.epsilon(&[SampledGaussian::new(1.0, noise_multiplier, 1)?], delta)?)
}

/// The least ε that explains the counts, with a confidence of 95 %.
pub fn epsilon_min(hits: u32, false_alarms: u32, rounds: u32, delta: f64) -> f64 {
    let (hit, alarm) = (interval::lower(hits, rounds, TAIL), interval::upper(false_alarms, rounds, TAIL));
    if hit <= delta { 0.0 } else { libm::log((hit - delta) / alarm).max(0.0) }
}

/// Where the test says yes: where counts as they are expected would show the most.
fn threshold(noise_multiplier: f64, rounds: u32, delta: f64) -> f64 {
    if noise_multiplier == 0.0 {
        return 0.5;
    }
    let beyond = |value: f64| libm::erfc(value / noise_multiplier * std::f64::consts::FRAC_1_SQRT_2) / 2.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to the number of rounds")]
    let expected = |probability: f64| (probability * f64::from(rounds)).round() as u32;
    let shown = |value: f64| epsilon_min(expected(beyond(value - 1.0)), expected(beyond(value)), rounds, delta);
    let candidates = (0..=80).map(|step| 0.5 + f64::from(step) / 20.0 * noise_multiplier);
    candidates.max_by(|a, b| shown(*a).total_cmp(&shown(*b))).expect("there are candidates")
}

/// A random direction of the length of the clipping norm, or a hair less.
#[allow(clippy::cast_possible_truncation, reason = "updates are in single precision")]
fn direction(seed: u64, parameters: usize, clip: f64) -> Vec<f32> {
    let mut random = Random::new(seed, Purpose::Noise, &[2]);
    let drawn: Vec<f32> = (0..parameters).map(|_| random.normal() as f32).collect();
    let factor = clip * (1.0 - 1e-6) / norm(&drawn);
    drawn.into_iter().map(|value| (f64::from(value) * factor) as f32).collect()
}

fn admitted(plan: &TaskPlan, numerics: &Numerics, trained: &Trained) -> Result<Admitted> {
    let key = rounding_key(plan.seed, trained.device, 1);
    let mut unused = Simulated::new(plan.seed, &[4]);
    let sealed = seal_private(plan, &trained.report, &trained.delta, key, &mut unused)?;
    let header = sealed.header(&address(plan));
    admit(trained.device, &header, sealed.bytes().clone(), sealed.digest(), numerics)
        .map_err(|refusal| anyhow::anyhow!("the update is not admitted: {refusal}"))
}
