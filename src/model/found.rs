//! What a search found, as JSON and as a table.

use std::path::Path;

use serde::Serialize;
use starling_search::{Candidate, Granularity, Outcome, Pruning};
use starling_spec::TaskKind;

use crate::report::{Table, figure, percent};

/// What the search found, as JSON. Accuracies and losses are those of validation rows.
#[derive(Debug, Serialize)]
pub(super) struct Compressed {
    task: String,
    seed: u64,
    judged_on: String,
    baseline_accuracy: Option<f64>,
    baseline_loss: f64,
    baseline_macs: Option<u64>,
    baseline_latency_us_p50: Option<f64>,
    accuracy: Option<f64>,
    loss: f64,
    bytes: u64,
    bytes_f32: u64,
    ratio: f64,
    macs: Option<u64>,
    latency_us_p50: Option<f64>,
    chosen: String,
    /// Whether the chosen candidate keeps within every limit.
    fits: bool,
    why: String,
    /// How weights were pruned, where they were.
    pruning: Option<PruningReport>,
    /// What had a scale of its own where weights became integers: `tensor` or `channel`.
    granularity: &'static str,
    candidates: Vec<CandidateReport>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PruningReport {
    /// `magnitude`, `saliency` or `output`.
    by: &'static str,
    /// `global` or `layer`.
    scope: &'static str,
    /// `gradual` or `one-shot`.
    pace: &'static str,
    /// The same as a sentence.
    how: String,
}

impl From<Pruning> for PruningReport {
    fn from(pruning: Pruning) -> Self {
        let Pruning { by, scope, pace } = pruning;
        Self { by: by.word(), scope: scope.word(), pace: pace.word(), how: pruning.to_string() }
    }
}

#[derive(Debug, Serialize)]
struct CandidateReport {
    name: String,
    method: String,
    accuracy: Option<f64>,
    loss: f64,
    /// Standard error of the points of accuracy lost, where both models' answers are known row by row.
    points_lost_error: Option<f64>,
    bytes: u64,
    ratio: f64,
    macs: Option<u64>,
    latency_us_p50: Option<f64>,
    on_front: bool,
    chosen: bool,
}

/// The JSON of `outcome`.
pub(super) fn record(outcome: &Outcome, seed: u64) -> Compressed {
    let counts = outcome.kind != TaskKind::Regression;
    let accuracy = |accuracy: f64| counts.then_some(accuracy);
    let chosen = outcome.chosen();
    let report = |(index, candidate): (usize, &Candidate)| CandidateReport {
        name: candidate.name.clone(),
        method: candidate.method.to_string(),
        accuracy: accuracy(candidate.figures.accuracy),
        loss: candidate.figures.loss,
        points_lost_error: candidate.figures.points_error,
        bytes: candidate.figures.bytes,
        ratio: candidate.ratio(outcome.bytes_f32),
        macs: candidate.figures.macs,
        latency_us_p50: candidate.figures.latency_us,
        on_front: outcome.on_front[index],
        chosen: index == outcome.choice.index,
    };
    Compressed {
        task: outcome.task.clone(),
        seed,
        judged_on: outcome.judged_on.clone(),
        baseline_accuracy: accuracy(outcome.baseline.accuracy),
        baseline_loss: outcome.baseline.loss,
        baseline_macs: outcome.baseline.macs,
        baseline_latency_us_p50: outcome.baseline.latency_us,
        accuracy: accuracy(chosen.figures.accuracy),
        loss: chosen.figures.loss,
        bytes: chosen.figures.bytes,
        bytes_f32: outcome.bytes_f32,
        ratio: chosen.ratio(outcome.bytes_f32),
        macs: chosen.figures.macs,
        latency_us_p50: chosen.figures.latency_us,
        chosen: chosen.name.clone(),
        fits: outcome.choice.fits,
        why: outcome.choice.why.clone(),
        pruning: outcome.pruning.map(PruningReport::from),
        granularity: match outcome.granularity {
            Granularity::Tensor => "tensor",
            Granularity::Channel => "channel",
        },
        candidates: outcome.candidates.iter().enumerate().map(report).collect(),
        notes: outcome.notes.clone(),
    }
}

/// The table of `outcome`, whose release is in `out`.
pub(super) fn table(outcome: &Outcome, out: &Path) -> Table {
    let counts = outcome.kind != TaskKind::Regression;
    let judged = if counts { "validation accuracy" } else { "validation loss" };
    let mut table = Table::new(&["candidate", judged, "bytes", "smaller", "MACs", "latency p50", "front", ""]);
    let quality = |accuracy: f64, loss: f64| if counts { percent(Some(accuracy)) } else { figure(Some(loss), 4) };
    let macs = |macs: Option<u64>| macs.map_or_else(|| "–".into(), |macs| macs.to_string());
    let latency = |latency: Option<f64>| latency.map_or_else(|| "–".into(), |us| format!("{us:.2} µs"));
    let base = &outcome.baseline;
    table.row(vec![
        "full model".into(),
        quality(base.accuracy, base.loss),
        base.bytes.to_string(),
        "1.0×".into(),
        macs(base.macs),
        latency(base.latency_us),
        String::new(),
        String::new(),
    ]);
    for (index, candidate) in outcome.candidates.iter().enumerate() {
        let figures = &candidate.figures;
        table.row(vec![
            candidate.name.clone(),
            quality(figures.accuracy, figures.loss),
            figures.bytes.to_string(),
            format!("{:.1}×", candidate.ratio(outcome.bytes_f32)),
            macs(figures.macs),
            latency(figures.latency_us),
            if outcome.on_front[index] { "yes".into() } else { String::new() },
            if index == outcome.choice.index { "chosen".into() } else { String::new() },
        ]);
    }
    table.note(format!("{} is {:?}: {}", out.display(), outcome.chosen().name, outcome.choice.why));
    if let Some(pruning) = outcome.pruning {
        table.note(format!("weights were pruned {pruning}"));
    }
    table.note(format!("accuracies are those of {}, not of test data", outcome.judged_on));
    outcome.notes.iter().for_each(|note| table.note(format!("note: {note}")));
    table
}
