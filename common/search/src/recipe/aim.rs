//! Aiming: the share of weights whose candidate just keeps within the limits, tuned for longer than a step of the ladder.

use super::ladder::{Epochs, Step, as_float, step};
use super::shared::SharingEpochs;
use crate::error::SearchError;
use crate::figures::{Figures, Limit, Limits, POINTS_LOST_DEFAULT};
use crate::pruning::PrunePace;
use crate::session::Session;
use crate::tuner::Model;

/// Passes over the data at the share that the limits ask for.
const AIMED: Epochs = Epochs {
    weights: 24,
    sharing: SharingEpochs { clusters: 10, centroids: 3 },
    mark: " tuned for long",
    writes_all: true,
};

/// Candidates come out this close under the limit, and so often it is tried.
const AIM: f64 = 0.985;
const AIMS_MAX: usize = 3;

/// What a kept weight takes, place and value, before any file has been seen.
const BITS_GUESS: f64 = 8.5;

/// Aims at what the limits ask for: accuracy where it is limited or nothing is, else the budget.
pub(super) fn aim(session: &mut Session<'_>, start: &Model, steps: &[Step], weights: usize) -> Result<(), SearchError> {
    let limits = session.settings.limits;
    let budget = budget(&limits);
    if limits.points_lost_max.is_some() || budget.is_empty() {
        let points_max = limits.points_lost_max.unwrap_or(POINTS_LOST_DEFAULT);
        return aim_at_accuracy(session, start, steps, points_max, weights);
    }
    aim_at_budget(session, start, steps, &budget, weights)
}

/// The limits that a smaller share of weights keeps better, and their largest values.
#[allow(clippy::cast_precision_loss, reason = "sizes and counts stay far below 2^53")]
fn budget(limits: &Limits) -> Vec<(Limit, f64)> {
    [
        limits.bytes_max.map(|max| (Limit::Bytes, max as f64)),
        limits.latency_us_max.map(|max| (Limit::Latency, max)),
        limits.macs_max.map(|max| (Limit::Macs, max as f64)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What `figures` spend of a budget; unknown where the engine runs no such network.
fn cost(limit: Limit, figures: &Figures) -> Option<f64> {
    match limit {
        Limit::Bytes => Some(as_float(figures.bytes)),
        Limit::Latency => figures.latency_us,
        Limit::Macs => figures.macs.map(as_float),
        Limit::Accuracy => None,
    }
}

/// Whether a file limit alone is given and `share` gives files that are more than twice as large.
pub(super) fn is_out_of_reach(session: &Session<'_>, weights: usize, share: f64, steps: &[Step]) -> bool {
    let Limits { bytes_max: Some(max), latency_us_max: None, macs_max: None, points_lost_max: None } =
        session.settings.limits
    else {
        return false;
    };
    predicted(Limit::Bytes, weights, share, steps).is_some_and(|bytes| bytes > 2.0 * as_float(max))
}

/// What `share` costs, by what the steps so far cost: it goes with a power of the share. Only of bytes there is a guess before.
fn predicted(limit: Limit, weights: usize, share: f64, steps: &[Step]) -> Option<f64> {
    let known: Vec<(f64, f64)> =
        steps.iter().filter_map(|step| Some((step.share, cost(limit, step.figures.as_ref()?)?))).collect();
    match known[..] {
        [] => (limit == Limit::Bytes).then(|| as_float(weights as u64) * share * BITS_GUESS / 8.0),
        [(known, found)] => Some(found * (share / known).powf(0.9)),
        [.., (first, before), (second, after)] => {
            let power = (before / after).ln() / (first / second).ln();
            // What goes on beside the weights costs time, so that latency may hardly fall; bytes and products do.
            let least = if limit == Limit::Latency { 0.05 } else { 0.5 };
            Some(after * (share / second).powf(power.clamp(least, 1.2)))
        }
    }
}

/// The model to start from for `share`: of the smallest step above it, or the one before any; in one shot always that.
pub(super) fn start_for<'a>(session: &Session<'_>, start: &'a Model, steps: &'a [Step], share: f64) -> &'a Model {
    let above = steps.iter().rev().find(|step| step.share > share);
    match session.settings.pruning.pace {
        PrunePace::Gradual => above.map_or(start, |step| &step.model),
        PrunePace::OneShot => start,
    }
}

/// The steps on both sides of `share`, by whose costs others are predicted.
fn nearest(steps: &[Step], share: f64) -> &[Step] {
    let below = steps.iter().position(|step| step.share < share).unwrap_or(steps.len());
    &steps[below.saturating_sub(2)..(below + 1).min(steps.len())]
}

/// The largest share that is predicted to cost at most `target`.
fn share_for(limit: Limit, target: f64, weights: usize, steps: &[Step]) -> f64 {
    // The prediction falls with the share, so halving finds it.
    let (mut low, mut high) = (1e-5, 1.0);
    for _ in 0..40 {
        let share = f64::sqrt(low * high);
        let is_above =
            predicted(limit, weights, share, nearest(steps, share)).is_some_and(|predicted| predicted > target);
        if is_above { high = share } else { low = share }
    }
    f64::sqrt(low * high)
}

/// Tunes for longer at the share that just keeps within the budget.
fn aim_at_budget(
    session: &mut Session<'_>,
    start: &Model,
    steps: &[Step],
    budget: &[(Limit, f64)],
    weights: usize,
) -> Result<(), SearchError> {
    let limits_speed = budget.iter().any(|(limit, _)| *limit != Limit::Bytes);
    if limits_speed && !steps.iter().any(|step| step.is_fast) {
        // No share is fast enough: the nearest candidate is there already.
        return Ok(());
    }
    let shares = budget.iter().map(|(limit, max)| share_for(*limit, max * AIM, weights, steps));
    let mut share = shares.fold(1.0, f64::min);
    for _ in 0..AIMS_MAX {
        if share >= 0.999 {
            session.note("the limits ask for no pruning: methods without it keep within them");
            return Ok(());
        }
        let from = start_for(session, start, steps, share).clone();
        let Some(figures) = step(session, from, share, weights, AIMED)?.figures else { return Ok(()) };
        let over = budget.iter().filter_map(|(limit, max)| Some(cost(*limit, &figures)? / max)).fold(0.0, f64::max);
        if over <= 1.0 {
            return Ok(());
        }
        share *= AIM / over * 0.99;
    }
    Ok(())
}

/// Tunes for longer where the accepted loss of accuracy is in reach: downwards from the first step that missed it by less than
/// long tuning may win back, as long as each keeps within it.
fn aim_at_accuracy(
    session: &mut Session<'_>,
    start: &Model,
    steps: &[Step],
    points_max: f64,
    weights: usize,
) -> Result<(), SearchError> {
    let judged: Vec<&Step> = steps.iter().filter(|step| step.figures.is_some()).collect();
    let Some(first_miss) = judged.iter().position(|step| step.lost > points_max) else { return Ok(()) };
    let mut position = first_miss;
    let mut back = false;
    for _ in 0..AIMS_MAX {
        let Some(judged_step) = judged.get(position) else { break };
        let share = judged_step.share;
        let from = start_for(session, start, steps, share).clone();
        let aimed = step(session, from, share, weights, AIMED)?;
        if aimed.lost <= points_max && !back {
            position += 1;
        } else if aimed.lost > points_max && position > 0 && position == first_miss {
            back = true;
            position -= 1;
        } else {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> Vec<Step> {
        let step = |share, bytes, latency_us| {
            let figures = Figures {
                accuracy: 0.9,
                loss: 0.1,
                points_error: None,
                bytes,
                macs: Some(bytes * 2),
                latency_us: Some(latency_us),
            };
            let model = Model { layers: Vec::new(), parameters: Vec::new() };
            Step { share, figures: (bytes > 0).then_some(figures), lost: 0.0, is_fast: false, model }
        };
        vec![step(0.2, 0, 0.0), step(0.1, 24_000, 3.0), step(0.065, 16_000, 2.5), step(0.045, 11_500, 2.4)]
    }

    #[test]
    fn costs_are_predicted_through_the_steps_that_were_made() {
        let steps = steps();
        let bytes = |share, steps: &[Step]| predicted(Limit::Bytes, 266_200, share, steps).expect("a prediction");
        assert!((bytes(0.045, &steps) - 11_500.0).abs() < 1.0);
        assert!((bytes(0.065, &steps) - 16_000.0).abs() < 1.0);
        assert!((11_500.0..16_000.0).contains(&bytes(0.055, &steps)));
        let guess = bytes(0.01, &[]);
        assert!((2_000.0..4_000.0).contains(&guess), "{guess}");
        assert_eq!(predicted(Limit::Latency, 266_200, 0.01, &[]), None, "nothing is known of times before any");
        let latency = predicted(Limit::Latency, 266_200, 0.005, &steps).expect("a prediction");
        assert!((1.5..2.4).contains(&latency), "it hardly falls any more: {latency}");
    }

    #[test]
    fn a_limit_is_met_by_the_largest_share_that_keeps_it() {
        let steps = steps();
        for (limit, target) in [(Limit::Bytes, 14_000.0), (Limit::Macs, 28_000.0), (Limit::Latency, 2.45)] {
            let share = share_for(limit, target, 266_200, &steps);
            assert!((0.045..0.065).contains(&share), "{limit:?}: {share}");
        }
        assert!(share_for(Limit::Bytes, 1e9, 266_200, &steps) > 0.999);
    }

    #[test]
    fn the_nearest_steps_are_those_on_both_sides() {
        let steps = steps();
        let bytes = |step: &Step| step.figures.map_or(0, |figures| figures.bytes);
        assert_eq!(nearest(&steps, 0.05).iter().map(bytes).collect::<Vec<_>>(), [24_000, 16_000, 11_500]);
    }
}
