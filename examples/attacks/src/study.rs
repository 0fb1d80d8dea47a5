//! All attacks against all protections, a line each.

pub mod honest;
pub mod malicious;

use anyhow::Result;
use starling_privacy::{Charge, Mechanism, Sampling, spent};
use starling_spec::init::initial_parameters;
use starling_spec::{DpMode, TaskPlan};
use starling_update::Version;
use starling_wire::Distrust;

use crate::canary::{Audit, audit};
use crate::picture::{Picture, RECOVERED_DB, matches, mean};
use crate::scene::{Scene, Terms};

/// The noise against attacks: what one round with it costs a device at most, at [`DELTA`].
pub const EPSILON: f64 = 8.0;

/// The probability with which that may fail.
pub const DELTA: f64 = 1e-5;

/// Pictures that a line shows.
const SHOWN: usize = 20;

/// What came of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Half of the pictures or more are recovered.
    Succeeds,
    /// Some are.
    Leaks,
    /// None is.
    Fails,
    /// The device did not take part.
    Refused,
}

/// One attack against one protection.
#[derive(Debug, Clone)]
pub struct Line {
    /// Which part of the report it belongs to.
    pub part: Part,
    /// The attack.
    pub attack: String,
    /// What stands against it.
    pub protection: String,
    /// True pictures behind what the aggregator sees.
    pub pictures: usize,
    /// How many of them come back at [`RECOVERED_DB`] or more.
    pub recovered: usize,
    /// The best and the middle one, in dB; nothing where the device refused.
    pub psnr_db: Option<(f64, f64)>,
    /// The best that as many guesses get without any attack: the mean of public pictures, and public pictures taken unseen.
    pub guess_db: f64,
    /// The verdict.
    pub verdict: Verdict,
    /// What a reader should know beside it.
    pub note: String,
    /// True pictures, and below each the guess that comes closest.
    pub shown: Vec<Vec<Picture>>,
}

/// A part of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Gradient inversion on an honest network.
    Inversion,
    /// A malicious network.
    Malicious,
}

/// Everything that was found.
#[derive(Debug, Clone)]
pub struct Study {
    /// What pictures they are.
    pub pictures: String,
    /// The seed.
    pub seed: u64,
    /// Attacks on pictures.
    pub lines: Vec<Line>,
    /// Canary audits, each with what was audited.
    pub audits: Vec<(String, Audit)>,
}

impl Verdict {
    /// The word of tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Succeeds => "succeeds",
            Self::Leaks => "leaks",
            Self::Fails => "fails",
            Self::Refused => "refused",
        }
    }
}

impl Line {
    /// The line of what an attacker guessed.
    fn judged(
        scene: &Scene,
        part: Part,
        (attack, protection): (&str, &str),
        truth: &[Picture],
        guesses: &[Picture],
    ) -> Self {
        let found = matches(truth, guesses);
        let recovered = found.iter().filter(|found| found.psnr_db >= RECOVERED_DB).count();
        let mut sorted: Vec<f64> = found.iter().map(|found| found.psnr_db).collect();
        sorted.sort_by(f64::total_cmp);
        let psnr_db = sorted.last().map(|best| (*best, sorted[sorted.len() / 2]));
        let verdict = match recovered {
            0 => Verdict::Fails,
            some if some * 2 >= truth.len() => Verdict::Succeeds,
            _ => Verdict::Leaks,
        };
        let shown = &found[..found.len().min(SHOWN)];
        Self {
            part,
            attack: attack.into(),
            protection: protection.into(),
            pictures: truth.len(),
            recovered,
            psnr_db,
            guess_db: guess_db(scene, truth, guesses.len()),
            verdict,
            note: String::new(),
            shown: vec![
                shown.iter().map(|found| truth[found.truth].clone()).collect(),
                shown.iter().map(|found| guesses[found.guess].clone()).collect(),
            ],
        }
    }

    /// The line of a device that did not take part.
    fn refused(scene: &Scene, (attack, protection): (&str, &str), truth: &[Picture], why: Distrust) -> Self {
        Self {
            part: Part::Malicious,
            attack: attack.into(),
            protection: protection.into(),
            pictures: truth.len(),
            recovered: 0,
            psnr_db: None,
            guess_db: guess_db(scene, truth, 1),
            verdict: Verdict::Refused,
            note: format!("The device declines before it fetches a model: {} ({}).", why.text(), why.name()),
            shown: Vec::new(),
        }
    }

    fn noting(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }
}

/// Runs everything; `say` hears what begins.
///
/// # Errors
/// What a part of the product refuses.
pub fn run(scene: &Scene, rounds: u32, say: &mut dyn FnMut(&str)) -> Result<Study> {
    let mut lines = Vec::new();
    say("gradient inversion");
    lines.extend(honest::lines(scene)?);
    say("a malicious network");
    lines.extend(malicious::lines(scene)?);
    say("canary audits");
    Ok(Study { pictures: scene.pictures(), seed: scene.seed(), lines, audits: audits(scene, rounds)? })
}

/// What comes closest to one of the true pictures among `count` guesses of somebody who has seen nothing.
fn guess_db(scene: &Scene, truth: &[Picture], count: usize) -> f64 {
    let public = scene.public(1000);
    let guesses: Vec<Picture> = [mean(&public)].into_iter().chain(public.into_iter().take(count - 1)).collect();
    matches(truth, &guesses).iter().map(|found| found.psnr_db).fold(f64::NEG_INFINITY, f64::max)
}

/// The first version of a run by `plan`.
fn first_version(plan: &TaskPlan) -> Result<Version> {
    Ok(Version::publish(0, initial_parameters(&plan.manifest()?, plan.seed), plan.update.down)?)
}

/// The body of `[privacy]` for secure sums of all ten devices, with noise of `epsilon` in shares where that is given.
fn secure(clip: f64, epsilon: Option<f64>) -> Result<String> {
    let bounds = match epsilon {
        None => format!("clip = {clip:?}"),
        Some(epsilon) => format!(
            "dp = {{ mode = \"distributed\", clip = {clip:?}, noise_multiplier = {:?}, delta = {DELTA:?} }}",
            noise_multiplier(epsilon)?
        ),
    };
    Ok(format!("secure_aggregation = true\nweights = \"uniform\"\ncohort_min = 10\n{bounds}"))
}

/// The least noise, in thousandths of a clipping norm, of which the product's accountant says that one round costs no more than `epsilon`.
///
/// # Errors
/// An ε that no noise gives.
pub fn noise_multiplier(epsilon: f64) -> Result<f64> {
    let charge = |thousandths: u32| Charge {
        noise_multiplier: f64::from(thousandths) / 1000.0,
        delta: DELTA,
        sampling: Sampling::Any,
        mechanism: Mechanism::Independent,
        mode: DpMode::Distributed,
    };
    let (mut low, mut high) = (10, 64_000);
    while high - low > 1 {
        let middle = u32::midpoint(low, high);
        if spent(&charge(middle), 1)? > epsilon { low = middle } else { high = middle }
    }
    Ok(charge(high).noise_multiplier)
}

/// Audits of central noise: as it should be, none, and a tenth of what is claimed.
fn audits(scene: &Scene, rounds: u32) -> Result<Vec<(String, Audit)>> {
    let one = |name: &str, noise_multiplier: f64, drawn: Option<f64>| {
        Ok((name.to_owned(), canary_audit(scene, rounds, noise_multiplier, drawn)?))
    };
    [
        one("noise multiplier 1, as claimed", 1.0, None),
        one("no noise", 0.0, None),
        one("noise multiplier 1 claimed, a tenth of it drawn", 1.0, Some(0.1)),
    ]
    .into_iter()
    .collect()
}

/// The audit of a plan with central noise of `noise_multiplier`, in rounds with all of ten devices.
///
/// # Errors
/// What a part of the product refuses.
pub fn canary_audit(scene: &Scene, rounds: u32, noise_multiplier: f64, drawn: Option<f64>) -> Result<Audit> {
    let privacy = format!(
        "weights = \"uniform\"\ndp = {{ mode = \"central\", clip = 0.3, noise_multiplier = {noise_multiplier:?}, delta = {DELTA:?} }}"
    );
    let terms = Terms { hidden: 16, privacy: &privacy, federation: "participation = \"poisson\"", ..Terms::default() };
    let plan = scene.plan(10, terms)?;
    let version = first_version(&plan)?;
    let others = scene.train(&plan, &version, &scene.rows(9, 10), 1)?;
    audit(&plan, &others, rounds, drawn)
}
