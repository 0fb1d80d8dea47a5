//! Code books: each tensor's kept values shared among a few centroids, which are then tuned.

use starling_compress::method::codebook::{SharedWeights, cluster};
use starling_compress::method::prune;
use starling_compress::{Compressed, Release};

use crate::error::SearchError;
use crate::method::Method;
use crate::pruning::Worth;
use crate::session::{Rest, Session, sparse};
use crate::tuner::{Constraint, FineTune, Model};

/// Centroids a tensor. With the entropy coder behind it, eight and more kept weights beat sixteen and fewer at the same size.
pub(crate) const CENTROIDS: usize = 8;

/// The code books over all weights that are tried.
const DENSE_CENTROIDS: [usize; 2] = [64, 16];

/// How long code books are trained: passes with weights that may change their cluster, then with members that move together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharingEpochs {
    pub(crate) clusters: usize,
    pub(crate) centroids: usize,
}

const DENSE_EPOCHS: SharingEpochs = SharingEpochs { clusters: 4, centroids: 2 };

/// The learning rates of both against that of weights.
const CLUSTERS_LR: f64 = 0.5;
const CENTROIDS_LR: f64 = 0.3;

/// Code books over all weights, none pruned.
pub(crate) fn run(session: &mut Session<'_>) -> Result<(), SearchError> {
    let model = session.original.clone();
    for centroids in DENSE_CENTROIDS {
        let release = share_weights(session, &model, centroids, DENSE_EPOCHS)?;
        session.add(Method::Codebook, format!("codebook {centroids}"), &release)?;
    }
    Ok(())
}

/// `model` with each tensor's kept values shared among at most `centroids`, both trained.
pub(crate) fn share_weights(
    session: &mut Session<'_>,
    model: &Model,
    centroids: usize,
    epochs: SharingEpochs,
) -> Result<Release, SearchError> {
    let (effort, lr, distil) = (session.settings.effort, session.settings.lr, session.settings.distil);
    let mut tuned = model.clone();
    let tuning = FineTune {
        constraint: Constraint::Clustered(centroids),
        epochs: effort.epochs(epochs.clusters),
        lr: lr * CLUSTERS_LR,
        worth: Worth::default(),
        distil,
    };
    session.fine_tune("train clusters", &mut tuned, &tuning)?;
    let clustered =
        session.pack(&tuned, Rest::Small, |_, _, values| sparse(values, |kept| cluster(kept, centroids)))?;
    let network = session.network(&tuned)?;
    let mut tensors: Vec<(usize, Compressed)> =
        prune::prunable(&network).into_iter().map(|index| (index, clustered.tensors[index].clone())).collect();
    let pairs: Vec<(usize, &Compressed)> = tensors.iter().map(|(index, tensor)| (*index, tensor)).collect();
    let map = SharedWeights::new(&network, &pairs);
    for (index, compressed) in &tensors {
        let tensor = &network.manifest.tensors[*index];
        compressed.decompress_into(&tensor.shape, &mut tuned.parameters[tensor.range()]);
    }
    let tuning = FineTune {
        constraint: Constraint::Shared(&map),
        epochs: effort.epochs(epochs.centroids),
        lr: lr * CENTROIDS_LR,
        worth: Worth::default(),
        distil,
    };
    session.fine_tune("train centroids", &mut tuned, &tuning)?;
    map.codes_into(&tuned.parameters, &mut tensors);
    // The biases have moved with the centroids: they are written anew.
    let mut release = session.pack(&tuned, Rest::Small, |index, _, _| clustered.tensors[index].clone())?;
    for (index, tensor) in tensors {
        release.tensors[index] = tensor;
    }
    Ok(release)
}
