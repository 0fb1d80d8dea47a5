//! The pruning ladder: a descending sequence of kept shares, tuned at each step and written as candidates; then the share that the
//! limits ask for, tuned for longer.
//!
//! At each step the network keeps the worthiest share of its weights over all layers (LAMP: Lee et al. 2021, eq. 3) while those
//! outside may come back (dynamic network surgery: Guo et al. 2016), and learns from the full model (Hinton et al. 2015). Then each
//! tensor's values are shared among centroids, which are tuned too (Deep Compression: Han et al. 2016, §3). Units that pruning
//! has cut off are removed from the layers themselves, so that what is tuned further is smaller.

use crate::error::SearchError;
use crate::method::Method;
use crate::recipe::shared::{CENTROIDS, SharingEpochs, share_weights};
use crate::session::{Rest, Session, prunable_weights, sparse};
use crate::tuner::{Constraint, FineTune, Model};
use starling_compress::method::quantise;

/// The shares of all weights that are kept, step by step.
const SHARES: [f64; 10] = [0.4, 0.2, 0.1, 0.065, 0.045, 0.03, 0.02, 0.013, 0.008, 0.005];

/// A step that keeps more weights than this is made on the way, in half the time, and not written: networks that large lose nothing
/// there, and methods without training make files as small.
const CANDIDATE_WEIGHTS_MAX: usize = 50_000;

/// Passes over the data at each step, and at the share that the limits ask for.
const STEP: Epochs =
    Epochs { weights: 8, sharing: SharingEpochs { clusters: 2, centroids: 1 }, mark: "", writes_all: false };
const AIMED: Epochs = Epochs {
    weights: 24,
    sharing: SharingEpochs { clusters: 10, centroids: 3 },
    mark: " tuned for long",
    writes_all: true,
};

/// Files come out this close under the limit, and so often it is tried.
const AIM: f64 = 0.985;
const AIMS_MAX: usize = 3;

/// What a kept weight takes, place and value, before any file has been seen.
const BITS_GUESS: f64 = 8.5;

/// A step of the ladder that was carried out.
struct Step {
    share: f64,
    bytes: usize,
    lost: f64,
    model: Model,
}

/// How long a step is tuned.
#[derive(Clone, Copy)]
struct Epochs {
    weights: usize,
    sharing: SharingEpochs,
    /// What tells candidates of long tuning from those of the ladder.
    mark: &'static str,
    /// Whether candidates are written however many weights are kept.
    writes_all: bool,
}

/// Prunes `start` step by step, then aims at the limits.
pub(crate) fn run(session: &mut Session<'_>, start: Model) -> Result<(), SearchError> {
    let weights = prunable_weights(session.plan, &session.original)?;
    if weights == 0 {
        session.note("pruning does not apply: the network has no linear or convolution layer");
        return Ok(());
    }
    let mut steps: Vec<Step> = Vec::new();
    for share in SHARES {
        let from = steps.last().map_or(&start, |step| &step.model).clone();
        if is_out_of_reach(session, weights, share, &steps) {
            continue;
        }
        let step = step(session, from, share, weights, STEP)?;
        let stop = step.bytes > 0 && session.is_hopeless(step.lost, step.bytes);
        steps.push(step);
        if stop {
            break;
        }
    }
    match (session.settings.limits.bytes_max, session.settings.limits.points_lost_max) {
        (Some(bytes_max), None) => aim_at_bytes(session, &start, &steps, bytes_max, weights),
        (_, points) => {
            aim_at_accuracy(session, &start, steps, points.unwrap_or(crate::figures::POINTS_LOST_DEFAULT), weights)
        }
    }
}

/// Whether a file limit alone is given and `share` gives files that are more than twice as large.
fn is_out_of_reach(session: &Session<'_>, weights: usize, share: f64, steps: &[Step]) -> bool {
    let limits = &session.settings.limits;
    let (Some(max), None) = (limits.bytes_max, limits.points_lost_max) else { return false };
    predicted_bytes(weights, share, steps) > 2.0 * as_float(max)
}

/// The file size at `share`, by the sizes of the steps so far: it goes with a power of the share.
fn predicted_bytes(weights: usize, share: f64, steps: &[Step]) -> f64 {
    let sized: Vec<(f64, f64)> =
        steps.iter().filter(|step| step.bytes > 0).map(|step| (step.share, as_float(step.bytes as u64))).collect();
    match sized.as_slice() {
        [] => as_float(weights as u64) * share * BITS_GUESS / 8.0,
        [(known, bytes)] => bytes * (share / known).powf(0.9),
        [.., (first, before), (second, after)] => {
            let power = (before / after).ln() / (first / second).ln();
            after * (share / second).powf(power.clamp(0.5, 1.2))
        }
    }
}

/// One step: tune at `share`, drop what is cut off, write candidates.
fn step(
    session: &mut Session<'_>,
    mut model: Model,
    share: f64,
    weights: usize,
    epochs: Epochs,
) -> Result<Step, SearchError> {
    let method = session.settings.method;
    let percent = percent(share);
    let left = prunable_weights(session.plan, &model)?;
    let kept = share * as_float(weights as u64);
    let on_the_way = !epochs.writes_all && kept > as_float(CANDIDATE_WEIGHTS_MAX as u64);
    let tuning = FineTune {
        constraint: Constraint::Share((kept / as_float(left.max(1) as u64)).min(1.0)),
        epochs: session.settings.effort.epochs(if on_the_way { epochs.weights / 2 } else { epochs.weights }),
        lr: session.settings.lr,
        distil: session.settings.distil,
    };
    session.fine_tune(&format!("prune to {percent}"), &mut model, &tuning)?;
    model = session.without_dead_units(model);
    let mut step = Step { share, bytes: 0, lost: 0.0, model };
    if on_the_way {
        return Ok(step);
    }
    if method.includes(Method::Prune) {
        let release = session.pack(&step.model, Rest::Half, |_, _, values| sparse(values, quantise::half))?;
        step.lost = session.add(Method::Prune, format!("pruned {percent}{}", epochs.mark), &release)?;
        step.bytes = session.last_bytes();
    }
    if method.includes(Method::Deep) {
        let release = share_weights(session, &step.model, CENTROIDS, epochs.sharing)?;
        step.lost = session.add(Method::Deep, format!("deep {percent}{}", epochs.mark), &release)?;
        step.bytes = session.last_bytes();
    }
    Ok(step)
}

/// The step to start from for `share`: the smallest one above it, or the network before any.
fn start_for<'a>(start: &'a Model, steps: &'a [Step], share: f64) -> &'a Model {
    steps.iter().rev().find(|step| step.share > share).map_or(start, |step| &step.model)
}

/// Tunes for longer at the share whose file just fits into `bytes_max`.
fn aim_at_bytes(
    session: &mut Session<'_>,
    start: &Model,
    steps: &[Step],
    bytes_max: u64,
    weights: usize,
) -> Result<(), SearchError> {
    let target = as_float(bytes_max) * AIM;
    let mut share = SHARES[0];
    // The prediction falls with the share, so halving finds it.
    let (mut low, mut high) = (1e-5, 1.0);
    for _ in 0..40 {
        share = f64::sqrt(low * high);
        let near = nearest(steps, share);
        if predicted_bytes(weights, share, near) > target { high = share } else { low = share }
    }
    for _ in 0..AIMS_MAX {
        if share >= 1.0 {
            session.note("the file limit asks for no pruning: methods without it make files that small");
            return Ok(());
        }
        let from = start_for(start, steps, share).clone();
        let aimed = step(session, from, share, weights, AIMED)?;
        if aimed.bytes as u64 <= bytes_max {
            return Ok(());
        }
        share *= target / as_float(aimed.bytes as u64) * 0.99;
    }
    Ok(())
}

/// The steps on both sides of `share`, by whose sizes others are predicted.
fn nearest(steps: &[Step], share: f64) -> &[Step] {
    let below = steps.iter().position(|step| step.share < share).unwrap_or(steps.len());
    &steps[below.saturating_sub(2)..(below + 1).min(steps.len())]
}

/// Tunes for longer where the accepted loss of accuracy is in reach: downwards from the first step that missed it by less than
/// long tuning may win back, as long as each keeps within it.
fn aim_at_accuracy(
    session: &mut Session<'_>,
    start: &Model,
    steps: Vec<Step>,
    points_max: f64,
    weights: usize,
) -> Result<(), SearchError> {
    let judged: Vec<&Step> = steps.iter().filter(|step| step.bytes > 0).collect();
    let Some(first_miss) = judged.iter().position(|step| step.lost > points_max) else { return Ok(()) };
    let mut position = first_miss;
    let mut back = false;
    for _ in 0..AIMS_MAX {
        let Some(judged_step) = judged.get(position) else { break };
        let share = judged_step.share;
        let from = start_for(start, &steps, share).clone();
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

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

#[allow(clippy::cast_precision_loss, reason = "sizes and counts stay far below 2^53")]
fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> Vec<Step> {
        let step = |share, bytes| Step {
            share,
            bytes,
            lost: 0.0,
            model: Model { layers: Vec::new(), parameters: Vec::new() },
        };
        vec![step(0.2, 0), step(0.1, 24_000), step(0.065, 16_000), step(0.045, 11_500)]
    }

    #[test]
    fn sizes_are_predicted_through_the_steps_that_were_made() {
        let steps = steps();
        assert!((predicted_bytes(266_200, 0.045, &steps) - 11_500.0).abs() < 1.0);
        assert!((predicted_bytes(266_200, 0.065, &steps) - 16_000.0).abs() < 1.0);
        let between = predicted_bytes(266_200, 0.055, &steps);
        assert!((11_500.0..16_000.0).contains(&between), "{between}");
        let guess = predicted_bytes(266_200, 0.01, &[]);
        assert!((2_000.0..4_000.0).contains(&guess), "{guess}");
    }

    #[test]
    fn a_share_starts_from_the_step_above_it() {
        let mut steps = steps();
        steps[2].model.parameters = vec![65.0];
        let start = Model { layers: Vec::new(), parameters: vec![1.0] };
        assert_eq!(start_for(&start, &steps, 0.05).parameters, [65.0]);
        assert_eq!(start_for(&start, &steps, 0.5).parameters, [1.0]);
        assert_eq!(nearest(&steps, 0.05).iter().map(|step| step.bytes).collect::<Vec<_>>(), [24_000, 16_000, 11_500]);
    }
}
