//! What devices answer in rounds that make no version, added up as it comes.

use starling_spec::task::Goal;
use starling_wire::{Evaluation, RoundKind, Statistics, ValueRange};

/// What the devices of a round without a version found out together.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Figures over their hold-outs.
    HeldOut(HeldOut),
    /// The ranges of each layer's inputs over their training rows.
    Ranges(Ranges),
}

/// Figures of a federated evaluation, summed over hold-outs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct HeldOut {
    /// Devices that answered.
    pub devices: u32,
    /// Examples evaluated.
    pub examples: u64,
    /// Examples classified rightly.
    pub correct: u64,
    /// Sum of the losses.
    pub loss_sum: f64,
}

/// The widest range of each layer's inputs on any device.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ranges {
    /// Devices that answered.
    pub devices: u32,
    /// Rows that the model was run over.
    pub examples: u64,
    /// One for each tensor of the manifest.
    pub ranges: Vec<Option<ValueRange>>,
}

/// The answers of a round under way.
#[derive(Debug)]
pub(super) enum Answers {
    /// Added up at the end, in an order that does not depend on when they came: floating point rounds.
    Figures(Vec<Evaluation>),
    /// The smallest and the largest need no order.
    Ranges(Ranges),
}

impl Answers {
    /// None yet. `tensors` is the length of the manifest.
    pub(super) fn new(goal: Goal, tensors: usize) -> Self {
        match goal {
            Goal::Ranges => Self::Ranges(Ranges { ranges: vec![None; tensors], ..Ranges::default() }),
            _ => Self::Figures(Vec::new()),
        }
    }

    pub(super) fn kind(&self) -> RoundKind {
        match self {
            Self::Figures(_) => RoundKind::Evaluate,
            Self::Ranges(_) => RoundKind::Statistics,
        }
    }

    /// Takes an evaluation in. False when it is none that was asked for, or says nothing: a count that cannot be, a loss that is
    /// no number.
    pub(super) fn add_figures(&mut self, evaluation: Evaluation) -> bool {
        let Self::Figures(figures) = self else { return false };
        let sound = evaluation.loss_sum.is_finite() && evaluation.correct <= evaluation.examples;
        if sound {
            figures.push(evaluation);
        }
        sound
    }

    /// Takes ranges in. False when they are none that were asked for, or cannot be those of this network.
    pub(super) fn add_ranges(&mut self, statistics: &Statistics) -> bool {
        let Self::Ranges(all) = self else { return false };
        let sound = |range: &ValueRange| range.low.is_finite() && range.high.is_finite() && range.low <= range.high;
        let seen = &statistics.ranges;
        if seen.len() != all.ranges.len() || !seen.iter().flatten().all(sound) || statistics.examples == 0 {
            return false;
        }
        for (widest, range) in all.ranges.iter_mut().zip(seen) {
            *widest = match (*widest, *range) {
                (Some(a), Some(b)) => Some(ValueRange { low: a.low.min(b.low), high: a.high.max(b.high) }),
                (a, b) => a.or(b),
            };
        }
        all.devices += 1;
        all.examples = all.examples.saturating_add(statistics.examples);
        true
    }

    /// What they come to.
    pub(super) fn total(&mut self) -> Answer {
        match self {
            Self::Figures(figures) => Answer::HeldOut(sum(figures)),
            Self::Ranges(ranges) => Answer::Ranges(std::mem::take(ranges)),
        }
    }
}

/// The sum of `answers`, in an order that does not depend on when they came.
fn sum(answers: &mut [Evaluation]) -> HeldOut {
    answers
        .sort_by(|a, b| (a.examples, a.correct).cmp(&(b.examples, b.correct)).then(a.loss_sum.total_cmp(&b.loss_sum)));
    answers.iter().fold(HeldOut::default(), |total, answer| HeldOut {
        devices: total.devices + 1,
        examples: total.examples.saturating_add(answer.examples),
        correct: total.correct.saturating_add(answer.correct),
        loss_sum: total.loss_sum + answer.loss_sum,
    })
}
