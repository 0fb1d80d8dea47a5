//! The pruning ladder: a descending sequence of kept shares, tuned at each step and written as candidates; then the share that the
//! limits ask for, tuned for longer (see [`super::aim`]).
//!
//! At each step the network keeps the worthiest share of its weights (see [`super::cut`]; by default over all layers by LAMP: Lee et
//! al. 2021, eq. 3) while those outside may come back (dynamic network surgery: Guo et al. 2016), and learns from the full model
//! (Hinton et al. 2015). Then each tensor's values are shared among centroids, which are tuned too (Deep Compression: Han et al.
//! 2016, §3). Units that pruning has cut off are removed from the layers themselves, so that what is tuned further is smaller.

use starling_compress::Compressed;
use starling_compress::method::quantise;

use super::aim;
use super::cut::cut;
use super::shared::{CENTROIDS, SharingEpochs, share_weights};
use crate::error::SearchError;
use crate::figures::Figures;
use crate::method::Method;
use crate::pruning::PrunePace;
use crate::session::{Rest, Session, prunable_weights, sparse};
use crate::tuner::Model;

/// The shares of all weights that are kept, step by step.
const SHARES: [f64; 10] = [0.4, 0.2, 0.1, 0.065, 0.045, 0.03, 0.02, 0.013, 0.008, 0.005];

/// Where these do not make the network as fast as asked, each further share is so much of the one before, as long as so many
/// weights are left.
const FURTHER: f64 = 0.6;
const FURTHER_WEIGHTS_MIN: f64 = 50.0;

/// A step that keeps more weights than this is made on the way, in half the time, and not written: networks that large lose nothing
/// there, and methods without training make files as small.
const CANDIDATE_WEIGHTS_MAX: usize = 50_000;

/// Passes over the data at each step.
const STEP: Epochs =
    Epochs { weights: 8, sharing: SharingEpochs { clusters: 2, centroids: 1 }, mark: "", writes_all: false };

/// A step of the ladder that was carried out.
pub(super) struct Step {
    pub(super) share: f64,
    /// What its smallest candidate is like; none of a step on the way.
    pub(super) figures: Option<Figures>,
    /// What it loses, without the integers.
    pub(super) lost: f64,
    /// Whether one of its candidates is as fast and light as the limits ask.
    pub(super) is_fast: bool,
    pub(super) model: Model,
}

/// How long a step is tuned.
#[derive(Clone, Copy)]
pub(super) struct Epochs {
    pub(super) weights: usize,
    pub(super) sharing: SharingEpochs,
    /// What tells candidates of long tuning from those of the ladder.
    pub(super) mark: &'static str,
    /// Whether candidates are written however many weights are kept.
    pub(super) writes_all: bool,
}

/// Prunes `start` step by step, then aims at the limits.
pub(crate) fn run(session: &mut Session<'_>, start: Model) -> Result<(), SearchError> {
    let weights = prunable_weights(session.plan, &session.original)?;
    if weights == 0 {
        session.note("pruning does not apply: the network has no linear or convolution layer");
        return Ok(());
    }
    match steps_and_aim(session, &start, weights) {
        Err(SearchError::Unavailable(why)) => {
            let by = session.settings.pruning.by.word();
            session
                .note(format!("pruning by {by} does not apply here: {why}; --prune-by magnitude needs nothing of it"));
            Ok(())
        }
        result => result,
    }
}

fn steps_and_aim(session: &mut Session<'_>, start: &Model, weights: usize) -> Result<(), SearchError> {
    let one_shot = session.settings.pruning.pace == PrunePace::OneShot;
    let mut steps: Vec<Step> = Vec::new();
    let mut share = SHARES[0];
    for position in 0.. {
        share = SHARES.get(position).copied().unwrap_or(share * FURTHER);
        let first = session.candidates.len();
        let is_fast = steps.last().is_none_or(|step| step.is_fast);
        if position >= SHARES.len() && (is_fast || share * as_float(weights as u64) < FURTHER_WEIGHTS_MIN) {
            break;
        }
        // What is only on the way, nothing starts from in one shot.
        let skips = one_shot && is_on_the_way(share, weights, STEP);
        if skips || aim::is_out_of_reach(session, weights, share, &steps) {
            continue;
        }
        let from = aim::start_for(session, start, &steps, share).clone();
        let step = step(session, from, share, weights, STEP)?;
        let stop = step.figures.is_some() && session.can_stop(step.lost, first);
        steps.push(step);
        if stop {
            break;
        }
    }
    aim::aim(session, start, &steps, weights)
}

fn is_on_the_way(share: f64, weights: usize, epochs: Epochs) -> bool {
    !epochs.writes_all && share * as_float(weights as u64) > as_float(CANDIDATE_WEIGHTS_MAX as u64)
}

/// One step: prune to `share` and tune, drop what is cut off, write candidates.
pub(super) fn step(
    session: &mut Session<'_>,
    mut model: Model,
    share: f64,
    weights: usize,
    epochs: Epochs,
) -> Result<Step, SearchError> {
    let method = session.settings.method;
    let percent = format!("{:.2} %", share * 100.0);
    let left = prunable_weights(session.plan, &model)?;
    let share_of_left = (share * as_float(weights as u64) / as_float(left.max(1) as u64)).min(1.0);
    let on_the_way = is_on_the_way(share, weights, epochs);
    let passes = session.settings.effort.epochs(if on_the_way { epochs.weights / 2 } else { epochs.weights });
    cut(session, &mut model, &format!("prune to {percent}"), share_of_left, passes)?;
    model = session.without_dead_units(model);
    let first = session.candidates.len();
    let mut step = Step { share, figures: None, lost: 0.0, is_fast: false, model };
    if on_the_way {
        return Ok(step);
    }
    let mark = epochs.mark;
    if method.includes(Method::Prune) {
        let release = session.pack(&step.model, Rest::Half, |_, _, values| sparse(values, quantise::half))?;
        step.lost = session.add(Method::Prune, format!("pruned {percent}{mark}"), &release)?;
        // The engine computes in integers where enough weights are left, and in floats below; the file is smaller at any share.
        let name = format!("pruned {percent} int8{mark}");
        session.add_integers(Method::Prune, name, &step.model, |values, levels| {
            let kept: Vec<bool> = values.iter().map(|value| *value != 0.0).collect();
            Compressed::sparse(levels, &kept)
        })?;
        step.figures = session.last_figures();
    }
    if method.includes(Method::Deep) {
        let release = share_weights(session, &step.model, CENTROIDS, epochs.sharing)?;
        step.lost = session.add(Method::Deep, format!("deep {percent}{mark}"), &release)?;
        step.figures = session.last_figures();
    }
    step.is_fast = session.keeps_speed(first);
    Ok(step)
}

#[allow(clippy::cast_precision_loss, reason = "sizes and counts stay far below 2^53")]
pub(super) fn as_float(count: u64) -> f64 {
    count as f64
}
