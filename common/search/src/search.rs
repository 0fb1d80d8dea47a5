//! The search: candidates of every method that applies, the front, the choice.

use starling_compress::Release;
use starling_engine::Inference;
use starling_spec::random::{Purpose, Random};
use starling_spec::{TaskKind, TaskPlan};

use crate::candidate::Candidate;
use crate::choice::{Choice, choose, faster};
use crate::error::SearchError;
use crate::figures::{Figures, Limits};
use crate::front::front;
use crate::method::{Effort, Granularity, Method};
use crate::pruning::Pruning;
use crate::recipe;
use crate::session::Session;
use crate::tuner::{Model, Tuner};

/// Samples that latency is measured over: more than a cache of branch history holds.
const LATENCY_SAMPLES: usize = 256;

/// What is searched for, and how hard.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Which methods.
    pub method: Method,
    /// The device's budget.
    pub limits: Limits,
    /// How weights are pruned.
    pub pruning: Pruning,
    /// What has a scale of its own where weights become integers.
    pub granularity: Granularity,
    /// How long fine-tuning may take.
    pub effort: Effort,
    /// See [`crate::FineTune::distil`].
    pub distil: f64,
    /// The first learning rate of fine-tuning (Adam).
    pub lr: f64,
    /// What initialisers and synthetic inputs are drawn from.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            method: Method::Auto,
            limits: Limits::default(),
            pruning: Pruning::default(),
            granularity: Granularity::default(),
            effort: Effort::Normal,
            distil: 0.5,
            lr: 1e-3,
            seed: 1,
        }
    }
}

/// Who watches.
pub trait Observer {
    /// A part begins that goes `epochs` times over the data.
    fn stage(&mut self, what: &str, epochs: usize);
    /// A candidate is there.
    fn candidate(&mut self, candidate: &Candidate);
}

/// Who measures time.
pub trait Stopwatch {
    /// The median time of one sample of `inputs` (a whole number of samples), in microseconds.
    fn median_us(&mut self, inference: &mut dyn Inference, inputs: &[f32]) -> Option<f64>;
}

/// What a search found.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The task's name.
    pub task: String,
    /// What it learns.
    pub kind: TaskKind,
    /// On what all accuracies here are measured: never on test data.
    pub judged_on: String,
    /// The full model's figures: floats in memory, run by the engine.
    pub baseline: Figures,
    /// Bytes of its floats.
    pub bytes_f32: u64,
    /// In the order they were made.
    pub candidates: Vec<Candidate>,
    /// Which of them no other one beats.
    pub on_front: Vec<bool>,
    /// Which one to take.
    pub choice: Choice,
    /// The limits that it was held against.
    pub limits: Limits,
    /// How weights were pruned, where they were.
    pub pruning: Option<Pruning>,
    /// What had a scale of its own where weights became integers.
    pub granularity: Granularity,
    /// What did not apply, and what to know when reading the figures.
    pub notes: Vec<String>,
}

impl Outcome {
    /// The candidate to take.
    pub fn chosen(&self) -> &Candidate {
        &self.candidates[self.choice.index]
    }
}

/// Searches for a compressed form of `plan`'s network with `parameters`.
///
/// # Errors
/// What ends a search (see [`SearchError`]); a method that does not apply only leaves a note.
pub fn search(
    plan: &TaskPlan,
    parameters: Vec<f32>,
    settings: &Settings,
    tuner: &mut dyn Tuner,
    stopwatch: &mut dyn Stopwatch,
    observer: &mut dyn Observer,
) -> Result<Outcome, SearchError> {
    settings.pruning.check()?;
    let expected = plan.manifest()?.len();
    if parameters.len() != expected {
        return Err(SearchError::Weights { expected, got: parameters.len() });
    }
    observer.stage("baseline", 0);
    let bytes_f32 = (parameters.len() * size_of::<f32>()) as u64;
    let float = Release::float(plan, &parameters);
    let original = Model { layers: plan.layers.clone(), parameters };
    let found = tuner.evaluate(&original)?;
    let baseline = Figures {
        accuracy: found.accuracy(),
        loss: found.loss(),
        points_error: None,
        bytes: bytes_f32,
        macs: None,
        latency_us: None,
    };
    let measured = tuner.inputs(LATENCY_SAMPLES);
    let latency_inputs = if measured.is_empty() { synthetic_inputs(plan, settings.seed) } else { measured };
    let mut session = Session {
        plan,
        settings,
        tuner,
        stopwatch,
        observer,
        original,
        baseline,
        latency_inputs,
        candidates: Vec::new(),
        notes: Vec::new(),
    };
    let (macs, latency_us) = session.speed(&float);
    session.baseline = Figures { macs, latency_us, ..baseline };
    recipe::run_all(&mut session)?;
    let Session { baseline, candidates, mut notes, tuner, .. } = session;
    let figures: Vec<Figures> = candidates.iter().map(|candidate| candidate.figures).collect();
    let Some(mut choice) = choose(&figures, &baseline, &settings.limits, plan.kind) else {
        return Err(SearchError::Nothing(notes.join("; ")));
    };
    let names: Vec<&str> = candidates.iter().map(|candidate| &candidate.name[..]).collect();
    if let Some(faster) = faster(&names, &figures, &baseline, choice.index, plan.kind) {
        choice.why = format!("{}; {faster}", choice.why);
    }
    if !choice.fits {
        notes.push(choice.why.clone());
    }
    let pruned = candidates.iter().any(|candidate| matches!(candidate.method, Method::Prune | Method::Deep));
    Ok(Outcome {
        task: plan.name.clone(),
        kind: plan.kind,
        judged_on: tuner.judged_on(),
        baseline,
        bytes_f32,
        on_front: front(&figures, plan.kind),
        candidates,
        choice,
        limits: settings.limits,
        pruning: pruned.then_some(settings.pruning),
        granularity: settings.granularity,
        notes,
    })
}

/// Inputs to measure latency with where no sample may be seen: uniform in [0, 1), or tokens of the embedding's table.
pub fn synthetic_inputs(plan: &TaskPlan, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed, Purpose::Noise, &[]);
    let count = LATENCY_SAMPLES * plan.shape.iter().product::<usize>();
    let tokens = match plan.layers.first() {
        Some(starling_spec::Layer::Embedding(embedding)) => Some(embedding.tokens as u64),
        _ => None,
    };
    #[allow(clippy::cast_precision_loss, reason = "token numbers are small")]
    let draw = |_| match tokens {
        Some(tokens) => random.below(tokens.max(1)) as f32,
        None => random.unit_f32(),
    };
    (0..count).map(draw).collect()
}
