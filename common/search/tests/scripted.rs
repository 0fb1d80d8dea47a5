//! Searches over a scripted side: what is asked of it, and how far a search goes for its limits. No network is trained.

use starling_compress::method::codebook::SharedWeights;
use starling_compress::{InputRange, Release, WeightMap};
use starling_engine::Inference;
use starling_model::Evaluated;
use starling_search::{
    Candidate, Constraint, Effort, FineTune, Limits, Method, Model, Observer, Outcome, PruneBy, PrunePace, PruneScope,
    Pruning, SearchError, Settings, Stopwatch, Tuner, Worth, search,
};
use starling_spec::shape::infer;
use starling_spec::{TaskFile, TaskPlan};

const EXAMPLES: u64 = 10_000;

fn plan(layers: &str) -> TaskPlan {
    let task = format!(
        r#"
        name = "scripted"
        kind = "classification"
        [data]
        format = "csv"
        train = "none.csv"
        shape = [16]
        [model]
        layers = {layers}
        "#
    );
    TaskPlan::new(&TaskFile::parse(&task, &[]).expect("a task"), 1).expect("a plan")
}

/// 16 · 64 + 64 · 64 + 64 · 4 = 5,376 weights.
const PERCEPTRON: &str =
    r#"[{ linear = { out = 64 } }, "relu", { linear = { out = 64 } }, "relu", { linear = { out = 4 } }]"#;

fn parameters(plan: &TaskPlan) -> Vec<f32> {
    starling_spec::init::initial_parameters(&plan.manifest().expect("a manifest"), 7)
}

/// A side whose networks answer the worse the fewer of their values are kept: `accuracy` of the share of the full model's.
struct Scripted {
    plan: TaskPlan,
    full: usize,
    accuracy: fn(f64) -> f64,
    gradients: bool,
    compares: bool,
    moves: bool,
    /// The constraint and the worth of each tuning.
    asked: Vec<String>,
}

impl Scripted {
    fn new(plan: &TaskPlan) -> Self {
        let full = plan.manifest().expect("a manifest").len();
        let (plan, asked) = (plan.clone(), Vec::new());
        Self {
            plan,
            full,
            accuracy: |share| 0.9 - 0.2 * (1.0 - share).powi(20),
            gradients: true,
            compares: true,
            moves: true,
            asked,
        }
    }

    fn judge(&self, parameters: &[f32]) -> Evaluated {
        let kept = parameters.iter().filter(|value| **value != 0.0).count();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "shares of counts"
        )]
        let correct = ((self.accuracy)(kept as f64 / self.full as f64).clamp(0.0, 1.0) * EXAMPLES as f64) as u64;
        Evaluated { examples: EXAMPLES, correct, loss_sum: (EXAMPLES - correct) as f64 }
    }
}

impl Tuner for Scripted {
    fn evaluate(&mut self, model: &Model) -> Result<Evaluated, SearchError> {
        Ok(self.judge(&model.parameters))
    }

    fn evaluate_release(&mut self, release: &Release) -> Result<Evaluated, SearchError> {
        Ok(self.judge(&release.parameters(&release.network()?)))
    }

    fn loss(&mut self, model: &Model) -> Result<f64, SearchError> {
        Ok(self.judge(&model.parameters).loss())
    }

    fn gradient(&mut self, model: &Model) -> Result<Vec<f32>, SearchError> {
        if self.gradients {
            return Ok(vec![1.0; model.parameters.len()]);
        }
        Err(SearchError::Unavailable("this side gives no gradients"))
    }

    fn output_differences(&mut self, model: &Model, changed: &[&[f32]]) -> Result<Vec<f64>, SearchError> {
        if !self.compares {
            return Err(SearchError::Unavailable("this side does not compare outputs"));
        }
        // The first layer matters to the outputs, the others hardly.
        let network = infer(self.plan.kind, &self.plan.shape, &model.layers)?;
        let first = network.manifest.tensors[0].len();
        let difference = |changed: &&[f32]| {
            let moved = |range: std::ops::Range<usize>| -> f64 {
                model.parameters[range.clone()].iter().zip(&changed[range]).map(|(a, b)| f64::from(a - b).powi(2)).sum()
            };
            100.0 * moved(0..first) + moved(first..changed.len())
        };
        Ok(changed.iter().map(difference).collect())
    }

    fn moves_masks(&self) -> bool {
        self.moves
    }

    fn fine_tune(&mut self, model: &mut Model, tuning: &FineTune<'_>) -> Result<(), SearchError> {
        self.asked.push(match tuning.constraint {
            Constraint::Free => "free".into(),
            Constraint::Pruned => "pruned".into(),
            Constraint::Clustered(_) => "clustered".into(),
            Constraint::Shared(_) => "shared".into(),
            Constraint::Share(_) => format!("share by {:?}", tuning.worth),
        });
        let network = infer(self.plan.kind, &self.plan.shape, &model.layers)?;
        if let Constraint::Share(share) = tuning.constraint {
            let ones = vec![1.0; model.parameters.len()];
            tuning.worth.mask(&network, &model.parameters, share, &ones).apply(&mut model.parameters);
        }
        if let Constraint::Shared(map) = tuning.constraint {
            let free = model.parameters.clone();
            SharedWeights::forward(map, &free, &mut model.parameters);
        }
        Ok(())
    }

    fn calibrate(&mut self, release: &Release) -> Result<Vec<Option<InputRange>>, SearchError> {
        let network = release.network()?;
        let range = |rank| (rank > 1).then_some(InputRange { low: -1.0, high: 1.0 });
        Ok(network.manifest.tensors.iter().map(|tensor| range(tensor.shape.len())).collect())
    }

    fn inputs(&mut self, _: usize) -> Vec<f32> {
        Vec::new()
    }

    fn judged_on(&self) -> String {
        "a script".into()
    }
}

/// Each candidate takes a tenth less time than the one before.
struct Falling(f64);

impl Stopwatch for Falling {
    fn median_us(&mut self, _: &mut dyn Inference, _: &[f32]) -> Option<f64> {
        self.0 *= 0.9;
        Some(self.0)
    }
}

struct Silent;

impl Observer for Silent {
    fn stage(&mut self, _: &str, _: usize) {}
    fn candidate(&mut self, _: &Candidate) {}
}

fn found(side: &mut Scripted, method: Method, limits: Limits, pruning: Pruning) -> Outcome {
    let settings = Settings { method, limits, pruning, effort: Effort::Quick, ..Settings::default() };
    let plan = side.plan.clone();
    search(&plan, parameters(&plan), &settings, side, &mut Falling(100.0), &mut Silent).expect("an outcome")
}

fn names(outcome: &Outcome) -> Vec<&str> {
    outcome.candidates.iter().map(|candidate| &candidate.name[..]).collect()
}

#[test]
fn a_limit_on_multiply_accumulates_drives_pruning_past_what_accuracy_would_bear() {
    let mut side = Scripted::new(&plan(PERCEPTRON));
    let unlimited = found(&mut side, Method::Prune, Limits::default(), Pruning::default());
    let fewest = |outcome: &Outcome| outcome.candidates.iter().filter_map(|one| one.figures.macs).min().expect("some");
    assert!(fewest(&unlimited) > 150, "without a limit it stops where too much is lost: {:?}", names(&unlimited));
    let limits = Limits { macs_max: Some(100), ..Limits::default() };
    let outcome = found(&mut side, Method::Prune, limits, Pruning::default());
    let chosen = outcome.chosen().figures.macs.expect("multiply-accumulates");
    assert!(outcome.choice.fits && (80..=100).contains(&chosen), "{chosen} of {:?}", names(&outcome));
    assert!(outcome.chosen().name.ends_with("tuned for long"), "{}", outcome.chosen().name);
}

#[test]
fn a_limit_on_latency_drives_pruning_further_and_stops_once_it_is_kept() {
    let mut side = Scripted::new(&plan(PERCEPTRON));
    let limits = Limits { latency_us_max: Some(30.0), ..Limits::default() };
    let outcome = found(&mut side, Method::Prune, limits, Pruning::default());
    assert!(outcome.choice.fits, "{}", outcome.choice.why);
    let slow = outcome.candidates.iter().filter(|one| one.figures.latency_us.is_some_and(|us| us > 30.0)).count();
    let fast = outcome.candidates.len() - slow;
    assert!(slow > 8 && (1..=6).contains(&fast), "{slow} slow and {fast} fast ones: {:?}", names(&outcome));
}

#[test]
fn a_limit_that_no_share_keeps_ends_with_the_nearest() {
    let mut side = Scripted::new(&plan(PERCEPTRON));
    let limits = Limits { macs_max: Some(1), ..Limits::default() };
    let outcome = found(&mut side, Method::Prune, limits, Pruning::default());
    assert!(!outcome.choice.fits && outcome.choice.why.contains("--max-macs 1"), "{}", outcome.choice.why);
    assert!(outcome.candidates.len() < 40, "{:?}", names(&outcome));
}

#[test]
fn fewer_units_and_layers_come_in_integers_too_and_go_as_far_as_a_limit_asks() {
    let mut side = Scripted::new(&plan(PERCEPTRON));
    let limits = Limits { macs_max: Some(60), ..Limits::default() };
    let outcome = found(&mut side, Method::Units, limits, Pruning::default());
    assert!(names(&outcome).contains(&"units 25 % int8"), "{:?}", names(&outcome));
    assert!(outcome.choice.fits, "{}: {:?}", outcome.choice.why, names(&outcome));
    let outcome = found(&mut side, Method::Layers, Limits::default(), Pruning::default());
    assert_eq!(names(&outcome), ["layers 2 of 3", "layers 2 of 3 int8"], "the middle layer keeps its shape");
    let [half, integers] = &outcome.candidates[..] else { unreachable!("two candidates") };
    assert!(integers.figures.bytes < half.figures.bytes);
}

#[test]
fn each_worth_reaches_the_side_that_moves_masks() {
    for (by, scope, wanted) in [
        (PruneBy::Magnitude, PruneScope::Global, "share by Lamp"),
        (PruneBy::Magnitude, PruneScope::Layer, "share by Magnitude"),
        (PruneBy::Saliency, PruneScope::Global, "share by Saliency(Global)"),
        (PruneBy::Saliency, PruneScope::Layer, "share by Saliency(Layer)"),
        (PruneBy::Output, PruneScope::Global, "share by Measured("),
    ] {
        let mut side = Scripted::new(&plan(PERCEPTRON));
        let outcome = found(&mut side, Method::Prune, Limits::default(), Pruning { by, scope, ..Pruning::default() });
        assert!(side.asked.iter().all(|asked| asked.starts_with(wanted)), "{by:?} {scope:?}: {:?}", side.asked);
        assert_eq!(outcome.pruning.map(|pruning| (pruning.by, pruning.scope)), Some((by, scope)));
    }
}

#[test]
fn in_one_shot_and_on_sides_with_standing_masks_the_search_draws_them() {
    let one_shot = Pruning { pace: PrunePace::OneShot, ..Pruning::default() };
    let by_saliency = Pruning { by: PruneBy::Saliency, scope: PruneScope::Layer, pace: PrunePace::Gradual };
    for (moves, pruning) in [(true, one_shot), (false, by_saliency)] {
        let mut side = Scripted { moves, ..Scripted::new(&plan(PERCEPTRON)) };
        let outcome = found(&mut side, Method::Prune, Limits::default(), pruning);
        assert!(!side.asked.is_empty() && side.asked.iter().all(|asked| asked == "pruned"), "{:?}", side.asked);
        // The first share is 40 % of 5,376 weights, less what dead units leave with.
        let kept: usize =
            outcome.candidates[0].tensors.iter().filter(|one| one.shape.len() > 1).map(|one| one.kept).sum();
        assert!((1_800..=2_151).contains(&kept), "{kept}");
    }
    let mut side = Scripted { moves: false, ..Scripted::new(&plan(PERCEPTRON)) };
    found(&mut side, Method::Prune, Limits::default(), Pruning::default());
    assert!(side.asked.iter().all(|asked| asked == "share by Lamp"), "such a side prunes by LAMP itself");
}

#[test]
fn measured_outputs_leave_more_of_the_layer_that_they_feel() {
    let mut side = Scripted::new(&plan(PERCEPTRON));
    let pruning = Pruning { by: PruneBy::Output, ..Pruning::default() };
    let outcome = found(&mut side, Method::Prune, Limits::default(), pruning);
    let share = |tensor: usize| {
        let found = &outcome.candidates[0].tensors[tensor];
        #[allow(clippy::cast_precision_loss, reason = "a share of a count")]
        let share = found.kept as f64 / found.weights as f64;
        share
    };
    assert!(share(0) > 0.9 && share(2) < 0.6, "{} of the first layer, {} of the second", share(0), share(2));
}

#[test]
fn what_a_side_cannot_do_is_said_in_words_and_something_is_written_all_the_same() {
    for (method, by, wanted) in [
        (Method::Prune, PruneBy::Saliency, "pruning by saliency does not apply here: this side gives no gradients"),
        (Method::Prune, PruneBy::Output, "pruning by output does not apply here: this side does not compare outputs"),
        (Method::Units, PruneBy::Magnitude, "removing units by their effect on the loss does not apply here"),
    ] {
        let base = Scripted::new(&plan(PERCEPTRON));
        let mut side = Scripted { gradients: false, compares: false, moves: false, ..base };
        let outcome = found(&mut side, method, Limits::default(), Pruning { by, ..Pruning::default() });
        assert!(outcome.notes.iter().any(|note| note.contains(wanted)), "{:?}", outcome.notes);
        assert_eq!(names(&outcome), ["f32"]);
        assert!(outcome.choice.fits && outcome.pruning.is_none());
    }
}

#[test]
fn a_method_that_does_not_apply_leaves_the_full_model_and_says_so() {
    let plan = plan(r#"[{ linear = { out = 4 } }]"#);
    for method in [Method::Layers, Method::Units] {
        let outcome = found(&mut Scripted::new(&plan), method, Limits::default(), Pruning::default());
        assert_eq!(names(&outcome), ["f32"]);
        let wanted =
            format!("--method {method} makes nothing of this network; the release is the full model in floats");
        assert!(outcome.notes.contains(&wanted), "{:?}", outcome.notes);
        let release = Release::from_bytes(&outcome.chosen().file).expect("a release");
        assert_eq!(release.parameters(&release.network().expect("a network")), parameters(&plan));
    }
}

#[test]
fn measured_shares_do_not_go_with_equal_ones() {
    let plan = plan(PERCEPTRON);
    let pruning = Pruning { by: PruneBy::Output, scope: PruneScope::Layer, ..Pruning::default() };
    let settings = Settings { pruning, ..Settings::default() };
    let mut side = Scripted::new(&plan);
    let result = search(&plan, parameters(&plan), &settings, &mut side, &mut Falling(1.0), &mut Silent);
    assert!(matches!(result, Err(SearchError::Pruning(_))));
    assert!(!Worth::Lamp.needs_gradient() && Worth::Saliency(PruneScope::Layer).needs_gradient());
}
