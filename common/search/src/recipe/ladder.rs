//! The pruning ladder: one descending sequence of kept shares, fine-tuned at each step, and at each step written as candidates.
//!
//! Global magnitude pruning under layer-adaptive scores (LAMP: Lee et al. 2021, §2), gradual as in Han et al. 2015, then shared
//! weights with trained centroids (Deep Compression: Han et al. 2016, §3). Units that pruning has cut off are removed from the
//! layers themselves, so that the network that is tuned further is smaller too.

use starling_compress::method::codebook::{SharedWeights, cluster};
use starling_compress::method::prune::{self, Criterion, Shares};
use starling_compress::method::quantise;
use starling_compress::{Compressed, Release};

use crate::error::SearchError;
use crate::method::Method;
use crate::session::{Rest, Session, sparse};
use crate::tuner::{Constraint, FineTune, Model};

/// The shares of all weights that are kept, step by step.
const SHARES: [f64; 13] = [0.4, 0.2, 0.12, 0.08, 0.06, 0.045, 0.035, 0.027, 0.02, 0.015, 0.01, 0.007, 0.005];

/// From this share on a step is written as candidates: above it the files are larger than what needs no training.
const CANDIDATES_FROM: f64 = 0.12;

/// Passes over the data after each step, and for centroids.
const STEP_EPOCHS: usize = 4;
const CENTROID_EPOCHS: usize = 2;

/// Centroids a tensor; tensors with fewer kept weights than [`FEW`] take half as many.
const CENTROIDS: usize = 16;
const FEW: usize = 256;

/// The learning rate of centroids against that of weights: each moves for all its members.
const CENTROID_LR: f64 = 0.3;

/// Prunes `start` step by step.
pub(crate) fn run(session: &mut Session<'_>, start: Model) -> Result<(), SearchError> {
    let method = session.settings.method;
    let weights = prunable_weights(session, &session.original)?;
    if weights == 0 {
        session.note("pruning does not apply: the network has no linear or convolution layer");
        return Ok(());
    }
    let mut model = start;
    for share in SHARES {
        let percent = format!("{:.1} %", share * 100.0);
        prune_to(session, &mut model, share, weights)?;
        let tuning = FineTune {
            constraint: Constraint::Pruned,
            epochs: session.settings.effort.epochs(STEP_EPOCHS),
            lr: session.settings.lr,
            distil: session.settings.distil,
        };
        session.fine_tune(&format!("prune to {percent}"), &mut model, &tuning)?;
        model = session.without_dead_units(model);
        if share > CANDIDATES_FROM {
            continue;
        }
        let mut last = (0.0, 0);
        if method.includes(Method::Prune) {
            let release = session.pack(&model, Rest::Half, |_, _, values| sparse(values, quantise::half))?;
            let lost = session.add(Method::Prune, format!("pruned {percent}"), &release)?;
            last = (lost, session.candidates.last().map_or(0, |candidate| candidate.file.len()));
        }
        if method.includes(Method::Deep) {
            let release = share_weights(session, &model, CENTROIDS)?;
            let lost = session.add(Method::Deep, format!("deep {percent}"), &release)?;
            last = (lost, session.candidates.last().map_or(0, |candidate| candidate.file.len()));
        }
        if session.is_hopeless(last.0, last.1) {
            break;
        }
    }
    Ok(())
}

/// Keeps `share` of the original's `weights`, counted over what is left of the network.
fn prune_to(session: &Session<'_>, model: &mut Model, share: f64, weights: usize) -> Result<(), SearchError> {
    let network = session.network(model)?;
    let left = prunable_weights(session, model)?;
    #[allow(clippy::cast_precision_loss, reason = "counts of weights stay far below 2^53")]
    let share = (share * weights as f64 / left.max(1) as f64).min(1.0);
    prune::mask(&network, &model.parameters, Criterion::Lamp, &Shares::Global(share)).apply(&mut model.parameters);
    Ok(())
}

fn prunable_weights(session: &Session<'_>, model: &Model) -> Result<usize, SearchError> {
    let network = session.network(model)?;
    Ok(prune::prunable(&network).into_iter().map(|index| network.manifest.tensors[index].len()).sum())
}

/// `model` with each tensor's kept values shared among centroids, which are then tuned.
fn share_weights(session: &mut Session<'_>, model: &Model, centroids: usize) -> Result<Release, SearchError> {
    let release = session.pack(model, Rest::Small, |_, _, values| {
        sparse(values, |kept| cluster(kept, if kept.len() < FEW { centroids.div_ceil(2) } else { centroids }))
    })?;
    let network = session.network(model)?;
    let shared: Vec<usize> = prune::prunable(&network);
    let pairs: Vec<(usize, &Compressed)> = shared.iter().map(|index| (*index, &release.tensors[*index])).collect();
    let map = SharedWeights::new(&network, &pairs);
    let mut tuned = Model { layers: model.layers.clone(), parameters: model.parameters.clone() };
    for index in &shared {
        let tensor = &network.manifest.tensors[*index];
        release.tensors[*index].decompress_into(&tensor.shape, &mut tuned.parameters[tensor.range()]);
    }
    let tuning = FineTune {
        constraint: Constraint::Shared(&map),
        epochs: session.settings.effort.epochs(CENTROID_EPOCHS),
        lr: session.settings.lr * CENTROID_LR,
        distil: session.settings.distil,
    };
    session.fine_tune("tune centroids", &mut tuned, &tuning)?;
    let mut tensors: Vec<(usize, Compressed)> =
        shared.iter().map(|index| (*index, release.tensors[*index].clone())).collect();
    map.codes_into(&tuned.parameters, &mut tensors);
    // The biases have moved with the centroids.
    let mut release = session.pack(&tuned, Rest::Small, |index, _, _| release.tensors[index].clone())?;
    for (index, tensor) in tensors {
        release.tensors[index] = tensor;
    }
    Ok(release)
}

/// Code books over all weights, none pruned.
pub(crate) fn shared_only(session: &mut Session<'_>) -> Result<(), SearchError> {
    let model = session.original.clone();
    for centroids in [64, 16] {
        let release = share_weights(session, &model, centroids)?;
        session.add(Method::Codebook, format!("codebook {centroids}"), &release)?;
    }
    Ok(())
}
